"""What is bound to a device, and when: by a session that only writes down what it is asked for."""

import dataclasses

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from networks.small_graphs import classifier

import masktool
from masktool import MasktoolError
from masktool.execution_providers import CUDA, PROVIDERS, TENSORRT
from masktool.runtime.device import BindingError, DeviceArray, DeviceGraph
from masktool.runtime.providers import open_beside
from masktool.runtime.session import MaskedSession
from masktool.runtime.session_device import bind_model, run_bound

HALVES = """
<ir_version: 8, opset_import: ["" : 18]>
halves (float[N, 2] image, float[1, 2] change) => (float[N, 2] half, float[N, 1] total)
{
    two = Constant<value = float {2.0}>()
    axis = Constant<value = int64[1] {1}>()
    moved = Add(image, change)
    half = Div(moved, two)
    total = ReduceSum(half, axis)
}
"""


class Written:
    """ONNX Runtime's session on the CPU, whatever device its outputs are bound to; writes down what is bound."""

    def __init__(self, model):
        self.session = onnxruntime.InferenceSession(onnx.parser.parse_model(model).SerializeToString())
        self.log = []

    def io_binding(self):
        log, binding = self.log, self.session.io_binding()

        class Binding:
            def bind_ortvalue_input(self, name, value):
                log.append(("input", name))
                binding.bind_ortvalue_input(name, value)

            def bind_output(self, name, device, number=0):
                log.append(("new", name, device, number))
                binding.bind_output(name, "cpu")

            def __getattr__(self, name):
                return getattr(binding, name)

        self.binding = binding
        return Binding()

    def run_with_iobinding(self, binding):  # noqa: ARG002  # its own, without the log
        self.session.run_with_iobinding(self.binding)


def test_outputs_stay_on_the_device_and_are_written_over(tmp_path):
    written = Written(HALVES)
    graph = DeviceGraph(written, "cuda", ["total"], ["half"], number=1)
    graph.bind({"change": np.float32([[1, 1]])})
    results, memory = [], []
    for rows in (3, 3, 2):
        images = np.full((rows, 2), rows + len(results), np.float32)
        graph.bind({"image": images})
        on_host, on_device = graph.run(rows)
        results.append((on_host["total"], images))
        memory.append(on_device["half"].value.data_ptr())
        assert on_device["half"].length == rows
        assert list(on_host) == ["total"]
        assert list(on_device) == ["half"]
    for total, images in results:  # what was fetched is not written over
        np.testing.assert_allclose(total, (images + 1).sum(axis=1, keepdims=True) / 2)
    assert memory[0] == memory[1]
    assert [each for each in written.log if each[1] == "half"] == [("new", "half", "cuda", 1)] * 2
    assert {each[2:] for each in written.log if each[:2] == ("new", "total")} == {("cpu", 0)}
    assert written.log.count(("input", "change")) == 2  # once more for a batch of another length


def test_what_stays_is_bound_as_it_is():
    first, second = Written(HALVES), Written(HALVES)
    made, used = DeviceGraph(first, "cuda", [], ["half"]), DeviceGraph(second, "cuda", ["total"])
    made.bind({"image": np.float32([[3, 5]]), "change": np.float32([[1, 1]])})
    _, halves = made.run(1)
    assert isinstance(halves["half"], DeviceArray)
    used.bind({"image": halves["half"], "change": np.float32([[0, 0]])})
    assert used.run(1)[0]["total"].tolist() == [[2.5]]


def test_a_number_stays_a_number():
    """An input without axes, such as ``loss``, is not given one."""
    graph = DeviceGraph(onnxruntime.InferenceSession(number_model()), "cpu", ["same"])
    graph.bind({"number": np.array(3, np.int64)})
    assert graph.run(1)[0]["same"].shape == ()


def number_model():
    text = '<ir_version: 8, opset_import: ["" : 18]> one (int64 number) => (int64 same) { same = Identity(number) }'
    return onnx.parser.parse_model(text).SerializeToString()


def test_what_cannot_be_run_names_the_device():
    graph = DeviceGraph(Written(HALVES), "cuda", ["total"])
    graph.bind({"image": np.zeros((1, 3), np.float32), "change": np.zeros((1, 2), np.float32)})
    with pytest.raises(BindingError, match=r"bound to a device \(cuda\)"):
        graph.run(1)


@pytest.mark.parametrize(
    ("providers", "device"),
    [
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "cuda"),
        (["TensorrtExecutionProvider", "CUDAExecutionProvider"], "cuda"),
        (["WebGpuExecutionProvider"], "webgpu"),
        (["DmlExecutionProvider"], "dml"),
        (["CPUExecutionProvider"], None),
        (["CoreMLExecutionProvider"], None),  # works on the host's memory
    ],
)
def test_the_first_provider_decides_the_device(tmp_path, providers, device):
    masktool.export(classifier(), tmp_path / "model.onnx")
    with masktool.load(tmp_path / "model.onnx", "cpu") as session:
        session.providers = providers
        assert session.device == device
        session.leave_device(BindingError("it broke"))
        assert session.device is None
        assert "it broke" in session.device_note


def test_files_of_one_image_are_not_bound(tmp_path):
    masktool.export(classifier(), tmp_path / "model.onnx")
    with masktool.load(tmp_path / "model.onnx", "cpu") as session:
        session.providers = ["CUDAExecutionProvider"]
        session.metadata = dataclasses.replace(session.metadata, batching="one")
        assert session.metadata.one_by_one
        assert session.device is None


def test_the_second_of_two_devices(tmp_path):
    masktool.export(classifier(), tmp_path / "model.onnx")
    with masktool.load(tmp_path / "model.onnx", "cpu") as session:
        session._session, session.providers = Written(HALVES), ["CUDAExecutionProvider"]
        session.provider_options = {"device_id": "1"}
        model = bind_model(session, [], ["half"])
        model.bind({"image": np.zeros((1, 2), np.float32), "change": np.zeros((1, 2), np.float32)})
        run_bound(session, model, 1)
        assert ("new", "half", "cuda", 1) in session._session.log


def test_a_bound_model_counts_and_checks(tmp_path, monkeypatch):
    masktool.export(classifier(), tmp_path / "model.onnx")
    monkeypatch.setattr(MaskedSession, "device", "cpu")
    images = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    with masktool.load(tmp_path / "model.onnx", "cpu") as session:
        model = bind_model(session, ["scores"])
        model.bind(session.feed_image(images, None, [], 5))
        model.bind({"mask": np.ones((5, 1, 8, 8), np.float32)})
        found, _ = run_bound(session, model, 5)
        assert np.array_equal(found["scores"], session(images, np.ones((5, 1, 8, 8))))
        assert session.forward_passes == 10
        with pytest.raises(MasktoolError, match="another number of rows"):
            run_bound(session, model, 4)
    with pytest.raises(MasktoolError, match="closed"):
        run_bound(session, model, 5)
    with pytest.raises(MasktoolError, match="closed"):
        bind_model(session, ["scores"])


def test_beside_tensorrt_small_models_run_on_cuda(monkeypatch):
    opened = []
    monkeypatch.setattr("masktool.runtime.providers.make_session", lambda *given: opened.append(given))
    open_beside(b"model", TENSORRT.memory, {"device_id": "1", "trt_fp16_enable": "1"}, 3)
    ((model, ((provider, options),), threads),) = opened
    assert (model, provider, threads) == (b"model", CUDA, 3)
    assert options == {"device_id": "1", "use_tf32": "0"}


def test_every_device_is_one_that_onnx_runtime_names():
    for device in {provider.memory for provider in PROVIDERS} - {None}:
        assert onnxruntime.capi.onnxruntime_inference_collection.get_ort_device_type(device) is not None
