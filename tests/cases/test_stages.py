"""Whatever ONNX's libraries raise becomes one line that says at which stage, and keeps the cause."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import masktool
from masktool.errors import MasktoolError
from masktool.exporters.domains import Domain
from masktool.exporters.probes import Probe

CORPUS = Path(__file__).parent / "corpus"


def network(opset: int = 18) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}]> g (float[N,3,8,8] x) => (float[N,4] y) {{
        c = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (c) p = GlobalAveragePool (r) y = Flatten (p) }}"""
    )
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return model


def fails(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("raised by a library")


@pytest.mark.parametrize(
    ("library", "stage", "opset"),
    [
        ("onnx_ir.passes.common.InlinePass.__call__", "functions cannot be written out", 18),
        ("onnx.version_converter.convert_version", "the opset cannot be lifted", 13),
        ("onnxscript.optimizer.fold_constants", "what depends on constants alone", 18),
        ("onnx_ir.Model.clone", "the graph cannot be brought into the form", 18),
        ("masktool.exporters.canonical.common.RemoveUnusedNodesPass.__call__", "the graph cannot be brought", 18),
        ("masktool.exporters.storage.ir.to_proto", "cannot be written as a protocol buffer", 18),
        ("onnx.checker.check_model", "ONNX's checker refuses", 18),
        ("masktool.exporters.inference.ShapeInferencePass.__call__", "shapes cannot be inferred", 18),
    ],
)
def test_each_stage_names_itself(
    library: str, stage: str, opset: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(opset)
    monkeypatch.setattr(library, fails)
    with pytest.raises(MasktoolError) as caught:
        masktool.export(model, tmp_path / "m.onnx")
    assert stage in str(caught.value)
    assert "raised by a library" in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "damaged" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "masking", "said"),
    [
        ("cast-to-fold", "layer", "what depends on constants alone cannot be computed"),
        ("no-nodes-fill", "fill", "computes nothing"),
        ("no-nodes-fill", "layer", "computes nothing"),
    ],
)
def test_files_of_the_corpus(name: str, masking: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(MasktoolError, match=said):
        masktool.export(CORPUS / f"{name}.onnx", tmp_path / "out.onnx", masking=masking)


def test_what_libraries_log_is_not_shown_beside_the_error(tmp_path: Path) -> None:
    """onnx_ir logs a traceback of its own where shapes cannot be inferred, and goes on."""
    command = [sys.executable, "-m", "masktool", "export", str(CORPUS / "cast-to-fold.onnx"), "-o", "out.onnx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert [line[:16] for line in done.stderr.splitlines()] == ["masktool: error:"]


def test_a_text_that_protobuf_does_not_take(tmp_path: Path) -> None:
    model = ir.from_proto(network())
    model.graph.node(1).op_type = "Relu\udcff"  # half of a character
    with pytest.raises(MasktoolError, match="cannot be"):
        masktool.export(model, tmp_path / "m.onnx")


def test_of_large_images_fewer_are_drawn() -> None:
    counts = [
        len(Probe.draw((1, side, side), "NCHW", np.float32, Domain("normal")).images) for side in (200, 1500, 3200)
    ]
    assert counts == [8, 3, 2]


def test_a_few_bytes_that_declare_a_large_image_are_beyond_a_limit(tmp_path: Path) -> None:
    with pytest.raises(MasktoolError, match=r"limits\(values=25000000\)"):
        masktool.export(CORPUS / "bomb-5000.onnx", tmp_path / "out.onnx")


@pytest.mark.slow
def test_they_stay_within_bounds_if_it_is_raised(tmp_path: Path) -> None:
    """228 bytes that declare 5,000 x 5,000 took 6.8 GB."""
    code = """import sys, masktool, masktool.limits
with masktool.limits.limits(values=25_000_000):
    masktool.export(sys.argv[1], sys.argv[2])"""
    memory = 5 * 2**30

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    command = [sys.executable, "-c", code, str(CORPUS / "bomb-5000.onnx"), str(tmp_path / "out.onnx")]
    subprocess.run(command, preexec_fn=limited, check=True, timeout=250)
    assert (tmp_path / "out.onnx").exists()
