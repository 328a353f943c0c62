"""Mutations of ONNX models that know their structure: attributes, lengths, types, names, edges, weights, metadata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from fuzz.mutations import ODD_NUMBERS, ODD_TEXTS, mutate_bytes

Generator = np.random.Generator
MOST_MUTATIONS = 3
ODD_LENGTHS = (0, 1, -1, 2, 3, 7, 5000, 2**20, 2**31, 2**40, -(2**40))
ELEMENT_TYPES = tuple(range(24))
OTHER_OPERATORS = (
    *("Relu", "Sigmoid", "Identity", "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "Add"),
    *(
        "Mul",
        "Concat",
        "Split",
        "Reshape",
        "Transpose",
        "Flatten",
        "Squeeze",
        "Gather",
        "TopK",
        "Softmax",
        "MatMul",
        "Gemm",
    ),
    *("Resize", "Pad", "Slice", "Tile", "Expand", "Range", "ConstantOfShape", "NonZero", "If", "Loop", "Scan", "LSTM"),
    *("Dropout", "BatchNormalization", "LRN", "Cast", "Where", "ArgMax", "NonMaxSuppression", "Einsum", "RandomNormal"),
    *("Attention", "ImageScaler", "Nothing", ""),
)
MODEL_NAMES = ("mask", "target", "loss", "image", "saliency_map", "gradient_image", "masktool/x", "")


def pick(items: Sequence[Any], rng: Generator) -> Any:
    """Returns one of the items of a sequence."""
    return items[int(rng.integers(len(items)))]


def mutate_model(content: bytes, rng: Generator) -> bytes:
    """Returns a model with one to three structural faults, now and then with broken bytes on top."""
    if rng.random() < 0.1:
        return mutate_bytes(content, rng)
    model = onnx.load_model_from_string(content)
    for _ in range(int(rng.integers(1, MOST_MUTATIONS + 1))):
        if model.graph.node:
            MUTATIONS[int(rng.integers(len(MUTATIONS)))](model, rng)
    return bytes(model.SerializeToString())


def change_attribute(model: onnx.ModelProto, rng: Generator) -> None:
    """Changes, removes, repeats or retypes an attribute."""
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    node = nodes[int(rng.integers(len(nodes)))]
    index = int(rng.integers(len(node.attribute)))
    attribute, fault = node.attribute[index], int(rng.integers(6))
    if fault == 0:
        del node.attribute[index]
    elif fault == 1:
        attribute.name = str(pick(("pads", "strides", "axis", "perm", "ceil_mode", "auto_pad", "group", "to"), rng))
    elif fault == 2 and attribute.ints:
        attribute.ints.append(attribute.ints[0]) if rng.random() < 0.5 else attribute.ints.pop()
    elif fault == 3:
        node.attribute.add().CopyFrom(attribute)
    elif attribute.type == onnx.AttributeProto.INTS and attribute.ints:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = int(pick(ODD_LENGTHS, rng))
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = int(pick(ODD_LENGTHS, rng))
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = float(np.float32(pick((0, -1, 1e30, float("nan"), float("inf")), rng)))
    elif attribute.type == onnx.AttributeProto.STRING:
        attribute.s = bytes(pick((b"SAME_UPPER", b"VALID", b"", b"\xff\xfe", b"linear"), rng))


def change_length(model: onnx.ModelProto, rng: Generator) -> None:
    """Changes a length in the shape of an input, an output or an inner value, or drops or adds an axis."""
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    values = [value for value in values if value.type.tensor_type.HasField("shape")]
    if not values:
        return
    dims = values[int(rng.integers(len(values)))].type.tensor_type.shape.dim
    if not dims or rng.random() < 0.15:
        dims.add().dim_value = int(pick(ODD_LENGTHS, rng))
    elif rng.random() < 0.2:
        del dims[int(rng.integers(len(dims)))]
    elif rng.random() < 0.3:
        dims[int(rng.integers(len(dims)))].dim_param = str(pick(("N", "", "H", "batch"), rng))
    else:
        dims[int(rng.integers(len(dims)))].dim_value = int(pick(ODD_LENGTHS, rng))


def change_type(model: onnx.ModelProto, rng: Generator) -> None:
    """Gives an input, an output or a weight another element type."""
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if values and rng.random() < 0.6:
        values[int(rng.integers(len(values)))].type.tensor_type.elem_type = int(pick(ELEMENT_TYPES, rng))
    elif model.graph.initializer:
        weight = model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]
        weight.data_type = int(pick(ELEMENT_TYPES, rng))


def change_name(model: onnx.ModelProto, rng: Generator) -> None:
    """Renames a value everywhere, or in one place alone, to a name that means something or is taken."""
    names = names_of(model)
    old, new = str(pick(names, rng)), str(pick((*MODEL_NAMES, *ODD_TEXTS[:6], *names), rng))
    new = new.encode(errors="replace").decode()
    everywhere = rng.random() < 0.6
    for node in model.graph.node:
        for side in (node.input, node.output):
            for index, name in enumerate(side):
                if name == old and (everywhere or rng.random() < 0.5):
                    side[index] = new
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        if value.name == old and everywhere:
            value.name = new


def change_edge(model: onnx.ModelProto, rng: Generator) -> None:
    """Lets a node read another value, nothing, one input more or one less."""
    node = model.graph.node[int(rng.integers(len(model.graph.node)))]
    fault = int(rng.integers(4))
    if fault == 0 or not node.input:
        node.input.append(str(pick(names_of(model), rng)))
    elif fault == 1:
        node.input.pop()
    else:
        index = int(rng.integers(len(node.input)))
        node.input[index] = "" if fault == 2 else str(pick(names_of(model), rng))


def change_nodes(model: onnx.ModelProto, rng: Generator) -> None:
    """Removes, repeats, moves or retypes a node, or gives it another domain."""
    nodes = model.graph.node
    index, fault = int(rng.integers(len(nodes))), int(rng.integers(6))
    if fault == 0:
        del nodes[index]
    elif fault == 1:
        nodes.add().CopyFrom(nodes[index])
    elif fault == 2:
        moved = onnx.NodeProto()
        moved.CopyFrom(nodes[index])
        del nodes[index]
        nodes.insert(int(rng.integers(len(nodes) + 1)), moved)
    elif fault == 3:
        nodes[index].domain = str(pick(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "masktool", "nowhere"), rng))
    else:
        nodes[index].op_type = str(pick(OTHER_OPERATORS, rng))


def change_weight(model: onnx.ModelProto, rng: Generator) -> None:
    """Puts odd numbers into a weight, changes its shape, cuts its bytes off, or points it at a file."""
    if not model.graph.initializer:
        return
    weight = model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]
    fault = int(rng.integers(5))
    if fault == 0 and weight.dims:
        weight.dims[int(rng.integers(len(weight.dims)))] = int(pick(ODD_LENGTHS, rng))
    elif fault == 1 and weight.raw_data:
        weight.raw_data = weight.raw_data[: int(rng.integers(len(weight.raw_data)))]
    elif fault == 2 and weight.raw_data and weight.data_type == TensorProto.FLOAT:
        numbers = np.frombuffer(weight.raw_data, np.float32).copy()
        numbers[: int(rng.integers(1, 4))] = float(pick((np.nan, np.inf, 1e38, 0, -1e-40), rng))
        weight.raw_data = numbers.tobytes()
    elif fault == 3 and weight.raw_data and weight.data_type == TensorProto.INT64:
        integers = np.frombuffer(weight.raw_data, np.int64).copy()
        if len(integers):
            integers[int(rng.integers(len(integers)))] = int(pick(ODD_LENGTHS, rng))
        weight.raw_data = integers.tobytes()
    elif fault == 4:
        weight.data_location = TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", str(pick(("/etc/passwd", "../x", "nothing", "", "."), rng))


def change_ends(model: onnx.ModelProto, rng: Generator) -> None:
    """Makes an inner value an output, drops or repeats an output or an input, or makes a weight an input."""
    graph, fault = model.graph, int(rng.integers(5))
    if fault == 0:
        node = graph.node[int(rng.integers(len(graph.node)))]
        if node.output:
            graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None))
    elif fault == 1 and graph.output:
        del graph.output[int(rng.integers(len(graph.output)))]
    elif fault == 2 and graph.output:
        graph.output.add().CopyFrom(graph.output[0])
    elif fault == 3 and graph.input:
        del graph.input[int(rng.integers(len(graph.input)))]
    elif graph.initializer:
        weight = graph.initializer[int(rng.integers(len(graph.initializer)))]
        graph.input.append(helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims)))


def change_versions(model: onnx.ModelProto, rng: Generator) -> None:
    """Changes or drops the opset or the version of the format."""
    if rng.random() < 0.3:
        model.ir_version = int(pick((0, 1, 3, 4, 12, 99, 2**31), rng))
    elif model.opset_import and rng.random() < 0.9:
        chosen = model.opset_import[int(rng.integers(len(model.opset_import)))]
        chosen.version = int(pick((0, 1, 6, 9, 11, 13, 18, 21, 25, 99, -1), rng))
    else:
        del model.opset_import[:]


def change_metadata(model: onnx.ModelProto, rng: Generator) -> None:
    """Adds, changes, repeats or removes metadata; files that masktool wrote have many."""
    properties, texts = model.metadata_props, (*ODD_TEXTS, *(str(n) for n in ODD_NUMBERS), "[1]", '{"size": 3}', "null")
    if not properties or rng.random() < 0.1:
        entry = properties.add()
        entry.key = str(pick(("masktool.schema_version", "names", "labels", "author", ""), rng))
        entry.value = "1" if rng.random() < 0.5 else str(pick(texts, rng)).encode(errors="replace").decode()
        return
    index, fault = int(rng.integers(len(properties))), int(rng.integers(4))
    if fault == 0:
        del properties[index]
    elif fault == 1:
        properties.add().CopyFrom(properties[index])
    elif fault == 2:
        text = properties[index].value.encode()
        properties[index].value = mutate_bytes(text, rng).decode(errors="replace")
    else:
        properties[index].value = str(pick(texts, rng)).encode(errors="replace").decode()


def names_of(model: onnx.ModelProto) -> list[str]:
    """Returns the names of all values."""
    inner = [name for node in model.graph.node for name in (*node.input, *node.output)]
    return [*inner, *(value.name for value in model.graph.input), *(each.name for each in model.graph.initializer), "x"]


MUTATIONS: tuple[Callable[[onnx.ModelProto, Generator], None], ...] = (
    *(change_attribute, change_attribute, change_length, change_type, change_name, change_edge, change_nodes),
    *(change_weight, change_ends, change_versions, change_metadata),
)
"""What a mutant may suffer; twice what matters most."""
