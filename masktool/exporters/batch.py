"""A graph made for a fixed batch becomes one for any batch, and is checked against itself.

The batch is taken to stand on axis 0 throughout. Rewritten are the places where a fixed batch is written down: the
image input, target shapes of Reshape and Expand, sizes of Resize, a Squeeze of every axis of length 1, and constants
that a Concat joins to the images' own values. Whether that was right is not reasoned about but measured, so that no
operator needs a rule to be refused: what mixes images or drops the batch gives other values, and the first node that
does is named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir.passes.common import ShapeInferencePass

from masktool.contract import DEFAULT_SIZE
from masktool.errors import MasktoolError
from masktool.exporters.onnx_file import find_other_inputs, first_line
from masktool.exporters.probes import feed_of, others_of_graph
from masktool.exporters.storage import open_model
from masktool.exporters.tolerance import lift_tolerance_of

BATCH_NAME = "batch"
CHECKED_BATCHES = (1, 3, 8)
SHAPE_READERS = frozenset({"Shape", "Size"})
"""Their results describe a value and hold nothing of the images."""
Arrays = list[np.ndarray]


def lift_batch(model: onnx_ir.Model, image_input: str) -> None:
    """Gives a graph with a fixed batch a symbolic one, in place; does nothing where the batch is symbolic.

    Args:
        model: canonical: opset 18 or later, constants folded into initializers, shapes inferred.
        image_input: name of the image input, batch on axis 0.

    Raises:
        MasktoolError: the lifted graph does not give every image what the original gives it alone, at batches of 1, 3
            and 8; the message names the first node where they part.
    """
    image = next(value for value in model.graph.inputs if value.name == image_input)
    assert image.shape is not None  # an image input has rank 4
    batch = image.shape[0]
    if not isinstance(batch, int):
        return
    original = model.clone()
    dependent = find_dependent_values(image)
    for node in tuple(model.graph):
        if rewrite := REWRITES.get(node.op_type):
            rewrite(node, image, dependent, batch)
    forget_batch(model, image, dependent, batch)
    check_lifted(original, model, image, batch, dependent)


def find_dependent_values(image: onnx_ir.Value) -> set[onnx_ir.Value]:
    """Returns the values that hold something of the images."""
    found, waiting = {image}, [image]
    while waiting:
        for node in waiting.pop().consumers():
            if node.op_type in SHAPE_READERS:
                continue
            fresh = [value for value in node.outputs if value not in found]
            found.update(fresh)
            waiting.extend(fresh)
    return found


def rewrite_reshape(node: onnx_ir.Node, image: onnx_ir.Value, dependent: set[onnx_ir.Value], batch: int) -> None:
    """Lets the target's first axis follow from the others."""
    del image, batch
    shape = node.outputs[0].shape
    if node.inputs[0] not in dependent or read_constant(node, 1) is None or shape is None or not shape.rank():
        return
    rest = list(shape)[1:]
    if all(isinstance(size, int) and size > 0 for size in rest):
        node.replace_input_with(1, add_constant(node, np.array([-1, *rest])))
        node.attributes.pop("allowzero", None)


def rewrite_expand(node: onnx_ir.Node, image: onnx_ir.Value, dependent: set[onnx_ir.Value], batch: int) -> None:
    """Asks for 1 on the batch axis, which keeps the batch that the images have."""
    del image
    target, shape = read_constant(node, 1), node.outputs[0].shape
    if node.inputs[0] not in dependent or target is None or shape is None or len(target) != shape.rank():
        return
    if target[0] == batch:
        node.replace_input_with(1, add_constant(node, np.array([1, *target[1:]])))


def rewrite_resize(node: onnx_ir.Node, image: onnx_ir.Value, dependent: set[onnx_ir.Value], batch: int) -> None:
    """Resizes every axis but the first."""
    del image, batch
    sizes = read_constant(node, 3)
    if node.inputs[0] in dependent and sizes is not None and "axes" not in node.attributes:
        node.replace_input_with(3, add_constant(node, sizes[1:]))
        node.attributes["axes"] = onnx_ir.AttrInt64s("axes", list(range(1, len(sizes))))


def rewrite_squeeze(node: onnx_ir.Node, image: onnx_ir.Value, dependent: set[onnx_ir.Value], batch: int) -> None:
    """Names the axes to drop, the batch not among them."""
    del image, batch
    value = node.inputs[0]
    if value not in dependent or value.shape is None or (len(node.inputs) > 1 and node.inputs[1] is not None):
        return
    axes = [axis for axis, size in enumerate(value.shape) if axis > 0 and size == 1]
    node.resize_inputs(2)
    node.replace_input_with(1, add_constant(node, np.array(axes)))


def rewrite_concat(node: onnx_ir.Node, image: onnx_ir.Value, dependent: set[onnx_ir.Value], batch: int) -> None:
    """Repeats what is the same for all images (a class token, a block of zeros) once per image."""
    shape, axis = node.outputs[0].shape, node.attributes["axis"].as_int()
    if node.outputs[0] not in dependent or shape is None or axis % shape.rank() == 0 or shape[0] != batch:
        return
    for index, value in enumerate(node.inputs):
        if value is not None and value not in dependent:
            node.replace_input_with(index, repeat_per_image(node, value, image))


def repeat_per_image(node: onnx_ir.Node, value: onnx_ir.Value, image: onnx_ir.Value) -> onnx_ir.Value:
    """Emits, before a node, the expansion of a value (1, ...) to the images' batch."""
    assert node.graph is not None
    assert value.shape is not None  # the graph comes with shapes inferred
    label = f"{node.name or node.op_type}/{value.name}/per_image"
    count = onnx_ir.node("Shape", [image], {"start": 0, "end": 1}, name=f"{label}/batch")
    rest = add_constant(node, np.array(list(value.shape)[1:], dtype=np.int64))
    target = onnx_ir.node("Concat", [count.outputs[0], rest], {"axis": 0}, name=f"{label}/shape")
    expand = onnx_ir.node("Expand", [value, target.outputs[0]], name=label)
    for emitted in (count, target, expand):
        emitted.outputs[0].name = f"{emitted.name}:0"
    expand.outputs[0].type = value.type
    node.graph.insert_before(node, [count, target, expand])
    return expand.outputs[0]


Rewrite = Callable[[onnx_ir.Node, onnx_ir.Value, set[onnx_ir.Value], int], None]
REWRITES: dict[str, Rewrite] = {
    "Reshape": rewrite_reshape,
    "Expand": rewrite_expand,
    "Resize": rewrite_resize,
    "Squeeze": rewrite_squeeze,
    "Concat": rewrite_concat,
}


def read_constant(node: onnx_ir.Node, index: int) -> np.ndarray | None:
    """Returns a constant input as an array, None where it is left out or computed."""
    value = node.inputs[index] if index < len(node.inputs) else None
    tensor = None if value is None else onnx_ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def add_constant(node: onnx_ir.Node, array: np.ndarray) -> onnx_ir.Value:
    """Adds an int64 initializer to the node's graph."""
    assert isinstance(node.graph, onnx_ir.Graph)
    name = f"{node.name or node.op_type}/lifted_{len(node.graph.initializers)}"
    tensor = onnx_ir.tensor(array.astype(np.int64), name=name)
    value = onnx_ir.Value(
        name=name, shape=onnx_ir.Shape(array.shape), type=onnx_ir.TensorType(tensor.dtype), const_value=tensor
    )
    node.graph.register_initializer(value)
    return value


def forget_batch(model: onnx_ir.Model, image: onnx_ir.Value, dependent: set[onnx_ir.Value], batch: int) -> None:
    """Infers the shapes of all that depends on the images anew, from a symbolic batch.

    Another input that has as many rows as there were images gets the same batch; one row serves all images.
    """
    assert image.name is not None
    for value in (image, *find_other_inputs(model, image.name)):
        if value.shape and (value is image or (value.shape[0] == batch and batch > 1)):
            value.shape = onnx_ir.Shape([BATCH_NAME, *list(value.shape)[1:]])
    former = {value: value.shape for value in dependent if value is not image}
    for value in former:
        value.shape = None
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    for value, shape in former.items():
        if value.shape is None:
            value.shape = shape
        if shape is not None and shape.rank() and shape[0] == batch and value.shape is not None and value.shape.rank():
            value.shape = onnx_ir.Shape([BATCH_NAME, *list(value.shape)[1:]])


def check_lifted(
    original: onnx_ir.Model,
    lifted: onnx_ir.Model,
    image: onnx_ir.Value,
    batch: int,
    dependent: set[onnx_ir.Value],
) -> None:
    """Raises MasktoolError where the lifted graph's outputs are not those of the original, run image by image."""
    images = random_images(image)
    tolerance = lift_tolerance_of(original, str(image.name))
    outputs = [value.name for value in original.graph.outputs]
    run_original = open_graph(original, image)
    try:
        run_lifted = open_graph(lifted, image)
        for count in CHECKED_BATCHES:
            expected = run_image_by_image(run_original, images[:count], batch)
            difference = relative_difference(run_lifted(images[:count]), expected, count)
            if difference > tolerance:
                where = find_first_difference(original, lifted, image, batch, images[:count], dependent, tolerance)
                raise refuse(where, f"relative difference {difference:.1e} at batch {count}, output {outputs}")
    except MasktoolError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise refuse(None, first_line(error)) from error


def refuse(where: str | None, got: str) -> MasktoolError:
    """Returns the error of a graph that works for its own batch only."""
    return MasktoolError(
        "the model's fixed batch cannot be made dynamic",
        where=where,
        got=got,
        fix="export the model with a dynamic batch axis",
    )


def random_images(image: onnx_ir.Value) -> np.ndarray:
    """Returns as many random images as the largest checked batch, in the input's element type."""
    assert image.shape is not None
    assert image.dtype is not None
    sides = [size if isinstance(size, int) else max(DEFAULT_SIZE) for size in list(image.shape)[1:]]
    images = np.random.default_rng(0).standard_normal((max(CHECKED_BATCHES), *sides))
    return images.astype(image.dtype.numpy())


def open_graph(model: onnx_ir.Model, image: onnx_ir.Value) -> Callable[[np.ndarray], Arrays]:
    """Opens a graph on the CPU provider: images -> every output, other inputs fed with the same for all images."""
    assert image.name is not None
    session = open_model(model)
    own = next(value for value in model.graph.inputs if value.name == image.name)
    assert own.shape is not None  # an image input has rank 4
    batch = own.shape[0] if isinstance(own.shape[0], int) else own.shape[0].value
    others = others_of_graph(find_other_inputs(model, image.name), batch)

    def run(images: np.ndarray) -> Arrays:
        feed = {image.name: images} | feed_of(others, len(images))
        return [np.asarray(output) for output in session.run(None, feed)]

    return run


def run_image_by_image(run: Callable[[np.ndarray], Arrays], images: np.ndarray, batch: int) -> Arrays:
    """Runs a function made for one batch size on any number of images, each alone, repeated to fill the batch.

    Args:
        run: images (batch, ...) -> arrays whose first axis is the batch, or which have none where the batch is 1.
        images: (N, ...).
        batch: what ``run`` takes.

    Returns:
        For every output, the images' results stacked on a first axis of length N times what one image has there.
    """
    rows: list[Arrays] = []
    for image in images:
        outputs = run(np.repeat(image[None], batch, axis=0))
        rows.append(
            [output.reshape(batch, -1, *output.shape[1:])[0] if output.ndim else output[None] for output in outputs]
        )
    return [np.concatenate(results) for results in zip(*rows, strict=True)]


def relative_difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray], count: int) -> float:
    """Returns the largest max|found - expected| / max|expected| over outputs, infinite where sizes or NaNs differ."""
    worst = 0.0
    for left, right in zip(found, expected, strict=True):
        if left.size != right.size or left.size % count:
            return float("inf")
        left, right = left.reshape(count, -1).astype(np.float64), right.reshape(count, -1).astype(np.float64)
        scale = np.abs(right).max(initial=0.0)
        gap = np.abs(left - right).max(initial=0.0)
        ratio = gap / scale if scale > 0 else gap
        worst = max(worst, ratio) if np.isfinite(ratio) else float("inf")
    return worst


def find_first_difference(
    original: onnx_ir.Model,
    lifted: onnx_ir.Model,
    image: onnx_ir.Value,
    batch: int,
    images: np.ndarray,
    dependent: set[onnx_ir.Value],
    tolerance: float,
) -> str:
    """Returns the first node, in the graph's order, whose results are not the original's."""
    names = {value.name for value in dependent}
    shared = {value.name for node in original.graph for value in node.outputs if value.name in names}
    results = {node: [value.name for value in node.outputs if value.name in shared] for node in lifted.graph}
    probes = [name for found_names in results.values() for name in found_names if name is not None]
    expected = run_image_by_image(open_graph(expose(original, probes), image), images, batch)
    found = open_graph(expose(lifted, probes), image)(images)
    for node, found_names in results.items():
        for name in found_names:
            assert name is not None
            index = probes.index(name)
            pair: tuple[Any, Any] = ([found[index]], [expected[index]])
            if relative_difference(*pair, len(images)) > tolerance:
                return f"{node.op_type} node {node.name!r}"
    return f"input {image.name!r}"


def expose(model: onnx_ir.Model, names: Sequence[str]) -> onnx_ir.Model:
    """Returns a copy of a model whose outputs are the named values."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in names)
    for value in copy.graph.outputs:
        value.shape, value.type = None, None  # as the runtime finds them, not as somebody once wrote them down
    return copy
