"""Options of the WebGPU provider: ONNX Runtime knows them, and reads them where masktool writes them."""

from pathlib import Path

import onnxruntime
import pytest

from masktool import demo
from masktool.execution_providers import know_provider
from masktool.runtime.provider_options import ChosenProvider, choose_providers
from masktool.runtime.providers import try_providers

pytestmark = pytest.mark.webgpu
PROVIDER = know_provider("webgpu")


def test_the_library_has_the_options():
    libraries = Path(onnxruntime.__file__).parent.glob("capi/*.so*")
    contents = [path.read_bytes() for path in libraries]
    for option in PROVIDER.options:
        name = f"{PROVIDER.entry_prefix}{option.name}\0".encode()
        assert any(name in content for content in contents), option.name
        assert all(any(value.encode() in content for content in contents) for value in option.choices)


@pytest.mark.parametrize("option", ["preferredLayout", "powerPreference", "validationMode", "storageBufferCacheMode"])
def test_a_wrong_value_is_read_and_refused(option):
    """Given with the provider's name, as other providers want them, ONNX Runtime would ignore them."""
    session, reason = try_providers(demo.model_path(), [ChosenProvider(PROVIDER, {option: "none"})], None)
    assert session is None
    assert reason.endswith(": none")


def test_a_right_value_is_taken():
    chosen = choose_providers([PROVIDER], {"preferredLayout": "NCHW", "validationMode": "full"})
    session, reason = try_providers(demo.model_path(), chosen, None)
    assert reason is None
    assert session.get_providers()[0] == PROVIDER.runtime_name
