"""Scores computed where windows change them alone are those of the masked network."""

import math
import re

import numpy as np
import onnxruntime
import pytest
from combinations import every_pair
from networks import families
from networks.small_graphs import parse

import masktool
from masktool.embedding.incremental import window_rules, write
from masktool.embedding.incremental.frames import Sliding, Span, phases, slide
from masktool.embedding.incremental.write import write_incremental
from masktool.explainers.incremental import CORNERS, NotIncrementalError, Windows

ROUNDING = 1e-6
"""Of the largest score: what kernels for maps of another size leave in single precision."""
HEAD = """<ir_version: 10, opset_import: ["" : {opset}]>
network (float[N, 3, {height}, {width}] image) => (float[N, 5] scores)
<{weights}, float[{channels}, 5] head>
{{ {body} mean = GlobalAveragePool(last) flat = Flatten(mean) scores = MatMul(flat, head) }}"""
CONV = "Conv<pads = [1, 1, 1, 1]>"
STEM, SIX = "float[4, 3, 3, 3] a", "float[6, 4, 3, 3] b, float[6] d"

NETWORKS = {
    "convolutions and pools": (
        f"{STEM}, {SIX}", 6,
        f"c = {CONV}(image, a) r = Relu(c) p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r) "
        f"e = {CONV}(p, b, d) last = Relu(e)",
    ),
    "strides": (
        f"{STEM}, {SIX}", 6,
        "c = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, a) r = Relu(c) "
        "e = Conv<pads = [0, 1, 1, 0], strides = [3, 2]>(r, b, d) last = LeakyRelu(e)",
    ),
    "a pool of odd windows that rounds up": (
        f"{STEM}, {SIX}", 6,
        f"c = {CONV}(image, a) r = Relu(c) p = MaxPool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>(r) "
        f"e = {CONV}(p, b, d) last = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(e)",
    ),
    "a residual block behind a stride": (
        "float[4, 3, 3, 3] a, float[4, 4, 3, 3] b, float[4, 4, 3, 3] w, float[4, 4, 1, 1] v", 4,
        f"c = {CONV}(image, a) r = Relu(c) e = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(r, b) f = Relu(e) "
        f"g = {CONV}(f, w) s = Conv<strides = [2, 2]>(r, v) h = Add(g, s) last = Relu(h)",
    ),
    "samplers narrower than their stride": (
        f"{STEM}, float[4, 4, 3, 3] w, float[4, 4, 2, 2] v, {SIX}", 6,
        f"c = {CONV}(image, a) r = Relu(c) e = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(r, w) "
        "s = MaxPool<kernel_shape = [1, 1], strides = [2, 2]>(r) h = Add(e, s) "
        f"g = Conv<strides = [3, 3]>(h, v) last = {CONV}(g, b, d)",
    ),
    "branches of other kernels, joined": (
        "float[4, 3, 3, 3] a, float[2, 4, 1, 1] b, float[2, 4, 5, 5] w", 8,
        f"c = {CONV}(image, a) r = Relu(c) e = Conv(r, b) f = Conv<pads = [2, 2, 2, 2]>(r, w) "
        "p = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(r) "
        "last = Concat<axis = 1>(e, f, p)",
    ),
    "dilation and groups": (
        "float[4, 3, 3, 3] a, float[4, 1, 3, 3] b, float[6, 2, 3, 3] w", 6,
        f"c = {CONV}(image, a) r = Clip(c) e = Conv<pads = [2, 2, 2, 2], dilations = [2, 2], group = 4>(r, b) "
        "f = Relu(e) last = Conv<pads = [1, 1, 1, 1], group = 2, strides = [2, 2]>(f, w)",
    ),
    "no padding": (
        f"{STEM}, {SIX}", 6,
        "c = Conv(image, a) r = Relu(c) p = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(r) "
        "e = Conv(p, b, d) last = Sigmoid(e)",
    ),
    "a mean of fewer places at the border": (
        f"{STEM}, {SIX}", 6,
        f"c = {CONV}(image, a) p = AveragePool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(c) "
        f"e = {CONV}(p, b, d) last = Relu(e)",
    ),
    "a gate that sees the whole map": (
        f"{STEM}, float[4, 4, 1, 1] v, {SIX}", 6,
        f"c = {CONV}(image, a) r = Relu(c) m = GlobalAveragePool(r) k = Conv(m, v) s = Sigmoid(k) g = Mul(r, s) "
        f"e = {CONV}(g, b, d) last = Relu(e)",
    ),
    "normalisation, and a scale of the image's own": (
        f"{STEM}, float[4] q, float[4] u, float[4] o, float[4] z, {SIX}", 6,
        f"c = {CONV}(image, a) n = BatchNormalization(c, q, u, o, z) r = Relu(n) k = LRN<size = 3>(r) "
        f"e = {CONV}(k, b, d) last = Tanh(e)",
    ),
}  # fmt: skip
NARROW = ("a residual block behind a stride", "samplers narrower than their stride")
"""Networks that the cell rule changes."""
AS_FAR_AS_THEY_GO = 4
"""Share of a map from which patches are no longer worth it, so large that they always are."""
SIZES = {(33, 40): [((8, 9), (5, 7)), ((11, 6), (11, 3))], (32, 32): [((8, 8), (8, 8))]}
"""(height, width) of images, with windows and how far they move; the last of a row is flush with the border."""


def corners_of(size, window, strides):
    starts = [
        [*range(0, length - side + 1, stride), length - side]
        for length, side, stride in zip(size, window, strides, strict=True)
    ]
    return np.array([(row, column) for row in starts[0] for column in starts[1]], np.int64)


def masks_of(size, window, corners):
    masks = np.ones((len(corners), 1, *size), np.float32)
    for mask, (row, column) in zip(masks, corners, strict=True):
        mask[:, row : row + window[0], column : column + window[1]] = 0
    return masks


def make_file(folder, name, size, opset=18, **options):
    weights, channels, body = NETWORKS[name]
    text = HEAD.format(
        opset=opset, height=size[0], width=size[1], weights=weights, channels=channels, body=re.sub(r"\s+", " ", body)
    )
    positive = {"z": np.linspace(0.5, 2, 4)}
    path = folder / "masked.onnx"
    masktool.export(parse(text, **positive), path, output_kind="logits", **options)
    return path


def run(model, feed):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(
        zip(names, session.run(None, {each.name: feed[each.name] for each in session.get_inputs()}), strict=True)
    )


def run_both(path, image, size, window, strides, output="scores"):
    """Returns the scores where windows change them alone and those of the masked network, and the graphs."""
    corners = corners_of(size, window, strides)
    alignment = tuple(math.gcd(*along) for along in corners.T.tolist())
    graphs = write_incremental(path, "image", output, Windows(size, window, alignment))
    known = {"image": image, "mask": np.ones((1, 1, *size), np.float32)}
    values = known | run(graphs.base, known)
    feed = {name: base.prepare(values[base.source]) for name, base in graphs.inputs.items()}
    found = run(graphs.patches, feed | {CORNERS: corners})[output]
    with masktool.load(path) as session:
        expected = session.run(image, masks_of(size, window, corners), outputs=[output])[output]
    return found, expected, graphs


@pytest.fixture
def image():
    def draw(size):
        return np.random.default_rng(1).standard_normal((1, 3, *size)).astype(np.float32)

    return draw


@every_pair(
    case=[
        (name, masking)
        for name in NETWORKS
        for masking in ("fill", "layer", "cell")
        if masking != "cell" or name in NARROW  # elsewhere the same file as under the published rule
    ],
    size=list(SIZES),
    share=[window_rules.WHOLE_SHARE, AS_FAR_AS_THEY_GO],
)
def test_scores_are_those_of_the_masked_network(case, size, share, tmp_path, monkeypatch, image):
    name, masking = case
    monkeypatch.setattr(write, "LEAST_GAIN", 0)
    monkeypatch.setattr(window_rules, "WHOLE_SHARE", share)
    options = {"rule": "cell"} if masking == "cell" else {"masking": masking}
    path = make_file(tmp_path, name, size, **options)
    for window, strides in SIZES[size]:
        found, expected, _ = run_both(path, image(size), size, window, strides)
        assert found.shape == expected.shape
        assert np.ptp(expected, axis=0).max() > 1e-3  # windows matter
        assert np.abs(found - expected).max() <= ROUNDING * max(1, np.abs(expected).max())


@pytest.mark.parametrize("masking", ["fill", "layer"])
@pytest.mark.parametrize("name", families.FAMILIES)
def test_families_of_networks(name, masking, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "LEAST_GAIN", 0)
    monkeypatch.setattr(window_rules, "WHOLE_SHARE", 4)
    path = tmp_path / "masked.onnx"
    masktool.export(parse(families.HEAD + families.FAMILIES[name].strip()), path, masking=masking, output_kind="logits")
    with masktool.load(path) as session:
        shape, output = session.input_shape, session.metadata.class_output
        size = session.spatial_shape
    image = np.random.default_rng(1).standard_normal((1, *shape[1:])).astype(np.float32)
    found, expected, _ = run_both(path, image, size, (3, 4), (2, 3), output)
    assert np.abs(found - expected).max() <= ROUNDING * max(1, np.abs(expected).max())


@pytest.mark.parametrize("baseline", ["image-mean", "blur", "noise"])
def test_baselines_of_the_image(baseline, tmp_path, monkeypatch, image):
    monkeypatch.setattr(write, "LEAST_GAIN", 0)
    path = make_file(tmp_path, "strides", (33, 40), masking="fill", baseline=baseline, preprocessing="imagenet")
    found, expected, _ = run_both(path, image((33, 40)), (33, 40), (8, 9), (5, 7))
    assert np.abs(found - expected).max() <= ROUNDING * max(1, np.abs(expected).max())


def test_a_fill_does_not_enlarge_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "LEAST_GAIN", 0)
    gains = {}
    for masking in ("fill", "layer"):
        path = make_file(tmp_path, "convolutions and pools", (64, 64), masking=masking)
        gains[masking] = write_incremental(path, "image", "scores", Windows((64, 64), (8, 8), (8, 8))).gain
    assert gains["layer"] > 0.8 * gains["fill"] > 3


def test_what_gains_nothing_is_refused(tmp_path):
    path = make_file(tmp_path, "strides", (32, 32), masking="fill")
    with pytest.raises(NotIncrementalError, match=r"takes 12\d% of the whole network's work"):
        write_incremental(path, "image", "scores", Windows((32, 32), (30, 30), (1, 1)))


def test_a_fixed_batch_is_refused(tmp_path):
    path = make_file(tmp_path, "strides", (32, 32), masking="fill", portable=True)
    with pytest.raises(NotIncrementalError, match="fixed number of images"):
        write_incremental(path, "image", "scores", Windows((32, 32), (8, 8), (8, 8)))


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("alignment", [0, 1, 2, 3, 8])
def test_frames_hold_all_that_windows_change(scale, stride, alignment):
    for low, size, extent, pad in [(0, 3, 1, 0), (-2, 4, 3, 1), (1, 2, 5, 2), (0, 1, 2, 0)]:
        given, read = slide(Span(scale, low, size), Sliding(extent, stride, pad), alignment)
        for corner in range(0, 12 * alignment + 1, max(alignment, 1)):
            assert corner // scale % stride in phases(scale, stride, alignment)
            start = corner // scale + low
            if not (
                changed := [place for place in range(-20, 120) if start - extent < place * stride - pad < start + size]
            ):
                continue
            first = corner // given.scale + given.low
            assert first <= min(changed)
            assert max(changed) < first + given.size
            assert read.step * (corner // read.scale) + read.low == stride * first - pad
        assert read.size == stride * (given.size - 1) + extent
