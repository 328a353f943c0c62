"""The example in C#, compiled against ONNX Runtime's sources in C#, by every method."""

import pytest
from combinations import every_value

from examples.conftest import find
from examples.dotnet import Dotnet, write_as_csharp_8
from examples.files import EXAMPLES
from examples.programs import LONGEST, assert_map_is_pythons, assert_other_sizes_are_refused
from masktool.embedding.method import EMBEDDED_METHODS

SOURCE = EXAMPLES / "csharp" / "Explain.cs"


@pytest.fixture(scope="module")
def program(onnxruntime_library, tmp_path_factory):
    """The example, compiled."""
    sources = find("onnxruntime_csharp", "OrtValue.shared.cs").parent
    folder = tmp_path_factory.mktemp("csharp")
    dotnet = Dotnet(find("dotnet", "dotnet").parent, folder)
    interface = folder / "Microsoft.ML.OnnxRuntime.dll"
    dotnet.compile(write_as_csharp_8(sources, folder / "sources"), interface, "-target:library", "-unsafe")
    dotnet.compile([SOURCE], folder / "explain.dll", f"-reference:{interface}", "-warn:4", "-warnaserror")
    (folder / "libonnxruntime.so").symlink_to(onnxruntime_library)  # searched for beside the program, by this name
    return dotnet.command(folder / "explain.dll")


@every_value(method=sorted(EMBEDDED_METHODS), target=["top", "required"])
def test_the_map_is_pythons(method, target, files, program, tmp_path):
    assert_map_is_pythons(program, files, method, target, tmp_path)


def test_an_input_of_another_size_is_refused(files, program, tmp_path):
    assert_other_sizes_are_refused(program, files, tmp_path)


def test_it_is_short():
    assert len(SOURCE.read_text(encoding="utf-8").splitlines()) <= LONGEST
