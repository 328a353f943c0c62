"""``check_export``: a file as it was written passes; one that was damaged in any way fails by the figure concerned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks.small_graphs import classifier
from networks.unusual_graphs import open_network

import masktool
from masktool import MasktoolError
from masktool.cli import run
from masktool.exporters.sources import load_source
from masktool.interface.check import check_export


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A source and its export, in the current directory."""
    monkeypatch.chdir(tmp_path)
    onnx.save(classifier(), "small.onnx")
    masktool.export("small.onnx", "masked.onnx")
    return Path("small.onnx"), Path("masked.onnx")


def damage(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def remove_guard(model: onnx.ModelProto) -> None:
    guard = next(node for node in model.graph.node if "image" in node.input and node.op_type == "Where")
    guard.op_type, image = "Identity", guard.input[1]
    del guard.input[:]
    guard.input.append(image)


def change_weights(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "kernel":
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.flip(values, 1).copy(), tensor.name))


def mix_images(model: onnx.ModelProto) -> None:
    last = next(node for node in model.graph.node if "scores" in node.output)
    last.output[0] = "scores_unmixed"
    model.graph.node.append(onnx.helper.make_node("Softmax", ["scores_unmixed"], ["scores"], axis=0))


def test_a_file_as_written_passes(files: tuple[Path, Path]):
    source, masked = files
    alone = check_export(masked)
    assert [verdict.figure for verdict in alone.verdicts] == [
        "left_out", "invariance", "batches", "one_image", "response", "record"
    ]  # fmt: skip
    assert not alone.failed
    both = check_export(masked, load_source(source))
    assert {"ones", "sha256"} <= {verdict.figure for verdict in both.verdicts}
    assert not both.failed


@pytest.mark.parametrize(
    ("change", "alone", "beside_source"),
    [
        (remove_guard, "invariance", "invariance"),
        (change_weights, "record", "ones"),
        (mix_images, "batches", "batches"),
    ],
)
def test_a_damaged_file_fails(files: tuple[Path, Path], change: Callable, alone: str, beside_source: str):
    source, masked = files
    damage(masked, change)
    assert alone in [verdict.figure for verdict in check_export(masked).failed]
    assert beside_source in [verdict.figure for verdict in check_export(masked, load_source(source)).failed]


def test_another_source_is_told_by_its_digest(files: tuple[Path, Path]):
    source, masked = files
    damage(source, lambda model: setattr(model, "doc_string", "saved again"))
    assert [verdict.figure for verdict in check_export(masked, load_source(source)).failed] == ["sha256"]


def test_a_source_with_other_outputs_is_refused(files: tuple[Path, Path]):
    other = classifier()
    other.graph.output[0].name = other.graph.node[-1].output[0] = "logits"
    with pytest.raises(
        MasktoolError, match=r"not the file's source.*outputs scores, got logits.*made from small\.onnx"
    ):
        check_export(files[1], load_source(other))


def test_a_source_with_another_image_input_is_refused(files: tuple[Path, Path]):
    other = classifier()
    other.graph.input[0].name = "x"
    for node in other.graph.node:
        node.input[:] = ["x" if name == "image" else name for name in node.input]
    with pytest.raises(MasktoolError, match=r"no such image input .*expected image, got x"):
        check_export(files[1], load_source(other))


def test_a_required_mask_and_an_open_size(tmp_path: Path):
    masktool.export(open_network(), tmp_path / "open.onnx")
    assert "left_out" not in [verdict.figure for verdict in check_export(tmp_path / "open.onnx").verdicts]
    assert not check_export(tmp_path / "open.onnx", load_source(open_network())).failed


def test_the_command_prints_a_table(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    assert run(["export", "--check", "masked.onnx"]) == 0
    captured = capsys.readouterr()
    heading, *rows = captured.out.splitlines()
    assert heading.split()[:4] == ["figure", "value", "limit", "verdict"]
    assert ["invariance", "0", "0", "ok"] in [row.split()[:4] for row in rows]
    assert "`masktool export --check masked.onnx SOURCE` compares with small.onnx too" in captured.err
    assert "every figure is within its limit" in captured.err
    assert run(["export", "--check", "masked.onnx", "small.onnx"]) == 0
    assert "sha256" in capsys.readouterr().out


def test_a_failed_figure_is_exit_code_1(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    damage(files[1], remove_guard)
    assert run(["export", "small.onnx", "--check", "masked.onnx"]) == 1
    captured = capsys.readouterr()
    assert ["invariance", "inf", "0", "FAILED"] in [row.split()[:4] for row in captured.out.splitlines()]
    assert "masked.onnx: failed: invariance" in captured.err
    assert run(["export", "--check", "masked.onnx", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is False
    figures = {entry["figure"]: entry for entry in document["figures"]}
    assert figures["invariance"]["passed"] is False
    assert figures["invariance"]["value"] is None
    assert figures["batches"]["passed"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--check", "small.onnx"], "not a masktool file (small.onnx)"),
        (["--check", "none.onnx"], "file not found (none.onnx)"),
        (["--check", "masked.onnx", "-o", "out.onnx"], "--check writes no file: --output"),
        (["--check", "masked.onnx", "--masking", "fill"], "--check writes no file: --masking"),
        ([], "Missing argument 'MODEL'"),
    ],
)
def test_bad_use_is_exit_code_2(
    files: tuple[Path, Path], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert run(["export", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
