"""Small models beside a session's own, on WebGPU: the masks and sums of memory, with every node on the device."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from embedding.test_device_graphs import CASES
from networks.small_graphs import classifier

import masktool
from masktool.embedding.device_graphs import DEVICE_GRAPHS
from masktool.explainers.mask_design import MasksInMemory
from masktool.runtime.device import DeviceGraph

WEBGPU = "WebGpuExecutionProvider"
FLOAT32 = np.dtype(np.float32)
SHARE = 1e-3
"""Of the map's range."""
pytestmark = [
    pytest.mark.webgpu,
    pytest.mark.skipif(WEBGPU not in onnxruntime.get_available_providers(), reason="needs onnxruntime-webgpu"),
]


@pytest.fixture
def run(tmp_path):
    """Runs a model on WebGPU; fails where a node ran elsewhere."""

    def run_there(model, feeds):
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
        session = onnxruntime.InferenceSession(model, options, providers=[WEBGPU, "CPUExecutionProvider"])
        found = session.run(None, feeds)
        with Path(session.end_profiling()).open(encoding="utf-8") as profile:
            events = [event.get("args", {}) for event in json.load(profile) if event.get("cat") == "Node"]
        ran = [(event["op_name"], event["provider"]) for event in events if event.get("provider")]
        assert ran
        assert [each for each in ran if each[1] != WEBGPU] == []
        return found

    return run_there


@pytest.mark.parametrize(
    "case", ["windows of odd sides", "windows of even sides", "segments", "cut grids", "soft grids"]
)
def test_masks_are_those_in_memory(run, case):
    design, rows = CASES[case]
    (found,) = run(DEVICE_GRAPHS.write_masks(design, rows, FLOAT32), {**design.shared, **rows})
    if case == "soft grids":  # a division on a GPU rounds as it likes
        np.testing.assert_allclose(found, design.expand(rows), rtol=1e-6)
    else:
        assert np.array_equal(found, design.expand(rows))


def test_sums_are_those_in_memory(run):
    random = np.random.default_rng(2)
    masks, scores = random.random((9, 1, 6, 5)).astype(np.float32), random.random((2, 9)).astype(np.float32)
    weights = np.concatenate([np.ones((1, 9), np.float32), scores, np.square(scores)])
    plain, squares = run(DEVICE_GRAPHS.write_sums(FLOAT32, squares=True), {"values": masks, "weights": weights})
    expected = MasksInMemory(masks).add_up(scores, binary=False)
    np.testing.assert_allclose(plain[:3], np.concatenate([expected.masks[None], expected.scored]), rtol=1e-5)
    np.testing.assert_allclose(squares[1:3], expected.scored_squares, rtol=1e-5)
    np.testing.assert_allclose(squares[3:], expected.squared, rtol=1e-5)


def test_steps_are_those_in_memory(run):
    baseline, change = np.random.default_rng(3).normal(size=(2, 1, 3, 4, 5)).astype(np.float32)
    places = np.array([0, 0.3, 1], np.float32)
    feeds = {"baseline": baseline, "change": change, "places": places}
    (found,) = run(DEVICE_GRAPHS.write_steps(change, FLOAT32), feeds)
    np.testing.assert_allclose(found, baseline + places[:, None, None, None] * change, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return masktool.export(
        classifier(), tmp_path_factory.mktemp("model") / "model.onnx", masking="layer", output_kind="logits"
    ).path


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("occlusion", {"score": "log-odds"}),
        ("lime", {"segments": "grid", "n_segments": 6, "n_samples": 20, "output": "scores"}),
        ("rise", {"n_samples": 22, "binary": False, "estimator": "mean", "normalisation": "expected"}),
    ],
)
def test_every_kind_of_score_and_mask(path, method, options, monkeypatch):
    runs, run = [], DeviceGraph.run

    def counted(self, rows):
        runs.append(rows)
        return run(self, rows)

    monkeypatch.setattr(DeviceGraph, "run", counted)
    image = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    targets = [(0,), (2,)] if "output" in options else [0, 2]
    maps = []
    for provider in (WEBGPU, "cpu"):
        with masktool.load(path, provider) as session:
            found = masktool.explain_targets(session, image, targets, method, perturbations_per_eval=8, **options)
        maps.append([each.attributions for each in found])
        assert session.device_note is None
    assert 8 in runs
    for on_device, in_memory in zip(*maps, strict=True):
        assert np.abs(on_device - in_memory).max() < SHARE * np.ptp(in_memory)


def test_the_fastest_batch(path):
    image = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    with masktool.load(path, WEBGPU) as session:
        found = masktool.explain(session, image, "rise", n_samples=10, perturbations_per_eval="fastest")
        assert session.device == "webgpu"
    assert found.settings["perturbations_per_eval"] in {2**power for power in range(9)}
