"""Graphs whose lengths ONNX infers as negative, at which a Slice ends the process: refused by name, in a child each."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir
import pytest
from onnx import numpy_helper

import masktool
from masktool.errors import MasktoolError
from masktool.exporters.forked import CAN_FORK, LIVED, Ending, try_in_child
from masktool.exporters.onnx_door import open_proto
from masktool.exporters.size_trial import size_settles
from masktool.exporters.storage import opens

HEAD = '<ir_version: 10, opset_import: ["" : 20, "own" : 1]> g (float[{image}] image) => (float[N,4] scores) '
TENTHS = ", ".join(["0.1"] * 12)
WEIGHTS = f"""<float[4,3,1,1] w = {{{TENTHS}}}, float[3,4,1,1] w2 = {{{TENTHS}}},
    int64[1] st = {{0}}, int64[1] en = {{9}}, int64[1] ax = {{2}}> """
SLICED = " s = Slice (x, st, en, ax)"
END = " c = Conv (s, w) p = GlobalAveragePool (c) scores = Flatten (p) }"
FIXED = "N,3,16,16"
CASES = {
    "pool": (FIXED, "x = MaxPool <kernel_shape = [40, 1]> (image)", "of 16 x 16 is too small.*MaxPool 'x'.*3, -23, 16"),
    "pool-then-relu": (
        FIXED,
        "y = AveragePool <kernel_shape = [1, 99]> (image) x = Relu (y)",
        "of 16 x 16 is too small.*AveragePool 'y'.*16, -82",
    ),
    "dilated": (
        FIXED,
        "x = MaxPool <kernel_shape = [3, 3], dilations = [30, 30]> (image)",
        "of 16 x 16 is too small.*MaxPool 'x'",
    ),
    "transposed": (
        FIXED,
        "x = ConvTranspose <pads = [40, 0, 40, 0]> (image, w2)",
        "of 16 x 16 is too small.*ConvTranspose 'x'.*4, -64, 16",
    ),
    "pad": (
        FIXED,
        "q = Constant <value_ints = [0, 0, -20, 0, 0, 0, -20, 0]> () x = Pad (image, q)",
        "of 16 x 16 is too small.*Pad 'x'.*3, -24, 16",
    ),
    "behind-another-slice": (
        FIXED,
        "z = Slice (image, st, en, ax) x = MaxPool <kernel_shape = [12, 12]> (z)",
        "of 16 x 16 is too small.*MaxPool 'x'.*3, -2, 5",
    ),
    "branch": (
        FIXED,
        "y = MaxPool <kernel_shape = [40, 1]> (image) b = Constant <value = bool {1}> () x = If (b) <"
        "then_branch = t () => (float[N,3,A,B] o) { o = Slice (y, st, en, ax) }, "
        "else_branch = e () => (float[N,3,A,B] q) { q = Identity (y) }>",
        "of 16 x 16 is too small.*MaxPool 'y'",
    ),
    "scales-computed": (
        FIXED,
        "q = Constant <value_floats = [1.0, 1.0, -2.0, 1.0]> () r = Identity (q) x = Resize (image, , r)",
        "(-?length below 0).*(Resize 'x'|Slice 's')",
    ),
    "pads-computed": (
        FIXED,
        "q = Constant <value_ints = [0, 0, 20, 0, 0, 0, 20, 0]> () r = Neg (q) x = Pad (image, r)",
        "(too small|length below 0).*(Pad 'x'|Slice 's')",
    ),
}


def network(image: str, nodes: str, sliced: str = SLICED) -> onnx.ModelProto:
    """Returns a network of those nodes, of which ``x`` is sliced; ONNX's checker would end this process."""
    return onnx.parser.parse_model(HEAD.format(image=image) + WEIGHTS + "{ " + nodes + sliced + END)


def export_in_child(path: Path, *options: str) -> tuple[int, str]:
    """Returns exit code and message of ``masktool export``."""
    arguments = ["export", str(path), "-o", str(path.with_name("out.onnx")), *options]
    found = subprocess.run(
        [sys.executable, "-m", "masktool", *arguments], capture_output=True, text=True, check=False, timeout=200
    )
    return found.returncode, found.stderr


@pytest.mark.skipif(not CAN_FORK, reason="nothing is done in a child on this system")
@pytest.mark.parametrize("name", CASES)
def test_a_length_below_0_is_refused_by_the_node_that_gives_it(name: str, tmp_path: Path) -> None:
    image, nodes, said = CASES[name]
    onnx.save(network(image, nodes), tmp_path / "in.onnx")
    code, message = export_in_child(tmp_path / "in.onnx")
    assert code == 2, message
    assert len(message.strip().splitlines()) == 1
    assert re.search(said, message), message


OPEN = network("N,3,H,W", "x = AveragePool <kernel_shape = [300, 7]> (image)")


@pytest.mark.skipif(not CAN_FORK, reason="nothing is done in a child on this system")
@pytest.mark.parametrize("size", [(5, 5), (298, 224)])
def test_an_input_size_that_is_too_small_is_named(size: tuple[int, int], tmp_path: Path) -> None:
    onnx.save(OPEN, tmp_path / "in.onnx")
    code, message = export_in_child(tmp_path / "in.onnx", "--input-size", *map(str, size))
    assert code == 2, message
    assert re.search(f"an image of {size[0]} x {size[1]} is too small.*AveragePool 'x'.*a larger --input-size", message)


@pytest.mark.skipif(not CAN_FORK, reason="nothing is done in a child on this system")
def test_a_size_that_is_tried_ends_nothing() -> None:
    model = onnx_ir.from_proto(OPEN)
    assert try_in_child(lambda: str(size_settles({"another"}, model, "image", "layer", "published"))) == Ending(
        None, "True"
    )
    assert try_in_child(
        lambda: str(size_settles({node.name or "" for node in model.graph}, model, "image", "layer", "published"))
    )


@pytest.mark.skipif(not CAN_FORK, reason="nothing is done in a child on this system")
def test_a_file_that_ends_a_process_is_none_that_opens(tmp_path: Path) -> None:
    onnx.save(network(FIXED, "x = MaxPool <kernel_shape = [40, 1]> (image)"), tmp_path / "in.onnx")
    onnx.save(network(FIXED, "x = Identity (image)"), tmp_path / "good.onnx")
    assert not opens(tmp_path / "in.onnx")
    assert opens(tmp_path / "good.onnx")


@pytest.mark.skipif(not CAN_FORK, reason="nothing is done in a child on this system")
def test_a_tail_behind_such_a_slice_ends_nothing(tmp_path: Path) -> None:
    model = network(FIXED, "x = MaxPool <kernel_shape = [40, 1]> (image)")
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    model.graph.node.append(
        onnx.helper.make_node("ZipMap", ["scores"], ["map"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3])
    )
    kind = onnx.helper.make_sequence_type_proto(
        onnx.helper.make_map_type_proto(onnx.TensorProto.INT64, onnx.helper.make_tensor_type_proto(1, []))
    )
    model.graph.output[0].CopyFrom(onnx.helper.make_value_info("map", kind))
    onnx.save(model, tmp_path / "in.onnx")
    code, message = export_in_child(tmp_path / "in.onnx")
    assert code == 2, message
    assert "too small for this node (in.onnx, MaxPool 'x')" in message


def test_without_a_slice_the_line_is_the_same(tmp_path: Path) -> None:
    model = network(FIXED, "x = MaxPool <kernel_shape = [40, 1]> (image)", sliced=" s = Relu (x)")
    with pytest.raises(MasktoolError, match=r"an image of 16 x 16 is too small for this node .*MaxPool 'x'"):
        masktool.export(model, tmp_path / "out.onnx")


def test_a_slice_that_is_well_is_exported(tmp_path: Path) -> None:
    model = network(FIXED, "x = MaxPool <kernel_shape = [16, 1]> (image)")
    assert masktool.export(model, tmp_path / "out.onnx").metadata.parity["ones"] == 0


@pytest.mark.skipif(not CAN_FORK, reason="nothing is done in a child on this system")
def test_a_child_says_how_it_ended() -> None:
    def abort() -> str:
        os.abort()

    def fail() -> str:
        raise KeyError("x")

    changed: list[int] = []
    assert try_in_child(abort) == Ending("SIGABRT", "")
    assert try_in_child(fail) == Ending(None, "")
    assert try_in_child(lambda: changed.append(1) or "done") == Ending(None, "done")
    assert changed == []


@pytest.mark.skipif(not CAN_FORK, reason="nothing is done in a child on this system")
def test_a_child_that_hangs_is_given_up() -> None:
    started = time.monotonic()
    assert try_in_child(lambda: signal.pause() or "", patience=0.2) == LIVED
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -2.0, 0.0])
@pytest.mark.parametrize("node", ["x = Resize (image, , r)", "x = Resize (image, st, r)"])
def test_scales_that_are_none_are_refused_at_the_door(scale: float, node: str) -> None:
    model = network(FIXED, node)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, scale, 1], np.float32), "r"))
    with pytest.raises(MasktoolError, match=r"no length can be multiplied \(file, Resize 'x'\): .* above 0, got"):
        open_proto(model, "file")


def test_scales_in_constants_and_attributes_are_seen_too() -> None:
    constant = network(FIXED, "r = Constant <value_floats = [1.0, 1.0, -2.0, 1.0]> () x = Resize (image, , r)")
    with pytest.raises(MasktoolError, match=r"Resize 'x'.*got -2\.0"):
        open_proto(constant, "file")
    attribute = network(FIXED, "x = Upsample <scales = [1.0, 1.0, 0.0, 1.0]> (image)")
    attribute.opset_import[0].version = 8
    for node in [node for node in attribute.graph.node if node.op_type == "Slice"]:
        attribute.graph.node.remove(node)
    attribute.graph.node[1].input[0] = "x"
    with pytest.raises(MasktoolError, match=r"Upsample 'x'.*got 0\.0"):
        open_proto(attribute, "file")


def test_a_huge_scale_meets_the_limit_of_a_tensor() -> None:
    model = network(FIXED, "x = Resize (image, , r)")
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 1e30, 1], np.float32), "r"))
    with pytest.raises(MasktoolError, match=r"beyond a limit of masktool \(file, Resize 'x'\)"):
        open_proto(model, "file")
