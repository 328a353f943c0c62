"""Models above 2 GiB, and what stands for them here: a lowered limit, so that small ones count as large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from networks.small_graphs import classifier
from networks.unusual_graphs import HEADER, many_channels, random_images

import masktool
from masktool import MasktoolError
from masktool.exporters import storage, write
from masktool.exporters.sources import load_source
from masktool.exporters.storage import fingerprint, is_large, open_model

HUGE_SIDE = 8192
HUGE_WEIGHTS = 9
"""Nine float32 matrices of 8192 x 8192 are 2.25 GiB."""


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LARGEST_WEIGHTS", 1000)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A model whose weights stand in a file beside it."""
    path = tmp_path / "plain" / "model.onnx"
    path.parent.mkdir()
    onnx.save(many_channels(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_external_weights_of_a_small_model_go_into_the_file(outside: Path, tmp_path: Path):
    masktool.export(outside, tmp_path / "out" / "masked.onnx")
    assert names_of(tmp_path / "out") == ["masked.onnx"]


@pytest.mark.usefixtures("low_limit")
@pytest.mark.parametrize("opset", [13, 20])
def test_a_large_model_is_two_files_that_move_together(outside: Path, tmp_path: Path, opset: int):
    proto = onnx.load(outside)
    proto.opset_import[0].version = opset
    onnx.save(proto, outside, save_as_external_data=True, location="weights.bin", size_threshold=0)
    metadata = masktool.export(outside, tmp_path / "out" / "masked.onnx").metadata
    assert names_of(tmp_path / "out") == ["masked.onnx", "masked.onnx.data"]
    assert (tmp_path / "out" / "masked.onnx.data").stat().st_size > 1000
    assert metadata.parity["ones"] == metadata.parity["invariance"] == 0
    images = random_images(2, 13, 10, 12)
    expected = onnxruntime.InferenceSession(outside).run(None, {"bands": images})[0]
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    outside.with_name("weights.bin").unlink()
    with masktool.load(tmp_path / "elsewhere" / "masked.onnx", "cpu") as session:
        np.testing.assert_array_equal(session(images), expected)
    onnx.checker.check_model(str(tmp_path / "elsewhere" / "masked.onnx"), full_check=True)


@pytest.mark.usefixtures("low_limit")
def test_without_its_weights_the_file_says_what_is_missing(tmp_path: Path):
    masktool.export(many_channels(), tmp_path / "masked.onnx")
    (tmp_path / "masked.onnx.data").unlink()
    with pytest.raises(MasktoolError, match=r"missing external data .*: expected masked\.onnx\.data"):
        masktool.load(tmp_path / "masked.onnx", "cpu")


@pytest.mark.usefixtures("low_limit")
def test_a_fixed_batch_is_lifted_in_a_large_model(tmp_path: Path):
    model = many_channels()
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    assert masktool.export(model, tmp_path / "masked.onnx").metadata.parity["batches"] == 0


@pytest.mark.usefixtures("low_limit")
def test_a_large_model_replaces_another_and_leaves_nothing_else(tmp_path: Path):
    target = tmp_path / "masked.onnx"
    masktool.export(many_channels(), target)
    first = target.with_name("masked.onnx.data").read_bytes()
    masktool.export(many_channels(channels=4), target)
    assert target.with_name("masked.onnx.data").read_bytes() != first
    assert names_of(tmp_path) == ["masked.onnx", "masked.onnx.data"]


@pytest.mark.usefixtures("low_limit")
def test_a_failed_export_of_a_large_model_leaves_the_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "masked.onnx"
    masktool.export(many_channels(), target)
    before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]

    def fail(self: object) -> None:
        raise MasktoolError("no")

    monkeypatch.setattr(storage.Staging, "check", fail)
    with pytest.raises(MasktoolError, match="no"):
        masktool.export(many_channels(channels=4), target)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before


def test_a_file_holds_what_was_opened_until_anything_but_its_metadata_changes(tmp_path: Path):
    model = ir.from_proto(many_channels())
    with storage.staging(tmp_path / "masked.onnx", model) as staged:
        staged.open()
        model.metadata_props["note"] = "written later"
        model.producer_name = "someone"
        staged.write()
        assert staged.holds_what_was_opened()
        kernel = model.graph.initializers["kernel"]
        kernel.const_value = ir.tensor(np.nextafter(kernel.const_value.numpy(), 2), name="kernel")
        staged.write()
        assert not staged.holds_what_was_opened()
        staged.open()
        assert staged.holds_what_was_opened()
        model.graph.outputs[0].shape = ir.Shape([None] * 4)
        staged.write()
        assert not staged.holds_what_was_opened()


@pytest.mark.parametrize("gradient", [None, "logit"])
def test_a_file_that_is_not_what_was_measured_is_opened_and_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gradient: str | None
):
    reopened = []
    original = write.check_written

    def check_written(path: Path, *rest: object) -> None:
        reopened.append(path)
        original(path, *rest)

    monkeypatch.setattr(write, "check_written", check_written)
    masktool.export(classifier(), tmp_path / "masked.onnx", gradient=gradient)
    assert len(reopened) == (gradient is not None)


@pytest.mark.usefixtures("low_limit")
def test_the_source_keeps_its_weights(tmp_path: Path):
    source = tmp_path / "model.onnx"
    onnx.save(many_channels(), source, save_as_external_data=True, location="masked.onnx.data", size_threshold=0)
    before = (tmp_path / "masked.onnx.data").read_bytes()
    with pytest.raises(MasktoolError, match="would overwrite the source's weights"):
        masktool.export(source, tmp_path / "masked.onnx")
    assert (tmp_path / "masked.onnx.data").read_bytes() == before
    assert names_of(tmp_path) == ["masked.onnx.data", "model.onnx"]


@pytest.mark.usefixtures("low_limit")
def test_a_large_model_in_memory_is_opened_and_fingerprinted():
    model, same = (ir.from_proto(many_channels()) for _ in range(2))
    assert is_large(model)
    images = random_images(1, 13, 10, 12)
    expected = onnxruntime.InferenceSession(many_channels().SerializeToString()).run(None, {"bands": images})[0]
    np.testing.assert_array_equal(open_model(model).run(None, {"bands": images})[0], expected)
    assert fingerprint(model) == fingerprint(same)
    changed = ir.from_proto(many_channels())
    kernel = changed.graph.initializers["kernel"]
    kernel.const_value = ir.tensor(2 * kernel.const_value.numpy(), name="kernel")
    assert fingerprint(changed) != fingerprint(model)


@pytest.mark.slow
def test_a_model_above_two_gibibytes(tmp_path: Path):
    text = f"""{HEADER}
    huge (float[N, 3, 32, 32] image) => (float[N, 4] scores)
    {{ h = Conv<pads = [1, 1, 1, 1]>(image, kernel) f = Flatten(h) m0 = Relu(f)
       {" ".join(f"m{i + 1} = MatMul(m{i}, w{i})" for i in range(HUGE_WEIGHTS))}
       scores = MatMul(m{HUGE_WEIGHTS}, last) }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    values = {value.name: value for node in model.graph for value in node.inputs if value.producer() is None}
    shapes = {"kernel": (8, 3, 3, 3), "last": (HUGE_SIDE, 4)}
    rng = np.random.default_rng(0)
    for name, value in values.items():
        if name != "image":
            weight = (rng.random(shapes.get(name, (HUGE_SIDE, HUGE_SIDE)), np.float32) - 0.5) * 0.04
            value.const_value = ir.tensor(weight, name=name)
            value.shape, value.type = ir.Shape(weight.shape), ir.TensorType(ir.DataType.FLOAT)
            model.graph.register_initializer(value)
    (tmp_path / "plain").mkdir()
    ir.save(model, tmp_path / "plain" / "huge.onnx", external_data="huge.onnx.data")
    del model, values
    assert is_large(load_source(tmp_path / "plain" / "huge.onnx").model)
    metadata = masktool.export(tmp_path / "plain" / "huge.onnx", tmp_path / "out" / "masked.onnx").metadata
    assert metadata.parity["ones"] == metadata.parity["left_out"] == metadata.parity["invariance"] == 0
    assert (tmp_path / "out" / "masked.onnx.data").stat().st_size > 2**31
    for path in (tmp_path / "plain").iterdir():
        path.unlink()
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with masktool.load(tmp_path / "elsewhere" / "masked.onnx", "cpu") as session:
        masks = np.ones((3, 1, 32, 32), np.float32)
        masks[1:, :, :16] = 0
        assert session(random_images(1, 3, 32, 32), masks).shape == (3, 4)
    for path in (tmp_path / "elsewhere").iterdir():  # pytest would keep gigabytes
        path.unlink()
