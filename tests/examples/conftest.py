"""Runtimes beside Python's, where they are installed: see scripts/fetch_runtimes.sh."""

import os
import shutil
from pathlib import Path

import pytest

from examples.files import EXAMPLES, ExplainedFiles
from masktool.embedding.method import EMBEDDED_METHODS

RUNTIMES_VARIABLE = "MASKTOOL_RUNTIMES"
"""The folder that scripts/fetch_runtimes.sh filled."""


def find(*parts):
    """Returns a path in the folder of runtimes; without it, the test is skipped and says what to do."""
    folder = os.environ.get(RUNTIMES_VARIABLE)
    if not folder:
        pytest.skip(f"needs other runtimes: run scripts/fetch_runtimes.sh FOLDER and set {RUNTIMES_VARIABLE}=FOLDER")
    path = Path(folder, *parts)
    if not path.exists():
        pytest.skip(f"{path} is missing: see what scripts/fetch_runtimes.sh says")
    return path


@pytest.fixture(scope="session")
def node():
    """The program; the test is skipped where there is none."""
    if shutil.which("node") is None:
        pytest.skip("needs node")
    return shutil.which("node")


@pytest.fixture(scope="session")
def node_modules(node):
    """The folder of npm's packages."""
    find("node_modules", "onnxruntime-node")
    return find("node_modules")


@pytest.fixture(scope="session")
def onnxruntime_library():
    """ONNX Runtime's library for Linux, as onnxruntime-node carries it."""
    found = sorted(find("node_modules", "onnxruntime-node", "bin").glob("napi-*/linux/x64/libonnxruntime.so.1"))
    if not found:
        pytest.skip("onnxruntime-node has no library for Linux on x64")
    return found[0]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Files that explain themselves, by each method."""
    return ExplainedFiles(tmp_path_factory.mktemp("explained"))


@pytest.fixture(params=sorted(EMBEDDED_METHODS))
def method(request):
    return request.param


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    """A copy of the examples, so that packages may lie beside them."""
    folder = tmp_path_factory.mktemp("copy") / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("node_modules", "ort*", "*.onnx"))
    return folder
