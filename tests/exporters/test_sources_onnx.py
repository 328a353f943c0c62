"""ONNX sources: which input is the image, which output the classes, what it holds; and every file that is none."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir
import pytest
from networks.small_graphs import classifier, parse

from masktool.errors import MasktoolError
from masktool.exporters.class_output import choose_class_output
from masktool.exporters.onnx_file import (
    find_image_input,
    find_other_inputs,
    layout_of,
)
from masktool.exporters.sources import load_source
from masktool.files import sha256_of

HEADER = '<ir_version: 10, opset_import: ["" : 20]>'


def graph(text: str) -> onnx_ir.Model:
    return onnx_ir.from_proto(parse(f"{HEADER} {text}"))


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(classifier(), path)
    return path


def test_a_file(model_file: Path):
    source = load_source(model_file)
    assert (source.name, source.sha256) == ("small.onnx", sha256_of(model_file))
    assert (source.preprocessing, source.labels, source.reference) == (None, None, None)
    assert load_source(str(model_file)).sha256 == source.sha256
    assert load_source(source) is source


def test_models_in_memory_are_not_changed():
    text = "open (float[N, 3, H, W] image) => (float[N, 3, H, W] y) { y = Relu(image) }"
    model = graph(text)
    source = load_source(model, input_size=(16, 24))
    assert (source.name, source.sha256) == ("open", None)
    assert list(find_image_input(source.model).shape)[2:] == [16, 24]
    assert not isinstance(find_image_input(model).shape[2], int)
    proto = onnx_ir.to_proto(model)
    assert list(find_image_input(load_source(proto, input_size=(16, 24)).model).shape)[2:] == [16, 24]


def test_an_architecture_is_of_a_state_dict_alone(model_file: Path):
    for model in (model_file, classifier(), onnx_ir.from_proto(classifier())):
        with pytest.raises(
            MasktoolError, match=r"says itself what its architecture is .*: arch=.timm:resnet18.; leave"
        ):
            load_source(model, arch="timm:resnet18")


def test_a_fixed_size_is_not_overruled(model_file: Path):
    assert load_source(model_file, input_size=(8, 8)).name == "small.onnx"
    with pytest.raises(
        MasktoolError, match=r"input size fixed by the model .input 'image'.: expected 8 x 8, got 9 x 8"
    ):
        load_source(model_file, input_size=(9, 8))


def test_axes_of_length_minus_one_are_open(data_dir: Path):
    source = load_source(data_dir / "onnx" / "paddle_ocr_cls.onnx", input_size=(48, 192))
    batch, *rest = find_image_input(source.model).shape
    assert not isinstance(batch, int)
    assert rest == [3, 48, 192]


def test_weights_among_the_inputs_are_no_images(data_dir: Path):
    source = load_source(data_dir / "weights" / "squeezenet11_caffe2_fp32.onnx")
    assert find_image_input(source.model).name == "data_0"
    assert choose_class_output(source.model)[:2] == ("softmaxout_1", "probabilities")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "g (float[N, 10] x) => (float[N, 10] y) { y = Relu(x) }",
            r"no image input: expected one float or integer input of rank 4.*got 'x' float \(N, 10\)",
        ),
        (
            "g (bool[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) { y = Cast<to = 1>(x) }",
            r"no image input: .*got 'x' bool \(N, 3, 8, 8\)",
        ),
        (
            "g (float[N, 3, 8, 8] left, float[N, 3, 8, 8] right) => (float[N, 3, 8, 8] y) { y = Add(left, right) }",
            "2 inputs may be the image: 'left' float .*'right' float .*say which: image_input=\"left\" or \"right\"",
        ),
    ],
)
def test_inputs_that_do_not_fit(text: str, message: str):
    with pytest.raises(MasktoolError, match=message):
        find_image_input(graph(text))


def test_the_image_among_several_inputs():
    text = "g (float[N, 3, 8, 8] image, float[1] gain) => (float[N, 3, 8, 8] y) { y = Mul(image, gain) }"
    assert find_image_input(graph(text)).name == "image"
    assert [value.name for value in find_other_inputs(graph(text), "image")] == ["gain"]
    two = "g (float[N, 3, 8, 8] a, float[N, 3, 8, 8] b, int64[1] k) => (float[N, 3, 8, 8] y) { y = Add(a, b) }"
    assert load_source(graph(two), image_input="b").image_input == "b"
    for name in ("k", "c"):
        with pytest.raises(MasktoolError, match=rf"no such image input .image_input=.{name}.*'k' int64"):
            load_source(graph(two), image_input=name)


def test_a_nameless_batch_is_one_for_all_inputs():
    model = graph("g (float[N, 3, 8, 8] image, float[N, 2] scale) => (float[N, 3, 8, 8] y) { y = Relu(image) }")
    for value, rest in zip(model.graph.inputs, ([3, 8, 8], [2]), strict=True):
        value.shape = onnx_ir.Shape([-1, *rest])
    image, scale = load_source(model).model.graph.inputs
    assert image.shape[0] == scale.shape[0] == onnx_ir.SymbolicDim("batch")


@pytest.mark.parametrize(
    ("shape", "nodes", "layout"),
    [
        ("N, 20, 24, 13", "s = Sub(x, m) t = Transpose<perm = [0, 3, 1, 2]>(s) y = Relu(t)", "NHWC"),
        ("N, 3, 24, 3", "t = Transpose<perm = [0, 3, 1, 2]>(x) y = Relu(t)", "NHWC"),
        ("N, 13, 24, 4", "s = Sub(x, m) y = GlobalAveragePool(s)", "NCHW"),
        ("N, 13, 24, 4", "s = Sub(x, m) y = MaxPool<kernel_shape = [2, 2]>(s)", "NCHW"),
        ("N, 20, 24, 13", "y = Relu(x)", "NCHW"),
    ],
)
def test_the_operators_tell_the_layout(shape: str, nodes: str, layout: str):
    text = f"{HEADER} g (float[{shape}] x) => (float[N, K, P, Q] y) <float[1] m = {{0.5}}> {{ {nodes} }}"
    assert layout_of(find_image_input(onnx_ir.from_proto(onnx.parser.parse_model(text)))) == layout


def test_layouts():
    channels_last = "g (float[N, 32, 48, 3] x) => (float[N, 32, 48, 3] y) { y = Relu(x) }"
    assert layout_of(find_image_input(graph(channels_last))) == "NHWC"
    assert layout_of(find_image_input(graph(channels_last.replace("32, 48, 3", "3, 32, 48")))) == "NCHW"
    assert layout_of(find_image_input(graph(channels_last.replace("32, 48, 3", "3, 3, 3")))) == "NCHW"


def test_undeclared_output_shapes_are_inferred(tmp_path: Path):
    proto = classifier()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    source = load_source(proto)
    assert choose_class_output(source.model)[:2] == ("scores", None)


BAD_FILES = {
    "missing": (None, "no such model file .*bad.onnx.; check the path"),
    "empty": (b"", "empty model file"),
    "text": (b"# a model\n\nnot one\n" * 50, "not an ONNX model, or a truncated one"),
    "latin text": ("größer\n".encode("latin-1") * 50, "not an ONNX model, or a truncated one"),
    "no graph": (onnx.ModelProto(ir_version=10).SerializeToString(), "not an ONNX model.*expected a graph"),
    "truncated zip": (b"PK\x03\x04" + bytes(200), "truncated or damaged archive"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(200), "a Keras or TensorFlow Lite file.*tf2onnx"),
    "TensorFlow Lite": (bytes(4) + b"TFL3" + bytes(200), "a Keras or TensorFlow Lite file"),
    "truncated safetensors": ((10**6).to_bytes(8, "little") + b"{" + bytes(200), "truncated safetensors file"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_files_that_are_no_model(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MasktoolError, match=message) as error:
        load_source(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.999])
def test_a_truncated_file(model_file: Path, share: float):
    content = model_file.read_bytes()
    model_file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MasktoolError, match="not an ONNX model, or a truncated one"):
        load_source(model_file)


def test_a_directory(tmp_path: Path):
    with pytest.raises(MasktoolError, match=r"a directory .*expected an \.onnx"):
        load_source(tmp_path)


def test_external_data(tmp_path: Path):
    path = tmp_path / "outside.onnx"
    onnx.save(classifier(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert choose_class_output(load_source(path).model)[:2] == ("scores", None)
    weights = tmp_path / "weights.bin"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(MasktoolError, match=r"truncated external data .*weights\.bin.*expected at least"):
        load_source(path)
    weights.unlink()
    with pytest.raises(MasktoolError, match=r"missing external data .*expected weights\.bin; put that file beside"):
        load_source(path)


def test_what_is_no_model_at_all():
    with pytest.raises(MasktoolError, match=r"not a model: expected a path, .*got int"):
        load_source(3)
