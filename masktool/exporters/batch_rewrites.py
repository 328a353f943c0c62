"""Rewrites of nodes in which a graph writes a fixed batch down, so that they take any batch: one per operator.

Each is applied before the batch is followed through its node (:mod:`.independence`), when it is known on which axis of
the node's inputs the images lie, and what is merged with them there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir

from masktool.exporters.independence.layout import around_images, split_at_images
from masktool.exporters.independence.lengths import Product, multiply_lengths
from masktool.exporters.independence.states import BatchGraph, Rows
from masktool.exporters.inference import infer_types_and_shapes
from masktool.exporters.node_inputs import constant_of, input_of

LONG_AGO = 2**62
"""An end that is beyond every axis."""
MOST_REPEATED = 2**24
"""Most numbers in a constant whose rows are compared."""


@dataclasses.dataclass(frozen=True)
class Lift:
    """A graph while its batch is made symbolic.

    Attributes:
        model: the model that the graph belongs to.
        image: the image input.
        batch: the fixed number of images.
        graph: the states of the values met so far: where the images lie in them.
    """

    model: onnx_ir.Model
    image: onnx_ir.Value
    batch: int
    graph: BatchGraph

    def rows(self, value: onnx_ir.Value | None) -> Rows | None:
        """Returns where the images lie in a value; None where it holds nothing of them."""
        state = self.graph.state(value)
        return state if isinstance(state, Rows) else None

    def length_of(self, rows: Rows) -> Product | None:
        """Returns the fixed length of an axis on which images lie."""
        return multiply_lengths([rows.outer, Product(self.batch), rows.inner])


Emitted = Sequence[onnx_ir.Node]
Rewrite = Callable[[Lift, onnx_ir.Node], Emitted]


def rewrite_reshape(lift: Lift, node: onnx_ir.Node) -> Emitted:
    """Lets the length of the images' axis in a Reshape's target follow from the other lengths.

    Where the images may lie on several axes (a batch of 1 leaves no trace), the first that would hold nothing else is
    taken.
    """
    rows, target = lift.rows(node.inputs[0]), constant_of(node.inputs[1])
    if rows is None or target is None or node.outputs[0].shape is None:
        return ()
    lengths = lift.graph.lengths(node.outputs[0])
    outer, inner = around_images(lift.graph, node.inputs[0])
    found = [each for each in split_at_images(outer, inner, lengths) if lift.length_of(each) == lengths[each.axis]]
    if not found:
        return ()
    chosen = min(found, key=lambda each: (not each.pure, each.axis))
    new = target_without_batch(target, lengths, chosen.axis)
    if new is not None and not np.array_equal(new, target):
        node.replace_input_with(1, add_constant(node, new))
    return ()


def target_without_batch(target: np.ndarray, lengths: Sequence[Product | None], axis: int) -> np.ndarray | None:
    """Returns a Reshape's target with -1 for one axis; None where two would have to follow from the others."""
    new = []
    for index, (asked, length) in enumerate(zip(target.tolist(), lengths, strict=True)):
        if index == axis:
            new.append(-1)
        elif length is not None and not length.symbols:
            new.append(length.number)
        else:
            new.append(asked)
    return np.array(new) if new.count(-1) == 1 else None


def rewrite_expand(lift: Lift, node: onnx_ir.Node) -> Emitted:
    """Makes an Expand ask for 1 on the images' axis, which keeps as many images as there are."""
    rows, target = lift.rows(node.inputs[0]), constant_of(node.inputs[1])
    if rows is None or target is None:
        return ()
    axis = rows.axis + len(target) - lift.graph.rank(node.inputs[0])
    if axis >= 0 and Product(int(target[axis])) == lift.length_of(rows):
        node.replace_input_with(1, add_constant(node, np.array([*target[:axis], 1, *target[axis + 1 :]])))
    return ()


def rewrite_resize(lift: Lift, node: onnx_ir.Node) -> Emitted:
    """Makes a Resize name the axes that it resizes: all but the images'."""
    rows, sizes = lift.rows(node.inputs[0]), constant_of(input_of(node, 3))
    if rows is None or sizes is None or "axes" in node.attributes:
        return ()
    axes = [axis for axis in range(len(sizes)) if axis != rows.axis]
    node.replace_input_with(3, add_constant(node, sizes[axes]))
    node.attributes["axes"] = onnx_ir.AttrInt64s("axes", axes)
    return ()


def rewrite_squeeze(lift: Lift, node: onnx_ir.Node) -> Emitted:
    """Makes a Squeeze name the axes that it drops, the images' not among them; its result may have one axis more."""
    rows, value, axes = lift.rows(node.inputs[0]), node.inputs[0], input_of(node, 1)
    if rows is None or value is None or value.shape is None or (axes is not None and constant_of(axes) is None):
        return ()
    given = constant_of(axes)
    if given is None or not given.size:  # both say: every axis of length 1
        dropped = [axis for axis, size in enumerate(value.shape) if size == 1]
    else:
        dropped = [int(axis) % len(value.shape) for axis in given]
        if rows.axis not in dropped:
            return ()
    if kept := [axis for axis in dropped if axis != rows.axis]:
        node.resize_inputs(2)
        node.replace_input_with(1, add_constant(node, np.array(kept)))
    else:  # an empty list of axes would mean every axis of length 1, a batch of one image among them
        become_identity(node)
    if lift.batch == 1:
        infer_behind(lift.model, node)
    return ()


def rewrite_gather(lift: Lift, node: onnx_ir.Node) -> Emitted:
    """Makes a Gather that takes the only image of a batch of one an Identity, which keeps the axis of the images."""
    rows, index = lift.rows(node.inputs[0]), constant_of(node.inputs[1])
    if rows is None or not rows.pure or lift.batch != 1 or index is None or index.ndim or index not in (0, -1):
        return ()
    axis = node.attributes.get_int("axis", 0)
    if axis % lift.graph.rank(node.inputs[0]) == rows.axis:
        become_identity(node)
        infer_behind(lift.model, node)
    return ()


def become_identity(node: onnx_ir.Node) -> None:
    """Makes a node an Identity, which passes its first input on."""
    node.resize_inputs(1)
    node.attributes.clear()
    node.op_type = "Identity"


def infer_behind(model: onnx_ir.Model, node: onnx_ir.Node) -> None:
    """Infers the shapes of a node's results, and of all that is computed from them, anew."""
    waiting = [node]
    while waiting:
        for value in waiting.pop().outputs:
            if value.shape is not None:
                value.shape = None
                waiting.extend(value.consumers())
    infer_types_and_shapes(model, check_type=False)


def rewrite_slice(lift: Lift, node: onnx_ir.Node) -> Emitted:
    """Makes a Slice that took the whole fixed batch take all images."""
    rows, axes, ends = lift.rows(node.inputs[0]), constant_of(input_of(node, 3)), constant_of(node.inputs[2])
    starts, steps = constant_of(node.inputs[1]), constant_of(input_of(node, 4))
    if rows is None or ends is None or starts is None:
        return ()
    rank = lift.graph.rank(node.inputs[0])
    cut = list(range(len(ends))) if axes is None else [int(axis) % rank for axis in axes]
    length = lift.length_of(rows)
    if rows.axis not in cut or length is None or length.symbols:
        return ()
    index = cut.index(rows.axis)
    if starts[index] == 0 and ends[index] >= length.number and (steps is None or steps[index] == 1):
        node.replace_input_with(2, add_constant(node, np.array([*ends[:index], LONG_AGO, *ends[index + 1 :]])))
    return ()


def rewrite_concat(lift: Lift, node: onnx_ir.Node) -> Emitted:
    """Repeats what a Concat joins to the images and is the same for all (a class token, zeros) once per image."""
    axis = node.attributes["axis"].as_int() % lift.graph.rank(node.outputs[0])
    held = next(rows for value in node.inputs if (rows := lift.rows(value)) is not None)
    if axis == held.axis or not held.pure:
        return ()
    return repeat_inputs(lift, node, dict.fromkeys(range(len(node.inputs)), held.axis))


def rewrite_recurrent(lift: Lift, node: onnx_ir.Node) -> Emitted:
    """Repeats the initial states of an RNN, GRU or LSTM, which are the same for all images, once per image."""
    rows = lift.rows(node.inputs[0])
    if rows is None or not rows.pure:
        return ()
    return repeat_inputs(lift, node, {4: 0, 5: rows.axis, 6: rows.axis})


def rewrite_grid_sample(lift: Lift, node: onnx_ir.Node) -> Emitted:
    """Repeats the input of a GridSample that all images share, its grid or what it samples, once per image."""
    return repeat_inputs(lift, node, {0: 0, 1: 0})


def rewrite_broadcast(lift: Lift, node: onnx_ir.Node) -> Emitted:
    """Replaces a constant that has the same row for every image by that one row, which is broadcast."""
    rank = max((lift.graph.rank(value) for value in node.inputs if value is not None), default=0)
    held = [rows.axis + rank - lift.graph.rank(value) for value in node.inputs if (rows := lift.rows(value))]
    for index, value in enumerate(node.inputs):
        row = None if value is None else single_row(lift, value, held[0] - rank + lift.graph.rank(value))
        if row is not None:
            node.replace_input_with(index, add_constant(node, row))
    return ()


def single_row(lift: Lift, value: onnx_ir.Value, axis: int) -> np.ndarray | None:
    """Returns the row, of length 1 along ``axis``, that a constant repeats for each image; None where rows differ."""
    array = (
        constant_of(value) if axis >= 0 and value.shape is not None and value.shape[axis] == lift.batch > 1 else None
    )
    if array is None or array.size > MOST_REPEATED:
        return None
    row = np.take(array, [0], axis=axis)
    return row if np.array_equal(array, np.broadcast_to(row, array.shape)) else None


def repeat_inputs(lift: Lift, node: onnx_ir.Node, axes: dict[int, int]) -> list[onnx_ir.Node]:
    """Repeats inputs of a node that are the same for all images, once per image; returns the nodes emitted for that.

    Args:
        lift: the graph while its batch is made symbolic.
        node: the node that reads the inputs.
        axes: the axis on which the images are to lie, by the index of an input.
    """
    emitted: list[onnx_ir.Node] = []
    for index, axis in axes.items():
        value = input_of(node, index)
        if value is None or lift.graph.state(value) is not None or value.shape is None:
            continue
        row = single_row(lift, value, axis)
        if row is not None:
            value = add_constant(node, row)
        assert value.shape is not None
        sizes = list(value.shape)
        if axis < len(sizes) and sizes[axis] == 1 and all(isinstance(size, int) for size in sizes):
            emitted += repeat_per_image(lift, node, index, value, axis)
    return emitted


def repeat_per_image(lift: Lift, node: onnx_ir.Node, index: int, value: onnx_ir.Value, axis: int) -> list[onnx_ir.Node]:
    """Emits, before a node, the expansion of one of its inputs to as many rows as there are images."""
    assert node.graph is not None
    assert value.shape is not None
    label = f"{node.name or node.op_type}/{index}/{value.name}/per_image"
    count = onnx_ir.node("Shape", [lift.image], {"start": 0, "end": 1}, name=f"{label}/batch")
    sizes = list(value.shape)
    parts = [add_constant(node, np.array(part)) for part in (sizes[:axis], sizes[axis + 1 :])]
    target = onnx_ir.node("Concat", [parts[0], count.outputs[0], parts[1]], {"axis": 0}, name=f"{label}/shape")
    expand = onnx_ir.node("Expand", [value, target.outputs[0]], name=label)
    for emitted in (count, target, expand):
        emitted.outputs[0].name = f"{emitted.name}:0"
    count.outputs[0].shape, target.outputs[0].shape = onnx_ir.Shape([1]), onnx_ir.Shape([len(sizes)])
    expand.outputs[0].type = value.type
    expand.outputs[0].shape = onnx_ir.Shape([*sizes[:axis], lift.batch, *sizes[axis + 1 :]])
    node.graph.insert_before(node, [count, target, expand])
    node.replace_input_with(index, expand.outputs[0])
    return [count, target, expand]


REWRITES: dict[str, Rewrite] = {
    "Reshape": rewrite_reshape,
    "Expand": rewrite_expand,
    "Resize": rewrite_resize,
    "Squeeze": rewrite_squeeze,
    "Gather": rewrite_gather,
    "Slice": rewrite_slice,
    "Concat": rewrite_concat,
    "RNN": rewrite_recurrent,
    "GRU": rewrite_recurrent,
    "LSTM": rewrite_recurrent,
    "GridSample": rewrite_grid_sample,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Where", "Max", "Min", "Pow", "Sum"), rewrite_broadcast),
}


def add_constant(node: onnx_ir.Node, array: np.ndarray) -> onnx_ir.Value:
    """Adds an array to a node's graph as an initializer, and returns it; integers become int64."""
    assert isinstance(node.graph, onnx_ir.Graph)
    name = f"{node.name or node.op_type}/lifted_{len(node.graph.initializers)}"
    tensor = onnx_ir.tensor(array.astype(np.int64) if array.dtype.kind in "iu" or not array.size else array, name=name)
    value = onnx_ir.Value(
        name=name, shape=onnx_ir.Shape(array.shape), type=onnx_ir.TensorType(tensor.dtype), const_value=tensor
    )
    node.graph.register_initializer(value)
    return value
