"""The sliding window that convolution and pooling share."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Window:
    """A sliding window over height and width, or over a single axis, in pixels of the operator's input.

    Each tuple has one number per axis; ``pads`` has all beginnings, then all ends.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil_mode: int

    @property
    def is_point(self) -> bool:
        """Whether the window holds a single place."""
        return set(self.kernel) == {1}

    @property
    def reach(self) -> int:
        """How far apart, in pixels, two inputs of one window can lie."""
        return max(d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True))

    @property
    def cell(self) -> Window:
        """The window widened to its stride along each axis where it spans less, for as many outputs.

        Every place of the map, but for what the last window leaves over at the end, is then in some window. It begins
        where the window itself does, and has no gaps along widened axes.
        """
        axes = range(len(self.kernel))
        missing = [
            max(stride - (d * (k - 1) + 1), 0)
            for d, k, stride in zip(self.dilations, self.kernel, self.strides, strict=True)
        ]
        begins, ends = self.pads[: len(axes)], self.pads[len(axes) :]
        return dataclasses.replace(
            self,
            kernel=tuple(self.strides[axis] if missing[axis] else self.kernel[axis] for axis in axes),
            dilations=tuple(1 if missing[axis] else self.dilations[axis] for axis in axes),
            pads=(*begins, *(end + more for end, more in zip(ends, missing, strict=True))),
        )

    @property
    def reaches_over_pads(self) -> bool:
        """Whether no window lies in the padding alone."""
        ends = [d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True)] * 2
        return all(pad <= end for pad, end in zip(self.pads, ends, strict=True))

    @property
    def taps(self) -> tuple[frozenset[int], ...]:
        """Where the inputs of a window lie along each axis, counted from the place at the output's place × stride."""
        begins = self.pads[: len(self.kernel)]
        return tuple(
            frozenset(d * tap - pad for tap in range(k))
            for d, k, pad in zip(self.dilations, self.kernel, begins, strict=True)
        )

    @property
    def lost(self) -> tuple[int, ...]:
        """By how many places a map gets shorter along each axis at stride 1."""
        axes = len(self.kernel)
        ends = [d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True)]
        return tuple(end - self.pads[axis] - self.pads[axis + axes] for axis, end in enumerate(ends))

    @property
    def keeps_places(self) -> bool:
        """Whether there is a window for each place of the map, which holds that place."""
        return set(self.strides) == {1} and not any(self.lost) and all(0 in taps for taps in self.taps)

    def holds(self, other: Window) -> bool:
        """Whether each window holds all places of the window of another kind for the same output."""
        if (self.strides, self.lost, self.ceil_mode) != (other.strides, other.lost, other.ceil_mode):
            return False
        return all(own >= others for own, others in zip(self.taps, other.taps, strict=True))

    @property
    def attributes(self) -> dict[str, Any]:
        """The window as ONNX attributes of a pooling operator; AveragePool knows no dilations before opset 19."""
        attributes = {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "pads": list(self.pads),
            "ceil_mode": self.ceil_mode,
        }
        return attributes | ({"dilations": list(self.dilations)} if set(self.dilations) != {1} else {})
