"""Gradients as part of the file: reverse-mode differentiation of an exported graph, in standard operators.

1. Model-local functions are inlined, and images and masks are brought to one batch, so that every (image, mask) pair
   has a gradient of its own.
2. What is differentiated is added (:mod:`.gradient_ends`): a loss of the class scores, chosen by the input ``loss``, or
   the values of an output, weighed by the input ``output_weights``.
3. The rules of :mod:`masktool.ops` walk the graph backwards.

Source: Griewank and Walther, "Evaluating Derivatives", 2nd edition, 2008, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from masktool.contract import (
    BATCH_AXIS,
    FEATURE_MAP_OUTPUTS,
    GRADIENT_PREFIX,
    MASK_INPUT,
    OBJECTIVE,
    DeviceProvider,
)
from masktool.errors import UnsupportedOperatorError
from masktool.exporters.canonical import infer_shapes
from masktool.exporters.defaults import is_reader, read_once
from masktool.exporters.feature_maps import MASKTOOL_PREFIX, find_feature_maps, name_outside, values_behind
from masktool.exporters.gradient_ends import Differentiated
from masktool.ops.blocked import read_masks_unspread
from masktool.ops.builder import GraphBuilder, rank_of
from masktool.ops.gradients import GradientGraph

WITHOUT_INDICES = frozenset({"webgpu", "tensorrt", "directml"})
"""Providers that give no indices of a max pool, or whose kernels add nothing up at them."""


class Prologue(GraphBuilder):
    """Emits nodes in front of everything else but the one that reads the mask."""

    prefix = "gradient_prologue"

    def __init__(self, graph: ir.Graph) -> None:
        super().__init__(graph)
        self._first = next(node for node in graph if not is_reader(node))

    @property
    def label(self) -> str:
        """The beginning of the names of emitted nodes."""
        return "gradient/inputs"

    def place(self, node: ir.Node) -> None:
        """Puts an emitted node in front of the node that was the first of the graph."""
        self.graph.insert_before(self._first, node)


def add_gradients(
    model: ir.Model,
    image_input: str,
    differentiated: Differentiated,
    feature_maps: Sequence[str] = (),
    *,
    for_provider: DeviceProvider | None = None,
    blocks: bool = True,
) -> tuple[str, ...]:
    """Adds gradients with respect to the image, the mask (where there is one) and feature maps, in place.

    Inputs ``target`` (T,) int64, T the batch or 1, and ``loss`` () int64, optional, are added, or of an output
    ``output_weights`` (T, ...) float32; outputs ``objective`` (B,), ``gradient_image`` in the image's shape,
    ``gradient_mask`` in the mask's, and for every feature map ``feature_map`` and ``gradient_feature_map`` (B, c, h, w)
    or the like (``FEATURE_MAP_OUTPUTS``), all float32. B is the larger of the image's and the mask's batch.

    Args:
        model: a masked model, or any canonical one.
        image_input: the name of the image input.
        differentiated: what the gradients are of.
        feature_maps: the names of the feature maps, values (N, c, h, w); none takes the last one, or of an output that
            has places itself the last one of the fewest places.
        for_provider: the provider whose kernels the gradients are written for; None for the CPU's and CUDA's.
        blocks: whether nodes may be emitted that only bring gradients into the layout of the CPU's convolutions.

    Returns:
        The names of the feature maps in the order of their outputs; none for a network without any.

    Raises:
        UnsupportedOperatorError: nodes without a gradient rule, or that let no gradient pass; the error lists all of
            them. The model is then unusable.
        MasktoolError: no feature map has that name, or what is differentiated has no gradient.
    """
    mark_insides(model)
    common.InlinePass()(model)
    sources = share_one_batch(model.graph, image_input)
    infer_shapes(model)
    read_masks_unspread(model.graph)
    graph = GradientGraph(
        model.graph,
        sources.values(),
        indices_of_maxima=for_provider not in WITHOUT_INDICES,
        blocks=blocks and for_provider is None,
    )
    end = differentiated.add_to(graph)
    of_image = values_behind(model.graph, sources["image"])
    chosen = find_feature_maps(
        model.graph, end.value, feature_maps, lambda value: value in of_image and graph.needs(value)
    )
    carry_back(graph, end.value, end.seed, [sources["image"]])
    chosen = [value for value in chosen if value.shape is not None and not is_copied(value.shape)]
    batch = batch_of(sources.values())
    add_output(graph, OBJECTIVE, end.objective, [batch])
    for name, source in sources.items():
        gradient = graph.total(source)
        assert source.shape is not None
        add_output(graph, GRADIENT_PREFIX + name, gradient or graph.zeros_like(source), [batch, *source.shape[1:]])
    for name, value in zip(FEATURE_MAP_OUTPUTS, chosen, strict=False):
        gradient = graph.total(value)
        assert value.shape is not None
        shape = [batch, *value.shape[1:]]
        add_output(graph, name, value, shape)
        add_output(graph, GRADIENT_PREFIX + name, gradient or graph.zeros_like(value), shape)
    common.RemoveUnusedNodesPass()(model)
    common.NameFixPass()(model)
    return tuple(str(name_outside(value)) for value in chosen)


def mark_insides(model: ir.Model) -> None:
    """Gives what masktool's functions compute inside names like those of its other values, which inlining keeps.

    So that they are told from the network's own values, such as its feature maps.
    """
    for function in model.functions.values():
        for value in (value for node in function for value in node.outputs):
            if value.name and not value.name.startswith(MASKTOOL_PREFIX):
                value.name = MASKTOOL_PREFIX + value.name


def carry_back(graph: GradientGraph, value: ir.Value, gradient: ir.Value, sources: Iterable[ir.Value]) -> None:
    """Carries the gradient of a value back through the whole graph.

    Args:
        graph: the graph, behind whose nodes those of the gradients are emitted.
        value: the value that is differentiated.
        gradient: its gradient, in its shape.
        sources: the values that a gradient has to reach.

    Raises:
        UnsupportedOperatorError: nodes without a gradient rule, or that let no gradient pass; the error lists all of
            them. The graph is then unusable.
    """
    graph.add(value, gradient)
    if refused := graph.propagate():
        raise UnsupportedOperatorError(refused, what="no gradient rule for")
    for source in sources:
        if graph.total(source) is None:
            raise UnsupportedOperatorError(graph.flat_nodes(source), what="the gradient is 0 everywhere, because of")


def share_one_batch(graph: ir.Graph, image_input: str) -> dict[str, ir.Value]:
    """Repeats a single image for many masks, and a single mask for many images, where the file takes many.

    Returns:
        The values that stand for the image and the mask from there on, by "image" and "mask".
    """
    inputs = {value.name: value for value in graph.inputs}
    found = {"image": inputs[image_input]}
    if MASK_INPUT in inputs:
        found["mask"] = read_once(graph, inputs[MASK_INPUT])
    if batch_of(found.values()) == 1:
        return found
    prologue = Prologue(graph)
    users = {name: tuple(value.uses()) for name, value in found.items()}
    lengths = [prologue.length_of(value, 0) for value in found.values()]
    batch = lengths[0] if len(lengths) == 1 else prologue.emit("Max", *lengths)
    ones = [1] * (rank_of(found["image"]) - 1)
    shape = prologue.emit("Concat", batch, prologue.constant(ones, ir.DataType.INT64), axis=0)
    for name, value in tuple(found.items()):
        repeated = prologue.emit("Expand", value, shape)
        assert value.shape is not None
        repeated.shape = ir.Shape([BATCH_AXIS, *value.shape[1:]])
        for user, index in users[name]:
            user.replace_input_with(index, repeated)
        found[name] = repeated
    return found


def batch_of(values: Iterable[ir.Value]) -> int | str:
    """Returns the first axis of every gradient: 1 in a file that takes one image at a time, else the batch's name."""
    return 1 if all(value.shape is not None and value.shape[0] == 1 for value in values) else BATCH_AXIS


def is_copied(shape: ir.Shape) -> bool:
    """Tells whether a feature map holds several copies of an image, see :mod:`masktool.exporters.one_image`."""
    return isinstance(shape[0], int) and shape[0] > 1


def add_output(
    graph: GradientGraph,
    name: str,
    value: ir.Value,
    shape: Sequence[int | str | ir.SymbolicDim],
    dtype: ir.DataType = ir.DataType.FLOAT,
) -> None:
    """Makes a value an output of the graph, under a name of its own."""
    result = graph.emit("Identity", graph.as_type(value, dtype))
    result.name, result.type = name, ir.TensorType(dtype)
    result.shape = ir.Shape(shape)
    graph.graph.outputs.append(result)
