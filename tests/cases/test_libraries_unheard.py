"""What onnx_ir and onnxscript log of a graph reaches nobody who did not ask for it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import masktool
from masktool import MasktoolError
from masktool.streams import unheard

IMPORT_MISSING = (
    """<ir_version: 9, opset_import: ["" : 18]> g (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Relu (x) }"""
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file whose node belongs to a domain that is not imported: shape inference fails, and onnx_ir logs it."""
    model = onnx.parser.parse_model(IMPORT_MISSING)
    model.graph.node[0].domain = "nowhere"
    onnx.save(model, tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


def test_the_command_says_one_line(source: Path) -> None:
    command = [sys.executable, "-m", "masktool", "export", str(source), "-o", str(source.with_name("out.onnx"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("masktool: error: ")
    assert done.stderr.count("\n") == 1


def test_the_library_says_nothing(source: Path) -> None:
    code = "import masktool, sys\ntry:\n    masktool.export(*sys.argv[1:])\nexcept masktool.MasktoolError:\n    pass"
    command = [sys.executable, "-c", code, str(source), str(source.with_name("out.onnx"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_who_has_set_up_logging_hears_it(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MasktoolError):
        masktool.export(source, source.with_name("out.onnx"))
    assert any(record.name.startswith("onnx_ir") for record in caplog.records)


def test_nothing_stays_behind() -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    with unheard():
        assert len(root.handlers) == len(before) + 1
    assert root.handlers == before
