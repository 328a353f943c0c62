"""``masktool.doctor`` on providers: what is missing, what mends it, and whether what loads computes what the CPU does.

Sessions on a GPU are simulated: the CPU's own, with something done to the scores.
"""

import dataclasses
import importlib.metadata
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from masktool.execution_providers import CPU, CUDA, PROVIDERS, TENSORRT, know_provider
from masktool.interface import provider_checks
from masktool.interface.provider_checks import check_options, check_provider, check_providers, mend
from masktool.interface.provider_proof import ProviderProof
from masktool.runtime import drivers, plugins, providers
from masktool.runtime.provider_options import choose_providers

WEBGPU, OPENVINO, MIGRAPHX = map(know_provider, ("webgpu", "openvino", "rocm"))


@pytest.fixture(scope="module")
def proof(tmp_path_factory):
    return ProviderProof(tmp_path_factory.mktemp("proof"))


class Simulated:
    """A session on the CPU whose scores another function changes."""

    def __init__(self, session, change):
        self.session, self.change = session, change

    def run(self, outputs, feed):
        return [self.change(values) for values in self.session.run(outputs, feed)]


@pytest.fixture
def machine(monkeypatch):
    """A machine on which every provider loads; returns the options that each session was asked for."""
    asked, change = [], [lambda scores: scores]

    def try_providers(path, wanted, threads):
        asked.append({name: value for each in wanted for name, value in each.options.items()})
        return Simulated(providers.create_session(path, choose_providers([CPU]), threads), change[0]), None

    monkeypatch.setattr(providers, "find_missing_build", lambda _: None)
    monkeypatch.setattr(providers, "try_providers", try_providers)
    monkeypatch.setattr(drivers, "find_driver_obstacle", lambda _: None)
    monkeypatch.setattr(provider_checks.sys, "platform", "linux")
    return asked, change


def test_a_provider_that_computes_what_the_cpu_does_is_ok(machine, proof):
    finding = check_provider(CUDA, proof)
    assert (finding.name, finding.state, finding.fix) == ("CUDA", "ok", None)
    assert finding.detail.startswith("loads and runs; a masked forward differs from the CPU's by 0.0e+00 of the scores")
    assert "; first run " in finding.detail


@pytest.mark.parametrize(
    ("share", "state", "words"),
    [
        (5e-5, "ok", "loads and runs; "),
        (
            1e-3,
            "warning",
            "loads, and computes in less than 32 bits: a masked forward differs from the CPU's by 1.",
        ),
        (0.1, "broken", "loads, but computes wrongly: a masked forward differs from the CPU's by 1.0e-01"),
        (np.nan, "broken", "loads, but computes wrongly: a masked forward differs from the CPU's by inf"),
    ],
)
def test_a_wrong_provider_is_told_with_its_figure(machine, proof, share, state, words):
    machine[1][0] = lambda scores: scores + np.float32(share) * np.ptp(scores) * (scores == scores.max())
    finding = check_provider(CUDA, proof)
    assert (finding.state, finding.needed) == (state, False)
    assert finding.detail.startswith(words)
    assert (finding.fix is None) == (state == "ok")


@pytest.mark.parametrize("which", range(4))
def test_a_provider_for_which_a_mask_has_no_influence_is_broken(machine, proof, which):
    """As OpenVINO with a mask that may be left out; no mask of the proof but that of ones may be without influence."""

    def ignore(scores):
        changed = scores.copy()
        changed[which] = scores[0]
        return changed

    machine[1][0] = ignore
    assert check_provider(CUDA, proof).state == ("broken" if which else "ok")


def test_openvino_is_proved_with_a_mask_that_must_be_given(machine, proof):
    assert check_provider(OPENVINO, proof).state == "ok"
    assert (proof.folder / "required.onnx").exists()


def test_options_are_tried_where_the_provider_loads(machine, monkeypatch):
    findings = {finding.name: finding for finding in check_providers()}
    assert {"CUDA use_tf32=1", "CUDA cudnn_conv_algo_search=HEURISTIC", "WebGPU preferredLayout=NCHW"} <= set(findings)
    assert {"use_tf32": "1"} in machine[0]
    kept = findings["TensorRT trt_engine_cache_enable=1 trt_engine_cache_path=FOLDER"]
    assert kept.state == "ok"
    assert ", first of a second session " in kept.detail
    (folder,) = {given["trt_engine_cache_path"] for given in machine[0] if "trt_engine_cache_path" in given}
    assert folder.endswith("tensorrt-kept")


def test_an_option_that_makes_scores_wrong_names_itself(machine, proof):
    machine[1][0] = lambda scores: scores * 1.01
    finding = check_options(CUDA, (("use_tf32", "1"),), proof)
    assert (finding.name, finding.state) == ("CUDA use_tf32=1", "warning")


def test_an_option_with_which_the_provider_does_not_load(machine, proof, monkeypatch):
    monkeypatch.setattr(providers, "try_providers", lambda *_: (None, "no such layout"))
    finding = check_options(WEBGPU, (("preferredLayout", "NCHW"),), proof)
    assert (finding.state, finding.detail) == ("broken", "does not load: no such layout")
    assert finding.fix == "leave out preferredLayout=NCHW"


def test_every_trial_has_options_that_the_provider_has():
    for provider in PROVIDERS:
        for trial in provider.trials:
            assert choose_providers([provider], dict(trial))[0].options.items() >= dict(trial).items()


def test_a_provider_of_another_system_says_which(machine, proof):
    finding = check_provider(know_provider("directml"), proof)
    assert (finding.state, finding.detail) == ("absent", "is for Windows alone")
    assert finding.fix == "on Windows: python -m pip install onnxruntime-directml"


@pytest.fixture
def distributions(monkeypatch):
    """Sets the distributions of ONNX Runtime that are installed, and returns the function that does."""

    def install(*names):
        monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"onnxruntime": list(names)})

    monkeypatch.setattr(drivers, "find_driver_obstacle", lambda _: None)
    monkeypatch.setattr(plugins, "has_plugin", lambda _: False)
    return install


@pytest.mark.parametrize(
    ("provider", "installed", "command"),
    [
        (CUDA, "onnxruntime-gpu", 'python -m pip install "onnxruntime-gpu[cuda,cudnn]"'),
        (
            CUDA,
            "onnxruntime",
            'python -m pip uninstall -y onnxruntime && python -m pip install "onnxruntime-gpu[cuda,cudnn]"',
        ),
        (
            MIGRAPHX,
            "onnxruntime-gpu",
            "python -m pip uninstall -y onnxruntime-gpu && python -m pip install onnxruntime-migraphx",
        ),
        (WEBGPU, "onnxruntime", "python -m pip install onnxruntime-ep-webgpu"),
        (OPENVINO, "onnxruntime", "python -m pip install onnxruntime-ep-openvino"),
        (CPU, "onnxruntime-gpu", "python -m pip install --force-reinstall --no-deps onnxruntime-gpu"),
    ],
)
def test_the_command_that_mends(distributions, provider, installed, command):
    distributions(installed)
    assert mend(provider) == command


@pytest.mark.parametrize(
    ("provider", "needed"),
    [(CUDA, "an NVIDIA GPU"), (TENSORRT, "an NVIDIA GPU"), (MIGRAPHX, "an AMD GPU"), (WEBGPU, "a GPU with its Vulkan")],
)
def test_a_missing_driver_comes_first(distributions, monkeypatch, provider, needed):
    distributions("onnxruntime")
    monkeypatch.setattr(drivers, "find_driver_obstacle", lambda _: "there is none")
    assert mend(provider).startswith(f"needs {needed}")
    assert ", then python -m pip " in mend(provider)


@pytest.mark.parametrize(
    ("version", "command"),
    [
        ("13.0", "python -m pip install tensorrt-cu13, with its directory tensorrt_libs on LD_LIBRARY_PATH"),
        (
            "",
            'python -m pip uninstall -y onnxruntime && python -m pip install "onnxruntime-gpu[cuda,cudnn]", and `mask',
        ),
    ],
)
def test_tensorrt_wants_the_libraries_of_the_builds_cuda(distributions, monkeypatch, version, command):
    distributions("onnxruntime")
    monkeypatch.setattr(providers, "import_onnxruntime", lambda: SimpleNamespace(cuda_version=version))
    assert mend(TENSORRT).startswith(command)


def test_a_plugin_that_is_installed_needs_a_device(distributions, monkeypatch):
    distributions("onnxruntime")
    monkeypatch.setattr(plugins, "has_plugin", lambda _: True)
    assert mend(OPENVINO) == "needs one of Intel's CPUs, GPUs and NPUs"


def test_what_the_import_of_a_plugin_raises_is_a_finding(proof, monkeypatch):
    broken = dataclasses.replace(WEBGPU, plugin="masktool.no_such_module")
    monkeypatch.setattr(providers, "find_missing_build", lambda _: (_ for _ in ()).throw(OSError("libx: bad")))
    finding = check_provider(broken, proof)
    assert (finding.state, finding.detail) == ("broken", "OSError: libx: bad")


@pytest.mark.skipif(sys.platform != "linux", reason="the loader has another name")
def test_the_obstacles_of_drivers_are_those_of_this_machine():
    assert drivers.find_driver_obstacle(None) is None
    for driver in ("nvidia", "amd", "vulkan"):
        found = drivers.find_driver_obstacle(driver)
        assert found is None or found.startswith(("this machine has no ", "the NVIDIA driver "))
