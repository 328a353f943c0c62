"""What a small file may ask for: each budget ends in one line that is true, and whose option can be given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks.small_graphs import parse

import masktool
from masktool.cli import read_limits
from masktool.errors import MasktoolError, reported_as
from masktool.exporters.domains import NORMAL
from masktool.exporters.probes import Probe
from masktool.limits import DIGITS, check_limit
from masktool.option_names import for_command_line

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
LARGE = (
    HEAD
    + """(float[N,{channels},{side},{side}] x) => (float[N,1] y) <float[1,{channels},1,1] k> {{
    c = Conv <strides = [64,64]> (x, k) p = GlobalAveragePool (c) y = Flatten (p) }}"""
)
WIDE = (
    HEAD
    + """(float[N,3,224,224] x) => (float[N,5000] y) <float[1,3,1,1] k> {
    s = Constant <value_ints = [5000, 3, 1, 1]> () w = Expand (k, s) c = Conv (x, w) p = GlobalAveragePool (c)
    y = Flatten (p) }"""
)


@pytest.mark.parametrize("number", [10**9, 10**DIGITS - 1])
def test_an_option_is_named_that_can_be_given(number: int) -> None:
    with pytest.raises(MasktoolError, match=rf"limits\(tensor={number}\)") as caught:
        check_limit("tensor", number)
    option = for_command_line(caught.value.message).split("--limit ")[1].split()[0]
    assert read_limits((option,)) == {"tensor": number}


@pytest.mark.parametrize("number", [10**DIGITS, 2**82])
def test_no_option_is_named_that_cannot_be_given(number: int) -> None:
    with pytest.raises(MasktoolError, match=f"got {number}$"):
        check_limit("tensor", number)


@pytest.mark.parametrize(("channels", "side"), [(1, 5000), (3, 2100)])
def test_images_of_tens_of_millions_of_numbers_are_asked_about(channels: int, side: int, tmp_path: Path) -> None:
    onnx.save(parse(LARGE.format(channels=channels, side=side)), tmp_path / "in.onnx")
    with pytest.raises(MasktoolError, match=rf"input 'x'.*limits\(values={channels * side * side}\)"):
        masktool.export(tmp_path / "in.onnx", tmp_path / "out.onnx")


def test_a_wide_layer_of_a_small_image_is_asked_about(tmp_path: Path) -> None:
    onnx.save(parse(WIDE), tmp_path / "in.onnx")
    with pytest.raises(MasktoolError, match=rf"limits\(tensor={5000 * 224 * 224}\)"):
        masktool.export(tmp_path / "in.onnx", tmp_path / "out.onnx")


def test_of_large_tensors_fewer_images_are_drawn() -> None:
    drawn = [Probe.draw((1, 8, 8), "NCHW", np.float32, NORMAL, computed=10**n).images.shape[0] for n in (6, 7, 8)]
    assert drawn == [8, 8, 2]


@pytest.mark.parametrize(
    "text",
    [
        "[ONNXRuntimeError] : 1 : FAIL : bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 160",
        "std::bad_alloc",
    ],
)
def test_memory_that_is_not_there_is_nobody_else_s_fault(text: str) -> None:
    with (
        pytest.raises(MasktoolError, match=r"^it does not run: not enough memory \(a place\)$"),
        reported_as("it does not run", where="a place", fix="this is a defect of masktool"),
    ):
        raise RuntimeError(text)


BROAD = """
<ir_version: 10, opset_import: ["" : 20]>
broad (float[N, 3, 64, 64] image) => (float[N, 10] scores)
<float[1024, 3, 3, 3] wide, float[1024, 10] weight>
{
    a = Conv<pads = [1, 1, 1, 1]>(image, wide)
    pooled = GlobalAveragePool(a)
    flat = Flatten(pooled)
    scores = Gemm(flat, weight)
}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_a_run_without_memory_says_so(tmp_path: Path) -> None:
    """Whatever the run: ONNX Runtime's own exception went through as an unexpected one where figures are measured."""
    code = f"""
import resource, sys
from pathlib import Path
import masktool
from masktool.exporters.trial import open_source
import numpy as np
import onnx_ir as ir
runnable = open_source(ir.load({str(tmp_path / "in.onnx")!r}), "image", None)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    runnable.run(np.zeros((64, 3, 64, 64), np.float32))
except masktool.MasktoolError as error:
    print(error)
"""
    onnx.save(parse(BROAD), tmp_path / "in.onnx")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("the model does not run: not enough memory\n", 0), done.stderr
