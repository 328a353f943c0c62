"""Copies of an exported file whose layers have lost what they learned, for the sanity check of explanations.

1. The layers of the network are found: convolutions and fully connected layers, told by name from what masking and
   gradients have added. Layers that share weights are one.
2. Every weight and bias of the chosen layers is redrawn from a normal distribution of its own mean and standard
   deviation. Adebayo et al. initialise the layers anew; how the network was initialised an exported file does not say,
   and with the trained mean and deviation activations stay in their range. (To permute the weights would keep every
   trained number.) Scales, shifts and statistics of batch normalisation stay, and so does a bias that the graph adds in
   a node of its own: without the weights they know nothing of the image.
3. Nothing else changes: what gradients read is derived from the same weights within the graph, and the constants of
   the fill and the guard at the input belong to no layer.
4. The copy says in its source's name, in a metadata entry and in its description that it is randomised, and keeps no
   parity figures, which were the original's.

Source: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 3, https://arxiv.org/abs/1810.03292.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx_ir as ir

from masktool.contract import METADATA_PREFIX, Metadata
from masktool.errors import MasktoolError
from masktool.exporters.plain_branch import masked_alone
from masktool.exporters.storage import staging
from masktool.messages import call

LAYER_TYPES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Integer kinds of them are these between QuantizeLinear and DequantizeLinear in an exported file."""
OWN_NODES = ("masktool/", "gradient/")
OWN_CONSTANTS = ("masktool_constant_", "masktool/", "gradient_constant_")
"""Beginnings of the names of nodes and values that an export has added."""
FIRST_INPUT_TYPES = ("DequantizeLinear", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Cast", "Identity")
"""Operators that hand on their first input in another form; scales and zero points of a quantisation stay."""
RANDOMISED_KEY = f"{METADATA_PREFIX}randomised"
Order = Literal["cascading", "independent"]
"""``cascading``: the last layer, the last two, ... all; ``independent``: one layer at a time, the last first."""
ORDERS: tuple[Order, ...] = get_args(Order)


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of the network that has weights.

    Attributes:
        name: the name of the layer's node, or of its first weight, unique among the layers.
        op_type: the operator of the layer's node.
        weights: names of the initializers that hold the layer's weights.
        n_weights: the number of weights, all initializers together.
    """

    name: str
    op_type: str
    weights: tuple[str, ...]
    n_weights: int


def read_exported(path: Path) -> tuple[ir.Model, Metadata]:
    """Reads a file that ``masktool export`` wrote; of one that holds the plain network too, the masked one alone.

    Raises:
        MasktoolError: the file is none of masktool's, or cannot be read.
    """
    try:
        model = ir.load(path)
    except Exception as error:  # protobuf and onnx-ir raise exceptions of their own
        raise MasktoolError("cannot read the model", where=path, got=error) from error
    metadata = Metadata.from_properties(model.metadata_props)
    if metadata is None:
        raise MasktoolError("not a masktool file", where=path, fix="run `" + call("export", path, ...) + "` first")
    if metadata.plain_branch:
        model, metadata = masked_alone(model, path), dataclasses.replace(metadata, plain_branch=False)
        ir.external_data.load_to_model(model)
    return model, metadata


def find_layers(model: ir.Model) -> tuple[Layer, ...]:
    """Returns the layers of an exported network, the first first; names are unique.

    Raises:
        MasktoolError: the network has no layer with weights.
    """
    constant = constant_values(model.graph)
    layers: list[Layer] = []
    taken: set[str] = set()
    for node in model.graph:
        if node.op_type not in LAYER_TYPES or str(node.name).startswith(OWN_NODES):
            continue
        weights = [value for value in trace_weights(node, constant) if value.name not in taken]
        if any(len(value.const_value.shape) > 1 for value in weights if value.const_value is not None):
            names = tuple(str(value.name) for value in weights)
            taken.update(names)
            count = sum(value.const_value.size for value in weights if value.const_value is not None)
            layers.append(Layer(unique_name(node, names, layers), node.op_type, names, count))
    if not layers:
        raise MasktoolError("no weights to randomise", expected=f"{', '.join(LAYER_TYPES)} with weights in the file")
    return tuple(layers)


def constant_values(graph: ir.Graph) -> set[ir.Value]:
    """Returns all values that depend on no input."""
    inputs = set(graph.inputs)
    constant = {value for value in graph.initializers.values() if value not in inputs}
    for node in graph:
        if all(value is None or value in constant for value in node.inputs):
            constant.update(node.outputs)
    return constant


def trace_weights(node: ir.Node, constant: set[ir.Value]) -> Iterator[ir.Value]:
    """Yields the initializers of the network that a node takes its weights from."""
    for value in node.inputs:
        if value is None or value not in constant:
            continue
        while (producer := value.producer()) is not None:
            first = producer.inputs[0] if producer.op_type in FIRST_INPUT_TYPES and producer.inputs else None
            if first is None:
                break
            value = first
        if value.is_initializer() and not str(value.name).startswith(OWN_CONSTANTS):
            yield value


def unique_name(node: ir.Node, weights: Sequence[str], layers: Sequence[Layer]) -> str:
    """Returns a node's name, or that of its first weight where the node has no name or another layer has the same."""
    return node.name if node.name and all(node.name != layer.name for layer in layers) else weights[0]


def choose_layers(layers: Sequence[Layer], order: Order, n_stages: int | None = None) -> tuple[tuple[str, ...], ...]:
    """Returns the names of the layers that are randomised at each stage.

    Args:
        layers: the layers of the network, the first first.
        order: the order of randomisation, see :data:`Order`.
        n_stages: the number of stages, spread evenly over the layers, the first and last stage among them (of one, the
            last); None, or more than there are layers, for one stage per layer.

    Returns:
        Names of layers by stage, within each the last layer first.
    """
    names = [layer.name for layer in reversed(layers)]
    counts = list(range(1, len(names) + 1))
    if n_stages is not None and n_stages < len(names):
        counts = sorted({round(each) for each in np.linspace(len(names), 1, n_stages).tolist()})
    return tuple(tuple(names[:count]) if order == "cascading" else (names[count - 1],) for count in counts)


def randomise(path: Path, target: Path, names: Sequence[str], seed: int = 0) -> Metadata:
    """Writes a copy of an exported file with the weights of some layers redrawn.

    A layer's weights depend on the seed and its name alone: the same whichever other layers go with it.

    Args:
        path: the path of the exported file.
        target: the path of the copy to write.
        names: names of the layers whose weights are redrawn, see :func:`find_layers`.
        seed: the seed of the redrawn weights.

    Returns:
        The copy's metadata.

    Raises:
        MasktoolError: the file is not masktool's, there is no such layer, or the target cannot be written.
    """
    model, metadata = read_exported(path)
    layers = {layer.name: layer for layer in find_layers(model)}
    if unknown := [name for name in names if name not in layers]:
        raise MasktoolError("no such layer", where=", ".join(unknown), expected=f"some of {', '.join(layers)}")
    for name in names:
        random = np.random.default_rng([seed, zlib.crc32(name.encode())])
        for weight in layers[name].weights:
            redraw(model.graph.initializers[weight], random)
    metadata = mark(model, metadata, names, seed)
    with staging(target, model) as staged:
        staged.write()
        staged.check()
        staged.commit()
    return metadata


def write_copies(path: Path, folder: Path, stages: Sequence[Sequence[str]], seed: int = 0) -> list[Path]:
    """Writes a copy of an exported file for every stage; raises as :func:`randomise` does.

    Args:
        path: the path of the exported file.
        folder: the folder that the copies are written to.
        stages: names of the layers whose weights are redrawn, by stage, see :func:`choose_layers`.
        seed: the seed of the redrawn weights.

    Returns:
        The paths of the copies.
    """
    copies = [folder / f"stage-{position}.onnx" for position in range(len(stages))]
    for copy, names in zip(copies, stages, strict=True):
        randomise(path, copy, names, seed)
    return copies


def redraw(value: ir.Value, random: np.random.Generator) -> None:
    """Replaces a weight by numbers of its own mean and deviation, rounded and cut where its type holds integers."""
    tensor = value.const_value
    assert tensor is not None
    trained = tensor.numpy()
    wide = trained.astype(np.float64)
    drawn = random.normal(wide.mean(), wide.std(), wide.shape)
    if np.issubdtype(trained.dtype, np.integer):
        limits = np.iinfo(trained.dtype)
        drawn = np.clip(np.rint(drawn), limits.min, limits.max)
    value.const_value = ir.tensor(drawn.astype(trained.dtype), dtype=tensor.dtype, name=value.name)


def mark(model: ir.Model, metadata: Metadata, names: Sequence[str], seed: int) -> Metadata:
    """Writes into a model's metadata that it is randomised, so that nobody takes it for a real one; returns them."""
    what = f"weights of {len(names)} layer{'s' * (len(names) != 1)} randomised, seed {seed}"
    metadata = dataclasses.replace(metadata, source=f"{metadata.source} ({what})", parity={})
    model.metadata_props.update(metadata.to_properties())
    model.metadata_props[RANDOMISED_KEY] = json.dumps({"layers": list(names), "seed": seed})
    model.doc_string = f"NOT A REAL MODEL: {what}, for the sanity check of explanations."
    return metadata
