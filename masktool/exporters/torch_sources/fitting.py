"""How a state dict differs from that of an architecture, and the factory options under which it would fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""The shape of each tensor of a state dict by its key."""

COUNTER_SUFFIX = "num_batches_tracked"
"""A batch norm's step counter: absent from old files and without effect in evaluation."""
KEYS_SHOWN = 3
RGB = 3
CHANNEL_AXIS = 1
"""The axis of input channels in a convolution's weight (out, in, height, width)."""
AUXILIARY_CLASSIFIER = "aux"
"""Begins the keys of classifiers that are used in training alone: GoogLeNet's and Inception's."""
AUXILIARY_SEGMENTATION = "aux_classifier."
"""Begins the keys of the second head of torchvision's segmentation networks, which are built without it by default."""


@dataclasses.dataclass(frozen=True)
class Differences:
    """The differences between the keys and shapes of a state dict and those of an architecture.

    Attributes:
        missing: keys of the architecture that the state dict lacks.
        unexpected: keys of the state dict that the architecture lacks.
        misshaped: the shape in the state dict and that in the architecture, by key, where the two differ.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: Mapping[str, tuple[Shape, Shape]]

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshaped)

    def describe(self) -> str:
        """Returns the number of differences of each kind in words, with the first few keys."""
        misshaped = [f"{key} {given} instead of {expected}" for key, (given, expected) in self.misshaped.items()]
        groups = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": misshaped}
        return " | ".join(show_keys(name, keys) for name, keys in groups.items() if keys)


def show_keys(name: str, keys: Sequence[str]) -> str:
    """Returns the number of keys and the first few of them in words."""
    more = ", ..." if len(keys) > KEYS_SHOWN else ""
    return f"{len(keys)} {name}: {', '.join(keys[:KEYS_SHOWN])}{more}"


def shapes_of(state: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    """Returns the shapes of a state dict, without the step counters of batch norms."""
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith(COUNTER_SUFFIX)}


def compare_shapes(given: Shapes, expected: Shapes) -> Differences:
    """Returns the differences between the shapes of a state dict and those of an architecture."""
    return Differences(
        missing=tuple(key for key in expected if key not in given),
        unexpected=tuple(key for key in given if key not in expected),
        misshaped={
            key: (given[key], expected[key]) for key in given if key in expected and given[key] != expected[key]
        },
    )


def find_options(differences: Differences) -> dict[str, Any]:
    """Returns options for a hub's factory under which a state dict would fit better, read off the differences.

    Returns:
        Some of ``num_classes``, ``channels`` (of the images), ``aux_logits`` and ``aux_loss``.
    """
    options: dict[str, Any] = {}
    stems = [given for given, expected in differences.misshaped.values() if is_stem(given, expected)]
    heads = [pair for pair in differences.misshaped.values() if not is_stem(*pair)]
    classes = {given[0] for given, _ in heads if given}
    if len(classes) == 1 and all(given[1:] == expected[1:] for given, expected in heads):
        options["num_classes"] = classes.pop()
    if len(stems) == 1:
        options["channels"] = stems[0][CHANNEL_AXIS]
    if differences.missing and all(key.lower().startswith(AUXILIARY_CLASSIFIER) for key in differences.missing):
        options["aux_logits"] = False
    if differences.unexpected and all(key.startswith(AUXILIARY_SEGMENTATION) for key in differences.unexpected):
        options["aux_loss"] = True
    return options


def is_stem(given: Shape, expected: Shape) -> bool:
    """Tells whether two shapes are of one convolution's weight, on RGB images and on images of other channels."""
    return len(expected) == 4 and expected[CHANNEL_AXIS] == RGB and given == replace_channels(expected, given)


def replace_channels(shape: Shape, other: Shape) -> Shape:
    """Returns the shape of a convolution's weight with the input channels of another one."""
    return (*shape[:CHANNEL_AXIS], *other[CHANNEL_AXIS : CHANNEL_AXIS + 1], *shape[CHANNEL_AXIS + 1 :])
