"""What tests of the WebGPU provider share: the exported files, and a table of what was measured at the end."""

import functools

import onnxruntime
import pytest

import masktool
from masktool import demo
from webgpu.networks import BUILT_IN, CLASS_OUTPUT, make_network
from webgpu.profiles import WEBGPU

FORMS = {
    "layer": {"masking": "layer"},
    "fill": {"masking": "fill"},
    "gradient": {"masking": "layer", "gradient": "log-softmax", "for_provider": "webgpu"},
}
"""Options of the export of each kind of file."""
MEASURED = []
"""Lines of the table that ends the run."""


class Files:
    """Exports every network in every form once.

    Args:
        folder: folder to write into.
        data_dir: function that returns the folder of test data, or skips the test.
    """

    def __init__(self, folder, data_dir):
        self.folder, self.data_dir = folder, data_dir

    @functools.cache  # noqa: B019 - one object, which lives as long as the tests
    def path(self, name, form):
        """Returns the path of a network in a form; the built-in model's masked file is the one that is shipped."""
        if name == BUILT_IN and form == "layer":
            return demo.model_path()
        path = self.folder / f"{name}.{form}.onnx"
        masktool.export(make_network(name, self.data_dir), path, **FORMS[form], **CLASS_OUTPUT.get(name, {}))
        return path


@pytest.fixture(scope="session", autouse=True)
def needs_webgpu():
    """Skips every test of this folder in an environment without the provider."""
    if WEBGPU not in onnxruntime.get_available_providers():
        pytest.skip("needs WebGPU: run scripts/webgpu_environment.sh FOLDER and then FOLDER/run pytest -m webgpu")


@pytest.fixture(scope="session")
def files(tmp_path_factory, request):
    """Files of all networks, exported when they are asked for."""
    return Files(tmp_path_factory.mktemp("files"), functools.partial(request.getfixturevalue, "data_dir"))


@pytest.fixture(scope="session")
def measured():
    """A list of lines to print when all has run."""
    return MEASURED


def pytest_terminal_summary(terminalreporter):
    """Prints what was measured."""
    if MEASURED:
        terminalreporter.section("on WebGPU, against the CPU")
        for line in MEASURED:
            terminalreporter.write_line(line)
