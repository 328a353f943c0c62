"""Samples: small graphs that stand beside the rules and exercise them; the contract tests run over all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from masktool.registry import Registry


@dataclasses.dataclass(frozen=True)
class Sample:
    """A small graph that exercises one rule.

    Attributes:
        name: the sample's name, which says what is special about it.
        text: nodes in ONNX's textual syntax, from the image ``x`` (float32, N × channels × size) to the output ``y``.
        weights: the shapes of random float32 initializers, by name.
        constants: the numbers of int64 initializers, by name.
        channels: the number of channels of ``x``.
        size: (height, width) of ``x`` in pixels.
        ones_tolerance: the largest change that a mask of ones may make, relative to max |y|: 0, but where sums are
            taken in another order, by the rule or by ONNX Runtime.
        opset: version of the standard domain.
        narrow: whether it holds a sampler narrower than its stride, so that the cell rule changes its masked form.
    """

    name: str
    text: str
    weights: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    constants: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    channels: int = 4
    size: tuple[int, int] = (9, 11)
    ones_tolerance: float = 0.0
    opset: int = 20
    narrow: bool = False


SAMPLES: Registry[Sequence[Sample]] = Registry("set of samples for", "masktool.ops")
"""All samples of an operator, by its ``op_type``."""


def add_samples(op_type: str, *samples: Sample) -> None:
    """Adds the samples of an operator, all of them in one call."""
    SAMPLES.register(op_type)(samples)
