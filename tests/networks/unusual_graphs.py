"""Small networks that are no classifier of photographs of a fixed size, written as text."""

from __future__ import annotations

import numpy as np
import onnx

from networks.small_graphs import parse

HEADER = '<ir_version: 10, opset_import: ["" : 20]>'


def open_network() -> onnx.ModelProto:
    """Fully convolutional up to a global mean: images (N, 3, H, W) of any size, four classes."""
    return parse(f"""{HEADER}
    open (float[N, 3, H, W] image) => (float[N, 4] scores)
    <float[6, 3, 3, 3] kernel, float[6] bias, float[16, 6, 3, 3] second, float[16, 4] weight>
    {{
        [one] h = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, kernel, bias)
        [two] r = Relu(h)
        [three] s = Conv<pads = [1, 1, 1, 1]>(r, second)
        [four] p = GlobalAveragePool(s)
        [five] f = Flatten(p)
        [six] scores = Gemm(f, weight)
    }}""")


def detector() -> onnx.ModelProto:
    """Images (1, 3, 16, 24); boxes (1, 24, 4) and scores (1, 24, 2) on a grid of 4 x 6 places."""
    return parse(
        f"""{HEADER}
    detector (float[1, 3, 16, 24] image) => (float[1, 24, 4] boxes, float[1, 24, 2] scores)
    <float[6, 3, 3, 3] kernel, float[4, 6, 4, 4] where_kernel, float[2, 6, 4, 4] what_kernel,
     int64[3] where_shape = {{1, 24, 4}}, int64[3] what_shape = {{1, 24, 2}}>
    {{
        [features] h = Conv<pads = [1, 1, 1, 1]>(image, kernel)
        [active] r = Relu(h)
        [where] w = Conv<strides = [4, 4]>(r, where_kernel)
        [where_last] wl = Transpose<perm = [0, 2, 3, 1]>(w)
        [where_rows] boxes = Reshape(wl, where_shape)
        [what] c = Conv<strides = [4, 4]>(r, what_kernel)
        [what_last] cl = Transpose<perm = [0, 2, 3, 1]>(c)
        [what_rows] cr = Reshape(cl, what_shape)
        [what_share] scores = Softmax<axis = 2>(cr)
    }}""",
        where_shape=[1, 24, 4],
        what_shape=[1, 24, 2],
    )


def several_inputs(batch: str | int = "N") -> onnx.ModelProto:
    """An image, facts about it, one row each, and a temperature for all; four classes."""
    return parse(f"""{HEADER}
    several (float[{batch}, 3, 8, 8] image, float[{batch}, 2] facts, float[1] temperature, int64[1] shift)
      => (float[{batch}, 4] scores)
    <float[6, 3, 3, 3] kernel, float[8, 4] weight>
    {{
        [convolve] h = Conv<pads = [1, 1, 1, 1]>(image, kernel)
        [pool] p = GlobalAveragePool(h)
        [flat] f = Flatten(p)
        [join] j = Concat<axis = 1>(f, facts)
        [classify] c = Gemm(j, weight)
        [scale] s = Mul(c, temperature)
        [convert] d = Cast<to = 1>(shift)
        [move] scores = Add(s, d)
    }}""")


def two_images() -> onnx.ModelProto:
    """Two inputs that may both be the image: ``first`` is convolved, ``second`` gates the result."""
    return parse(f"""{HEADER}
    two (float[N, 3, 8, 8] first, float[N, 6, 1, 1] second) => (float[N, 4] scores)
    <float[6, 3, 3, 3] kernel, float[6, 4] weight>
    {{
        [convolve] h = Conv<pads = [1, 1, 1, 1]>(first, kernel)
        [gate] g = Mul(h, second)
        [pool] p = GlobalAveragePool(g)
        [flat] f = Flatten(p)
        [classify] scores = Gemm(f, weight)
    }}""")


def many_channels(channels: int = 13, layout: str = "NCHW") -> onnx.ModelProto:
    """A classifier of images (N, C, 10, 12) or (N, 10, 12, C) of any number of channels."""
    shape = f"{channels}, 10, 12" if layout == "NCHW" else f"10, 12, {channels}"
    entry = "x = Transpose<perm = [0, 3, 1, 2]>(bands)" if layout == "NHWC" else "x = Identity(bands)"
    return parse(f"""{HEADER}
    bands (float[N, {shape}] bands) => (float[N, 4] scores)
    <float[6, {channels}, 3, 3] kernel, float[6, 4] weight>
    {{
        [enter] {entry}
        [convolve] h = Conv<pads = [1, 1, 1, 1]>(x, kernel)
        [active] r = Relu(h)
        [pool] p = GlobalAveragePool(r)
        [flat] f = Flatten(p)
        [classify] scores = Gemm(f, weight)
    }}""")


def half_precision() -> onnx.ModelProto:
    """A classifier whose image, weights and scores are float16."""
    return parse(f"""{HEADER}
    half (float16[N, 3, 8, 8] image) => (float16[N, 4] scores)
    <float16[6, 3, 3, 3] kernel, float16[6, 4] weight>
    {{
        [convolve] h = Conv<pads = [1, 1, 1, 1]>(image, kernel)
        [active] r = Relu(h)
        [pool] p = GlobalAveragePool(r)
        [flat] f = Flatten(p)
        [classify] scores = Gemm(f, weight)
    }}""")


def random_images(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Returns float32 numbers of a normal distribution."""
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)
