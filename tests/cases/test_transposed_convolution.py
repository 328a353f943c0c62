"""Transposed convolutions of every combination of attributes, against torch and a mask that is scattered tap by tap."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from combinations import quickly
from reference.fill import neighbor_fill
from torch import Tensor
from torch.nn import functional

import masktool

TOLERANCE = 1e-5
"""Relative to max |y|: sums in another order."""
ROUNDS = 20
"""Of the fill: more than any window here sees; more change nothing that is kept."""


@dataclasses.dataclass(frozen=True)
class Case:
    size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    begins: tuple[int, int]
    ends: tuple[int, int]
    extra: tuple[int, int]
    groups: int
    bias: bool

    @property
    def out_size(self) -> tuple[int, ...]:
        lengths = zip(
            self.size, self.kernel, self.strides, self.dilations, self.begins, self.ends, self.extra, strict=True
        )
        return tuple((n - 1) * s + d * (k - 1) + 1 - begin - end + more for n, k, s, d, begin, end, more in lengths)


def draw_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    while True:
        kernel, strides, dilations = (tuple(int(n) for n in rng.integers(1, high, 2)) for high in (5, 5, 4))
        begins, ends = (tuple(int(n) for n in rng.integers(0, 3, 2)) for _ in range(2))
        extra = tuple(int(rng.integers(0, s)) for s in strides)  # ONNX Runtime takes no more
        size = tuple(int(n) for n in rng.integers(3, 8, 2))
        case = Case(
            size, kernel, strides, dilations, begins, ends, extra, int(rng.integers(1, 3)), bool(rng.integers(2))
        )
        if min(case.out_size) > 0:
            return case


def weights_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((4, 6 // case.groups, *case.kernel)).astype(np.float32)
    return weight, rng.standard_normal(6).astype(np.float32) * case.bias


def write(case: Case, folder: Path, attributes: str) -> Path:
    """Writes a point-wise convolution and the transposed one, whose map is the output."""
    bias = ", b" if case.bias else ""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4, {case.size[0]}, {case.size[1]}] x) => '
        f"(float[N, 6, {case.out_size[0]}, {case.out_size[1]}] y) "
        f"{{ c = Conv (x, p) y = ConvTranspose <group = {case.groups}, {attributes}> (c, w{bias}) }}"
    )
    weight, offset = weights_of(case)
    point = np.eye(4, dtype=np.float32)[..., None, None]
    for name, array in [("p", point), ("w", weight), *([("b", offset)] if case.bias else [])]:
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    path = folder / "plain.onnx"
    onnx.save(model, path)
    return path


def attributes_of(case: Case) -> str:
    pads = [*case.begins, *case.ends]
    return (
        f"strides = {list(case.strides)}, dilations = {list(case.dilations)}, pads = {pads}, "
        f"output_padding = {list(case.extra)}"
    )


def in_torch(case: Case, images: Tensor) -> Tensor:
    """Without padding, then cut or lengthened: pads are what is taken off, output padding what is added."""
    weight, offset = weights_of(case)
    y = functional.conv_transpose2d(images, torch.tensor(weight), None, case.strides, 0, 0, case.groups, case.dilations)
    (top, left), (bottom, right) = case.begins, case.ends
    y = functional.pad(y, (-left, case.extra[1] - right, -top, case.extra[0] - bottom))
    return y + torch.tensor(offset)[:, None, None]


def scattered(case: Case, mask: np.ndarray) -> np.ndarray:
    """Returns the mask of the output: kept where a kept place or none at all is scattered to."""
    kept, reached = (np.zeros(case.out_size, bool) for _ in range(2))
    for place in itertools.product(*map(range, case.size)):
        for tap in itertools.product(*map(range, case.kernel)):
            row, column = (
                p * s + d * t - begin
                for p, s, d, t, begin in zip(place, case.strides, case.dilations, tap, case.begins, strict=True)
            )
            if 0 <= row < case.out_size[0] and 0 <= column < case.out_size[1]:
                reached[row, column] = True
                kept[row, column] |= bool(mask[place] > 0)
    return kept | ~reached


def check(case: Case, folder: Path, attributes: str) -> None:
    masktool.export(write(case, folder, attributes), folder / "masked.onnx")
    session = onnxruntime.InferenceSession(folder / "masked.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(2)
    images = rng.standard_normal((1, 4, *case.size)).astype(np.float32)
    half = (rng.random((1, 1, *case.size)) < 0.5).astype(np.float32)
    corner = np.zeros_like(half)
    corner[..., 0, 0] = 1
    for mask in (np.ones_like(half), half, corner):
        filled = neighbor_fill(torch.tensor(images * mask), torch.tensor(mask), ROUNDS)
        expected = in_torch(case, filled).numpy() * scattered(case, mask[0, 0])
        (got,) = session.run(None, {"x": images, "mask": mask})
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE * max(np.abs(expected).max(), 1))


@pytest.mark.parametrize("seed", quickly(range(10), range(30)))
def test_all_combinations_of_attributes(seed: int, tmp_path: Path) -> None:
    case = draw_case(seed)
    check(case, tmp_path, attributes_of(case))


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID", "output_shape"])
@pytest.mark.parametrize("stride", [2, 3])
def test_pads_that_are_not_written_out(mode: str, stride: int, tmp_path: Path) -> None:
    """SAME gives stride times as many pixels; of an odd number to take off, SAME_UPPER takes the odd one at the end."""
    size, kernel = (5, 6), (2, 4)
    natural = tuple((n - 1) * stride + k for n, k in zip(size, kernel, strict=True))
    wanted = tuple(n * stride for n in size)
    if mode.startswith("SAME"):  # ONNX Runtime adds nothing
        wanted = tuple(min(w, n) for w, n in zip(wanted, natural, strict=True))
    total = tuple(0 if mode == "VALID" else max(n - w, 0) for n, w in zip(natural, wanted, strict=True))
    extra = tuple(0 if mode == "VALID" else max(w - n, 0) for n, w in zip(natural, wanted, strict=True))
    small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    begins, ends = (small, large) if mode == "SAME_UPPER" else (large, small)
    case = Case(size, kernel, (stride, stride), (1, 1), begins, ends, extra, 1, bias=True)
    chosen = f"output_shape = {list(wanted)}" if mode == "output_shape" else f'auto_pad = "{mode}"'
    check(case, tmp_path, f"strides = {[stride, stride]}, {chosen}")


@pytest.mark.parametrize("seed", range(6))
def test_partial_masking_keeps_what_nothing_reaches(seed: int, tmp_path: Path) -> None:
    case = draw_case(seed)
    parity = masktool.export(
        write(case, tmp_path, attributes_of(case)), tmp_path / "m.onnx", masking="partial"
    ).metadata.parity
    assert parity["ones"] <= TOLERANCE
    assert parity["invariance"] == 0


def in_partial_masking(case: Case, images: Tensor, mask: Tensor) -> np.ndarray:
    """The partial convolution's rule in words: scaled by places in the image over those kept, apart from the bias."""
    _, offset = weights_of(case)
    bias = torch.tensor(offset)[:, None, None]
    box = dataclasses.replace(case, groups=1, bias=False)
    kept, inside = (spread(box, each) for each in (mask, torch.ones_like(mask)))
    factor = torch.where(kept > 0, inside / kept, 0)
    return ((in_torch(case, images * mask) - bias) * factor + bias).numpy()


def spread(case: Case, mask: Tensor) -> Tensor:
    """Counts the places that are scattered to each pixel."""
    counts = functional.conv_transpose2d(
        mask, torch.ones(1, 1, *case.kernel), None, case.strides, 0, 0, 1, case.dilations
    )
    (top, left), (bottom, right) = case.begins, case.ends
    return functional.pad(counts, (-left, case.extra[1] - right, -top, case.extra[0] - bottom))


@pytest.mark.parametrize("seed", quickly(range(3), range(8)))
def test_partial_masking_counts_the_places_of_a_window(seed: int, tmp_path: Path) -> None:
    case = draw_case(seed)
    masktool.export(write(case, tmp_path, attributes_of(case)), tmp_path / "masked.onnx", masking="partial")
    session = onnxruntime.InferenceSession(tmp_path / "masked.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(2)
    images = rng.standard_normal((1, 4, *case.size)).astype(np.float32)
    mask = (rng.random((1, 1, *case.size)) < 0.5).astype(np.float32)
    expected = in_partial_masking(case, torch.tensor(images), torch.tensor(mask)) * scattered(case, mask[0, 0])
    (got,) = session.run(None, {"x": images, "mask": mask})
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE * max(np.abs(expected).max(), 1))
