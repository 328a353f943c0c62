"""The graph of a network that takes one image at a time: for those whose images cannot be kept apart in a batch.

1. An open batch, or one of 1, becomes 1 everywhere, so that no runtime accepts more.
2. A larger fixed batch that cannot be opened gets its one image, and its one mask, as often as it has places, and of
   every output that has as many rows the first is taken. That is done once the mask has been carried through.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from masktool.contract import MASK_INPUT
from masktool.exporters.canonical import canonicalise
from masktool.exporters.defaults import is_reader, read_once
from masktool.exporters.foreseen import foresee_abort
from masktool.exporters.onnx_file import find_other_inputs
from masktool.limits import check_limit
from masktool.ops.builder import GraphBuilder


def one_image_model(source: ir.Model, image_input: str) -> tuple[ir.Model, int]:
    """Returns the canonical graph of a source for one image, and how many copies of it make up its batch.

    The source stays as it is.

    Args:
        source: the plain graph.
        image_input: name of the image input, batch on axis 0.

    Raises:
        MasktoolError: a fixed batch is beyond the limit of images that are computed for one.
    """
    image = next(value for value in source.graph.inputs if value.name == image_input)
    assert image.shape is not None
    batch = image.shape[0]
    if isinstance(batch, int) and batch > 1:
        check_limit("copies", batch, where=f"input {image_input!r}")
        return canonicalise(source), batch
    return canonicalise(with_batch(source, image_input, 1)), 1


def with_batch(source: ir.Model, image_input: str, count: int) -> ir.Model:
    """Returns a copy of a graph whose image input, and all others along the same length, take a number of images.

    Args:
        source: the plain graph.
        image_input: name of the image input, batch on axis 0.
        count: the number of images.
    """
    model = source.clone()
    image = next(value for value in model.graph.inputs if value.name == image_input)
    assert image.shape is not None
    batch = image.shape[0]
    named = isinstance(batch, ir.SymbolicDim) and batch.value is not None
    for value in find_other_inputs(model, image_input):
        if value.shape is not None:
            alike = [length == batch and (named or axis == 0) for axis, length in enumerate(value.shape)]
            value.shape = ir.Shape([count if own else n for own, n in zip(alike, value.shape, strict=True)])
    image.shape = ir.Shape([count, *image.shape[1:]])
    foresee_abort(model, image, model.graph.name)
    return model


class Ends(GraphBuilder):
    """Emits nodes in front of a graph's first node but the one that reads the mask, or at its end."""

    prefix = "one_image"

    def __init__(self, graph: ir.Graph) -> None:
        super().__init__(graph)
        self.before: ir.Node | None = next(node for node in graph if not is_reader(node))

    @property
    def label(self) -> str:
        """What the names of emitted nodes begin with."""
        return "masktool/one_image"

    def place(self, node: ir.Node) -> None:
        """Puts an emitted node in front of the graph's first node, or at the end."""
        if self.before is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self.before, node)


def take_one_image(model: ir.Model, image_input: str, batch: int, rows: Sequence[int]) -> None:
    """Feeds one image as often as a fixed batch has places, and takes the first row of every output, in place.

    Args:
        model: the graph, with a mask input or without.
        image_input: name of the image input.
        batch: the length of its first axis.
        rows: the number of rows that each output was found to have, which counts where the graph does not tell; 0 for
            a single number.
    """
    ends = Ends(model.graph)
    names = {image_input, MASK_INPUT, *(value.name for value in find_other_inputs(model, image_input))}
    for value in [value for value in model.graph.inputs if value.name in names]:
        if value.shape is None or not len(value.shape) or value.shape[0] != batch:
            continue
        read, sizes = read_once(model.graph, value), list(value.shape)
        users = tuple(read.uses())
        target = ends.constant([batch, *[1] * (len(sizes) - 1)], ir.DataType.INT64)
        repeated = ends.emit("Expand", read, target)
        repeated.shape = ir.Shape(sizes)
        value.shape = read.shape = ir.Shape([1, *sizes[1:]])
        for user, index in users:
            user.replace_input_with(index, repeated)
    ends.before = None
    bounds = [ends.constant([number], ir.DataType.INT64) for number in (0, 1, 0)]
    for index, (output, found) in enumerate(zip(tuple(model.graph.outputs), rows, strict=True)):
        if rows_of(output, found) != batch:
            continue
        first = ends.emit("Slice", output, *bounds)
        first.shape = None if output.shape is None else ir.Shape([1, *output.shape[1:]])
        first.type = output.type
        first.name, output.name = output.name, f"{output.name}_of_{batch}"
        model.graph.outputs[index] = first


def rows_of(output: ir.Value, found: int) -> int:
    """Returns the length of an output's first axis: the graph's, else ``found``, which a run gave."""
    if output.shape is None:
        return found
    length = output.shape[0] if len(output.shape) else 0
    return length if isinstance(length, int) else found


def first_rows(outputs: Iterable[np.ndarray], batch: int) -> list[np.ndarray]:
    """Returns what :func:`take_one_image` leaves of a fixed batch's outputs: the first row of those with a row each."""
    return [output[:1] if output.ndim and len(output) == batch > 1 else output for output in outputs]
