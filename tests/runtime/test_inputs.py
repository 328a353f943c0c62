"""Inputs besides the image and the mask, raw outputs, and arrays in place of photographs."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from networks.unusual_graphs import detector, random_images, several_inputs

import masktool
from masktool import MasktoolError, load
from masktool.runtime.arrays import prepare_array, read_array
from masktool.runtime.inputs import OtherInput
from runtime.models import make_images, make_masks, write_model

FACTS = OtherInput("facts", np.dtype(np.float32), (None, 2), True)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    path = tmp_path_factory.mktemp("several") / "masked.onnx"
    masktool.export(several_inputs(), path)
    with load(path, "cpu") as session:
        yield session


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([[1, 2]], [[1, 2]] * 3),
        ([1, 2], [[1, 2]] * 3),
        (5, [[5, 5]] * 3),
        ([[1, 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [5, 6]]),
        (np.ones((1, 2), np.float64), [[1, 1]] * 3),
    ],
)
def test_values_are_spread_over_the_results(given, expected):
    found = FACTS.check(given, 3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("other", "given", "message"),
    [
        (FACTS, [[1, 2, 3]], r"wrong shape .input 'facts'.: expected \(N, 2\), got \(N, 3\)|got \(1, 3\)"),
        (FACTS, [1, 2, 3], r"expected \(N, 2\), got \(3\)"),
        (FACTS, [["a", "b"]], "wrong dtype.*expected float32"),
        (OtherInput("k", np.dtype(np.int64), (1,), False), [0.5], "wrong dtype.*expected int64, got float64"),
    ],
)
def test_values_that_do_not_fit(other, given, message):
    with pytest.raises(MasktoolError, match=message):
        other.check(given, 2)


def test_a_scalar_input_stays_one():
    flag = OtherInput("flag", np.dtype(np.bool_), (), False)
    assert flag.check(True, 4).shape == ()


def test_missing_and_unknown_inputs_are_named(several):
    images = random_images(1, 3, 8, 8)
    message = (
        r"needs more than the image \('facts' float32 \(N, 2\), 'temperature' float32 \(1\), 'shift' int64 \(1\)\)"
    )
    with pytest.raises(MasktoolError, match=message + r".*give inputs=\{NAME: array\}"):
        several(images)
    inputs = {"facts": [0, 0], "temperature": 1, "shift": 0}
    with pytest.raises(MasktoolError, match=r"no such input \(fact\): expected 'facts' float32"):
        several(images, inputs=inputs | {"fact": 1})
    assert several(images, inputs=inputs).shape == (1, 4)


def test_inputs_go_with_every_batch_of_masks(several):
    inputs = {"facts": [1, -1], "temperature": 2, "shift": 3}
    batches = [make_masks(count, size=(8, 8)) for count in (3, 1)]
    found = list(several.masked_scores(random_images(1, 3, 8, 8), batches, inputs=inputs))
    assert [len(scores) for scores in found] == [3, 1]
    alone = several.scores(random_images(1, 3, 8, 8), batches[0][2:], inputs=inputs)
    np.testing.assert_allclose(found[0][2:], alone, rtol=1e-5)


def test_one_output_under_masks(tmp_path):
    masktool.export(detector(), tmp_path / "masked.onnx")
    with load(tmp_path / "masked.onnx", "cpu") as session:
        image, masks = random_images(1, 3, 16, 24), make_masks(4, size=(16, 24))
        (boxes,) = session.masked_scores(image, [masks], output="boxes")
        np.testing.assert_array_equal(boxes, session.run(image, masks)["boxes"])
        outputs = re.escape("boxes (N, 24, 4), scores (N, 24, 2)")
        with pytest.raises(MasktoolError, match=rf"no such output \(box\): expected one of {outputs}"):
            session.run(image, outputs=["box"])
        with pytest.raises(MasktoolError, match=f"no class output.*{outputs}"):
            session(image)


def test_half_precision_images_and_masks_are_cast(tmp_path):
    with load(write_model(tmp_path / "half.onnx", dtype=onnx.TensorProto.FLOAT16), "cpu") as session:
        images, masks = make_images(2), make_masks(2)
        assert session.run(images, masks)["logits"].dtype == np.float16
        expected = (images * masks).sum(axis=(2, 3))
        for given in (images, images.astype(np.float64), images.astype(np.float16)):
            np.testing.assert_allclose(session(given, masks.astype(bool)), expected, atol=0.1)


@pytest.mark.parametrize(
    ("shape", "layout", "given", "axes"),
    [
        ((None, 13, 6, 8), "NCHW", (13, 6, 8), (0, 1, 2)),
        ((None, 13, 6, 8), "NCHW", (6, 8, 13), (2, 0, 1)),
        ((None, 13, 6, 8), "NCHW", (1, 13, 6, 8), (0, 1, 2)),
        ((None, 6, 8, 13), "NHWC", (6, 8, 13), (0, 1, 2)),
        ((None, 6, 8, 13), "NHWC", (13, 6, 8), (1, 2, 0)),
        ((None, 1, None, None), "NCHW", (6, 8), None),
        ((None, 5, None, None), "NCHW", (5, 5, 5), (0, 1, 2)),
        ((None, None, None, 5), "NHWC", (5, 5, 5), (0, 1, 2)),
    ],
)
def test_arrays_in_either_order(shape, layout, given, axes):
    array = np.random.default_rng(0).random(given)
    prepared = prepare_array(array, shape, layout)
    squeezed = array[0] if array.ndim == 4 else array
    expected = squeezed[None] if axes is None else squeezed.transpose(axes)
    np.testing.assert_array_equal(prepared.array[0], expected.astype(np.float32))
    height, width = prepared.size
    assert prepared.original_size == prepared.size
    values = np.random.default_rng(1).random((height, width)).astype(np.float32)
    np.testing.assert_array_equal(prepared.to_original(values), values)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((12, 6, 8)), r"expected \(13, 6, 8\) or \(6, 8, 13\), got \(12, 6, 8\)"),
        (np.zeros((6, 8)), r"got \(6, 8\)"),
        (np.zeros((2, 13, 6, 8)), r"got \(2, 13, 6, 8\)"),
        (np.zeros((13, 6, 8), complex), "not an array of numbers.*complex128"),
    ],
)
def test_arrays_that_do_not_fit(array, message):
    with pytest.raises(MasktoolError, match=message):
        prepare_array(array, (None, 13, 6, 8), "NCHW")


def test_reading_arrays(tmp_path):
    np.save(tmp_path / "good.npy", np.arange(6.0))
    np.testing.assert_array_equal(read_array(tmp_path / "good.npy"), np.arange(6.0))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-8])
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "several.npz", a=np.zeros(2))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    said = {"cut": "a truncated or damaged .npy file", "text": "not a .npy file", "several": "not a .npy file"}
    said["pickle"] = "not an array of numbers"
    for name, what in said.items():
        with pytest.raises(MasktoolError, match=rf"{re.escape(what)}.*{name}\.npy"):
            read_array(tmp_path / f"{name}.npy")
    with pytest.raises(MasktoolError, match="file not found"):
        read_array(tmp_path / "none.npy")
