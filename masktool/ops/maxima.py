"""The gradient of max pooling without indices, which few devices give: comparisons, sums and a rearrangement.

Each of the k² places of all windows is a strided slice of the input, as long as the output. Where it equals the
maximum, and no earlier place did, it gets the window's gradient. Places that fall on the same residues of the strides
are summed, each shifted by whole windows; the sums of all residues, interleaved, are the input's gradient.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import onnx_ir as ir

from masktool.ops.gradients import GradientGraph
from masktool.ops.sliding import Window


class Slide(NamedTuple):
    """How a window slides along one axis, in pixels.

    Attributes:
        size: the length of the input.
        out: the number of windows.
        kernel: the number of places of a window.
        stride: from one window to the next.
        dilation: from one place of a window to the next.
        begin: the padding in front.
    """

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    begin: int

    @property
    def covered(self) -> int:
        """The number of pixels, padding included, from the first place of the first window to the last of the last."""
        return (self.out - 1) * self.stride + self.dilation * (self.kernel - 1) + 1

    @property
    def blocks(self) -> int:
        """The number of strides that hold all pixels, those in front and behind the windows included."""
        return -(-max(self.covered, self.begin + self.size) // self.stride)


def slides_of(window: Window, sizes: Sequence[int], out_sizes: Sequence[int]) -> list[Slide]:
    """Returns how a window slides along each axis."""
    begins = window.pads[: len(window.kernel)]
    each = zip(sizes, out_sizes, window.kernel, window.strides, window.dilations, begins, strict=True)
    return [Slide(*numbers) for numbers in each]


def spread_to_maxima(
    graph: GradientGraph, value: ir.Value, largest: ir.Value, gradient: ir.Value, slides: Sequence[Slide]
) -> ir.Value:
    """Returns the gradient of the input (N, C, ...) of a max pool; of equal maxima the first of a window gets all.

    Args:
        graph: the graph, at whose end nodes are emitted.
        value: the input.
        largest: the output of the pool.
        gradient: the gradient of the output.
        slides: how the window slides along each axis behind the channels.
    """
    sums: dict[tuple[int, ...], ir.Value] = {}
    for offsets, won in won_by_places(graph, value, largest, gradient, slides):
        residue = tuple(offset % slide.stride for offset, slide in zip(offsets, slides, strict=True))
        shifted = shift_by_windows(graph, won, offsets, slides)
        sums[residue] = graph.emit("Add", sums[residue], shifted) if residue in sums else shifted
    for residue in itertools.product(*(range(slide.stride) for slide in slides)):
        if residue not in sums:  # it lies between windows that are apart
            zero = graph.number(0, value)
            nothing = graph.emit("Where", graph.emit("Equal", largest, largest), zero, zero)
            sums[residue] = shift_by_windows(graph, nothing, [0] * len(slides), slides)
    whole = interleave(graph, [sums[residue] for residue in sorted(sums)], slides)
    begins = [slide.begin for slide in slides]
    if not any(begins) and all(slide.blocks * slide.stride == slide.size for slide in slides):
        return whole
    ends = [slide.begin + slide.size for slide in slides]
    axes = range(2, 2 + len(slides))
    return graph.emit("Slice", whole, *(graph.ints(*each) for each in (begins, ends, axes)))


def won_by_places(
    graph: GradientGraph, value: ir.Value, largest: ir.Value, gradient: ir.Value, slides: Sequence[Slide]
) -> Iterator[tuple[list[int], ir.Value]]:
    """Yields each place of a window, as an offset along each axis, with what of all windows' gradients it wins."""
    padded, strides = pad_for_windows(graph, value, slides), [slide.stride for slide in slides]
    axes = range(2, 2 + len(slides))
    for place in itertools.product(*(range(slide.kernel) for slide in slides)):
        offsets = [number * slide.dilation for number, slide in zip(place, slides, strict=True)]
        ends = [offset + (slide.out - 1) * slide.stride + 1 for offset, slide in zip(offsets, slides, strict=True)]
        part = graph.emit("Slice", padded, *(graph.ints(*each) for each in (offsets, ends, axes, strides)))
        wins = graph.emit("Equal", part, largest)
        yield offsets, graph.masked(gradient, wins)
        gradient = graph.zero_where(gradient, wins)


def pad_for_windows(graph: GradientGraph, value: ir.Value, slides: Sequence[Slide]) -> ir.Value:
    """Returns the input with −∞ wherever a window sees padding."""
    begins = [slide.begin for slide in slides]
    ends = [max(slide.covered - slide.begin - slide.size, 0) for slide in slides]
    if not any([*begins, *ends]):
        return value
    return graph.emit("Pad", value, graph.ints(0, 0, *begins, 0, 0, *ends), graph.number(-math.inf, value))


def shift_by_windows(
    graph: GradientGraph, value: ir.Value, offsets: Sequence[int], slides: Sequence[Slide]
) -> ir.Value:
    """Returns what a place won, moved by whole windows to where it lies, with zeros up to all blocks."""
    begins = [offset // slide.stride for offset, slide in zip(offsets, slides, strict=True)]
    ends = [slide.blocks - slide.out - begin for begin, slide in zip(begins, slides, strict=True)]
    return graph.emit("Pad", value, graph.ints(0, 0, *begins, 0, 0, *ends)) if any([*begins, *ends]) else value


def interleave(graph: GradientGraph, parts: Sequence[ir.Value], slides: Sequence[Slide]) -> ir.Value:
    """Returns maps, one for each residue of the strides in order, as one map of the strides times their size."""
    if len(parts) == 1:
        return parts[0]
    strides = [slide.stride for slide in slides]
    if len(slides) == 2 and strides[0] == strides[1]:
        return graph.emit("DepthToSpace", graph.emit("Concat", *parts, axis=1), blocksize=strides[0])
    lengths = [-1, dims[1]] if (dims := parts[0].shape) is not None and isinstance(dims[1], int) else [0, 0]
    for axis in reversed(range(len(slides))):  # the last axis's residues are next to each other
        step = strides[axis]
        rows = [parts[at : at + step] for at in range(0, len(parts), step)]
        beside = graph.ints(axis + 3)
        parts = [
            graph.emit("Concat", *(graph.emit("Unsqueeze", part, beside) for part in row), axis=axis + 3)
            for row in rows
        ]
        full = [slide.blocks * (slide.stride if at >= axis else 1) for at, slide in enumerate(slides)]
        parts = [graph.emit("Reshape", part, graph.ints(*lengths, *full)) for part in parts]
    return parts[0]
