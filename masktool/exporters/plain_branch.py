"""The plain network beside the masked one in one file, so that a mask that hides nothing costs nothing.

1. An If stands around both networks. Its condition is asked of the masks that are fed: the plain network runs where
   they are 1 everywhere, and no more of them than images: it would give one row per image. Otherwise the masked network
   runs, for NaN and for values above 1 too.
2. The weights stand in both branches: captured from around an If they would lose the blocked layout that ONNX Runtime
   gives the constants of a graph. In the file both branches name one place in ``NAME.data``; weights of less than 1 MiB
   in all are written twice instead, so that a small network stays one file.
3. The masked network's nodes, values and weights keep their names; those of the plain network begin with ``plain/``.

ReduceMin over the mask itself would not do for the condition: ONNX Runtime's passes over most NaN.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from masktool.contract import MASK_INPUT, Metadata
from masktool.errors import MasktoolError
from masktool.exporters.defaults import READER, is_reader
from masktool.exporters.names import rename_inside
from masktool.exporters.runnable import RunnableModel
from masktool.exporters.storage import count_weight_bytes, staging
from masktool.files import temporary_directory
from masktool.ops.builder import GraphBuilder
from masktool.ops.pool import NON_NEGATIVE

BRANCHES = "masktool/branches"
"""Name of the If that holds both networks."""
PLAIN, MASKED = "then_branch", "else_branch"
"""Attributes of the If that hold them."""
PLAIN_PREFIX, MASKED_PREFIX = "plain/", "masked/"
"""What the names in the plain network begin with, and those of the masked network's outputs inside its branch."""
SHARED_BYTES = 2**20
"""Bytes of a network's weights from which on they are shared, in a file beside the graph."""


class BranchBuilder(GraphBuilder):
    """Emits what stands around the branches, at the end of the graph."""

    prefix = BRANCHES

    @property
    def label(self) -> str:
        """What the names of emitted nodes begin with."""
        return BRANCHES

    def place(self, node: ir.Node) -> None:
        """Puts an emitted node at the end of the graph."""
        self.graph.append(node)


def shares_weights(plain: ir.Model) -> bool:
    """Tells whether a network's weights are so many that both branches share them in a file beside the graph."""
    return count_weight_bytes(plain) >= SHARED_BYTES


def add_plain_branch(model: ir.Model, plain: ir.Model, image_input: str) -> None:
    """Puts a plain network beside the masked one, in place.

    Args:
        model: the masked network, with all its outputs.
        plain: the same network without a mask; it is used up.
        image_input: the name of the image input.
    """
    graph = model.graph
    outputs = tuple(graph.outputs)
    ends = [(value.name, value.type, value.shape) for value in outputs]
    graph.outputs.clear()
    masked = cut_out(graph, outputs)
    beside = take_plain(plain, graph)
    emit = BranchBuilder(graph)
    branches = [ir.AttrGraph(PLAIN, beside), ir.AttrGraph(MASKED, masked)]
    node = ir.Node("", "If", [hides_nothing(emit, image_input)], branches, num_outputs=len(ends), name=BRANCHES)
    emit.place(node)
    for value, (name, kind, shape) in zip(node.outputs, ends, strict=True):
        value.name, value.type, value.shape = name, kind, shape
    graph.outputs.extend(node.outputs)


def hides_nothing(emit: BranchBuilder, image_input: str) -> ir.Value:
    """Emits whether the masks are 1 everywhere and no more than the images, one boolean."""
    inputs = {value.name: value for value in emit.graph.inputs}
    mask, image = inputs[MASK_INPUT], inputs[image_input]
    readers = (node.outputs[0] for node in emit.graph if is_reader(node) and node.inputs[0] is mask)
    kept = emit.emit("Equal", next(readers, mask), emit.constant(1, ir.DataType.FLOAT))
    least = emit.emit("ReduceMin", emit.emit("Cast", kept, to=ir.DataType.FLOAT.value), keepdims=0)
    everywhere = emit.emit("Cast", least, to=ir.DataType.BOOL.value)
    assert mask.shape is not None
    if mask.shape[0] == 1:
        return everywhere
    fewer = emit.emit("LessOrEqual", emit.length_of(mask, 0), emit.length_of(image, 0))
    return emit.emit("And", everywhere, fewer)


def cut_out(graph: ir.Graph, outputs: Sequence[ir.Value]) -> ir.Graph:
    """Moves the masked network into a graph of its own; what reads inputs with a default stays, and so do these."""
    nodes = tuple(node for node in graph if not is_reader(node))
    graph.remove(nodes)
    weights = [value for value in graph.initializers.values() if not value.is_graph_input()]
    for value in weights:
        graph.initializers.pop(str(value.name))
    names = [f"{MASKED_PREFIX}{value.name}" for value in outputs]
    branch = ir.Graph([], [], nodes=nodes, initializers=weights, opset_imports=graph.opset_imports, name="masked")
    return with_outputs(branch, outputs, names)


def take_plain(plain: ir.Model, graph: ir.Graph) -> ir.Graph:
    """Returns the plain network's graph as a branch, which reads the inputs of the graph around it."""
    own, inputs = plain.graph, {value.name: value for value in graph.inputs}
    keep_pads(own)
    outputs = [inputs.get(value.name, value) if value.is_graph_input() else value for value in own.outputs]
    own.outputs.clear()
    for value in tuple(own.inputs):
        value.replace_all_uses_with(inputs[value.name])
        own.initializers.pop(str(value.name), None)
    own.inputs.clear()
    names = [f"{PLAIN_PREFIX}{value.name}" for value in outputs]
    rename_inside(tuple(own), PLAIN_PREFIX)
    weights, nodes = tuple(own.initializers.values()), tuple(own)
    own.initializers.clear()
    own.remove(nodes)
    for weight in weights:
        weight.name = f"{PLAIN_PREFIX}{weight.name}"
    branch = ir.Graph([], [], nodes=nodes, initializers=weights, opset_imports=graph.opset_imports, name="plain")
    return with_outputs(branch, outputs, names)


def keep_pads(graph: ir.Graph) -> None:
    """Keeps ONNX Runtime from making a Pad of zeros the padding of the MaxPool behind it, which is −∞, in place.

    It does so up to version 1.31, see :func:`masktool.exporters.storage.wrong_optimisers`. Of numbers
    from 0 on both give the same.
    """
    for node in tuple(graph):
        pad = node.inputs[0].producer() if node.op_type == "MaxPool" and node.inputs[0] is not None else None
        if pad is None or pad.op_type != "Pad":
            continue
        padded = pad.inputs[0].producer() if pad.inputs[0] is not None else None
        floating = pad.outputs[0].dtype is not None and pad.outputs[0].dtype.is_floating_point()
        if floating and (padded is None or padded.op_type not in NON_NEGATIVE):
            between = ir.node(READER, [pad.outputs[0]], {"alpha": 1.0}, name=f"{pad.name}/kept")
            between.outputs[0].name = f"{pad.outputs[0].name}/kept"
            between.outputs[0].type, between.outputs[0].shape = pad.outputs[0].type, pad.outputs[0].shape
            graph.insert_before(node, between)
            node.replace_input_with(0, between.outputs[0])


def with_outputs(branch: ir.Graph, outputs: Sequence[ir.Value], names: Sequence[str]) -> ir.Graph:
    """Gives a branch its outputs under names of their own, and returns it.

    A value that the branch does not compute, or that is an output already, goes through an Identity.
    """
    for value, name in zip(outputs, names, strict=True):
        node = value.producer()
        result = value
        if node is None or node.graph is not branch or value.is_graph_output():
            copy = ir.node("Identity", [value], name=f"{name}/{len(branch.outputs)}")
            branch.append(copy)
            result = copy.outputs[0]
            result.type, result.shape = value.type, value.shape
        result.name = name if result is value else f"{name}/{len(branch.outputs)}:0"
        branch.outputs.append(result)
    return branch


def masked_alone(model: ir.Model, where: object) -> ir.Model:
    """Returns the masked network of a file without the plain one beside it, as the export would write it; else a copy.

    Args:
        model: an exported model, which stays as it is.
        where: the file, for the error.

    Raises:
        MasktoolError: the graph does not hold the branches that its metadata tell of.
    """
    metadata = Metadata.from_properties(model.metadata_props)
    model = model.clone()
    if metadata is None or not metadata.plain_branch:
        return model
    graph = model.graph
    node = next(find_branches(graph), None)
    if node is None:
        raise MasktoolError(
            "the graph does not hold the two networks that its metadata tell of",
            where=where,
            expected=f"an If named {BRANCHES!r} that gives every output",
            fix="export the model again",
        )
    ends = [(value.name, value.type, value.shape) for value in graph.outputs]
    branch = node.attributes[MASKED].as_graph()
    outputs, nodes, weights = tuple(branch.outputs), tuple(branch), tuple(branch.initializers.values())
    branch.outputs.clear()
    branch.initializers.clear()
    branch.remove(nodes)
    graph.outputs.clear()
    graph.remove(node, safe=True)
    for weight in weights:
        graph.register_initializer(weight)
    graph.extend(nodes)
    for value, (name, kind, shape) in zip(outputs, ends, strict=True):
        value.name, value.type, value.shape = name, kind, shape
    graph.outputs.extend(outputs)
    common.RemoveUnusedNodesPass()(model)
    model.metadata_props.update(dataclasses.replace(metadata, plain_branch=False).to_properties())
    return model


def find_branches(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yields the If that gives every output of a graph; nothing where there is none."""
    for node in graph:
        if node.op_type == "If" and node.name == BRANCHES and list(node.outputs) == list(graph.outputs):
            yield node


@contextlib.contextmanager
def opened_alone(model: ir.Model, image_input: str) -> Iterator[RunnableModel]:
    """Yields a masked network of any size in a session, which ends with the block.

    Args:
        model: the masked network; weights above 2 GiB stand in a file from then on.
        image_input: the name of its image input.
    """
    with temporary_directory() as directory, staging(directory / "masked.onnx", model) as alone:
        yield RunnableModel.of(alone.open, image_input)
