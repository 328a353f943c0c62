"""From a masked file to the graphs that compute it only where windows can have changed it."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from masktool.contract import MASK_INPUT
from masktool.embedding.incremental import rules, window_rules  # noqa: F401 (they register themselves)
from masktool.embedding.incremental.patches import TO_FIRST, TO_LAST
from masktool.embedding.incremental.rewriting import MAP_RANK, Rewriting
from masktool.execution_providers.provider import HOST
from masktool.explainers.incremental import IncrementalGraphs, NotIncrementalError, Windows
from masktool.exporters.inference import infer_types_and_shapes
from masktool.exporters.outputs_alone import as_bytes, drop_unused, keep_outputs
from masktool.exporters.plain_branch import masked_alone
from masktool.runtime.providers import open_beside

IMAGES, MASKS = "images", "masks"
"""Names of the lengths of the batches."""
LEAST_GAIN = 1.3
"""Least ratio of the costs: below, what is estimated of them does not tell that anything is gained."""
SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
"""Types of attributes that hold graphs."""
READ_OF_MASKS = ("Add", "Div", "Mul")
"""Operators whose rules ask what their inputs hold where nothing is missing."""


def write_incremental(path: str | os.PathLike[str], image: str, output: str, windows: Windows) -> IncrementalGraphs:
    """Returns the graphs that compute an output of a masked file under windows.

    Args:
        path: the path of the masked file.
        image: the name of the image input.
        output: the name of the output.
        windows: the windows.

    Raises:
        NotIncrementalError: the file cannot be computed in this way, or nothing would be gained.
    """
    model = read_model(path, image, output, windows)
    graph = model.graph
    known = known_numbers(model, image)
    rewriting = Rewriting(graph, image, MASK_INPUT, windows, known)
    for node in list(graph):
        rewriting.rewrite(node)
    patches, cost = rewriting.patches, max(rewriting.patches.cost, 1)
    gain = rewriting.whole_cost / cost
    if gain < LEAST_GAIN:
        raise NotIncrementalError(f"what windows can change takes {1 / gain:.0%} of the whole network's work")
    result = rewriting.whole(graph.outputs[0])
    patches.outputs_are([result])
    patches.graph.outputs[0].name = output
    written = ir.Model(patches.graph, ir_version=model.ir_version)
    drop_unused(written)
    read = {value.name for value in patches.graph.inputs}
    bases = {name: base for name, base in patches.bases.items() if name in read}
    needed = {base.source for base in bases.values()} - {image}
    keep_outputs(model, [value for value in rewriting.needed if value.name in needed])
    return IncrementalGraphs(as_bytes(model), as_bytes(written), bases, gain, rewriting.whole_cost - cost)


def read_model(path: str | os.PathLike[str], image: str, output: str, windows: Windows) -> ir.Model:
    """Reads what gives an output of a masked file, for images of one size.

    There are no functions in it, every constant is an initializer, and shapes are known. Of a file that holds the plain
    network too, it is the masked one: windows hide something.
    """
    model = masked_alone(ir.load(path), path)
    keep_outputs(model, [value for value in model.graph.outputs if value.name == output])
    ir.external_data.load_to_model(model)
    common.InlinePass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    graph = model.graph
    if any(attribute.type in SUBGRAPHS for node in graph for attribute in node.attributes.values()):
        raise NotIncrementalError("the network branches or loops")
    inputs = {value.name: value for value in graph.inputs}
    if further := [name for name in inputs if name not in (image, MASK_INPUT)]:
        raise NotIncrementalError(f"the network reads further inputs: {', '.join(map(repr, further))}")
    for name, rows in ((image, IMAGES), (MASK_INPUT, MASKS)):
        graph.initializers.pop(name, None)
        if name not in inputs:
            raise NotIncrementalError(f"there is no input {name!r}")
        open_batch(inputs[name], rows, windows)
    infer_types_and_shapes(model, check_type=False)
    fold_casts(model)
    join_moves(graph)
    common.RemoveUnusedNodesPass()(model)
    return model


def open_batch(value: ir.Value, rows: str, windows: Windows) -> None:
    """Declares an input's shape for images of one size; refuses one of a fixed batch."""
    if value.shape is None or isinstance(value.shape[0], int):
        raise NotIncrementalError("the network takes a fixed number of images at once")
    sizes = [length if isinstance(length, int) else None for length in value.shape]
    if sizes[1:].count(None) == 2:
        places = iter(windows.size)
        sizes[1:] = [next(places) if size is None else size for size in sizes[1:]]
    value.shape = ir.Shape([rows, *sizes[1:]])


def fold_casts(model: ir.Model) -> None:
    """Makes casts to the type of a value ordinary ones, and casts of constants constants, in place."""
    for node in list(model.graph):
        if node.op_type not in ("Cast", "CastLike") or node.domain != "":
            continue
        source, output = node.inputs[0], node.outputs[0]
        if source is None or output.dtype is None:
            continue
        tensor = ir.convenience.get_const_tensor(source)
        if tensor is not None and not source.is_graph_input():
            array = tensor.numpy().astype(output.dtype.numpy())
            folded = ir.Value(
                name=f"{output.name}/folded",
                type=output.type,
                shape=ir.Shape(array.shape),
                const_value=ir.tensor(array, name=f"{output.name}/folded"),
            )
            model.graph.register_initializer(folded)
        elif node.op_type == "CastLike":
            cast = ir.node("Cast", [source], {"to": output.dtype.value}, name=f"{node.name}/cast")
            folded = cast.outputs[0]
            folded.name, folded.type, folded.shape = f"{output.name}/cast", output.type, output.shape
            model.graph.insert_before(node, cast)
        else:
            continue
        ir.convenience.replace_all_uses_with(output, folded)


MOVES = {(1, 3): TO_LAST, (3, 1): TO_FIRST}
"""How a map's axes move where one of length 1 is dropped, and added elsewhere, by their places before and after."""


def join_moves(graph: ir.Graph) -> None:
    """Makes a Squeeze and the Unsqueeze behind it, which move a mask's channel, one Transpose, in place."""
    for node in list(graph):
        value = node.inputs[0] if node.op_type == "Unsqueeze" else None
        squeeze = None if value is None else value.producer()
        if squeeze is None or squeeze.op_type != "Squeeze" or squeeze.inputs[0] is None:
            continue
        tensors = [ir.convenience.get_const_tensor(each.inputs[-1]) for each in (squeeze, node) if each.inputs[-1]]
        axes = tuple(int(axis) for tensor in tensors if tensor is not None for axis in tensor.numpy().ravel())
        output = node.outputs[0]
        if axes not in MOVES or output.shape is None or len(output.shape) != MAP_RANK:
            continue
        moved = ir.node("Transpose", [squeeze.inputs[0]], {"perm": MOVES[axes]}, name=f"{node.name}/moved")
        moved.outputs[0].name = f"{output.name}/moved"
        moved.outputs[0].type, moved.outputs[0].shape = output.type, output.shape
        graph.insert_before(node, moved)
        ir.convenience.replace_all_uses_with(output, moved.outputs[0])


def known_numbers(model: ir.Model, image: str) -> dict[str, float]:
    """Returns, by name, the one number that values computed from the mask alone hold everywhere under a mask of ones.

    It is found by running that part of the network once.
    """
    graph = model.graph
    asked = list(mask_values(graph, image))
    if not asked:
        return {}
    part = ir.Model(graph.clone(), ir_version=model.ir_version)
    names = [value.name for value in asked]
    by_name = {value.name: value for node in part.graph for value in node.outputs}
    keep_outputs(part, [by_name[name] for name in names])
    session = open_beside(as_bytes(part), HOST, {}, None)
    feed = {}
    for value in part.graph.inputs:
        assert value.shape is not None
        assert value.dtype is not None
        lengths = [length if isinstance(length, int) else 1 for length in value.shape]
        feed[value.name] = np.full(lengths, value.name == MASK_INPUT, value.dtype.numpy())
    found = dict(zip(names, session.run(None, feed), strict=True))
    return {
        str(name): float(array.flat[0]) for name, array in found.items() if array.size and array.min() == array.max()
    } | {MASK_INPUT: 1.0}


def mask_values(graph: ir.Graph, image: str) -> Iterable[ir.Value]:
    """Yields those values that rules ask for which depend on the mask and on nothing of the image but its shape."""
    of_mask = {value for value in graph.inputs if value.name == MASK_INPUT}
    of_image = {value for value in graph.inputs if value.name == image}
    for node in graph:
        read = set(node.inputs)
        if node.op_type != "Shape" and read & of_image:
            of_image.update(node.outputs)
        elif node.op_type != "Shape" and read & of_mask:
            of_mask.update(node.outputs)
    for node in graph:
        for value in node.outputs:
            if value in of_mask and any(user.op_type in READ_OF_MASKS for user, _ in value.uses()):
                yield value
