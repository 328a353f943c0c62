"""What the file behind a session says of its inputs and outputs: names, shapes, types, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from masktool.contract import (
    BINARY_KINDS,
    FEATURE_MAP,
    FEATURE_MAP_OUTPUTS,
    GRADIENT_OUTPUTS,
    MASK_INPUT,
    SALIENCY_MAP,
    TARGET_INPUT,
    WEIGHTS_INPUT,
    Layout,
    Metadata,
    Size,
)
from masktool.errors import MasktoolError
from masktool.layouts import CHANNEL_AXIS, RANKS, SPATIAL_AXES, layouts_of_rank
from masktool.messages import call
from masktool.runtime.checks import show_shape
from masktool.runtime.inputs import describe_other_inputs, find_explanation
from masktool.runtime.one_by_one import shape_of_many
from masktool.tensor_types import FLOAT_TYPES, NUMPY_TYPES


class SessionFile:
    """An exported file, as an open session of ONNX Runtime's shows it; runs nothing.

    What :class:`masktool.runtime.session.MaskedSession` shows of a file is described there.

    Args:
        path: path of the file.
        session: session of ONNX Runtime.

    Raises:
        MasktoolError: the file is not masktool's, or damaged.

    Attributes:
        optional_inputs: names of the inputs that have a default.
        gradient_outputs: names of the outputs that gradients add.
        result_shapes: shapes of all outputs by name, as one run of the file gives them.
        per_result: names of the inputs with a row for each result.
        mask_shape: shape of the mask input, () where there is none.
    """

    def __init__(self, path: Path, session: Any) -> None:
        self.path = path
        self.metadata = read_metadata(session, self.path)
        required = {node.name: node for node in session.get_inputs()}
        optional = {node.name: node for node in session.get_overridable_initializers()}
        inputs = required | optional
        self.optional_inputs = frozenset(optional)
        shapes = {node.name: as_shape(node.shape) for node in session.get_outputs()}
        check_agreement(inputs, list(shapes), self.metadata, self.path)
        self.explanation_outputs = find_explanation(list(shapes), self.metadata)
        self.mask_required = MASK_INPUT in required
        image, mask = inputs[self.metadata.image_input], inputs.get(MASK_INPUT)
        one_by_one = self.metadata.one_by_one
        self.input_shape = shape_of_many(as_shape(image.shape)) if one_by_one else as_shape(image.shape)
        if one_by_one:  # one row, unless it was not asked for
            shapes |= {name: (1, *shapes[name][1:]) for name in self.explanation_outputs}
        own = GRADIENT_OUTPUTS if self.metadata.has_gradients else frozenset()
        if self.metadata.head is not None:
            own -= {FEATURE_MAP}
        self.gradient_outputs = [name for name in shapes if name in own]
        self.result_shapes = shapes
        self.output_shapes = {
            name: shape_of_many(shape) if one_by_one else shape for name, shape in shapes.items() if name not in own
        }
        self.output_names = list(self.output_shapes)
        self.other_inputs = describe_other_inputs(required, inputs, self.metadata)
        others = (each.name for each in self.other_inputs if each.per_result)
        self.per_result = frozenset({self.metadata.image_input, MASK_INPUT, TARGET_INPUT, WEIGHTS_INPUT, *others})
        self.mask_shape = () if mask is None else as_shape(mask.shape)
        self.image_type = NUMPY_TYPES.get(image.type, np.float32)
        self.mask_type = np.float32 if mask is None else FLOAT_TYPES.get(mask.type, np.float32)

    @property
    def n_classes(self) -> int | None:
        """Number of classes that the class output tells apart; None without such an output or with an open length."""
        if self.metadata.class_output is None:
            return None
        if self.metadata.output_kind in BINARY_KINDS:
            return 2
        shape = self.output_shapes.get(self.metadata.class_output, ())
        return shape[1] if len(shape) > 1 else 1

    @property
    def has_gradient(self) -> bool:
        """Whether the file holds gradients."""
        return self.metadata.has_gradients

    @property
    def gradient_output(self) -> str | None:
        """Name of the output that gradients are of; None where they are of class scores, or there are none."""
        return self.metadata.gradient_output

    @property
    def layout(self) -> Layout:
        """Order of the image input's axes, as the metadata say, else as its size agrees with the mask's."""
        if self.metadata.layout is not None:
            return self.metadata.layout
        if self.metadata.preprocessing is not None:
            return self.metadata.preprocessing.layout
        _, *image, _ = self.input_shape
        first, last = layouts_of_rank(len(self.input_shape))
        return last if tuple(image) == self.mask_shape[2:] and image[0] is not None else first

    @property
    def channels(self) -> int | None:
        """Number of channels of the image input; None where the file leaves it open."""
        if self.metadata.takes_photograph:
            return self.input_shape[-1]
        return self.input_shape[CHANNEL_AXIS[self.layout]]

    @property
    def spatial_shape(self) -> tuple[int | None, ...]:
        """(height, width) in pixels of the image input, also of one made from a photograph; None where it is open.

        Of a signal it is (length,), of a volume (depth, height, width).
        """
        if self.metadata.takes_photograph and self.metadata.preprocessing is not None:
            return self.metadata.preprocessing.size
        return tuple(self.input_shape[axis] for axis in SPATIAL_AXES[self.layout])

    @property
    def known_size(self) -> Size | None:
        """The image input's :attr:`spatial_shape`, else the preprocessing's size; None where both are open."""
        lengths = tuple(side for side in self.spatial_shape if side is not None)
        if len(lengths) == len(self.spatial_shape):
            return lengths
        return self.metadata.preprocessing.size if self.metadata.preprocessing else None

    def has_output(self, name: str) -> bool:
        """Tells whether a pass can give an output without gradients; a feature map that these are of is such a one."""
        return name in self.output_names or (name in FEATURE_MAP_OUTPUTS and name in self.gradient_outputs)

    def check_output(self, name: str) -> str:
        """Returns the file's name of an output, given by its new or old name; MasktoolError where there is none."""
        name = (self.metadata.renamed or {}).get(name, name)
        if not self.has_output(name):
            raise MasktoolError("no such output", where=name, expected=f"one of {self.describe_outputs()}")
        return name

    def describe_outputs(self) -> str:
        """Returns names and shapes of the outputs, as messages show them; ``?`` where a length is open."""
        return ", ".join(f"{name} {show_shape(shape)}" for name, shape in self.output_shapes.items())


def read_metadata(session: Any, path: Path) -> Metadata:
    """Returns the metadata of the file behind an ONNX Runtime session.

    Raises:
        MasktoolError: the file is no masktool file, or a newer or damaged one.
    """
    metadata = Metadata.from_properties(session.get_modelmeta().custom_metadata_map)
    if metadata is None:
        raise MasktoolError("not a masktool file", where=path, fix="run `" + call("export", path, ...) + "` first")
    return metadata


def check_agreement(inputs: Mapping[str, Any], outputs: Sequence[str], metadata: Metadata, path: Path) -> None:
    """Raises MasktoolError unless a file has the inputs and outputs that its metadata say.

    These are the image and a mask of its rank; or in a file that explains itself, the image and the map.
    """
    expected = {metadata.image_input, *([MASK_INPUT] if metadata.takes_mask else [])}
    there = expected <= set(inputs)
    rank = len(inputs[metadata.image_input].shape) if there else 0
    fits = not metadata.takes_mask or (rank in RANKS and len(inputs[MASK_INPUT].shape) == rank)
    if metadata.layout is not None and not metadata.takes_photograph:
        fits = fits and len(metadata.layout) == rank
    if not there or not fits:
        raise MasktoolError(
            "inputs do not agree with the metadata",
            where=path,
            expected=f"{metadata.image_input!r}" + (f" and {MASK_INPUT!r} of its rank" if metadata.takes_mask else ""),
            got=", ".join(f"{name!r} {tuple(node.shape)}" for name, node in inputs.items()),
            fix="export the model again",
        )
    if not metadata.takes_mask and SALIENCY_MAP not in outputs:
        raise MasktoolError(
            "outputs do not agree with the metadata",
            where=path,
            expected=repr(SALIENCY_MAP),
            got=", ".join(map(repr, outputs)),
            fix="export the model again",
        )


def as_shape(shape: Sequence[int | str | None]) -> tuple[int | None, ...]:
    """Returns a shape of ONNX Runtime's with None for every symbolic axis."""
    return tuple(axis if isinstance(axis, int) else None for axis in shape)
