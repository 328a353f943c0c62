"""Makes a graph for a fixed batch one for any batch; that this changes no result is proved and measured.

The batch is followed through the graph (:mod:`.independence`), and wherever its length is written down (a target of
Reshape, a size of Resize, a constant that a Concat joins to every image's own values) the length is left open
(:mod:`.batch_rewrites`). Whether every image then gets what the original gives it alone is measured besides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime

from masktool.contract import DEFAULT_SIZE, Size
from masktool.errors import first_line
from masktool.exporters.batch_rewrites import REWRITES, Lift
from masktool.exporters.canonical import canonicalise
from masktool.exporters.differences import relative_difference
from masktool.exporters.domains import NORMAL, Domain
from masktool.exporters.independence import (
    Independence,
    Obstacle,
    follow_inputs,
    judge_independence,
    prove_independence,
)
from masktool.exporters.independence.states import CONTRADICTIONS, BatchRuleError, Rows
from masktool.exporters.onnx_file import find_other_inputs, layout_of
from masktool.exporters.probes import feed_of, others_of_graph, settle_size, sides_of
from masktool.exporters.storage import AS_ALWAYS, Running, open_model
from masktool.exporters.tolerance import lift_tolerance_of
from masktool.layouts import FROM_CHANNELS_FIRST, USUAL_SIZES

BATCH_NAME = "batch"
CHECKED_BATCHES = (1, 3)
USUAL_BATCH = 8
"""Up to this many images a graph is run at once, whatever their size."""
MEASURED_VALUES = 2**21
"""Numbers in a larger batch that is still run: 14 colour images of 224 x 224. Beyond, the proof has to do."""
Arrays = list[np.ndarray]


def lift_batch(
    model: onnx_ir.Model, image_input: str, domain: Domain = NORMAL, size: Size | None = None
) -> Independence:
    """Gives a graph with a fixed batch a symbolic one, in place; leaves a symbolic one as it is.

    Args:
        model: the canonical graph: opset 18 or later, constants folded into initializers, shapes inferred.
        image_input: the name of the image input, whose axis 0 is the batch.
        domain: the range of numbers of the images that the graph is tried on.
        size: the height and width in pixels of these images, where the graph leaves them open; None takes the usual.

    Returns:
        Whether every output has one row per image that depends on that image alone. Where that is not proved of a
        graph whose batch was fixed, the model is unusable.
    """
    image = next(value for value in model.graph.inputs if value.name == image_input)
    assert image.shape is not None  # an image input has rank 4
    batch = image.shape[0]
    if not isinstance(batch, int):
        return prove_independence(model, image_input)
    original = model.clone()
    lift = Lift(model, image, batch, follow_inputs(model, image, BATCH_NAME))
    for node in tuple(model.graph):
        lift.graph.follow([*rewrite_batch(lift, node), node])
    independence = judge_independence(lift.graph, model.graph.outputs)
    if independence.verdict != "proved":
        return independence
    forget_batch(lift)
    if too_large_to_run(original_image(original, image)):
        return independence
    found = check_lifted(original, model, lift, random_images(image, domain, size))
    return independence if found is None else Independence("mixing", (found,))


def original_image(original: onnx_ir.Model, image: onnx_ir.Value) -> onnx_ir.Value:
    """Returns the image input of a graph as it was before it was lifted."""
    return next(value for value in original.graph.inputs if value.name == image.name)


def open_to_measure(
    model: onnx_ir.Model, image_input: str, running: Running = AS_ALWAYS
) -> onnxruntime.InferenceSession:
    """Opens a plain graph as it came, so that a masked one can be compared with it.

    Where the graph takes a fixed batch that is too large to be run for a measurement, its batch is opened, if that is
    proved to change nothing.

    Raises:
        MasktoolError: ONNX Runtime does not take the graph.
    """
    session = open_model(model, running)
    image = next(value for value in model.graph.inputs if value.name == image_input)
    if not too_large_to_run(image):
        return session
    opened = canonicalise(model)
    return open_model(opened, running) if lift_batch(opened, image_input).verdict == "proved" else session


def too_large_to_run(image: onnx_ir.Value) -> bool:
    """Tells whether the fixed batch of an image input is too large to be run for a comparison of two graphs."""
    assert image.shape is not None
    batch, *sides = [size if isinstance(size, int) else None for size in image.shape]
    if batch is None or batch <= USUAL_BATCH:
        return False
    return batch * math.prod(side or max(DEFAULT_SIZE) for side in sides) > MEASURED_VALUES


def rewrite_batch(lift: Lift, node: onnx_ir.Node) -> Sequence[onnx_ir.Node]:
    """Rewrites a node that reads images, where its operator has a rewrite; returns the nodes put in front of it."""
    rewrite = REWRITES.get(node.op_type)
    if rewrite is None or not any(isinstance(lift.graph.state(value), Rows) for value in node.inputs):
        return ()
    try:
        return rewrite(lift, node)
    except (BatchRuleError, *CONTRADICTIONS):  # the node's own rule says so when its turn comes
        return ()


def forget_batch(lift: Lift) -> None:
    """Makes the images' axis open in the shapes of all values that hold images.

    Another input that has as many rows as there were images gets the same batch; one row serves all images.
    """
    for value, rows in lift.graph.values_with_rows():
        if value.shape is not None:
            sizes: list[Any] = list(value.shape)
            sizes[rows.axis] = BATCH_NAME if rows.pure else None
            value.shape = onnx_ir.Shape(sizes)


def check_lifted(original: onnx_ir.Model, lifted: onnx_ir.Model, lift: Lift, images: np.ndarray) -> Obstacle | None:
    """Returns where the lifted graph's outputs are not those of the original, run image by image; None if nowhere."""
    image, batch = lift.image, lift.batch
    tolerance = lift_tolerance_of(original, str(image.name))
    expected = run_image_by_image(open_graph(original, image), images, batch)
    try:
        run_lifted = open_graph(lifted, image)
        for count in CHECKED_BATCHES:
            rows = [output[: len(output) * count // len(images)] for output in expected]
            difference = relative_difference(laid_flat(run_lifted(images[:count])), laid_flat(rows))
            if difference > tolerance:
                node = find_first_difference(original, lifted, lift, images, tolerance)
                reason = f"gives an image something else in a batch of {count}: relative difference {difference:.1e}"
                return finding_at(node, image, reason)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        return Obstacle("mixes", "graph", str(lifted.graph.name), f"does not run for any batch: {first_line(error)}")
    return None


def finding_at(node: onnx_ir.Node | None, image: onnx_ir.Value, reason: str) -> Obstacle:
    """Returns the obstacle at a node, or at the image input where no node is to blame."""
    if node is None:
        return Obstacle("mixes", "input", str(image.name), reason)
    return Obstacle("mixes", node.op_type, str(node.name), reason)


def random_images(image: onnx_ir.Value, domain: Domain, size: Size | None) -> np.ndarray:
    """Returns as many random images as the largest checked batch, in the input's element type."""
    assert image.shape is not None
    assert image.dtype is not None
    layout = layout_of(image)
    channels, sides = sides_of([side if isinstance(side, int) else None for side in image.shape], layout)
    shape = (max(CHECKED_BATCHES), channels, *settle_size(sides, size or USUAL_SIZES[len(sides)]))
    images = domain.draw(np.random.default_rng(0), shape, image.dtype.numpy())
    return images.transpose(FROM_CHANNELS_FIRST[layout])


def open_graph(model: onnx_ir.Model, image: onnx_ir.Value) -> Callable[[np.ndarray], Arrays]:
    """Opens a graph on the CPU provider and returns its run, from images to all outputs.

    Inputs other than the image input are fed with the same for all images.
    """
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
    """Runs a function made for one batch size on any number of images, each of them repeated to fill a batch.

    Args:
        run: the function, from images (batch, ...) to arrays whose first axis is the batch, or which lack it where the
            batch is 1.
        images: the images (N, ...).
        batch: the number of images that ``run`` takes.

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


def laid_flat(outputs: Sequence[np.ndarray]) -> Arrays:
    """Returns outputs as vectors, to be compared: a graph for one image may lack the axis of the images."""
    return [output.reshape(-1) for output in outputs]


def find_first_difference(
    original: onnx_ir.Model, lifted: onnx_ir.Model, lift: Lift, images: np.ndarray, tolerance: float
) -> onnx_ir.Node | None:
    """Returns the first node of a lifted graph whose results are not the original's; None where there is none."""
    image, batch = lift.image, lift.batch
    names = {value.name for value, _ in lift.graph.values_with_rows()}
    shared = {value.name for node in original.graph for value in node.outputs if value.name in names}
    results = {node: [value.name for value in node.outputs if value.name in shared] for node in lifted.graph}
    probes = [name for found_names in results.values() for name in found_names if name is not None]
    expected = run_image_by_image(open_graph(expose(original, probes), image), images, batch)
    found = open_graph(expose(lifted, probes), image)(images)
    for node, found_names in results.items():
        for name in found_names:
            assert name is not None
            index = probes.index(name)
            if relative_difference(laid_flat([found[index]]), laid_flat([expected[index]])) > tolerance:
                return node
    return None


def expose(model: onnx_ir.Model, names: Sequence[str]) -> onnx_ir.Model:
    """Returns a copy of a model whose outputs are the named values."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in names)
    for value in copy.graph.outputs:
        value.shape, value.type = None, None  # as the runtime finds them, not as somebody once wrote them down
    return copy
