"""Drop and increase in confidence: by hand, and where they are undefined."""

import numpy as np
import pytest

from evaluation.trials import black_fill, linear, make_trial
from masktool.errors import MasktoolError
from masktool.evaluation.metrics.faithfulness.confidence import Confidence, highlight

ROUNDING = 1e-6
"""float32 masks."""
WEIGHTS = np.array([[0.1, 0.2, 0.5, -0.3]])
"""The whole image of ones scores .5."""


def test_the_image_times_the_map_is_scored():
    # scaled to [0, 1]: 0, .25, .5 and 1, which scores .05 + .25 - .3 = 0
    found = Confidence().measure(make_trial({"map": [[-2, -1, 0, 2]]}, linear(WEIGHTS)))["map"].figures
    assert found == pytest.approx({"average-drop": 1, "increase": 0, "area": 0.4375}, abs=ROUNDING)


def test_a_soft_mask_is_cut_where_its_scale_says_nothing():
    trial = make_trial({"map": [[-2, 1, 2, -2]]}, linear(WEIGHTS), masking="layer")  # leaves .2 + .5
    found = Confidence().measure(trial)["map"].figures
    assert found == pytest.approx({"average-drop": 0, "increase": 1, "area": 0.5}, abs=ROUNDING)
    soft = Confidence(binary=False).measure(trial)["map"].figures  # .75 of .2, and .5
    assert soft == pytest.approx({"average-drop": 0, "increase": 1, "area": 0.4375}, abs=ROUNDING)


def test_a_drop_is_a_share_of_the_score():
    trial = make_trial({"map": [[0, 1, 0, 0]]}, linear(WEIGHTS))
    found = Confidence().measure(trial)["map"].figures
    assert found == pytest.approx({"average-drop": (0.5 - 0.2) / 0.5, "increase": 0, "area": 0.25}, abs=ROUNDING)


def test_a_constant_map_is_undefined_beside_others():
    trial = make_trial({"ones": np.ones((1, 4)), "map": [[0, 1, 0, 0]], "zeros": np.zeros((1, 4))}, linear(WEIGHTS))
    found = Confidence().measure(trial)
    assert list(found) == ["ones", "map", "zeros"]
    assert set(found["ones"].figures.values()) == set(found["zeros"].figures.values()) == {None}
    assert found["map"].figures["average-drop"] == pytest.approx(0.6, abs=ROUNDING)
    alone = Confidence().measure(make_trial({"ones": np.ones((1, 4))}, linear(WEIGHTS)))
    assert alone["ones"].figures["average-drop"] is None


def test_from_nothing_nothing_drops():
    trial = make_trial({"map": [[0, 1]]}, black_fill(lambda images: np.zeros(len(images))))
    assert Confidence().measure(trial)["map"].figures == {"average-drop": None, "increase": 0, "area": 0.5}


def test_highlight_keeps_the_top_of_the_range():
    assert highlight(np.array([[0.0, 4.9, 5.0, 10.0]]), binary=True).tolist() == [[0, 0, 1, 1]]
    assert highlight(np.array([[7.0, 7.0]]), binary=True) is None


def test_bad_options_are_refused():
    with pytest.raises(MasktoolError, match="binary"):
        Confidence(binary="soft")
