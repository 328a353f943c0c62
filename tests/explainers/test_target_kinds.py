"""Contrasts, sums and slices: their numbers, their gradients against torch, what they cost, and what is refused."""

from __future__ import annotations

import importlib
import json
import pickle
import sys

import numpy as np
import pytest
from networks.small_graphs import parse
from networks.unusual_graphs import detector
from onnx import numpy_helper

import masktool
from explainers.models import bright_photograph, noise_photograph, write_region_model
from explainers.small_network import SMALL_NETWORK, SMALL_SIZE, draw_input, export_small
from masktool import ClassSum, Contrast, MasktoolError, OutputSlice, explain, explain_targets, load
from masktool.contract import Preprocessing
from masktool.explainers import targets
from masktool.explainers.hiding import HiddenParts
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.target import TARGETS, TargetError
from masktool.explainers.targets.class_target import SettledClass
from masktool.explainers.task import Differentiable
from masktool.interface.folders.names import name_file
from masktool.interface.rows import explanation_row
from masktool.progress import no_progress
from masktool.registry import import_files
from masktool.runtime.scores import softmax

A, B = 2, 0
CLOSE = 1e-5


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    with load(export_small(tmp_path_factory.mktemp("targets") / "small.onnx"), "cpu", threads=1) as session:
        yield session


@pytest.fixture(scope="module")
def maps_of_boxes(tmp_path_factory):
    path = tmp_path_factory.mktemp("boxes") / "masked.onnx"
    masktool.export(detector(), path, preprocessing=Preprocessing(size=(16, 24), resize="exact"))
    with load(path, "cpu", threads=1) as session:
        yield session


def regions(folder, kind):
    """Opens the region model as one whose output is of a kind."""
    return load(write_region_model(folder / f"{kind}.onnx", output_kind=kind), "cpu", threads=1)


class Twin:
    """The small network in torch, written out by its layers."""

    def __init__(self):
        self.torch = pytest.importorskip("torch")
        drawn = parse(SMALL_NETWORK).graph.initializer
        self.weights = {each.name: self.torch.tensor(0.25 * numpy_helper.to_array(each)) for each in drawn}

    def logits(self, image):
        functional, weights = self.torch.nn.functional, self.weights
        early = functional.relu(functional.conv2d(image, weights["k0"], weights["b0"], stride=4, padding=1))
        late = functional.relu(functional.conv2d(early, weights["k1"], weights["b1"], stride=2, padding=1))
        return late.mean(dim=(2, 3)) @ weights["weight"] + weights["offset"]

    def gradient(self, image, score):
        """The gradient of a score of the logits (1, K), and the score."""
        given = self.torch.tensor(image).requires_grad_()
        value = score(self.logits(given))
        value.backward()
        return given.grad.numpy(), value.item()


def difference(logits):
    return logits[0, A] - logits[0, B]


def merged(logits):
    return logits[0, [1, 3]].logsumexp(dim=0)


def merged_against(logits):
    return merged(logits) - logits[0, B]


ASKED = {
    "contrast": ({"target": A, "against": B}, difference),
    "sum": ({"target": 1, "sum_with": [3]}, merged),
    "sum against a class": ({"target": 1, "sum_with": [3], "against": B}, merged_against),
    "slice": ({"output": "logits", "target": "1:4"}, lambda logits: logits[0, 1:4].mean()),
    "value": ({"output": "logits", "target": "3"}, lambda logits: logits[0, 3]),
}


@pytest.mark.parametrize(("asked", "score"), ASKED.values(), ids=ASKED)
def test_gradients_are_autograds(small, asked, score):
    image = draw_input(3)
    gradient, value = Twin().gradient(image[None], score)
    found = explain(small, image, "input-x-gradient", **asked)
    expected = (gradient[0] * image).sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(found.model_attributions, expected, rtol=0, atol=CLOSE * np.abs(expected).max())
    assert found.quality["completeness_total"] == pytest.approx(value, abs=1e-5)
    plain = explain(small, image, "gradient", **asked).model_attributions
    np.testing.assert_allclose(plain, np.abs(gradient[0]).max(axis=0), rtol=0, atol=CLOSE * plain.max())


@pytest.mark.parametrize("loss", ["logit", "log-softmax"])
def test_learned_masks_see_the_gradient_of_a_difference(small, loss):
    """Beside an image that is asked about one class, whose gradient stays that of the class."""
    twin, image, fill = Twin(), draw_input(4)[None], np.zeros((1, 3, *SMALL_SIZE), np.float32)
    outputs = ModelOutputs(small.metadata, {"logits": np.zeros((1, 4), np.float32)})
    asked = [Contrast(A, B).settle(outputs), SettledClass(1)]
    model = Differentiable(small, {}, no_progress)
    hidden = HiddenParts(model, image.repeat(2, 0), asked, fill.repeat(2, 0), batch=2)
    masks = np.random.default_rng(0).random((2, 1, *SMALL_SIZE)).astype(np.float32)
    answer = hidden.differentiate(masks, np.arange(2), loss)

    def alone(logits):
        return (logits.log_softmax(dim=1) if loss == "log-softmax" else logits)[0, 1]

    for position, score in enumerate((difference, alone)):
        gradient, value = twin.gradient(image * masks[position], score)
        expected = (gradient * image).sum(axis=1)
        assert answer.objective[position] == pytest.approx(value, abs=1e-5)
        np.testing.assert_allclose(answer.gradient[position], expected, rtol=0, atol=CLOSE * np.abs(expected).max())


LINEAR = [("occlusion", {}), ("lime", {"alpha": 1, "n_samples": 60, "n_segments": 12})]


@pytest.mark.parametrize(("method", "options"), LINEAR)
def test_a_contrast_is_the_difference_of_maps_of_methods_that_are_linear(small, method, options):
    image = draw_input(5)
    found = explain(small, image, method, A, against=B, **options)
    first, second = explain_targets(small, image, [(A,), (B,)], method, output="logits", **options)
    expected = first.model_attributions.astype(np.float64) - second.model_attributions
    scale = max(np.abs(first.model_attributions).max(), np.abs(second.model_attributions).max())
    np.testing.assert_allclose(found.model_attributions, expected, rtol=0, atol=2**-22 * scale)
    assert found.score == pytest.approx(first.score - second.score, abs=1e-12)
    assert found.forward_passes == first.forward_passes


SAMPLING = {
    "rise": {"n_samples": 20},
    "kernel-shap": {"n_samples": 30, "n_segments": 8},
    "sobol": {"n_samples": 64},
    "hsic": {"n_samples": 40},
    "coarse-to-fine": {"budget": 60},
    "recipro-cam": {},
    "score-cam": {},
}


@pytest.mark.parametrize(("method", "options"), SAMPLING.items(), ids=SAMPLING)
def test_every_method_of_masks_takes_a_contrast(small, method, options):
    found = explain(small, draw_input(6), method, A, against=B, **options)
    assert np.isfinite(found.model_attributions).all()
    assert np.ptp(found.model_attributions) > 0
    assert found.name == f"class {A} against class {B}"
    assert found.score_name == "difference of logits"


GRADIENTS = {
    "gradient": ({}, 1 + 2),
    "integrated-gradients": ({"n_samples": 5, "baseline": "image-mean"}, 1 + 2 * 7),
    "smoothgrad": ({"n_samples": 4}, 1 + 2 * 4),
    "grad-cam": ({}, 1 + 2),
    "layercam": ({}, 1 + 2),
    "attribution-mask": ({}, 1 + 2 * 4),
    "extremal": ({"n_samples": 3}, 1 + 2 * 3 + 3),
    "neuromask": ({"n_samples": 3, "baseline": "image-mean"}, 1 + 2 * 3 + 3),
}


@pytest.mark.parametrize(("method", "options", "passes"), [(k, *v) for k, v in GRADIENTS.items()], ids=GRADIENTS)
def test_every_pass_of_a_contrast_is_counted(small, method, options, passes):
    before = small.forward_passes
    found = explain(small, draw_input(7), method, A, against=B, **options)
    assert found.forward_passes == small.forward_passes - before == passes
    assert np.isfinite(found.model_attributions).all()
    assert "{logit}" not in found.meaning


@pytest.mark.parametrize("method", ["integrated-gradients", "smoothgrad", "extremal"])
@pytest.mark.parametrize("budget", [20, 41])
def test_a_budget_holds_for_both_sides(small, method, budget):
    options = {"baseline": "image-mean"} if method != "smoothgrad" else {}
    if method == "extremal":
        options["n_iterations"] = 8
    found = explain(small, draw_input(7), method, A, against=B, budget=budget, **options)
    assert found.forward_passes <= budget


def test_learned_masks_say_whether_the_first_is_still_above(small):
    found = explain(small, draw_input(7), "extremal", A, against=B, n_iterations=2)
    assert found.quality["kept_cut"] == (found.quality["score_cut"] > 0)
    notes = [note for note in found.notes if "does not survive" in note]
    assert len(notes) == (not found.quality["kept_cut"])
    assert all(f"class {A} against class {B} does not survive" in note for note in notes)


def outputs_of(kind, values):
    metadata = masktool.Metadata(
        masking="layer", source="m", source_sha256="0" * 64, image_input="x", class_output="y", output_kind=kind,
        preprocessing=None, labels=None, parity={}, tool_version="1",
    )  # fmt: skip
    return ModelOutputs(metadata, {"y": np.asarray(values, np.float32)})


def test_a_contrast_is_the_same_of_logits_and_of_their_probabilities():
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32) * 5
    target = Contrast(A, B)
    of_logits, of_shares = outputs_of("logits", logits), outputs_of("probabilities", softmax(logits))
    settled, other = target.settle(of_logits), target.settle(of_shares)
    np.testing.assert_allclose(settled.read(of_logits), logits[:, A] - logits[:, B], rtol=1e-6)
    np.testing.assert_allclose(other.read(of_shares), settled.read(of_logits), atol=2e-6)
    assert settled.score_name(of_logits) == "difference of logits"
    assert other.score_name(of_shares) == "difference of log-probabilities"


@pytest.mark.parametrize(
    ("kind", "values", "expected", "name"),
    [
        ("sigmoid", [[0.5, 0.75, 0.2]], np.log(3), "difference of log-odds"),
        ("binary", [[1.5]], 1.5, "difference of logits"),
        ("binary-probability", [[0.75]], np.log(3), "difference of log-probabilities"),
    ],
)
def test_a_contrast_of_other_kinds(kind, values, expected, name):
    outputs = outputs_of(kind, values)
    settled = Contrast(1, 0).settle(outputs)
    assert settled.read(outputs)[0] == pytest.approx(expected, abs=1e-6)
    assert settled.score_name(outputs) == name


def test_a_sum_is_one_class_at_every_scale():
    logits = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32) * 3
    outputs = outputs_of("logits", logits)
    settled = ClassSum([3, 1]).settle(outputs)
    shares = softmax(logits.astype(np.float64))
    together = shares[:, 1] + shares[:, 3]
    np.testing.assert_allclose(settled.read(outputs), together, rtol=1e-6)
    odds = ModelOutputs(outputs.metadata, outputs.values, "log-odds")
    np.testing.assert_allclose(ClassSum([3, 1]).settle(odds).read(odds), np.log(together / (1 - together)), rtol=1e-5)
    contrast = Contrast(ClassSum([1, 3]), 0).settle(outputs)
    np.testing.assert_allclose(contrast.read(outputs), np.log(together / shares[:, 0]), rtol=1e-5)
    assert settled.index == (1, 3)
    assert settled.name == "class 1 or class 3"
    independent = outputs_of("sigmoid", [[0.5, 0.75, 0.25]])
    settled = ClassSum([0, 1]).settle(independent)
    assert settled.read(independent) == pytest.approx(1.25)
    assert settled.score_name(independent) == "sum of probabilities"


def test_a_picture_and_a_document_say_what_was_asked(tmp_path):
    with regions(tmp_path, "probabilities") as session:
        found = explain(session, bright_photograph(), "occlusion", "top left", against="bottom right")
        other = explain(session, bright_photograph(), "occlusion", 0, sum_with=[2])
    assert found.name == "Top Left against bottom right"
    assert found.question.title == "Top Left (0) against bottom right (1)"
    document = json.loads(found.to_json())
    assert document["target"] == {
        "kind": "contrast", "index": 0, "label": "Top Left", "against": {"index": 1, "label": "bottom right"},
        "difference of log-probabilities": pytest.approx(0, abs=1e-5),
    }  # fmt: skip
    assert document["meaning"] == "drop in difference of log-probabilities when hidden"
    assert set(document["scores"][0]) == {"index", "label", "probability"}
    assert (found.target, found.label, found.output) == (0, "Top Left", None)
    assert pickle.loads(pickle.dumps(found.question)) == found.question
    assert found.plot().width > 500
    assert json.loads(other.to_json())["target"] == {
        "kind": "sum", "index": [0, 2], "label": ["Top Left", "background"], "probability": pytest.approx(1),
    }  # fmt: skip
    assert name_file("photo", found, "png", several=True) == "photo.occlusion.0-Top_Left-against-1-bottom_right.png"
    assert name_file("photo", other, "png", several=True) == "photo.occlusion.sum-0-2.png"
    rows = [explanation_row(each, "photo", None) for each in (found, other)]
    assert [(row["target"], row["label"], row["place"]) for row in rows] == [(0, "Top Left", None), (None, None, None)]
    assert json.loads(rows[0]["asked"])["against"]["index"] == 1


def test_a_probability_of_0_is_said(tmp_path):
    with regions(tmp_path, "probabilities") as session:
        found = explain(session, bright_photograph(), "occlusion", 0, against=2)
    assert any("a probability is 0 in float32, and its logarithm" in note for note in found.notes)


def test_a_slice_is_the_mean_of_its_values(maps_of_boxes):
    photograph = noise_photograph((16, 24))
    found, same = (
        explain(maps_of_boxes, photograph, "occlusion", target, output="boxes")
        for target in ("5:9:2, 1:", (slice(5, 9, 2), slice(1, None)))
    )
    image = photograph.transpose(2, 0, 1)[None].astype(np.float32) / 255
    expected = maps_of_boxes.run(image)["boxes"][0, 5:9:2, 1:].mean()
    assert found.score == pytest.approx(float(expected), rel=1e-5)
    assert (found.name, found.target, found.score_name) == ("boxes[5:9:2,1:4]", "5:9:2,1:4", "mean value")
    assert found.question == same.question
    one, other = explain_targets(maps_of_boxes, photograph, ["5,1:3", (5, 1)], "occlusion", output="boxes")
    two = explain(maps_of_boxes, photograph, "occlusion", (5, 2), output="boxes")
    mean = (other.model_attributions.astype(np.float64) + two.model_attributions) / 2
    np.testing.assert_allclose(one.model_attributions, mean, atol=1e-6)
    assert json.loads(one.to_json())["target"]["index"] == "5,1:3"


def test_values_and_parts_of_two_outputs_share_the_passes(maps_of_boxes):
    asked = [OutputSlice("boxes", "0,:"), masktool.OutputValue("scores", (3, 1))]
    found = explain_targets(maps_of_boxes, noise_photograph((16, 24)), asked, "occlusion")
    alone = explain(maps_of_boxes, noise_photograph((16, 24)), "occlusion", (3, 1), output="scores")
    np.testing.assert_array_equal(found[1].attributions, alone.attributions)
    assert found[0].forward_passes == alone.forward_passes
    contrast = explain(maps_of_boxes, noise_photograph((16, 24)), "occlusion", (3, 1), output="scores", against=(3, 0))
    assert contrast.score_name == "difference of values"


BAD = [
    ({"target": A, "against": A}, r"a target against itself .*class 2 against class 2.*name another with against"),
    ({"target": A, "against": 9}, r"no such class \(target\): expected an index from 0 to 3, got 9"),
    ({"target": A, "against": "cat"}, "no labels.*'cat'"),
    ({"target": A, "against": B, "score": "log-odds"}, "a contrast is of logits, whatever the score"),
    ({"target": Contrast(A, B), "against": 1}, "a contrast of contrasts"),
    ({"target": A, "sum_with": [A]}, "a class is twice in the sum"),
    ({"target": 0, "sum_with": [1, 2, 3]}, "probabilities of all classes sum to 1"),
    ({"target": A, "sum_with": "cat"}, r"one value in place of several .*sum_with"),
    ({"target": Contrast(A, B), "output": "logits"}, r"the target says itself what it is of .*leave the output out"),
    ({"target": "1:9", "output": "logits"}, r"no such part .*axis 0.*within 0:4 that is not empty, got 1:9"),
    ({"target": "3:3", "output": "logits"}, r"no such part .*got 3:3"),
    ({"target": "0,1:2", "output": "logits"}, r"no such part .*\(4\).*expected 1 indices or slices.*got 0,1:2"),
    ({"target": "1:x", "output": "logits"}, r"no such part .*got 1:x"),
    ({"target": "1:2:0", "output": "logits"}, r"no such part .*got 1:2:0"),
    ({"target": "1:3", "output": "logits", "sum_with": [1]}, "a sum is of classes"),
    ({"target": "1:3"}, "several indices are for an output"),
    ({"target": "1:3", "output": "logits", "score": "log-odds"}, "log-odds are of classes' scores"),
]


@pytest.mark.parametrize(("asked", "message"), BAD)
def test_what_cannot_be_explained_is_refused_in_one_line(small, asked, message):
    with pytest.raises(MasktoolError, match=message) as caught:
        explain(small, draw_input(0), "occlusion", **asked)
    assert "\n" not in caught.value.message


def test_what_the_kind_of_the_output_does_not_allow(tmp_path):
    with regions(tmp_path, None) as session:
        with pytest.raises(TargetError, match=r"needs logits or probabilities.*unknown kind.*output_kind"):
            explain(session, bright_photograph(), "occlusion", 0, against=1)
        with pytest.raises(TargetError, match="a sum of scores of unknown kind"):
            explain(session, bright_photograph(), "occlusion", 0, sum_with=[1])
        found = explain(session, bright_photograph(), "occlusion", 0, against=1, output="scores")
        assert found.score_name == "difference of values"
    with regions(tmp_path, "sigmoid") as session:
        with pytest.raises(MasktoolError, match="independent classes has no log-odds"):
            explain(session, bright_photograph(), "occlusion", 0, sum_with=[1], score="log-odds")
        with pytest.raises(TargetError, match=r"different things.*sums of probabilities, got log-odds"):
            explain(session, bright_photograph(), "occlusion", 0, sum_with=[1], against=2)


def test_the_top_class_against_itself_is_no_fault_of_the_target(small):
    top = explain(small, draw_input(0), "occlusion").target
    with pytest.raises(MasktoolError, match="against itself") as caught:
        explain(small, draw_input(0), "occlusion", against=top)
    assert not isinstance(caught.value, TargetError)  # another photograph has another top class


def test_methods_of_one_map_take_no_contrast(tmp_path, small):
    with pytest.raises(MasktoolError, match=r"Eigen-CAM has one map.*leave the target out"):
        explain(small, draw_input(0), "eigen-cam", 0, against=1)
    path = write_region_model(
        tmp_path / "masker.onnx", saliency="green", preprocessing=Preprocessing((16, 24), "exact")
    )
    with load(path, "cpu", threads=1) as session, pytest.raises(MasktoolError, match=r"has one map.*leave the target"):
        explain(session, noise_photograph(), "masker", 0, against=1)


NEW_TARGET = """
import dataclasses
from typing import ClassVar
import numpy as np
from masktool.explainers.target import TARGETS, SettledTarget, Target
from masktool.explainers.targets.output_value import SettledValue

@TARGETS.add
@dataclasses.dataclass(frozen=True)
class First(Target):
    name: ClassVar[str] = "first"
    syntax: ClassVar[str] = "first:NAME"
    summary: ClassVar[str] = "the first value of an output"
    gradient: ClassVar[str] = "none"
    output: str

    @classmethod
    def from_words(cls, target, output):
        is_own = isinstance(target, str) and target.startswith("first:")
        return cls(target.removeprefix("first:")) if is_own else None

    @property
    def outputs(self):
        return (self.output,)

    def settle(self, outputs):
        return SettledValue((0,) * (outputs.values[self.output].ndim - 1), output_name=self.output)
"""


@pytest.fixture
def new_target(tmp_path, monkeypatch):
    (tmp_path / "first.py").write_text(NEW_TARGET)
    monkeypatch.setattr(targets, "__path__", [*targets.__path__, str(tmp_path)])
    import_files.cache_clear()
    importlib.invalidate_caches()
    yield
    TARGETS._entries.pop("first", None)
    sys.modules.pop(f"{targets.__name__}.first", None)
    import_files.cache_clear()


@pytest.mark.usefixtures("new_target")
def test_a_new_file_is_all_that_a_new_kind_needs(small):
    assert "first" in TARGETS
    found = explain(small, draw_input(0), "occlusion", "first:logits")
    same = explain(small, draw_input(0), "occlusion", 0, output="logits")
    np.testing.assert_array_equal(found.attributions, same.attributions)
