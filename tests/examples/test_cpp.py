"""The example in C++, compiled against ONNX Runtime's header and library, by every method."""

import shutil

import pytest
from combinations import every_value

from examples.conftest import find
from examples.files import EXAMPLES
from examples.programs import LONGEST, assert_map_is_pythons, assert_other_sizes_are_refused, run
from masktool.embedding.method import EMBEDDED_METHODS

SOURCE = EXAMPLES / "cpp" / "explain.cpp"


@pytest.fixture(scope="module")
def program(onnxruntime_library, tmp_path_factory):
    """The example, compiled."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    headers = find("include", "onnxruntime_cxx_api.h").parent
    folder = tmp_path_factory.mktemp("cpp")
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", headers]
    linked = [onnxruntime_library, f"-Wl,-rpath,{onnxruntime_library.parent}"]
    done = run([compiler], *options, SOURCE, *linked, "-o", "explain", folder=folder)
    assert done.returncode == 0, done.stderr
    return [folder / "explain"]


@every_value(method=sorted(EMBEDDED_METHODS), target=["top", "required"])
def test_the_map_is_pythons(method, target, files, program, tmp_path):
    assert_map_is_pythons(program, files, method, target, tmp_path)


def test_an_input_of_another_size_is_refused(files, program, tmp_path):
    assert_other_sizes_are_refused(program, files, tmp_path)


def test_it_is_short():
    assert len(SOURCE.read_text(encoding="utf-8").splitlines()) <= LONGEST
