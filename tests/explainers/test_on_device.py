"""Explanations whose masks and gradients stay on a device give the maps that they give in memory.

The device here is the host's own memory, bound as a device would be; tests/webgpu does the same on another.
"""

import numpy as np
import pytest
from networks.small_graphs import classifier

import masktool
from explainers.models import noise_photograph, write_region_model
from masktool.embedding.device_graphs import DEVICE_GRAPHS
from masktool.explainers.explaining import make_task
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.mask_design import MaskDesign
from masktool.explainers.methods.occlusion import Occlusion
from masktool.explainers.on_device import DeviceEvaluation
from masktool.explainers.reading import read_scores
from masktool.explainers.subject import make_subject, read_subject
from masktool.explainers.targets.class_target import ClassTarget
from masktool.runtime.device import BindingError, DeviceGraph
from masktool.runtime.session import MaskedSession

ROUNDING = 1e-5
"""Of a map's range: what the order of sums leaves in single precision."""


@pytest.fixture
def bound(monkeypatch):
    """Binds sessions to the host's memory; counts the runs of bound models."""
    runs = []
    run = DeviceGraph.run

    def counted(self, rows):
        runs.append(rows)
        return run(self, rows)

    monkeypatch.setattr(MaskedSession, "device", property(lambda session: None if session.device_note else "cpu"))
    monkeypatch.setattr(DeviceGraph, "run", counted)
    return runs


def share_of_range(found, expected):
    return np.abs(found - expected).max() / np.ptp(expected)


def explain_both(session, monkeypatch, *arguments, **options):
    """Returns explanations with everything bound, and with everything in memory."""
    found = masktool.explain_targets(session, *arguments, **options)
    with monkeypatch.context() as patch:
        patch.setattr(MaskedSession, "device", None)
        return found, masktool.explain_targets(session, *arguments, **options)


METHODS = {
    "occlusion": {"sliding_window_shapes": (5, 8), "strides": 3},
    "lime": {"n_samples": 23},
    "rise": {"n_samples": 23, "estimator": "mean"},
}


@pytest.mark.parametrize("options", [{}, {"score": "log-odds"}, {"output": "scores"}], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_maps_are_those_of_masks_in_memory(session, bound, monkeypatch, method, options):
    targets = [(0,), (1,)] if "output" in options else [0, 1]
    given = {"perturbations_per_eval": 4, **METHODS[method], **options}
    found, expected = explain_both(session, monkeypatch, noise_photograph(), targets, method, **given)
    assert {3, 4} <= set(bound)  # the last batch is smaller
    for bound_map, own in zip(found, expected, strict=True):
        if method == "rise":
            assert share_of_range(bound_map.attributions, own.attributions) < ROUNDING
            assert bound_map.quality == pytest.approx(own.quality, rel=1e-4)
        else:
            assert np.array_equal(bound_map.attributions, own.attributions)
            assert bound_map.quality == own.quality
        assert bound_map.forward_passes == own.forward_passes
        assert bound_map.settings == own.settings
        assert bound_map.notes == own.notes


@pytest.mark.parametrize("options", [{}, {"normalisation": "expected"}], ids=str)
def test_sums_over_soft_masks(session, bound, monkeypatch, options):
    given = {"perturbations_per_eval": 6, "n_samples": 20, "binary": False, "estimator": "mean", **options}
    found, expected = explain_both(session, monkeypatch, noise_photograph(), [0, 1], "rise", **given)
    for bound_map, own in zip(found, expected, strict=True):
        assert share_of_range(bound_map.attributions, own.attributions) < ROUNDING
        assert bound_map.quality == pytest.approx(own.quality, rel=1e-4)


def test_a_regression_on_scores_from_the_device(session, bound, monkeypatch):
    given = {"perturbations_per_eval": 6, "n_samples": 40}
    found, expected = explain_both(session, monkeypatch, noise_photograph(), [0, 1], "rise", **given)
    assert 6 in set(bound)
    for bound_map, own in zip(found, expected, strict=True):
        assert share_of_range(bound_map.attributions, own.attributions) < ROUNDING


@pytest.mark.parametrize("masking", ["layer", "fill"])
def test_integrated_gradients(tmp_path, bound, monkeypatch, masking):
    baseline = {"baseline": "mean"} if masking == "fill" else {}
    masktool.export(classifier(), tmp_path / "model.onnx", masking=masking, gradient="logit", **baseline)
    with masktool.load(tmp_path / "model.onnx", "cpu", threads=1) as session:
        image = np.random.default_rng(0).normal(size=session.input_shape[1:]).astype(np.float32)
        given = {"n_samples": 11, "perturbations_per_eval": 4}
        found, expected = explain_both(session, monkeypatch, image, [0, 1], "integrated-gradients", **given)
    assert bound == 2 * [4, 4, 1, 4, 4, 1, 3, 3, 1]  # for each target: images, network and sums of every batch
    for bound_map, own in zip(found, expected, strict=True):
        assert share_of_range(bound_map.attributions, own.attributions) < ROUNDING
        assert bound_map.forward_passes == own.forward_passes


def test_what_was_wrong_in_memory_is_wrong_on_a_device(tmp_path, bound):
    path = write_region_model(tmp_path / "model.onnx", nan_when_empty=True)
    with masktool.load(path, "cpu", threads=1) as session, pytest.raises(masktool.MasktoolError, match="not finite"):
        masktool.explain(session, noise_photograph(), "lime", target=0, n_samples=200)


@pytest.mark.parametrize("method", [*METHODS, "integrated-gradients"])
def test_where_nothing_can_be_bound_masks_are_made_in_memory_and_that_is_said(tmp_path, bound, monkeypatch, method):
    def refuse(self, values):
        raise BindingError("ONNX Runtime could not run a model bound to a device", where="toaster", got="no such thing")

    monkeypatch.setattr(DeviceGraph, "bind", refuse)
    masktool.export(classifier(), tmp_path / "model.onnx", gradient="logit")
    with masktool.load(tmp_path / "model.onnx", "cpu", threads=1) as session:
        image = np.random.default_rng(0).normal(size=session.input_shape[1:]).astype(np.float32)
        given = {} if method == "occlusion" else {"n_samples": 9}
        found, expected = explain_both(session, monkeypatch, image, [0], method, **given)
    assert any("toaster" in note and "no such thing" in note for note in found[0].notes)
    assert np.array_equal(found[0].attributions, expected[0].attributions)


class OddRows(MaskDesign):
    """Masks that keep every second row of pixels, for which no graph is written."""

    def expand(self, rows):
        masks = np.zeros((len(rows["first"]), 1, *rows["size"][0]), np.float32)
        for mask, first in zip(masks, rows["first"], strict=True):
            mask[:, first::2] = 1
        return masks


def test_masks_of_a_design_without_a_graph_are_made_in_memory_and_that_is_said(session, bound):
    subject = make_subject(read_subject(noise_photograph()), session)
    targets = [ClassTarget(0), ClassTarget(1)]
    reading = read_scores(session, subject, targets, None)
    task = make_task(Occlusion(), subject, reading, targets, ExplanationSettings(), DEVICE_GRAPHS)
    rows = {"first": np.array([0, 1], np.int32), "size": np.array([session.spatial_shape] * 2, np.int32)}
    found = list(task.evaluate([rows, rows], 4, OddRows()))
    expected = session.scores(subject.fed, OddRows().expand(rows))[:, :2]
    assert len(found) == 2
    for each in found:
        assert np.array_equal(each.scores, expected)
    assert bound == []
    assert session.device_note == (
        "all was made in memory and copied to the device: no graph is written for masks of this design (OddRows)"
    )


def test_masks_that_a_method_gives_itself_are_copied(session, bound):
    subject = make_subject(read_subject(noise_photograph()), session)
    targets = [ClassTarget(0), ClassTarget(1)]
    reading = read_scores(session, subject, targets, None)
    task = make_task(Occlusion(), subject, reading, targets, ExplanationSettings(), DEVICE_GRAPHS)
    masks = np.random.default_rng(0).random((4, 1, *session.spatial_shape)).astype(np.float32)
    (found,) = task.evaluate([masks], total=4)
    assert np.array_equal(found.scores, session.scores(subject.fed, masks)[:, :2])
    assert bound == []


def test_memory_is_used_again(session, bound, monkeypatch):
    """Masks of every batch of one length lie in the same place."""
    places = []
    original = DeviceEvaluation.make_masks

    def watched(self, *arguments):
        for masks in original(self, *arguments):
            places.append(masks.value.data_ptr())
            yield masks

    monkeypatch.setattr(DeviceEvaluation, "make_masks", watched)
    masktool.explain(session, noise_photograph(), "rise", n_samples=40, perturbations_per_eval=4)
    assert len(places) == 10
    assert len(set(places)) == 1
