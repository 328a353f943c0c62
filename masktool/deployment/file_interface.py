"""The inputs and outputs of an exported file as a server sees them: names, types and shapes, and what they mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from masktool.contract import BATCH_AXIS, BINARY_KINDS, MASK_INPUT, Metadata, Size
from masktool.errors import MasktoolError
from masktool.runtime.session import MaskedSession
from masktool.runtime.session_file import as_shape
from masktool.tensor_types import NUMPY_TYPES


@dataclasses.dataclass(frozen=True)
class ServedTensor:
    """One input or output of a file.

    Attributes:
        name: name in the file.
        dtype: type of the elements.
        shape: length of each axis; None for an axis of any length.
        in_batch: whether the first axis is of any length and holds a row for each image.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    in_batch: bool


@dataclasses.dataclass(frozen=True)
class FileInterface:
    """What a server must know of an exported file.

    Attributes:
        path: path of the file.
        metadata: what the file says about itself.
        required: inputs that every run must be fed, in the file's order.
        optional: inputs that have a default.
        outputs: outputs, in the file's order.
        size: (height, width) of the images in pixels; None where neither the file nor its preprocessing tells.
    """

    path: Path
    metadata: Metadata
    required: tuple[ServedTensor, ...]
    optional: tuple[ServedTensor, ...]
    outputs: tuple[ServedTensor, ...]
    size: Size | None

    @property
    def class_labels(self) -> tuple[str, ...] | None:
        """Names of the classes where the class output has one column for each; otherwise None."""
        metadata = self.metadata
        if metadata.labels is None or metadata.output_kind in BINARY_KINDS:
            return None
        for output in self.outputs:
            if output.name == metadata.class_output and output.shape[1:2] == (len(metadata.labels),):
                return metadata.labels
        return None


def read_interface(session: MaskedSession) -> FileInterface:
    """Returns what a server must know of the file behind a session.

    Raises:
        MasktoolError: an input or output is no tensor of numbers.
    """
    opened, metadata = session.runtime_session(), session.metadata
    required, optional = opened.get_inputs(), opened.get_overridable_initializers()
    (image,) = (node for node in (*required, *optional) if node.name == metadata.image_input)
    rows = {image.shape[0] if image.shape else None, BATCH_AXIS} - {None}

    def describe(nodes: Sequence[Any]) -> tuple[ServedTensor, ...]:
        return tuple(read_tensor_of_file(node, "an input", is_mask(node) or has_row(node)) for node in nodes)

    def has_row(node: Any) -> bool:
        return bool(node.shape) and node.shape[0] in rows

    outputs = tuple(read_tensor_of_file(node, "an output", True) for node in opened.get_outputs())
    return FileInterface(
        session.path,
        metadata,
        describe(required),
        describe(optional),
        outputs,
        session.known_size,
    )


def is_mask(node: Any) -> bool:
    """Tells whether one of a session's inputs is the mask, which has a row for each image or for each result."""
    return node.name == MASK_INPUT


def read_tensor_of_file(node: Any, what: str, in_batch: bool) -> ServedTensor:
    """Returns an input or output of a session.

    Args:
        node: ONNX Runtime's description.
        what: what it is, for errors.
        in_batch: whether its first axis holds a row for each image, if that is of any length.

    Raises:
        MasktoolError: it is no tensor of numbers.
    """
    if node.type not in NUMPY_TYPES:
        raise MasktoolError(
            f"{what} that is no tensor of numbers cannot be served", where=repr(node.name), got=node.type
        )
    shape = as_shape(node.shape)
    return ServedTensor(node.name, np.dtype(NUMPY_TYPES[node.type]), shape, in_batch and shape[:1] == (None,))
