"""The drawn scenes and figures of benchmarks: masks are exact, objects apart, pairs differ in one part."""

import numpy as np
import pytest

from benchmarks.scenes.drawing import FIGURES, OBJECTS, TOPS, draw_figures, draw_pair, draw_scenes, near
from benchmarks.scenes.records import ObjectRecord, divide, share


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(3, 12)


def test_objects_of_a_scene_do_not_touch(scenes):
    for scene in scenes:
        assert len(scene.labels) == len(scene.masks) in (2, 3)
        assert set(scene.labels) <= set(range(len(OBJECTS)))
        pairs = [(i, j) for i in range(len(scene.masks)) for j in range(i)]
        assert not any(near(scene.masks[i], scene.masks[j]) for i, j in pairs)
        edges = scene.masks[:, [0, -1]].any() or scene.masks[:, :, [0, -1]].any()
        assert not edges
    assert {len(scene.labels) for scene in scenes} == {2, 3}


def test_the_same_seed_draws_the_same(scenes):
    again = draw_scenes(3, 12)
    assert all(
        (one.image == other.image).all() and one.labels == other.labels
        for one, other in zip(scenes, again, strict=True)
    )
    assert {each.label for each in draw_figures(0, len(FIGURES))} == set(range(len(FIGURES)))


@pytest.mark.parametrize("coloured", [False, True])
@pytest.mark.parametrize("body", range(3))
def test_pictures_of_a_pair_differ_in_the_top_alone(body, coloured):
    label = body * len(TOPS)
    one, other = draw_pair(np.random.default_rng(body), label, label + 1, coloured)
    differing = (one.image != other.image).any(axis=2)
    tops = one.top | other.top
    assert differing.any()
    assert not (differing & ~tops).any()
    assert (one.body | tops).sum() == (other.body | tops).sum()
    assert not (one.body & one.top).any()


def test_objects_of_a_picture_count_together():
    records = [ObjectRecord(0, 0.6, 0.1, 1, 250), ObjectRecord(0, 0.4, 0.1, 0, 250), ObjectRecord(1, 0.5, 0.2, 1, 250)]
    found = divide(records, lambda each: each.own, lambda each: each.others)
    assert found.value == pytest.approx(1.5 / 0.4)
    assert (found.low, found.high) == pytest.approx((2.5, 5))
    assert found.n == 2
    assert share(records, lambda each: each.hit).value == pytest.approx(2 / 3)
