"""Operators that onnx's reference evaluator lacks or gets wrong, in numpy, so that float64 reaches all of them."""

from __future__ import annotations

import math

import numpy as np
from onnx.reference.op_run import OpRun

MEAN_VARIANCE_EPSILON = 1e-9
"""Of MeanVarianceNormalization, fixed by the ONNX specification."""


class MaxPool(OpRun):
    """MaxPool over height and width with indices through the whole tensor: onnx's own is wrong for several images."""

    def _run(self, x, ceil_mode=None, dilations=None, kernel_shape=None, pads=None, strides=None, **unused):  # noqa: ARG002
        axes = len(kernel_shape)
        strides, dilations, pads = strides or [1] * axes, dilations or [1] * axes, pads or [0] * 2 * axes
        if axes == 1:  # a single axis is an image of one row
            row = x[:, :, None], ceil_mode, [1, *dilations], [1, *kernel_shape], [0, pads[0], 0, pads[1]], [1, *strides]
            return tuple(part[:, :, 0] for part in self._run(*row))
        kernel = kernel_shape
        out, corner = [], []
        for axis in (0, 1):
            reach = dilations[axis] * (kernel[axis] - 1) + 1
            room = x.shape[axis + 2] + pads[axis] + pads[axis + 2] - reach
            length = -(-room // strides[axis]) + 1 if ceil_mode else room // strides[axis] + 1
            if ceil_mode and (length - 1) * strides[axis] >= x.shape[axis + 2] + pads[axis]:
                length -= 1
            out.append(length)
            corner.append(strides[axis] * np.arange(length) - pads[axis])
        flat = np.arange(x.size).reshape(x.shape)
        best, where = np.full((*x.shape[:2], *out), -np.inf), np.zeros((*x.shape[:2], *out), np.int64)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                rows, columns = corner[0] + i * dilations[0], corner[1] + j * dilations[1]
                inside = ((rows >= 0) & (rows < x.shape[2]))[:, None] & ((columns >= 0) & (columns < x.shape[3]))
                places = np.ix_(rows.clip(0, x.shape[2] - 1), columns.clip(0, x.shape[3] - 1))
                seen = np.where(inside, x[(..., *places)], -np.inf)
                where = np.where(seen > best, flat[(..., *places)], where)
                best = np.maximum(seen, best)
        return (best, where) if len(self.onnx_node.output) > 1 else (best,)


class Pad(OpRun):
    """Pad whose negative numbers cut, which onnx's own refuses."""

    def _run(self, data, pads, constant_value=None, axes=None, mode=None):
        axes = range(data.ndim) if axes is None else axes
        width = np.zeros((data.ndim, 2), np.int64)
        width[list(axes)] = np.reshape(pads, (2, -1)).T
        cut = tuple(
            slice(max(-begin, 0), size - max(-end, 0)) for (begin, end), size in zip(width, data.shape, strict=True)
        )
        fill = {"constant_values": constant_value or 0} if mode == "constant" else {}
        return (np.pad(data[cut], width.clip(0), mode=mode, **fill).astype(data.dtype),)


class ConvTranspose(OpRun):
    """ConvTranspose of any number of groups: onnx's own knows one, and goes from place to place."""

    def _run(self, x, w, b=None, group=1, strides=None, dilations=None, output_padding=None, **edges):
        axes = w.ndim - 2
        strides, dilations, extra = strides or [1] * axes, dilations or [1] * axes, output_padding or [0] * axes
        along = zip(x.shape[2:], strides, w.shape[2:], dilations, extra, strict=True)
        whole = np.zeros(
            (len(x), group * w.shape[1], *((n - 1) * s + (k - 1) * d + 1 + e for n, s, k, d, e in along)), x.dtype
        )
        for tap in np.ndindex(*w.shape[2:]):
            parts = zip(np.split(x, group, axis=1), np.split(w[(..., *tap)], group), strict=True)
            added = np.concatenate([np.einsum("nc...,co->no...", xs, ws) for xs, ws in parts], axis=1)
            starts = [t * d for t, d in zip(tap, dilations, strict=True)]
            ends = [begin + (n - 1) * s + 1 for begin, n, s in zip(starts, x.shape[2:], strides, strict=True)]
            whole[(..., *map(slice, starts, ends, strides))] += added
        y = whole[(..., *self._kept(x.shape[2:], strides, whole.shape[2:], **edges))]
        return (y if b is None else y + b.reshape(-1, *[1] * axes),)

    def _kept(self, lengths, strides, whole, pads=None, output_shape=None, auto_pad="NOTSET", **unused):  # noqa: ARG002
        if auto_pad in ("NOTSET", None) and not output_shape:
            pads = pads or [0] * 2 * len(whole)
            return [slice(pads[axis], n - pads[axis + len(whole)]) for axis, n in enumerate(whole)]
        wanted = output_shape or [n * s for n, s in zip(lengths, strides, strict=True)]
        cut = [n - length for n, length in zip(whole, wanted, strict=True)]
        starts = [n // 2 if auto_pad == "SAME_UPPER" else n - n // 2 for n in cut]
        return [slice(start, start + length) for start, length in zip(starts, wanted, strict=True)]


class GlobalLpPool(OpRun):
    """GlobalLpPool, which onnx lacks."""

    def _run(self, x, p=None):
        return ((np.abs(x) ** p).sum(axis=(2, 3), keepdims=True) ** (1 / p),)


class LRN(OpRun):
    """LRN over all channels: onnx's own stops at as many as there are images."""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        before, after = math.floor((size - 1) / 2), math.ceil((size - 1) / 2)
        padded = np.pad(x**2, ((0, 0), (before, after), (0, 0), (0, 0)))
        sums = sum(padded[:, i : i + x.shape[1]] for i in range(size))
        return (x / (bias + alpha / size * sums) ** beta,)


class MeanVarianceNormalization(OpRun):
    """MeanVarianceNormalization, which onnx holds as a function in float32."""

    def _run(self, x, axes=None):
        axes = tuple(axes)
        deviation = x.std(axis=axes, keepdims=True) + MEAN_VARIANCE_EPSILON
        return ((x - x.mean(axis=axes, keepdims=True)) / deviation,)


class LpNormalization(OpRun):
    """LpNormalization by absolute values: onnx's own sums odd powers with their sign, ONNX Runtime does not."""

    def _run(self, x, axis=None, p=None):
        norm = (np.abs(x) ** p).sum(axis=axis, keepdims=True) ** (1 / p)
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm > 0),)


OPERATORS = [ConvTranspose, GlobalLpPool, LpNormalization, LRN, MaxPool, MeanVarianceNormalization, Pad]
