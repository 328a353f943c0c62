"""Networks whose image is integers: a camera's pixels with the preprocessing in the graph, or a quantised image.

The image input stays as it is. Behind it the mask works on integers as far as the first Cast or DequantizeLinear, and
from there on as in any other network.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from masktool.contract import ChannelOrder, Preprocessing, Size
from masktool.errors import MasktoolError
from masktool.messages import differently, parameter
from masktool.normalisation import normalise_levels
from masktool.ops.builder import INTEGER_TYPES

CHANNEL_ORDERS: dict[int, ChannelOrder] = {1: "L", 3: "RGB"}


def takes_integers(image: ir.Value) -> bool:
    """Tells whether an image input takes integers."""
    return image.dtype in INTEGER_TYPES


def assumed_preprocessing(image: ir.Value, channels: int | None, size: Size | None) -> Preprocessing | None:
    """Returns the preprocessing of a uint8 image input, pixels as they are; None for any other, or an open size."""
    if image.dtype != ir.DataType.UINT8 or channels not in CHANNEL_ORDERS or size is None or len(size) != 2:
        return None
    square = size[0] == size[1]
    return Preprocessing(
        size=(size[0], size[1]),
        resize="shortest" if square else "exact",
        resize_to=size[0] if square else None,
        channel_order=CHANNEL_ORDERS[channels],
        scale=1.0,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )


def note_assumed(image: ir.Value) -> str:
    """Returns the note for the user that :func:`assumed_preprocessing` was assumed."""
    return (
        f"the image input {image.name!r} takes uint8: photographs are assumed to go in as pixels 0..255, red first "
        "(scale 1, no mean); " + parameter("preprocessing", "FILE.json") + " says otherwise"
    )


def check_gives_integers(image: ir.Value, preprocessing: Preprocessing) -> None:
    """Raises MasktoolError where a preprocessing does not give the integers that an image input takes."""
    if not takes_integers(image) or image.dtype is None:
        return
    values = normalise_levels(preprocessing)
    bounds = np.iinfo(image.dtype.numpy())
    if (values != np.rint(values)).any() or values.min() < bounds.min or values.max() > bounds.max:
        raise MasktoolError(
            "the preprocessing does not give the integers that the image input takes",
            where=f"input {image.name!r}, {image.dtype.name.lower()}",
            expected=f"whole numbers from {bounds.min} to {bounds.max} for pixels 0..255",
            got=f"scale {preprocessing.scale:g}, mean {list(preprocessing.mean)}, std {list(preprocessing.std)}",
            fix=differently(
                python="leave preprocessing out, or give one with scale=1",
                command='leave --preprocess, --mean and --std out, or give a FILE.json with "scale": 1',
            ),
        )


def refuse_gradients(image: ir.Value, without: str) -> None:
    """Raises MasktoolError where an image input takes integers: there is no gradient with respect to them.

    Args:
        image: the image input.
        without: what to do to need no gradients, as the beginning of a sentence.
    """
    if takes_integers(image) and image.dtype is not None:
        raise MasktoolError(
            "no gradient with respect to integers",
            where=f"input {image.name!r}",
            expected="an image of floating point",
            got=image.dtype.name.lower(),
            fix=f"{without}, or export the network without the Cast in front of it",
        )
