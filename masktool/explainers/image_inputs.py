"""Photographs for a model's inputs besides the image, such as the second image of a siamese network.

They are prepared as the image itself is, and fed as they are: no mask hides anything of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from masktool.contract import Size
from masktool.errors import MasktoolError
from masktool.explainers.subject import read_subject
from masktool.layouts import CHANNEL_AXIS, SPATIAL_AXES
from masktool.runtime.checks import show_shape
from masktool.runtime.inputs import Inputs, OtherInput
from masktool.runtime.preprocessing import prepare
from masktool.runtime.session import MaskedSession


def read_inputs(inputs: Inputs | None) -> Inputs | None:
    """Returns the values of inputs by name, files read: photographs, and arrays in ``.npy`` files."""
    if not isinstance(inputs, Mapping):
        return inputs  # whoever feeds them says what is wrong
    return {
        name: read_subject(value) if isinstance(value, str | os.PathLike | Image.Image) else value  # type: ignore[misc]
        for name, value in inputs.items()
    }


def prepare_inputs(session: MaskedSession, inputs: Inputs | None, input_size: Size | None) -> Inputs | None:
    """Returns the values of inputs by name, photographs as the model takes them.

    Args:
        session: the session of the model.
        inputs: the values, as :func:`read_inputs` returns them.
        input_size: (height, width) of the images, for a model that leaves them open.

    Raises:
        MasktoolError: a photograph is for an input that takes no image, or the file does not say how to prepare it.
    """
    if not isinstance(inputs, Mapping):
        return inputs
    known = {each.name: each for each in session.other_inputs}
    return {
        name: prepare_photograph(session, known[name], value, input_size)
        if isinstance(value, Image.Image) and name in known
        else value
        for name, value in inputs.items()
    }


def prepare_photograph(
    session: MaskedSession, other: OtherInput, photograph: Image.Image, input_size: Size | None
) -> NDArray[Any]:
    """Returns a photograph as another input of the model takes it, prepared as the image is."""
    shape, layout = other.shape, session.layout
    channels = shape[CHANNEL_AXIS[layout]] if len(shape) == len(session.input_shape) == 4 else 0
    if channels not in (session.channels, None):
        raise MasktoolError(
            "a photograph for an input that takes none like the image",
            where=f"input {other.name!r}",
            expected=show_shape(shape),
            got="a photograph",
            fix="give an array, or a .npy file",
        )
    preprocessing = session.metadata.preprocessing
    if preprocessing is not None:
        usual = preprocessing.size if input_size is None else preprocessing.scaled_to(input_size).size
        height, width = (shape[axis] or side for axis, side in zip(SPATIAL_AXES[layout], usual, strict=True))
        preprocessing = preprocessing.scaled_to((height, width))
    return prepare(photograph, preprocessing).array
