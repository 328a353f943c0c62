"""Operators in numpy for ONNX's evaluator, which computes them number by number, wrongly or in float32.

Each place of a window is a strided view of the whole map, so that a window costs as many products of matrices, sums or
maxima as it has places, in any number of dimensions.

Source: ONNX operator specification, Conv, ConvTranspose, MaxPool, AveragePool, Resize.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_resize import Resize as ResizeByNumbers

from masktool.ops.slopes import GELU_CUBIC

Slices = tuple[slice, ...]
WHOLE = slice(None)


def places_of_windows(
    kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], out: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Slices]]:
    """Yields each place of a window, with where all windows have it in the padded map (N, C, …)."""
    for place in itertools.product(*map(range, kernel)):
        along = zip(place, dilations, strides, out, strict=True)
        yield place, (WHOLE, WHOLE, *(slice(p * d, p * d + (o - 1) * s + 1, s) for p, d, s, o in along))


def settle_window(axes: int, **given: Any) -> tuple[list[int], list[int], list[int]]:
    """Returns strides, dilations and pads of a window; NotImplementedError where its pads are not written out."""
    if given.get("auto_pad") not in (None, "NOTSET", "VALID"):
        raise NotImplementedError("pads that are not written out")
    strides, dilations, pads = (given.get(name) for name in ("strides", "dilations", "pads"))
    return list(strides or [1] * axes), list(dilations or [1] * axes), list(pads or [0] * 2 * axes)


def padded(x: np.ndarray, pads: Sequence[int], number: float = 0.0) -> np.ndarray:
    """Returns a map with a number around it; ``pads`` has all beginnings, then all ends."""
    axes = len(pads) // 2
    return np.pad(x, [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)], constant_values=number)


def count_windows(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], ceil_mode: int = 0
) -> list[int]:
    """Returns how many windows fit into a padded map along each axis; in ceil mode one that hangs over counts too."""
    along = zip(size, kernel, strides, dilations, strict=True)
    return [-(-(n - d * (k - 1) - 1) // s) + 1 if ceil_mode else (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in along]


class Conv(OpRun):
    """Convolution: for each place of the kernel one product of matrices."""

    def _run(self, x: Any, w: Any, b: Any = None, group: Any = None, **window: Any) -> tuple[np.ndarray]:
        kernel = w.shape[2:]
        strides, dilations, pads = settle_window(len(kernel), **window)
        whole = padded(x, pads)
        out = count_windows(whole.shape[2:], kernel, strides, dilations)
        y = np.zeros((len(x), group, w.shape[0] // group, int(np.prod(out))), x.dtype)
        for place, where in places_of_windows(kernel, strides, dilations, out):
            weights = w[(WHOLE, WHOLE, *place)].reshape(group, -1, w.shape[1])
            y += weights @ whole[where].reshape(len(x), group, w.shape[1], -1)
        y = y.reshape(len(x), w.shape[0], *out)
        return (y if b is None else y + b.reshape(-1, *[1] * len(kernel)),)


class ConvTranspose(OpRun):
    """Transposed convolution: for each place of the kernel one product of matrices, added where it goes."""

    def _run(self, x: Any, w: Any, b: Any = None, group: Any = None, **window: Any) -> tuple[np.ndarray]:
        if window.get("output_shape"):
            raise NotImplementedError("a shape in place of pads")
        kernel, size, channels = w.shape[2:], x.shape[2:], w.shape[1] * group
        strides, dilations, pads = settle_window(len(kernel), **window)
        more = window.get("output_padding") or [0] * len(kernel)
        along = zip(size, kernel, strides, dilations, more, strict=True)
        full = [(n - 1) * s + d * (k - 1) + 1 + extra for n, k, s, d, extra in along]
        whole = np.zeros((len(x), channels, *full), x.dtype)
        flat = x.reshape(len(x), group, x.shape[1] // group, -1)
        for place, where in places_of_windows(kernel, strides, dilations, size):
            weights = w[(WHOLE, WHOLE, *place)].reshape(group, -1, w.shape[1]).transpose(0, 2, 1)
            whole[where] += (weights @ flat).reshape(len(x), channels, *size)
        ends = zip(pads[: len(kernel)], pads[len(kernel) :], full, strict=True)
        y = whole[(WHOLE, WHOLE, *(slice(begin, n - end) for begin, end, n in ends))]
        return (y if b is None else y + b.reshape(-1, *[1] * len(kernel)),)


class MaxPool(OpRun):
    """Max pooling, without indices."""

    def _run(self, x: Any, kernel_shape: Any = None, ceil_mode: Any = 0, **window: Any) -> tuple[np.ndarray]:
        if len(self.onnx_node.output) > 1:
            raise NotImplementedError("indices of maxima")
        strides, dilations, pads = settle_window(len(kernel_shape), **window)
        whole = padded(x, pads, -np.inf)
        out = count_windows(whole.shape[2:], kernel_shape, strides, dilations, ceil_mode)
        whole = with_overhang(whole, out, kernel_shape, strides, dilations, -np.inf)
        views = (whole[where] for _, where in places_of_windows(kernel_shape, strides, dilations, out))
        y = next(views)
        for view in views:
            y = np.maximum(y, view)
        return (y,)


class AveragePool(OpRun):
    """Average pooling: a sum over the places of the window, divided by how many of them count."""

    def _run(
        self, x: Any, kernel_shape: Any = None, ceil_mode: Any = 0, count_include_pad: Any = 0, **window: Any
    ) -> tuple[np.ndarray]:
        strides, dilations, pads = settle_window(len(kernel_shape), **window)
        whole = padded(x, pads)
        out = count_windows(whole.shape[2:], kernel_shape, strides, dilations, ceil_mode)
        ones = padded(np.ones((1, 1, *x.shape[2:]), x.dtype), pads, float(count_include_pad))
        total, counted = (
            sum(each[where] for _, where in places_of_windows(kernel_shape, strides, dilations, out))
            for each in (with_overhang(part, out, kernel_shape, strides, dilations, 0.0) for part in (whole, ones))
        )
        return (np.asarray(total / counted),)


class Resize(ResizeByNumbers):
    """Resizing axis by axis, with the matrix that ONNX's evaluator makes of the rows of a unit matrix."""

    def _run(self, *inputs: Any, axes: Any = None, **how: Any) -> Any:
        x, _, scales, sizes = (*inputs, None, None, None)[:4]
        if how.get("coordinate_transformation_mode") == "tf_crop_and_resize" or sizes is None is scales:
            raise NotImplementedError("a crop")
        if how.get("keep_aspect_ratio_policy") not in (None, "stretch"):
            raise NotImplementedError("an aspect ratio that is kept")
        y, given = x, scales if scales is not None and scales.size else sizes
        for axis, number in zip(range(x.ndim) if axes is None else axes, given, strict=True):
            by_scale, length = given is scales, x.shape[axis]
            if number == (1 if by_scale else length):
                continue
            one = np.array([1.0 if by_scale else length, number], given.dtype)
            unit = np.eye(length, dtype=np.float64)
            rows = super()._run(unit, None, one if by_scale else None, None if by_scale else one, axes=None, **how)[0]
            y = np.moveaxis(np.moveaxis(y, axis, -1) @ rows, -1, axis)
        return (y,)


class Erf(OpRun):
    """The error function in the precision of its input: ONNX's evaluator rounds it to float32."""

    def _run(self, x: Any) -> tuple[np.ndarray]:
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


class Gelu(OpRun):
    """Gelu in the precision of its input, which ONNX's evaluator computes by a function, with its own Erf."""

    def _run(self, x: Any, approximate: Any = "none") -> tuple[np.ndarray]:
        if approximate == "tanh":
            share = np.tanh(math.sqrt(2 / math.pi) * (x + GELU_CUBIC * x**3))
        else:
            share = np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2))
        return (0.5 * x * (1 + share),)


def with_overhang(
    whole: np.ndarray,
    out: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    number: float,
) -> np.ndarray:
    """Returns a padded map with a number behind its end, where windows in ceil mode hang over it."""
    along = zip(whole.shape[2:], out, kernel, strides, dilations, strict=True)
    missing = [max((o - 1) * s + d * (k - 1) + 1 - n, 0) for n, o, k, s, d in along]
    return padded(whole, [*[0] * len(missing), *missing], number) if any(missing) else whole


OPERATORS = [AveragePool, Conv, ConvTranspose, Erf, Gelu, MaxPool, Resize]
"""Operators in place of those of ONNX's evaluator."""
