"""Baselines mean the same wherever they are given: when a network is exported, and when a method hides pixels."""

from __future__ import annotations

import pytest
from networks.small_graphs import classifier

import masktool
from masktool.errors import MasktoolError
from masktool.explainers.methods.extremal import Extremal
from masktool.explainers.methods.integrated_gradients import IntegratedGradients
from masktool.exporters.presets import preprocessing_preset

COLOURS = ("7", "0, 128,255", "127.5", "255,0,51", " 1 ", 40, 127.5)
NO_BASELINES = ("1 2 3", "1,,2,3", "1 2,3", "1,2", "", "0,0,256", "0,nan,0", "pink", "1,2,3,4", 256, -1, True)
SIZE = (8, 8)


@pytest.mark.parametrize("method", [IntegratedGradients, Extremal])
@pytest.mark.parametrize("baseline", NO_BASELINES)
def test_what_is_no_baseline_is_none_everywhere(baseline, method, tmp_path):
    with pytest.raises(MasktoolError, match="unknown baseline"):
        masktool.export(classifier(), tmp_path / "filled.onnx", masking="fill", baseline=baseline)
    with pytest.raises(MasktoolError, match=r"option out of range \(baseline\): expected black, grey, mean"):
        method(baseline=baseline)


@pytest.mark.parametrize("method", [IntegratedGradients, Extremal])
@pytest.mark.parametrize("baseline", COLOURS)
def test_a_colour_is_one_everywhere(baseline, method, tmp_path):
    preprocessing = preprocessing_preset("imagenet", SIZE)
    options = {"masking": "fill", "baseline": baseline, "preprocessing": preprocessing}
    made = masktool.export(classifier(), tmp_path / "filled.onnx", **options)
    assert made.metadata.baseline == method(baseline=baseline).baseline == str(baseline)
