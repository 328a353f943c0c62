"""Options of providers: each is one that ONNX Runtime knows, and a wrong one is refused with the list."""

import importlib.util
import mmap
import re
from pathlib import Path

import pytest

from masktool import MasktoolError
from masktool.execution_providers import CUDA, NAMES, PROVIDERS, TENSORRT, ExecutionProvider, know_provider
from masktool.execution_providers.webgpu import WEBGPU
from masktool.runtime import MaskedSession
from masktool.runtime.provider_options import choose_providers
from runtime.models import write_model

CAPI = Path(importlib.util.find_spec("onnxruntime").origin).parent / "capi"
ADDRESSES = {
    *("user_compute_stream", "has_user_compute_stream", "trt_onnx_model_folder_path"),
    *("trt_onnx_bytestream", "trt_onnx_bytestream_size"),
    *("trt_external_data_bytestream", "trt_external_data_bytestream_size"),
}
"""Options that hold an address in memory, or say something of what lies at one."""


def words_of(library, pattern):
    """Returns the texts of a library that are a pattern from end to end."""
    if not (CAPI / library).exists():
        pytest.skip(f"this ONNX Runtime has no {library}")
    with (CAPI / library).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return {found[1].decode() for found in re.finditer(rb"\0(" + pattern + rb")(?=\0)", content)}


def names(provider):
    return {option.name for option in provider.options}


def test_tensorrt_has_the_options_of_its_library():
    assert words_of("libonnxruntime_providers_tensorrt.so", rb"device_id|trt_\w+") - ADDRESSES == names(TENSORRT)


def test_the_library_of_cuda_has_the_options():
    assert words_of("libonnxruntime_providers_cuda.so", "|".join(names(CUDA)).encode()) == names(CUDA)


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_a_record_is_whole(provider):
    assert provider.devices
    assert len(names(provider)) == len(provider.options)
    assert all((option.kind == "choice") == bool(option.choices) for option in provider.options)
    assert all(option.meaning for option in provider.options)
    assert {provider.name, *provider.aliases} <= set(NAMES)
    assert know_provider(provider.name) is know_provider(provider.runtime_name) is provider
    assert set(provider.systems) <= {"linux", "win32", "darwin"}
    assert choose_providers([provider], dict(provider.defaults))[0].options == dict(provider.defaults)


def options_of(providers, **given):
    return [dict(each.options) for each in choose_providers(providers, given)]


def test_masktool_keeps_tf32_off_until_it_is_asked_for():
    assert options_of([CUDA]) == [{"use_tf32": "0"}]
    assert options_of([CUDA], use_tf32=True) == [{"use_tf32": "1"}]


@pytest.mark.parametrize("value", [True, "on", "True", 1, "1"])
def test_a_switch_is_spelled_as_its_provider_reads_it(value):
    assert options_of([CUDA], prefer_nhwc=value)[0]["prefer_nhwc"] == "1"
    openvino = know_provider("openvino")
    assert options_of([openvino], enable_qdq_optimizer=value)[0]["enable_qdq_optimizer"] == "True"


def test_each_provider_takes_what_it_has():
    given = {"device_id": 1, "trt_fp16_enable": False, "gpu_mem_limit": "2000"}
    assert options_of([TENSORRT, CUDA], **given) == [
        {"device_id": "1", "trt_fp16_enable": "0"},
        {"device_id": "1", "gpu_mem_limit": "2000", "use_tf32": "0"},
    ]


def test_masktool_judges_no_option_of_a_provider_that_it_does_not_know():
    foreign = ExecutionProvider(name="QNNExecutionProvider", runtime_name="QNNExecutionProvider", title="QNN")
    assert options_of([foreign], backend_path="QnnHtp.so") == [{"backend_path": "QnnHtp.so"}]


@pytest.mark.parametrize(
    ("providers", "given", "message"),
    [
        ("cuda", {"use_tf23": 0}, r"unknown option of CUDA \(use_tf23\): expected some of device_id, gpu_mem_limit, "),
        (
            ["tensorrt", "cuda"],
            {"x": 0},
            r"unknown option of TensorRT and CUDA \(x\): expected some of device_id, ",
        ),
        ("cpu", {"device_id": 0}, r"unknown option of CPU \(device_id\): expected none: it has no options"),
        ("cuda", {"use_tf32": "maybe"}, r"option out of range \(use_tf32\): expected 0 \| false .*, got 'maybe'"),
        ("cuda", {"gpu_mem_limit": -1}, r"\(gpu_mem_limit\): expected a whole number from 0, got -1"),
        ("cuda", {"gpu_mem_limit": "2 GB"}, r"\(gpu_mem_limit\): expected a whole number from 0, got '2 GB'"),
        ("cuda", {"cudnn_conv_algo_search": "fast"}, r"expected EXHAUSTIVE \| HEURISTIC \| DEFAULT, got 'fast'"),
        ("auto", {"use_tf32": 1}, r'need the provider.s name \(use_tf32\); add providers="cuda"'),
        (None, {"use_tf32": 1}, r"need the provider.s name"),
    ],
)
def test_what_is_refused(tmp_path, providers, given, message):
    with pytest.raises(MasktoolError, match=message):
        MaskedSession(write_model(tmp_path / "m.onnx"), providers=providers, provider_options=given)


@pytest.mark.parametrize(
    ("provider", "name"),
    [(CUDA, "enable_cuda_graph"), (TENSORRT, "trt_cuda_graph_enable"), (WEBGPU, "enableGraphCapture")],
)
def test_no_run_is_recorded(provider, name):
    """Sessions give every batch in memory of its own, which what was recorded never looks at."""
    with pytest.raises(MasktoolError, match=rf"no run can be recorded: .* \({name}\); leave that out"):
        choose_providers([provider], {name: 1})
