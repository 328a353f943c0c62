"""Finding the image input in a graph."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir

from masktool.contract import MASK_INPUT, Layout, Size
from masktool.errors import MasktoolError
from masktool.exporters.declared_shapes import open_unknown_lengths
from masktool.exporters.node_inputs import constant_of
from masktool.layouts import (
    CHANNEL_AXIS,
    FROM_CHANNELS_FIRST,
    IN_WORDS,
    RANKS,
    SPATIAL_AXES,
    TO_CHANNELS_FIRST,
    USUAL_SIZES,
    is_channels_first,
    layouts_of_rank,
    show_size,
)
from masktool.messages import SIZE, OneOf, Placeholder, differently, parameter, parameters
from masktool.ops.builder import INTEGER_TYPES

IMAGE_RANK = 4
"""Rank of a network's input where nothing says otherwise: that of images."""
LIKELY_RANKS = (4, 5, 3)
"""Ranks in the order in which an input is taken for the image."""
COLOURS = (1, 3, 4)
"""Numbers of channels that tell the channel axis from height and width."""
KNOWN_LAYOUT = "masktool.channels_first"
"""Mark of a value, in memory alone, whose axes are known to be (N, C, h, w)."""
COMMON_BATCH = "batch"
"""Name of an open batch that the source leaves nameless, where several inputs share it."""
LAYOUT_OF_PERMUTATION: Mapping[tuple[int, ...], Layout] = {
    permutation: layout
    for first, last in map(layouts_of_rank, RANKS[1:])
    for permutation, layout in ((TO_CHANNELS_FIRST[last], last), (FROM_CHANNELS_FIRST[last], first))
}
"""What a Transpose's permutation says about the layout in front of it. That of a signal says nothing: it is its own
inverse."""
SWAPPED = (0, 2, 1)
"""The permutation between (N, C, L) and (N, L, C)."""
CHANNELS_FIRST_OPERATORS = frozenset(
    {
        *("Conv", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN"),
        *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "QLinearConv", "ConvInteger"),
    }
)
"""Operators that ONNX defines for channels on axis 1 alone."""
ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})
PIXEL_OPERATORS = ARITHMETIC | frozenset(
    {"Cast", "Clip", "Identity", "Pad", "QuantizeLinear", "DequantizeLinear", "Relu"}
)
"""Operators that keep the order of the axes: normalisation in front of the first convolution is made of these."""
PARAMETERS: Mapping[str, tuple[int, int]] = {
    "Conv": (1, 1),
    "ConvInteger": (1, 1),
    "QLinearConv": (3, 1),
    "BatchNormalization": (1, 0),
    "InstanceNormalization": (1, 0),
}
"""The input and its axis whose length is the number of channels that an operator takes, by operator."""
FLOAT_TYPES = frozenset({onnx_ir.DataType.FLOAT, onnx_ir.DataType.FLOAT16, onnx_ir.DataType.DOUBLE})


def find_image_input(model: onnx_ir.Model, name: str | None = None) -> onnx_ir.Value:
    """Returns the image input: the input called ``name``, else the one input that may be it and is no initializer.

    That is one of rank 4, an image; where there is none, one of rank 5, a volume or video; where there is none either,
    one of rank 3 that a convolution reads, a signal: a sequence of tokens has that rank too. Integers are taken for the
    image only where no such input is float.

    Args:
        model: any graph.
        name: name of the image input, as the user says; None where the graph has to tell.

    Raises:
        MasktoolError: there is no such input, or several could be the image and none was named.
    """
    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    images = [value for value in inputs if is_image(value)]
    if name is None:
        images = next(filter(None, ([each for each in images if may_be(each, rank)] for rank in LIKELY_RANKS)), [])
        images = [value for value in images if value.dtype in FLOAT_TYPES] or images
    found = ", ".join(describe_value(value) for value in inputs) or "no input"
    if name is not None:
        if chosen := [value for value in images if value.name == name]:
            return chosen[0]
        raise MasktoolError(
            "no such image input",
            where=parameter("image_input", name),
            expected="the name of an input of rank 3, 4 or 5 that holds numbers",
            got=found,
        )
    if not images:
        expected = "one float or integer input of rank 4, such as (N, 3, H, W)"
        alone = [value.name for value in inputs if value.shape is not None and value.shape.rank() == IMAGE_RANK - 1]
        fix = None
        if alone:
            fix = "export the network with a batch axis in front, for images (1, C, H, W); or, if it is a signal "
            fix += "(N, C, L): " + parameter("image_input", alone[0])
        if unknown := [value.name for value in inputs if value.shape is None and value.dtype in FLOAT_TYPES]:
            settled = parameters(image_input=unknown[0], channels=Placeholder("C"), input_size=SIZE)
            fix = f"if {unknown[0]!r} is the image: " + settled
        raise MasktoolError("no image input", expected=expected, got=found, fix=fix)
    if len(images) > 1:
        names = OneOf(tuple(value.name for value in images), " or ")
        raise MasktoolError(
            f"{len(images)} inputs may be the image", got=found, fix="say which: " + parameter("image_input", names)
        )
    return images[0]


def find_other_inputs(model: onnx_ir.Model, image_input: str) -> list[onnx_ir.Value]:
    """Returns the inputs that callers must feed besides the image and the mask."""
    own = (image_input, MASK_INPUT)
    return [each for each in model.graph.inputs if each.name not in own and each.name not in model.graph.initializers]


def is_image(value: onnx_ir.Value) -> bool:
    """Tells whether a value is a tensor of numbers of a rank that images, signals or volumes have.

    A sequence has a shape too, that of its parts.
    """
    if value.shape is None or value.shape.rank() not in RANKS or not isinstance(value.type, onnx_ir.TensorType):
        return False
    return value.dtype in FLOAT_TYPES | INTEGER_TYPES


def may_be(image: onnx_ir.Value, rank: int) -> bool:
    """Tells whether an input is taken for the image of a rank: that it is a signal, a convolution has to show."""
    assert image.shape is not None
    return image.shape.rank() == rank and (rank >= IMAGE_RANK or layout_in_use(image) is not None)


def describe_value(value: onnx_ir.Value) -> str:
    """Returns the name, element type and shape of a value, as messages show them."""
    shape = "of unknown shape" if value.shape is None else f"({', '.join(str(dim) for dim in value.shape)})"
    is_tensor = isinstance(value.type, onnx_ir.TensorType) and value.dtype is not None
    element = value.dtype.name.lower() if is_tensor and value.dtype is not None else "not a tensor"
    return f"{value.name!r} {element} {shape}"


def settle_input(
    model: onnx_ir.Model,
    input_size: Size | None,
    image_input: str | None = None,
    channels: int | None = None,
) -> onnx_ir.Value:
    """Makes axes of length 0 or -1, as some converters write open axes, symbolic, and fixes open channels and sizes.

    Args:
        model: any graph; it is changed in place.
        input_size: (height, width), or what the axes are, that the user wants; None leaves open ones open.
        image_input: name of the input that is the image, of rank 4 where it has no shape and the size does not tell;
            None where the graph tells.
        channels: the number of channels for an open axis where no convolution tells it; None leaves the axis open.

    Returns:
        The image input.

    Raises:
        MasktoolError: the graph fixes another size, or has no image input.
    """
    open_unknown_lengths(model)
    for value in model.graph.inputs:
        if value.name == image_input and value.shape is None and isinstance(value.type, onnx_ir.TensorType):
            value.shape = onnx_ir.Shape([None] * (IMAGE_RANK if input_size is None else 2 + len(input_size)))
    image = find_image_input(model, image_input)
    name_common_batch(model, image)
    fix_channels(image, channels)
    if input_size is not None:
        fix_size(image, input_size)
    return image


def name_common_batch(model: onnx_ir.Model, image: onnx_ir.Value) -> None:
    """Gives other inputs' open and nameless first axes the name of the image's batch, which they nearly always are."""
    assert image.name is not None
    assert image.shape is not None  # find_image_input looks at the rank
    nameless = onnx_ir.SymbolicDim(None)
    others = [each for each in find_other_inputs(model, image.name) if each.shape and each.shape[0] == nameless]
    if not others or isinstance(image.shape[0], int):
        return
    if image.shape[0] == nameless:
        image.shape = onnx_ir.Shape([COMMON_BATCH, *list(image.shape)[1:]])
    for other in others:
        assert other.shape is not None
        other.shape = onnx_ir.Shape([image.shape[0], *list(other.shape)[1:]])


def fix_channels(image: onnx_ir.Value, channels: int | None) -> None:
    """Fixes an open number of channels to what the first convolution takes, else to ``channels`` unless that is None.

    Where the image is read by arithmetic, ``channels`` of 1 counts: a mean of several numbers, taken off one channel,
    makes as many channels of it.
    """
    assert image.shape is not None  # an image input has a rank
    axis = channel_axis(image)
    taken, is_spread = channels_in_use(image), any(node.op_type in ARITHMETIC for node in image.consumers())
    wanted = channels if taken is None or (channels == 1 and is_spread) else taken
    if wanted is not None and not isinstance(image.shape[axis], int):
        dims = list(image.shape)
        dims[axis] = wanted
        image.shape = onnx_ir.Shape(dims)


def fix_size(image: onnx_ir.Value, input_size: Size) -> None:
    """Fixes an open height and width, or what the axes are; MasktoolError where the graph fixes another."""
    assert image.shape is not None  # an image input has a rank
    dims = list(image.shape)
    axes = SPATIAL_AXES[layout_of(image)]
    if len(axes) != len(input_size):
        raise MasktoolError(
            "input size of another number of axes",
            where=parameter("input_size"),
            expected=f"{IN_WORDS[len(axes)]} of input {describe_value(image)}",
            got=show_size(input_size),
        )
    if any(isinstance(dims[axis], int) and dims[axis] != side for axis, side in zip(axes, input_size, strict=True)):
        raise MasktoolError(
            "input size fixed by the model",
            where=f"input {image.name!r}",
            expected=show_size([dims[axis] for axis in axes]),
            got=show_size(input_size),
            fix="give that size ("
            + parameter("input_size")
            + ", or in "
            + differently(python="preprocessing", command="the file of --preprocess")
            + "), or none",
        )
    for axis, side in zip(axes, input_size, strict=True):
        dims[axis] = side
    image.shape = onnx_ir.Shape(dims)


def layout_of(image: onnx_ir.Value) -> Layout:
    """Returns the layout of an image input, as the operators that read it show.

    Where they do not, channels stand last where only the last axis is short enough to be colours. A feature map that is
    taken for the image has the layout that was found in its network.
    """
    assert image.shape is not None  # an image input has a rank
    first, last = layouts_of_rank(len(image.shape))
    if KNOWN_LAYOUT in image.meta:
        return first
    if (shown := layout_in_use(image)) is not None:
        return shown
    return last if image.shape[-1] in COLOURS and image.shape[1] not in COLOURS else first


def channel_axis(image: onnx_ir.Value) -> int:
    """Returns the axis of an image input's channels."""
    return CHANNEL_AXIS[layout_of(image)]


def channels_in_use(image: onnx_ir.Value) -> int | None:
    """Returns how many channels the first convolution or normalisation takes; None where the pixels reach neither."""
    waiting, seen = [image], {image}
    while waiting:
        value = waiting.pop(0)
        for node in value.consumers():
            if node.op_type in PARAMETERS and node.inputs[0] is value:
                index, axis = PARAMETERS[node.op_type]
                shape = constant_shape(node.inputs[index])
                if shape is None or axis >= len(shape):  # of a malformed node, which is refused in its turn
                    return None
                return shape[axis] * (node.attributes.get_int("group", 1) if axis else 1)
            if node.op_type in PIXEL_OPERATORS | {"Transpose"} and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                waiting.append(node.outputs[0])
    return None


def constant_shape(value: onnx_ir.Value | None) -> list[int] | None:
    """Returns the shape of a weight, or of a value computed from a weight number by number; None for any other."""
    while value is not None and (node := value.producer()) is not None and node.op_type in PIXEL_OPERATORS:
        value = node.inputs[0]
    tensor = None if value is None else onnx_ir.convenience.get_const_tensor(value)
    return None if tensor is None else list(tensor.shape.numpy())


def layout_in_use(image: onnx_ir.Value) -> Layout | None:
    """Returns the layout in which the first convolution or transposition takes the image, None where neither
    is reached through operators that work pixel by pixel.

    A signal may be brought from either layout into the other by the same transposition, so that what stands behind it
    counts; and it may be made an image of one row first.
    """
    assert image.shape is not None
    first, last = layouts_of_rank(len(image.shape))
    waiting, seen = [(image, False)], {image}
    while waiting:
        value, swapped = waiting.pop(0)
        for node in value.consumers():
            permutation = tuple(node.attributes.get_ints("perm") or ()) if node.op_type == "Transpose" else ()
            if permutation in LAYOUT_OF_PERMUTATION:
                return first if is_channels_first(LAYOUT_OF_PERMUTATION[permutation]) != swapped else last
            if node.op_type in CHANNELS_FIRST_OPERATORS and node.inputs[0] is value:
                return last if swapped else first
            moved = permutation == SWAPPED and is_signal(image)
            a_row = node.op_type == "Unsqueeze" and is_signal(image) and leaves_channels(node, swapped)
            passes = moved or a_row or node.op_type in PIXEL_OPERATORS
            if passes and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                waiting.append((node.outputs[0], swapped != moved))
    return None


def is_signal(image: onnx_ir.Value) -> bool:
    """Tells whether an image input has a single axis of places."""
    return image.shape is not None and len(image.shape) < IMAGE_RANK


def leaves_channels(node: onnx_ir.Node, swapped: bool) -> bool:
    """Tells whether an Unsqueeze that makes an image of a signal leaves the channels first, or last, as they were."""
    axes = constant_of(node.inputs[1] if len(node.inputs) > 1 else None)
    given = node.attributes.get_ints("axes") if axes is None else axes.ravel().tolist()
    if given is None or len(given) != 1:
        return False
    return given[0] % IMAGE_RANK in (1, 2, 3) and not swapped


def open_size_of(image: onnx_ir.Value) -> tuple[int | None, ...]:
    """Returns (height, width) of an image input, or what its axes of places are, None for each that is open."""
    assert image.shape is not None
    sides = [image.shape[axis] for axis in SPATIAL_AXES[layout_of(image)]]
    return tuple(side if isinstance(side, int) else None for side in sides)


def usual_size_of(image: onnx_ir.Value) -> Size:
    """Returns the size of an image input, with the usual lengths where it leaves them open."""
    sides = open_size_of(image)
    return tuple(side or usual for side, usual in zip(sides, USUAL_SIZES[len(sides)], strict=True))


def input_size_of(model: onnx_ir.Model, image_input: str | None = None) -> Size | None:
    """Returns (height, width) of the image input, or what its axes of places are, None where any is open."""
    sides = open_size_of(find_image_input(model, image_input))
    lengths = tuple(side for side in sides if side is not None)
    return lengths if len(lengths) == len(sides) else None


def channels_of(model: onnx_ir.Model, image_input: str | None = None) -> int | None:
    """Returns the number of channels of the image input, None where it is open."""
    image = find_image_input(model, image_input)
    assert image.shape is not None
    channels = image.shape[channel_axis(image)]
    return channels if isinstance(channels, int) else None
