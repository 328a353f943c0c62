"""Masking by fill: only the input changes, the network behind it stays as it is.

With x the image, m the mask and b the baseline, the network sees x · m + b · (1 − m). What stands under a 0 of the mask
is replaced before anything else looks at it, so that it never has an influence, NaN and infinity included. That goes
for the baselines that are computed from the image too: ``image-mean`` is the mean of the *kept* pixels and ``blur``
spreads *kept* pixels only. A blurred copy of the whole photograph, as many tools take it, still shows what is said to
be missing.

Source: the control that LIME (Ribeiro et al., 2016, https://arxiv.org/abs/1602.04938) and RISE (Petsiuk et al., 2018,
https://arxiv.org/abs/1806.07421) stand for, with a choice of the baseline.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from masktool.baselines import BLUR_SIGMA, InputShape, constant_baseline
from masktool.contract import DEFAULT_SIZE, FUNCTION_DOMAIN, Layout, Preprocessing
from masktool.errors import MasktoolError
from masktool.exporters.canonical import opset_of
from masktool.exporters.fill_functions import MEAN_OF_KEPT, fill_function
from masktool.exporters.integer_images import takes_integers
from masktool.exporters.propagate import FUNCTION_DOMAIN_VERSION, add_mask_input, rename_batch
from masktool.layouts import (
    CHANNEL_AXIS,
    FROM_CHANNELS_FIRST,
    IN_WORDS,
    SPATIAL_AXES,
    TO_CHANNELS_FIRST,
    is_channels_first,
)
from masktool.messages import parameter
from masktool.ops.builder import CHOOSABLE

BLUR_REACH = 3
"""Standard deviations after which the Gaussian ends; 0.3 % of it lies beyond."""
SINGLE_HOLDS_BYTES = 2
"""Bytes of the longest integers that float32 holds exactly; double holds them up to 2⁵³, so that a Where has to keep
the pixels whose mask is 1."""


def fill_model(
    model: ir.Model,
    image_input: str,
    layout: Layout,
    baseline: str,
    preprocessing: Preprocessing | None,
    *,
    mask_required: bool,
) -> None:
    """Adds the input ``mask`` and fills the image with the baseline where it is missing, in place.

    Args:
        model: the model, of opset 18 or later, with a symbolic batch.
        image_input: the name of the image input.
        layout: the layout of the image input.
        baseline: the baseline, see :func:`masktool.export`.
        preprocessing: how pixels become the input; None where that is unknown, which colours and noise refuse.
        mask_required: whether ``mask`` is an ordinary input instead of one with a default of ones.

    Raises:
        MasktoolError: the model already has an input ``mask``, or the baseline does not go with the model.
    """
    image = next(value for value in model.graph.inputs if value.name == image_input)
    users = tuple(image.uses())
    emit = FillEmitter(model, before=model.graph[0])
    mask = add_mask_input(model.graph, image, layout, mask_required=mask_required)
    if baseline in ("image-mean", "blur"):
        values = emit_kept_average(emit, image, mask, layout, blurred=baseline == "blur")
    else:
        shape = input_shape(image, layout)
        constant = constant_baseline(baseline, shape, preprocessing, layout, where=parameter("baseline", baseline))
        values = emit.constant(baseline, constant)
    aligned = emit.from_channels_first(mask, layout)
    filled = emit_filled(emit, image, aligned, values)
    filled.name, filled.type, filled.shape = f"{image_input}_filled", image.type, image.shape
    for user, index in users:
        user.replace_input_with(index, filled)
    common.NameFixPass()(model)
    rename_batch(model.graph, image)


def emit_filled(emit: FillEmitter, image: ir.Value, mask: ir.Value, values: ir.Value) -> ir.Value:
    """Emits the image filled with the baseline; an image of integers by way of floating point."""
    if not takes_integers(image) or image.dtype is None:
        return emit.function("Fill", image, mask, values)
    wide = image.dtype.itemsize > SINGLE_HOLDS_BYTES
    between = ir.DataType.DOUBLE if wide else ir.DataType.FLOAT
    filled = emit.function("Fill", emit.node("Cast", image, to=between), mask, values)
    bounds = np.iinfo(image.dtype.numpy())
    low, high = (np.array(end, between.numpy()) for end in (bounds.min, bounds.max))
    inside = emit.node(
        "Clip", emit.node("Round", filled), emit.constant("least_integer", low), emit.constant("largest_integer", high)
    )
    if not wide:
        return emit.node("Cast", inside, to=image.dtype)
    choosable = CHOOSABLE.get(image.dtype, image.dtype)
    whole = emit.node("GreaterOrEqual", mask, emit.constant("whole", np.ones((), np.float32)))
    sides = (emit.node("Cast", value, to=choosable) for value in (image, inside))
    return emit.node("Cast", emit.node("Where", whole, *sides), to=image.dtype)


class FillEmitter:
    """Emits nodes and constants in front of a node."""

    def __init__(self, model: ir.Model, before: ir.Node) -> None:
        self.model, self.before = model, before

    def node(self, op_type: str, *inputs: ir.Value, domain: str = "", **attributes: Any) -> ir.Value:
        """Emits a node and returns its output."""
        node = ir.node(op_type, inputs, attributes, domain=domain, name=f"masktool/{op_type}_{len(self.model.graph)}")
        node.outputs[0].name = f"{node.name}:0"
        self.model.graph.insert_before(self.before, node)
        return node.outputs[0]

    def to_channels_first(self, value: ir.Value, layout: Layout) -> ir.Value:
        """Emits a value of a layout as (N, C, ...)."""
        return value if is_channels_first(layout) else self.node("Transpose", value, perm=TO_CHANNELS_FIRST[layout])

    def from_channels_first(self, value: ir.Value, layout: Layout) -> ir.Value:
        """Emits a value (N, C, ...) in a layout."""
        return value if is_channels_first(layout) else self.node("Transpose", value, perm=FROM_CHANNELS_FIRST[layout])

    def function(self, name: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Adds a model-local function to the model, emits a call of it and returns the call's output."""
        function = fill_function(name, opset_of(self.model))
        self.model.functions[function.identifier()] = function
        self.model.opset_imports[FUNCTION_DOMAIN] = FUNCTION_DOMAIN_VERSION
        return self.node(name, *inputs, domain=FUNCTION_DOMAIN, **attributes)

    def constant(self, label: str, array: np.ndarray) -> ir.Value:
        """Adds an array as an initializer and returns it."""
        tensor = ir.tensor(array, name=f"masktool/{label}")
        value = ir.Value(
            name=tensor.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.model.graph.register_initializer(value)
        return value


def emit_kept_average(emit: FillEmitter, image: ir.Value, mask: ir.Value, layout: Layout, *, blurred: bool) -> ir.Value:
    """Emits the mean of the kept pixels, or their blur, in the image's layout."""
    shape = input_shape(image, layout)
    planes = emit.to_channels_first(image, layout)
    kept = emit.function("Keep", planes, mask)
    average = emit.function(MEAN_OF_KEPT[len(shape) - 1], kept, mask)
    if blurred:
        average = emit_blur(emit, kept, mask, average, shape)
    return emit.from_channels_first(average, layout)


def emit_blur(emit: FillEmitter, kept: ir.Value, mask: ir.Value, mean: ir.Value, shape: InputShape) -> ir.Value:
    """Emits the blur of the kept pixels; the Gaussian is separable, so it runs along columns and then along rows.

    Raises:
        MasktoolError: the input is no image: how far to blur along a time or a depth, nobody has settled.
    """
    channels, sides = shape[0], shape[1:]
    if len(sides) != len(DEFAULT_SIZE):
        raise MasktoolError(
            "the baseline blur is for images",
            where=parameter("baseline", "blur"),
            got=f"an input with {IN_WORDS[len(sides)]}",
            fix="take mean or image-mean",
        )
    sigma = BLUR_SIGMA * min(side or usual for side, usual in zip(sides, DEFAULT_SIZE, strict=True))
    reach = math.ceil(BLUR_REACH * sigma)
    weights = np.broadcast_to(gaussian_weights(sigma, reach), (channels, 1, 2 * reach + 1))
    columns = emit.constant("gaussian_columns", np.ascontiguousarray(weights[..., None]))
    rows = emit.constant("gaussian_rows", np.ascontiguousarray(weights[:, :, None]))
    pads = {"column_pads": [reach, 0, reach, 0], "row_pads": [0, reach, 0, reach]}
    return emit.function("BlurOfKept", kept, mask, mean, columns, rows, channels=channels, **pads)


def input_shape(image: ir.Value, layout: Layout) -> InputShape:
    """Returns (channels, height, width) of the image input, or whatever its axes of places are; None where open.

    Raises:
        MasktoolError: the number of channels is open.
    """
    assert image.shape is not None
    sides = [image.shape[axis] for axis in SPATIAL_AXES[layout]]
    channels = image.shape[CHANNEL_AXIS[layout]]
    if not isinstance(channels, int):
        raise MasktoolError("the number of channels must be fixed", where=f"input {image.name!r}", got=image.shape)
    return channels, *(side if isinstance(side, int) else None for side in sides)


def gaussian_weights(sigma: float, radius: int) -> np.ndarray:
    """Returns the 2 · radius + 1 weights of a Gaussian, float32, of sum 1."""
    weights = [math.exp(-((offset / sigma) ** 2) / 2) for offset in range(-radius, radius + 1)]
    return (np.array(weights) / sum(weights)).astype(np.float32)
