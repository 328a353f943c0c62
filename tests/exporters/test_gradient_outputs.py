"""Files with gradients of any output: the contract, its proof at export, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.small_graphs import classifier, parse
from networks.two_outputs import PLACES, SIZE, draw_images, two_outputs

import masktool
from masktool import MasktoolError, Metadata
from masktool.cli import run
from masktool.contract import LOSS_INPUT, TARGET_INPUT, WEIGHTS_INPUT, Preprocessing
from masktool.exporters import reopen, write_extended
from masktool.interface.check import check_export

CLOSE = 1e-6
"""Relative to the largest number: the same sums in another order."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weighed")
    onnx.save(two_outputs(), folder / "two.onnx")
    masktool.export(folder / "two.onnx", folder / "bare.onnx", class_output="none")
    masktool.export(folder / "two.onnx", folder / "scores.onnx", class_output="none", gradient_output="scores")
    return folder


@pytest.fixture(scope="module")
def session(folder: Path) -> masktool.MaskedSession:
    return masktool.load(folder / "scores.onnx", "cpu", threads=1)


def draw_weights(count: int = 1) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 4, *PLACES)).astype(np.float32)


def test_the_contract_of_the_file(folder: Path, session: masktool.MaskedSession) -> None:
    file = onnxruntime.InferenceSession(str(folder / "scores.onnx"), providers=["CPUExecutionProvider"])
    inputs = {each.name: each for each in file.get_inputs()}
    assert set(inputs) == {"image", WEIGHTS_INPUT}  # the mask has a default
    assert (inputs[WEIGHTS_INPUT].type, inputs[WEIGHTS_INPUT].shape[1:]) == ("tensor(float)", [4, *PLACES])
    assert not {TARGET_INPUT, LOSS_INPUT} & {each.name for each in file.get_overridable_initializers()}
    metadata = session.metadata
    assert (metadata.gradient, metadata.losses, metadata.gradient_output) == (None, None, "scores")
    assert metadata.has_gradients
    assert session.output_names == ["scores", "embedding", "labels"]
    assert session.other_inputs == ()
    assert Metadata.from_properties(metadata.to_properties()) == metadata


def test_weights_of_one_row_serve_all_results(session: masktool.MaskedSession) -> None:
    images, masks = draw_images(2), np.random.default_rng(2).random((2, 1, *SIZE)).astype(np.float32)
    weights = draw_weights()
    of = ("image", "mask", "feature_maps")
    one = session.gradient(images, masks, weights=weights, of=of)
    each = session.gradient(images, masks, weights=weights.repeat(2, axis=0), of=of)
    assert one.output is not None
    assert one.scores is None
    expected = (one.output.astype(np.float64) * weights).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(one.objective, expected, rtol=1e-5)
    np.testing.assert_array_equal(one.output, session.run(images, masks)["scores"])
    for left, right in ((one.image, each.image), (one.mask, each.mask), *zip(
        one.gradient_feature_maps, each.gradient_feature_maps, strict=True
    )):  # fmt: skip
        np.testing.assert_array_equal(left, right)
    other = session.gradient(images, masks, weights=np.concatenate([weights, 2 * weights]))
    np.testing.assert_allclose(other.image[1], 2 * one.image[1], rtol=0, atol=CLOSE * np.abs(other.image).max())
    np.testing.assert_array_equal(other.image[0], one.image[0])
    again = pickle.loads(pickle.dumps(session)).gradient(images, masks, weights=weights)
    np.testing.assert_array_equal(again.image, one.image)


def test_gradients_are_those_of_central_differences(session: masktool.MaskedSession) -> None:
    """Of every number of both: in float32, along random directions short of a kink."""
    image, weights = draw_images(1, seed=3), draw_weights()
    mask = (0.2 + 0.6 * np.random.default_rng(5).random((1, 1, *SIZE))).astype(np.float32)
    found = session.gradient(image, mask, weights=weights, of=("image", "mask"))
    for name, value, gradient in (("image", image, found.image), ("mask", mask, found.mask)):
        direction = gradient / np.linalg.norm(gradient)
        sides = []
        for step in (1e-2, -1e-2):
            moved = {"image": image, "mask": mask} | {name: value + np.float32(step) * direction}
            values = session.run(moved["image"], moved["mask"], outputs=["scores"])["scores"].astype(np.float64)
            sides.append((values * weights).sum())
        assert (sides[0] - sides[1]) / 2e-2 == pytest.approx(np.linalg.norm(gradient), rel=1e-2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"values of output 'scores' have no weights"),
        ({"target": 1}, r"of the values of output 'scores', and not of class scores .*: target; give weights"),
        ({"weights": draw_weights(), "loss": "logit"}, r"not of class scores .*: loss; .*gradient=.logit"),
        ({"weights": draw_weights()[:, :2]}, r"wrong shape .*expected \(1 or 2, 4, 12, 16\).*got \(1, 2, 12, 16\)"),
        ({"weights": draw_weights(3)}, r"wrong shape .*got \(3, 4, 12, 16\)"),
        ({"weights": draw_weights()[0]}, r"wrong shape .*got \(4, 12, 16\)"),
        ({"weights": np.full((1, 4, *PLACES), np.nan)}, r"weights that are not finite"),
        ({"weights": draw_weights().astype(complex)}, r"wrong dtype .*expected float32, got complex128"),
        ({"weights": draw_weights(), "of": ("feature_map_9",)}, r"no such gradient"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_line(session: masktool.MaskedSession, given: dict, message: str) -> None:
    with pytest.raises(MasktoolError, match=message) as caught:
        session.gradient(draw_images(2), **given)
    assert "\n" not in str(caught.value)


def test_a_file_of_class_gradients_takes_no_weights(tmp_path: Path) -> None:
    masktool.export(classifier(), tmp_path / "class.onnx", gradient="logit")
    images = np.zeros((1, 3, 8, 8), np.float32)
    with masktool.load(tmp_path / "class.onnx") as opened:
        with pytest.raises(MasktoolError, match=r"are of class scores, whose values are not weighed.*gradient_output="):
            opened.gradient(images, weights=np.ones((1, 4)))
        with pytest.raises(MasktoolError, match=r"of one class's score .*expected the index of a class"):
            opened.gradient(images)
    with pytest.raises(MasktoolError, match=r"holds gradients of something else .*expected output 'scores', got class"):
        masktool.load(tmp_path / "class.onnx", gradient_output="scores")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"gradient_output": "nothing"},
            r"no such output \(gradient_output=.nothing.\).*'scores' float .*'embedding'",
        ),
        (
            {"gradient_output": "labels"},
            r"only real numbers have a gradient .*expected a float output, got 'labels' int64",
        ),
        ({"gradient_output": ""}, r"not an output"),
        ({"gradient_output": 3}, r"not an output \(gradient_output\).*got 3"),
        ({"gradient_output": "scores", "gradient": "logit"}, r"a loss is of class scores.*leave one of them out"),
        ({"gradient_output": "scores", "plain_branch": True}, r"plain network cannot stand beside .*gradient_output"),
        ({"gradient": "logit"}, r"gradients are of class scores .*gradient_output=NAME"),
    ],
    ids=str,
)
def test_nonsense_is_refused_at_export(folder: Path, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(MasktoolError, match=message) as caught:
        masktool.export(folder / "two.onnx", tmp_path / "m.onnx", class_output="none", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m.onnx").exists()


def test_an_output_without_a_row_for_each_image_is_refused(tmp_path: Path) -> None:
    listing = parse("""
<ir_version: 10, opset_import: ["" : 20]>
listing (float[1, 3, 8, 8] image) => (float[64, 3] colours)
{
    rows = Transpose<perm = [0, 2, 3, 1]>(image)
    shape = Constant<value_ints = [64, 3]>()
    colours = Reshape(rows, shape)
}
""")
    with pytest.raises(MasktoolError, match=r"no row for each image.*'colours'"):
        masktool.export(listing, tmp_path / "m.onnx", class_output="none", gradient_output="colours", masking="fill")


def test_a_file_exported_before_gets_the_same_gradients(
    folder: Path, tmp_path: Path, session: masktool.MaskedSession, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["export", str(folder / "bare.onnx"), "-o", str(tmp_path / "later.onnx"), "--gradient-output", "scores"]
    assert run(typed) == 0
    assert "gradients: of output 'scores', weighed; feature map narrow" in capsys.readouterr().err
    weights = draw_weights()
    with masktool.load(tmp_path / "later.onnx", "cpu", threads=1) as later:
        expected, found = (each.gradient(draw_images(2), weights=weights) for each in (session, later))
        np.testing.assert_array_equal(found.image, expected.image)
        assert later.metadata.parity == session.metadata.parity
    assert run(["info", str(tmp_path / "later.onnx")]) == 0
    said = capsys.readouterr().out
    assert "gradients     of scores: the sum of its values times output_weights" in said
    assert "output_weights  float32 (weights_batch, 4, 12, 16)  required; weights of scores" in said
    assert run(["info", str(tmp_path / "later.onnx"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["gradient_output"] == "scores"
    assert run([*typed[:3], str(tmp_path / "x.onnx"), "--gradient", "logit", "--gradient-output", "scores"]) == 2
    assert "(--gradient logit, --gradient-output scores); leave one of them out" in capsys.readouterr().err
    with pytest.raises(MasktoolError, match=r"holds gradients already .*: of output 'scores'"):
        masktool.add_gradients_to(tmp_path / "later.onnx", tmp_path / "x.onnx")


def test_the_file_is_measured_as_any_other(folder: Path, session: masktool.MaskedSession) -> None:
    found = check_export(folder / "scores.onnx", folder / "two.onnx")
    assert not found.failed
    assert set(session.metadata.parity) == set(masktool.load(folder / "bare.onnx").metadata.parity)


def test_a_file_that_differentiates_something_else_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = write_extended.with_gradients

    def spoiled(model, metadata):
        found = honest(model, metadata)
        end = next(node for node in model.graph if node.op_type == "ReduceSum" and node.outputs[0].consumers())
        end.replace_input_with(0, next(value for value in model.graph.outputs if value.name == "scores"))
        return found

    monkeypatch.setattr(write_extended, "with_gradients", spoiled)
    with pytest.raises(MasktoolError, match=r"differentiates something else than the weighed sum"):
        masktool.add_gradients_to(folder / "bare.onnx", tmp_path / "x.onnx", gradient_output="scores")
    assert not (tmp_path / "x.onnx").exists()
    assert reopen.SUM_TOLERANCE < 0.01


@pytest.mark.parametrize(
    "options",
    [{"portable": True}, pytest.param({"precision": "fp16"}, marks=pytest.mark.slow), {"masking": "fill"}],
    ids=str,
)
def test_other_kinds_of_files_give_the_same(
    folder: Path, tmp_path: Path, session: masktool.MaskedSession, options: dict
) -> None:
    masktool.export(folder / "two.onnx", tmp_path / "m.onnx", class_output="none", gradient_output="scores", **options)
    weights, images = draw_weights(), draw_images(2)
    expected = session.gradient(images, weights=weights)
    with masktool.load(tmp_path / "m.onnx", "cpu") as opened:
        found = opened.gradient(images, np.ones((1, 1, *SIZE), np.float32), weights=weights)
        if "precision" in options:  # the float32 file's maps, of the largest value
            maps = opened.metadata.parity["fp32"]["maps"]
            assert set(maps) == {"input-x-gradient", "grad-cam"}
            assert maps["input-x-gradient"] > 0.99
            again = check_export(tmp_path / "m.onnx", folder / "two.onnx")
            assert not again.failed
            assert "input-x-gradient" in {each.figure for each in again.verdicts}
    tolerance = 2e-2 if "precision" in options else 1e-5
    np.testing.assert_allclose(found.image, expected.image, rtol=0, atol=tolerance * np.abs(expected.image).max())
    np.testing.assert_allclose(found.objective, expected.objective, rtol=tolerance)


def test_names_that_clash_are_freed(tmp_path: Path) -> None:
    """An output called ``objective``, and an input called ``output_weights``, of the network's own."""
    network = parse("""
<ir_version: 10, opset_import: ["" : 20]>
clashing (float[N, 3, 8, 8] image, float[N, 4] output_weights) => (float[N, 4] objective)
<float[4, 3, 3, 3] kernel>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    pooled = GlobalAveragePool(features)
    flat = Flatten(pooled)
    objective = Mul(flat, output_weights)
}
""")
    masktool.export(network, tmp_path / "m.onnx", class_output="none", gradient_output="objective")
    images, own = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32), np.ones((1, 4), np.float32)
    with masktool.load(tmp_path / "m.onnx", "cpu") as opened:
        (other,) = opened.other_inputs
        found = opened.gradient(images, inputs={other.name: 3 * own}, weights=own)
        assert opened.metadata.gradient_output == "model_objective"
        np.testing.assert_allclose(found.objective, found.output.sum(axis=1), rtol=1e-5)


OPEN = """
<ir_version: 10, opset_import: ["" : 20]>
open (float[N, 3, H, W] image) => (float[N, 4, H, W] scores)
<float[6, 3, 3, 3] kernel, float[4, 6, 1, 1] mix>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    active = Relu(features)
    scores = Conv(active, mix)
}
"""


def test_an_output_of_open_size(tmp_path: Path) -> None:
    pixels = Preprocessing((9, 11), "exact")
    masktool.export(
        parse(OPEN), tmp_path / "m.onnx", class_output="none", gradient_output="scores", preprocessing=pixels
    )
    image = np.random.default_rng(0).normal(size=(1, 3, 9, 11)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=(1, 4, 9, 11)).astype(np.float32)
    with masktool.load(tmp_path / "m.onnx", "cpu") as opened:
        assert opened.run(image, np.ones((1, 1, 9, 11), np.float32))["scores"].shape == (1, 4, 9, 11)
        found = opened.gradient(image, np.ones((1, 1, 9, 11), np.float32), weights=weights)
        np.testing.assert_allclose(found.objective, (found.output * weights).sum(axis=(1, 2, 3)), rtol=1e-4)
