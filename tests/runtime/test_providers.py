"""Opening files: each bad one gets its line, no provider is taken silently, and nothing is written on stderr."""

import os
from types import SimpleNamespace

import onnx
import pytest

from masktool import MasktoolError
from masktool.execution_providers import NAMES, PROVIDERS, know_provider
from masktool.runtime import MaskedSession, providers
from masktool.runtime import session as session_module
from masktool.runtime.drivers import find_driver_obstacle
from masktool.runtime.native_log import native_stderr, read_reason, without_source_place
from masktool.runtime.providers import open_on_providers
from runtime.models import make_images, make_masks, write_model

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
MIGRAPHX, WEBGPU, DIRECTML = "MIGraphXExecutionProvider", "WebGpuExecutionProvider", "DmlExecutionProvider"
LOADER_LOG = (
    "\x1b[1;31m2026-01-01 00:00:00.1 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] /core/x.cc:2043 "
    "[ONNXRuntimeError] : 1 : FAIL : Failed to load library /site-packages/libonnxruntime_providers_cuda.so "
    "with error: libcublasLt.so.13: cannot open shared object file: No such file or directory\n\x1b[m\n"
)
LOADER_REASON = "libcublasLt.so.13: cannot open shared object file: No such file or directory"


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model.onnx")


@pytest.fixture
def machine(monkeypatch):
    """A machine with an NVIDIA GPU, as ONNX Runtime is: simulated here.

    ``built`` says with which providers ONNX Runtime was built there, ``loading`` which of them load, ``log`` what it
    writes, and ``listed`` for which it lists a GPU.
    """
    state = SimpleNamespace(built={CUDA, TENSORRT, CPU}, loading={CUDA, CPU}, listed=set(), log="", raising=None)
    state.attempts, state.options = [], []

    def make_session(path, chosen, threads):
        names = [each.provider.runtime_name for each in chosen]
        state.attempts.append(names)
        state.options.append([dict(each.options) for each in chosen])
        os.write(2, state.log.encode() if names != [CPU] else b"")
        if state.raising and names != [CPU]:
            raise state.raising
        return SimpleNamespace(get_providers=lambda: [name for name in names if name in state.loading])

    monkeypatch.setattr(providers, "make_session", make_session)
    monkeypatch.setattr(providers, "is_built_in", lambda provider: provider.runtime_name in state.built)
    monkeypatch.setattr(providers, "lists_gpu", lambda provider: provider.runtime_name in state.listed)
    monkeypatch.setattr(providers, "find_driver_obstacle", lambda _: None)
    monkeypatch.setattr(providers.sys, "platform", "linux")
    monkeypatch.setattr(providers, "preload_libraries", lambda: None)
    return state


def test_opening_writes_nothing_on_the_terminal(model, capfd):
    with MaskedSession(model) as session:
        session(make_images())
    assert capfd.readouterr() == ("", "")


def test_auto_announces_its_choice(model):
    with MaskedSession(model) as session:
        if session.providers[0] == CPU:
            assert session.announcement.startswith("running on CPU (no CUDA: ")
        else:
            assert session.announcement == "running on CUDA"


def test_auto_takes_a_provider_that_loads(machine, model):
    session, _, note = open_on_providers(model)
    assert (session.get_providers(), note) == ([CUDA, CPU], None)


def test_auto_says_why_not_the_gpu(machine, model, capfd):
    machine.loading, machine.log = {CPU}, LOADER_LOG
    session, _, note = open_on_providers(model, "auto")
    assert session.get_providers() == [CPU]
    assert note == f"no CUDA: {LOADER_REASON}; not installed: MIGraphX, WebGPU"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("finder", ["find_driver_obstacle", "find_missing_build"])
def test_auto_attempts_nothing_without_gpu_or_build(machine, model, monkeypatch, finder):
    monkeypatch.setattr(providers, finder, lambda *_: "there is none")
    assert open_on_providers(model).note == "no CUDA: there is none; not installed: MIGraphX, WebGPU"
    assert machine.attempts == [[CPU]]


def test_auto_tries_what_is_there_in_the_documented_order(machine, model):
    machine.built |= {MIGRAPHX, WEBGPU, DIRECTML, "OpenVINOExecutionProvider", "CoreMLExecutionProvider"}
    machine.loading, machine.listed = {WEBGPU, CPU}, {WEBGPU}
    session, _, note = open_on_providers(model)
    assert session.get_providers() == [WEBGPU, CPU]
    assert machine.attempts == [[CUDA, CPU], [MIGRAPHX, CPU], [WEBGPU, CPU]]
    assert note.startswith("no CUDA: ")
    assert "; no MIGraphX: " in note


def test_auto_leaves_a_driver_in_software_alone(machine, model):
    """WebGPU loads on one, and is then slower than the CPU by far; ONNX Runtime lists no GPU there."""
    machine.built, machine.loading = {WEBGPU, CPU}, {WEBGPU, CPU}
    session, _, note = open_on_providers(model)
    assert session.get_providers() == [CPU]
    assert note == "no WebGPU: ONNX Runtime lists no GPU for it; not installed: CUDA, MIGraphX"
    assert open_on_providers(model, "webgpu").session.get_providers() == [WEBGPU, CPU]


def test_auto_takes_nothing_that_is_by_name_only(machine, model):
    for provider in PROVIDERS:
        if provider.by_name_only:
            machine.built, machine.loading = {provider.runtime_name, CPU}, {provider.runtime_name, CPU}
            assert open_on_providers(model).session.get_providers() == [CPU]
            assert open_on_providers(model, provider.name).session.get_providers() == [provider.runtime_name, CPU]


@pytest.mark.parametrize(
    ("platform", "tried"),
    [("win32", [CUDA, WEBGPU, DIRECTML]), ("linux", [CUDA, MIGRAPHX, WEBGPU]), ("darwin", [WEBGPU])],
)
def test_auto_tries_what_is_for_the_system(machine, model, monkeypatch, platform, tried):
    machine.built = machine.listed = {provider.runtime_name for provider in PROVIDERS}
    machine.loading = {CPU}
    monkeypatch.setattr(providers.sys, "platform", platform)
    assert open_on_providers(model).session.get_providers() == [CPU]
    assert machine.attempts == [*([name, CPU] for name in tried), [CPU]]


@pytest.mark.parametrize("name", [name for each in PROVIDERS for name in (each.name, *each.aliases, each.runtime_name)])
def test_every_provider_can_be_named(machine, model, name):
    wanted = know_provider(name)
    machine.built, machine.loading = {wanted.runtime_name, CPU}, {wanted.runtime_name, CPU}
    opened = open_on_providers(model, name)
    assert opened.session.get_providers() == list(dict.fromkeys([wanted.runtime_name, CPU]))
    assert opened.options == dict(wanted.defaults)


@pytest.mark.parametrize("asked", ["cuda", CUDA, ["cuda", "cpu"], [CUDA]])
def test_an_asked_for_provider_must_load(machine, model, asked):
    machine.loading, machine.log = {CPU}, LOADER_LOG
    with pytest.raises(MasktoolError, match=rf"provider cannot load \({CUDA}.*\): {LOADER_REASON}; `masktool doctor`"):
        open_on_providers(model, asked)


def test_every_one_of_a_list_must_load(machine, model):
    with pytest.raises(MasktoolError, match=rf"provider cannot load \({TENSORRT}, {CUDA}\): ONNX Runtime fell back"):
        open_on_providers(model, ["tensorrt", "cuda"])


def test_a_provider_that_raises_is_told_from_a_damaged_file(machine, model):
    machine.raising = RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 35: driver too old\nat line 3")
    with pytest.raises(MasktoolError, match=r"provider cannot load .*: CUDA failure 35: driver too old; "):
        open_on_providers(model, "cuda")


def test_cuda_where_there_is_none(model):
    if find_driver_obstacle("nvidia") is None:
        pytest.skip("this machine has an NVIDIA GPU")
    with pytest.raises(
        MasktoolError, match=r"provider cannot load \(CUDAExecutionProvider\): .+; `masktool doctor` tells"
    ):
        MaskedSession(model, providers="cuda")


def test_damaged_file_with_a_gpu_provider_is_a_damaged_file(tmp_path, monkeypatch):
    path = tmp_path / "notes.onnx"
    path.write_text("not a model\n" * 9)
    monkeypatch.setattr(providers, "find_missing_build", lambda _: None)
    with pytest.raises(MasktoolError, match=r"not an ONNX model that ONNX Runtime can open"):
        open_on_providers(path, "cuda")


def test_unknown_provider(model):
    with pytest.raises(MasktoolError, match=r"unknown provider \(gpu\): expected one of auto, cpu, cuda, tensorrt, "):
        MaskedSession(model, providers="gpu")


def test_provider_that_is_not_built_in(model):
    missing = set(providers.import_onnxruntime().get_all_providers())
    missing -= set(providers.import_onnxruntime().get_available_providers())
    name = sorted(missing)[0]
    with pytest.raises(
        MasktoolError, match=rf"provider cannot load \({name}\): the installed ONNX Runtime .* without {name}"
    ):
        MaskedSession(model, providers=name)


def test_missing_directory_empty(tmp_path):
    with pytest.raises(MasktoolError, match=r"file not found \(.*none.onnx\)"):
        MaskedSession(tmp_path / "none.onnx")
    with pytest.raises(MasktoolError, match="expected an ONNX model, got a directory"):
        MaskedSession(tmp_path)
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(MasktoolError, match=r"empty file \(.*empty.onnx\): expected an ONNX model"):
        MaskedSession(tmp_path / "empty.onnx")


def test_text_file(tmp_path, capfd):
    path = tmp_path / "notes.onnx"
    path.write_text("These are my notes, not a model.\n" * 20)
    with pytest.raises(MasktoolError, match=r"not an ONNX model .*notes.onnx\): Protobuf parsing failed") as caught:
        MaskedSession(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_file(model, share):
    content = model.read_bytes()
    model.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MasktoolError, match=r"not an ONNX model that ONNX Runtime can open|not a masktool file"):
        MaskedSession(model)


def test_a_file_cut_between_two_pairs_of_metadata_is_none_of_masktools(model):
    """As protocol buffers go it is whole, and what it lacks would be taken for unknown."""
    whole = onnx.load(model)
    pairs = list(whole.metadata_props)
    for count in range(len(pairs)):
        del whole.metadata_props[:]
        whole.metadata_props.extend(pairs[:count])
        onnx.save(whole, model)
        with pytest.raises(MasktoolError, match="not a masktool file"):
            MaskedSession(model)


def test_not_a_masktool_file(tmp_path):
    path = write_model(tmp_path / "plain.onnx", masked=False)
    with pytest.raises(MasktoolError, match=r"not a masktool file \(.*\); run `masktool.export\(.*plain.onnx., ...\)`"):
        MaskedSession(path)


def test_threads(model):
    with MaskedSession(model, providers="cpu", threads=2) as session:
        assert session._session.get_session_options().intra_op_num_threads == 2
    with pytest.raises(MasktoolError, match=r"option out of range \(threads\): expected a whole number from 1, got 0"):
        MaskedSession(model, threads=0)


def test_no_python_fallback_behind_our_back(model):
    with MaskedSession(model, providers="cpu") as session:
        assert session._session._enable_fallback is False


def test_native_stderr_collects_and_restores(capfd):
    with native_stderr() as text:
        os.write(2, b"from native code\n")
    os.write(2, b"afterwards\n")
    assert text.getvalue() == "from native code\n"
    assert capfd.readouterr().err == "afterwards\n"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (LOADER_LOG, LOADER_REASON),
        ("[E:onnxruntime:Default, a.cc:1 f()] no device\x1b[m\n[W:onnxruntime:x] more\n", "no device"),
        ("", ""),
        (
            "[E:onnxruntime:Default, a.cc:1 f()] /onnxruntime/core/providers/openvino/openvino_provider_factory.cc:141 "
            "std::string ParseDeviceType(std::shared_ptr<OVCore>, const Options&) [ERROR] Device GPU is absent\n",
            "[ERROR] Device GPU is absent",
        ),
    ],
)
def test_read_reason(log, reason):
    assert read_reason(log) == reason


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "/onnxruntime_src/core/webgpu_context.cc:65 Initialize(const Config&)::<lambda(Status, wgpu::Adapter*)> "
            "status == wgpu::RequestAdapterStatus::Success was false. Failed to get a WebGPU adapter: none",
            "Failed to get a WebGPU adapter: none",
        ),
        ("/src/factory.cc:49 Config ParseEpConfig(const ConfigOptions&) Invalid layout: bad", "Invalid layout: bad"),
        ("Failed to load library /site-packages/x.so", "Failed to load library /site-packages/x.so"),
    ],
)
def test_the_place_in_the_sources_is_left_out(text, left):
    assert without_source_place(text) == left


def test_no_mask_goes_where_it_would_be_taken_for_a_constant(model, tmp_path, monkeypatch):
    """As OpenVINO does with an input that has a default: every mask would give the scores of the whole image."""
    monkeypatch.setattr(session_module, "make_defaults_constant", lambda providers: providers == [CPU])
    with MaskedSession(model, providers="cpu") as session:
        session(make_images())
        with pytest.raises(MasktoolError, match=r"no influence.*: mask; export the model with mask_required=True"):
            session(make_images(), make_masks())
    with MaskedSession(write_model(tmp_path / "required.onnx", mask_required=True), providers="cpu") as session:
        session(make_images(), make_masks())


def test_the_warm_up_is_said(model):
    with MaskedSession(model, providers="cpu") as session:
        session.providers = [TENSORRT, CUDA, CPU]
        assert session.announcement == (
            "running on TensorRT (builds an engine in the first run of every shape, which takes minutes; "
            "the option trt_engine_cache_enable keeps that)"
        )
        session.provider_options = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": "engines"}
        assert session.announcement.endswith("which takes minutes, and keeps that)")
        session.providers = [CUDA, CPU]
        assert session.announcement == "running on CUDA"


def test_openvino_alone_makes_constants_of_defaults():
    found = [name for name in NAMES if session_module.make_defaults_constant([name])]
    assert found == ["openvino"]
    assert session_module.make_defaults_constant(["OpenVINOExecutionProvider", CPU])


def test_session_dies_of_memory_in_one_line(model):
    with MaskedSession(model, providers="cpu") as session:

        def fail(*_):
            raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory\nstack")

        session._session = SimpleNamespace(run=fail)
        with pytest.raises(
            MasktoolError, match=r"could not run the model .*: Failed to allocate memory; try a smaller batch"
        ):
            session(make_images())
        assert session.forward_passes == 0
