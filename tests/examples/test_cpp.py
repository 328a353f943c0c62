"""The example in C++, compiled against ONNX Runtime's header and library, by every method."""

import shutil
import subprocess

import numpy as np
import pytest

from examples.conftest import find
from examples.files import EXAMPLES, LABELS

LONGEST = 80
"""Lines: a newcomer reads it at one go."""
SOURCE = EXAMPLES / "cpp" / "explain.cpp"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The example, compiled."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    headers = find("include", "onnxruntime_cxx_api.h").parent
    found = sorted(find("node_modules", "onnxruntime-node", "bin").glob("napi-*/linux/x64/libonnxruntime.so.1"))
    if not found:
        pytest.skip("onnxruntime-node has no library for Linux on x64")
    path = tmp_path_factory.mktemp("cpp") / "explain"
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", headers, f"-Wl,-rpath,{found[0].parent}"]
    done = subprocess.run(
        [compiler, *options, SOURCE, found[0], "-o", path], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return path


def run(program, *arguments, folder):
    return subprocess.run(
        [program, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize("target", ["top", "required"])
def test_the_map_is_pythons(method, target, files, program, tmp_path):
    (tmp_path / "image.f32").write_bytes(files.image.tobytes())
    done = run(program, files.path(method, target=target), "image.f32", "map.f32", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    expected = files.expected(method)
    label = LABELS[int(done.stdout.removeprefix("class ").partition(",")[0])]
    expected.assert_same(label, expected.probability, np.fromfile(tmp_path / "map.f32", np.float32))


def test_an_input_of_another_size_is_refused(files, program, tmp_path):
    (tmp_path / "image.f32").write_bytes(files.image.tobytes()[4:])
    done = run(program, files.path("occlusion"), "image.f32", "map.f32", folder=tmp_path)
    assert done.returncode == 1
    assert f"must hold {files.image.size} float32 numbers" in done.stderr


def test_it_is_short():
    assert len(SOURCE.read_text(encoding="utf-8").splitlines()) <= LONGEST
