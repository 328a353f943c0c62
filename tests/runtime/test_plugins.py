"""Providers that are plugins, beside an ONNX Runtime that is simulated: none with a device can be had everywhere."""

import dataclasses
import importlib.metadata
import sys
from types import SimpleNamespace

import pytest

from masktool import MasktoolError
from masktool.execution_providers import CUDA, know_provider
from masktool.runtime import MaskedSession, plugins, providers
from masktool.runtime.provider_options import ChosenProvider, choose_providers, options_for_plugin
from runtime.models import write_model

WEBGPU = know_provider("webgpu")
PLUGIN = dataclasses.replace(WEBGPU, plugin="simulated_plugin")
GPU, PROCESSOR = "a GPU", "a CPU"


def device(name, kind):
    return SimpleNamespace(ep_name=name, device=SimpleNamespace(type=kind))


class SimulatedOptions:
    """Records what is added to a session's options."""

    def __init__(self):
        self.added, self.entries = [], {}

    def add_provider(self, name, options):
        self.added.append((name, options))

    def add_provider_for_devices(self, devices, options):
        self.added.append(([each.ep_name for each in devices], options))

    def add_session_config_entry(self, name, value):
        self.entries[name] = value


@pytest.fixture
def runtime(monkeypatch, tmp_path):
    """An ONNX Runtime that lists the devices of a plugin once its library is registered, and the plugin's package."""
    (tmp_path / "simulated_plugin.py").write_text("def get_library_path():\n    return 'library.so'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "simulated_plugin", raising=False)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.4.0")
    monkeypatch.setattr(plugins, "REGISTERED", set())
    made = SimpleNamespace(
        __version__="1.31.1",
        listed=[device("CPUExecutionProvider", PROCESSOR)],
        behind=[device(WEBGPU.runtime_name, GPU), device(WEBGPU.runtime_name, GPU)],
        registered=[],
        opened=[],
        built=["CUDAExecutionProvider", "CPUExecutionProvider"],
        OrtHardwareDeviceType=SimpleNamespace(GPU=GPU, CPU=PROCESSOR),
        SessionOptions=SimulatedOptions,
    )

    def register(name, path):
        made.registered.append((name, path))
        made.listed = made.listed + made.behind

    made.get_ep_devices = lambda: made.listed
    made.get_available_providers = lambda: made.built
    made.register_execution_provider_library = register
    made.InferenceSession = lambda _, options, **given: made.opened.append((options, given))
    monkeypatch.setattr(plugins, "import_onnxruntime", lambda: made)
    monkeypatch.setattr(providers, "import_onnxruntime", lambda: made)
    return made


def test_a_library_is_registered_once_under_its_providers_name(runtime):
    assert [each.ep_name for each in plugins.list_devices(PLUGIN)] == [WEBGPU.runtime_name] * 2
    assert len(plugins.list_devices(PLUGIN)) == 2
    assert runtime.registered == [(WEBGPU.runtime_name, "library.so")]


def test_a_library_that_the_program_registered_is_not_registered_again(runtime):
    runtime.listed += runtime.behind
    assert plugins.lists_gpu(PLUGIN)
    assert runtime.registered == []


def test_a_plugin_without_a_device_says_so(runtime):
    runtime.behind = []
    assert providers.find_missing_build(PLUGIN) == "onnxruntime-ep-webgpu 0.4.0 finds no device on this machine"
    assert not plugins.lists_gpu(PLUGIN)
    assert len(runtime.registered) == 1


def test_a_plugin_that_is_not_installed_says_so(runtime):
    absent = dataclasses.replace(WEBGPU, plugin="no_such_plugin")
    assert providers.find_missing_build(absent) == (
        "the installed ONNX Runtime 1.31.1 is built without WebGpuExecutionProvider, and onnxruntime-ep-webgpu is not "
        "installed"
    )


def test_a_library_that_cannot_be_registered_says_why(runtime):
    def register(name, path):
        raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : needs ONNX Runtime 1.40\nmore")

    runtime.register_execution_provider_library = register
    assert providers.find_missing_build(PLUGIN) == (
        "onnxruntime-ep-webgpu 0.4.0 cannot be loaded: needs ONNX Runtime 1.40"
    )


def test_a_session_takes_one_device_of_a_plugin_and_its_options(runtime, tmp_path):
    chosen = [ChosenProvider(PLUGIN, {"preferredLayout": "NCHW"}), *choose_providers([CUDA, know_provider("cpu")])]
    providers.make_session(tmp_path / "m.onnx", chosen, threads=1)
    ((options, given),) = runtime.opened
    assert options.added == [
        (["WebGpuExecutionProvider"], {"preferredLayout": "NCHW"}),
        ("CUDAExecutionProvider", {"use_tf32": "0"}),
    ]
    assert given == {"enable_fallback": 0}


def test_what_is_built_in_gets_its_options_where_it_reads_them(runtime, tmp_path):
    runtime.built += ["WebGpuExecutionProvider"]
    chosen = choose_providers([WEBGPU, CUDA, know_provider("cpu")], {"preferredLayout": "NCHW"})
    providers.make_session(tmp_path / "m.onnx", chosen, threads=None)
    ((options, given),) = runtime.opened
    assert options.entries == {
        "ep.webgpuexecutionprovider.preferredLayout": "NCHW",
        "optimization.disable_specified_optimizers": "ConvActivationFusion",
    }
    assert given["providers"] == [
        ("WebGpuExecutionProvider", {}),
        ("CUDAExecutionProvider", {"use_tf32": "0"}),
        ("CPUExecutionProvider", {}),
    ]


def test_a_plugin_gets_the_options_that_it_reads():
    openvino = know_provider("openvino")
    (chosen,) = choose_providers([openvino], {"load_config": "config.json"})
    assert chosen.options == {"load_config": "config.json", "precision": "ACCURACY"}
    assert options_for_plugin(chosen) == {"load_config": "config.json"}
    with pytest.raises(
        MasktoolError, match=r"ep-openvino ignores an option \(num_streams\): expected some of load_config"
    ):
        options_for_plugin(choose_providers([openvino], {"num_streams": 2})[0])
    assert options_for_plugin(choose_providers([PLUGIN], {"preferredLayout": "NCHW"})[0]) == {"preferredLayout": "NCHW"}


@pytest.mark.parametrize("name", ["webgpu", "openvino"])
def test_what_is_not_installed_here_says_so(tmp_path, name):
    if providers.has_provider(know_provider(name)):
        pytest.skip("it is installed here")
    package = know_provider(name).package
    with pytest.raises(
        MasktoolError, match=rf"provider cannot load .* is built without \w+, and {package} is not installed"
    ):
        MaskedSession(write_model(tmp_path / "m.onnx"), providers=name)
