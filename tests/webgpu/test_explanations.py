"""Explanations on WebGPU are the CPU's: masks, images and sums on the device, or in memory."""

import numpy as np
import pytest

import masktool
from masktool.runtime.device import DeviceGraph
from masktool.runtime.session import MaskedSession

pytestmark = pytest.mark.webgpu
SHARE = 1e-3
"""Of the map's range."""
NETWORK = "transposed convolution"
METHODS = {
    "occlusion": {"sliding_window_shapes": (5, 5), "strides": 4},
    "lime": {"n_samples": 24, "feature_mask": np.arange(144).reshape(12, 12) // 48 * 3 + np.arange(12) // 4},
    "rise": {"n_samples": 24, "grid_size": 3},
    "integrated-gradients": {"n_samples": 6},
}


@pytest.fixture
def runs_on_device(monkeypatch):
    """Counts the runs of models that are bound to a device."""
    runs, run = [], DeviceGraph.run

    def counted(self, rows):
        runs.append(rows)
        return run(self, rows)

    monkeypatch.setattr(DeviceGraph, "run", counted)
    return runs


@pytest.fixture(scope="module")
def sessions(files):
    """A network with gradients on WebGPU and on the CPU, opened once: the shaders of each session are compiled anew."""
    path = files.path(NETWORK, "gradient")
    with masktool.load(path, providers="webgpu") as there, masktool.load(path, providers="cpu") as here:
        yield there, here


@pytest.mark.parametrize("bound", [True, False], ids=["on the device", "in memory"])
@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_the_cpus(method, bound, sessions, measured, monkeypatch, runs_on_device):
    there, here = sessions
    image = np.random.default_rng(3).normal(size=(3, 12, 12)).astype(np.float32)
    given = {"target": 1, "perturbations_per_eval": 5, **METHODS[method]}
    expected = masktool.explain(here, image, method, **given).attributions
    assert not runs_on_device
    if not bound:
        monkeypatch.setattr(MaskedSession, "device", None)
    found = masktool.explain(there, image, method, **given).attributions
    assert bool(runs_on_device) == bound
    assert there.device_note is None
    assert np.ptp(expected) > 0
    share = float(np.abs(found - expected).max() / np.ptp(expected))
    measured.append(f"{method}, {'on the device' if bound else 'in memory'}: {share:.1e} of the map's range")
    assert share <= SHARE
