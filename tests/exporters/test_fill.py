"""Masking by fill: what the network gets to see under every baseline, computed here once more in numpy."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from combinations import quickly
from networks.small_graphs import classifier, parse
from PIL import Image
from scipy.ndimage import gaussian_filter

import masktool
from masktool import MasktoolError
from masktool.baselines import choose_baseline, constant_baseline
from masktool.contract import BASELINES, Metadata, Preprocessing
from masktool.exporters.parity import open_session
from masktool.exporters.presets import preprocessing_preset
from masktool.runtime.images import read_image
from masktool.runtime.preprocessing import prepare

COLOUR = "255, 128, 0"
EVERY_BASELINE = (*BASELINES, COLOUR, "200")
SINGLE_PRECISION = 2e-6
"""Relative to the largest value: a sum over an image in single precision."""
SCORE_TOLERANCE = 1e-5
"""Of probabilities, behind a whole network."""
CAFFE = preprocessing_preset("caffe", (224, 224))
PIXELS = Preprocessing(size=(32, 32), resize="exact", layout="NHWC")
PHOTOGRAPHS = ("n02114548_white_wolf.jpg", "n04356056_sunglasses.jpg")


class Filled:
    """An exported file, its source, and the image that its network sees."""

    def __init__(self, source: Path, baseline: str, preprocessing: Preprocessing, directory: Path) -> None:
        self.baseline, self.preprocessing, path = baseline, preprocessing, directory / "filled.onnx"
        self.metadata = masktool.export(
            source, path, masking="fill", baseline=baseline, preprocessing=preprocessing
        ).metadata
        self.source = open_session(str(source))
        model = onnx.load(path)
        seen = f"{self.metadata.image_input}_filled"
        model.graph.output.append(onnx.helper.make_tensor_value_info(seen, onnx.TensorProto.FLOAT, None))
        self.session = open_session(model.SerializeToString())
        self.outputs = [self.metadata.class_output, seen]

    def run(self, images: np.ndarray, masks: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the class output and what the network saw."""
        feed = {self.metadata.image_input: images} | ({} if masks is None else {"mask": masks})
        return tuple(self.session.run(self.outputs, feed))

    def run_source(self, images: np.ndarray) -> np.ndarray:
        """Returns the source's class output, image by image: some sources take no more."""
        name = self.metadata.image_input
        return np.concatenate(
            [self.source.run([self.metadata.class_output], {name: image[None]})[0] for image in images]
        )


@pytest.fixture(scope="module", params=EVERY_BASELINE)
def squeezenet(
    request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filled]:
    """Real weights; blue, green, red in 0..255 minus the mean."""
    weights = data_dir / "weights" / "squeezenet11_caffe2_fp32.onnx"
    return Filled(weights, request.param, CAFFE, tmp_path_factory.mktemp("squeezenet"))


@pytest.fixture(scope="module")
def photographs(data_dir: Path) -> np.ndarray:
    """Returns two photographs as SqueezeNet takes them, (2, 3, 224, 224)."""
    return np.concatenate([prepare(read_image(data_dir / "images" / name), CAFFE).array for name in PHOTOGRAPHS])


def draw_masks(side: int) -> np.ndarray:
    """Returns four masks (4, 1, side, side): a hole wider than the blur reaches, scattered pixels, soft, nothing."""
    masks = np.ones((4, 1, side, side), np.float32)
    masks[0, 0, side // 8 : -side // 8, side // 8 :] = 0
    masks[1, 0] = np.random.default_rng(1).random((side, side)) < 0.3
    masks[2, 0] = np.linspace(-0.3, 1, side).clip(0)
    masks[3] = 0
    return masks


def fill(
    images: np.ndarray, masks: np.ndarray, baseline: str, preprocessing: Preprocessing, sigma: float | None = None
) -> np.ndarray:
    """Fills images in double precision; all arrays are channels last here, whatever the network's layout."""
    x, m = images.astype(np.float64), masks.astype(np.float64).transpose(0, 2, 3, 1)
    weight = m.sum((1, 2), keepdims=True)
    mean = np.divide((x * m).sum((1, 2), keepdims=True), weight, where=weight > 0, out=np.zeros(x[:, :1, :1].shape))
    if baseline == "image-mean":
        values = mean
    elif baseline == "blur":
        sigma = sigma or x.shape[1] * 10 / 224
        values = (blur(x * m, sigma) + 0.01 * mean) / (blur(m, sigma) + 0.01)
    elif baseline == "mean":
        values = np.zeros(())
    else:
        values = to_input(np.array(pixels_of(baseline, x.shape[1:])), preprocessing)
    return x * m + values * (1 - m)


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    blurred = functools.partial(gaussian_filter, sigma=sigma, radius=int(np.ceil(3 * sigma)), mode="constant")
    return np.stack([blurred(image, axes=(0, 1)) for image in images])


def pixels_of(baseline: str, shape: tuple[int, ...]) -> np.ndarray | tuple[float, ...]:
    if baseline == "noise":
        return np.random.default_rng(0).integers(0, 256, shape)
    return {"black": (0, 0, 0), "grey": (127.5, 127.5, 127.5), COLOUR: (255, 128, 0), "200": (200, 200, 200)}[baseline]


def to_input(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    pixels = pixels[..., ::-1] if preprocessing.channel_order == "BGR" else pixels
    return (pixels * preprocessing.scale - np.array(preprocessing.mean)) / np.array(preprocessing.std)


def test_the_network_sees_what_numpy_fills(squeezenet: Filled, photographs: np.ndarray):
    masks = draw_masks(224)
    for photograph in photographs:
        images = np.repeat(photograph[None], len(masks), axis=0)
        expected = fill(images.transpose(0, 2, 3, 1), masks, squeezenet.baseline, CAFFE).transpose(0, 3, 1, 2)
        scores, seen = squeezenet.run(images, masks)
        np.testing.assert_allclose(seen, expected, rtol=0, atol=SINGLE_PRECISION * np.abs(expected).max())
        plain = squeezenet.run_source(expected.astype(np.float32))
        np.testing.assert_allclose(scores, plain, rtol=0, atol=SCORE_TOLERANCE)


def test_ones_and_no_mask_are_the_source_to_the_last_bit(squeezenet: Filled, photographs: np.ndarray):
    expected = squeezenet.run_source(photographs)
    for masks in (None, np.ones((2, 1, 224, 224), np.float32), np.ones((1, 1, 224, 224), np.float32)):
        scores, seen = squeezenet.run(photographs, masks)
        np.testing.assert_array_equal(scores, expected)
        np.testing.assert_array_equal(seen, photographs)


def test_what_is_missing_never_matters(squeezenet: Filled, photographs: np.ndarray):
    masks = draw_masks(224)
    images = np.repeat(photographs[:1], len(masks), axis=0)
    scores, seen = squeezenet.run(images, masks)
    assert np.isfinite(scores).all()
    for poison in (np.nan, np.inf, -np.inf, 1e38):
        poisoned = np.where(masks == 0, np.float32(poison), images)
        poisoned_scores, poisoned_seen = squeezenet.run(poisoned, masks)
        np.testing.assert_array_equal(poisoned_seen, seen)
        np.testing.assert_array_equal(poisoned_scores, scores)


def test_one_image_under_many_masks_and_many_images_under_one(squeezenet: Filled, photographs: np.ndarray):
    masks = draw_masks(224)
    together, _ = squeezenet.run(photographs[:1], masks)
    alone = np.concatenate([squeezenet.run(photographs[:1], mask[None])[0] for mask in masks])
    np.testing.assert_allclose(together, alone, rtol=0, atol=SCORE_TOLERANCE)
    together, _ = squeezenet.run(photographs, masks[:1])
    alone = np.concatenate([squeezenet.run(image[None], masks[:1])[0] for image in photographs])
    np.testing.assert_allclose(together, alone, rtol=0, atol=SCORE_TOLERANCE)


def test_the_file_says_how_it_fills(squeezenet: Filled):
    assert (squeezenet.metadata.masking, squeezenet.metadata.baseline) == ("fill", squeezenet.baseline)
    parity = squeezenet.metadata.parity
    assert parity["ones"] == parity["left_out"] == parity["invariance"] == 0
    assert parity["response"] > 0.01


@pytest.mark.parametrize("baseline", quickly(["blur", "mean", COLOUR], EVERY_BASELINE))
def test_channels_last(baseline: str, data_dir: Path, tmp_path: Path):
    filled = Filled(data_dir / "onnx" / "cifar10_small_tf2onnx_nhwc.onnx", baseline, PIXELS, tmp_path)
    pixels = np.load(data_dir / "cifar" / "cifar10_test_lossless.npz")["images"][:4]
    images, masks = (pixels / 255).astype(np.float32), draw_masks(32)
    expected = fill(images, masks, baseline, PIXELS)
    scores, seen = filled.run(images, masks)
    np.testing.assert_allclose(seen, expected, rtol=0, atol=SINGLE_PRECISION)
    plain = filled.run_source(expected.astype(np.float32))
    np.testing.assert_allclose(scores, plain, rtol=0, atol=SCORE_TOLERANCE * np.abs(plain).max())
    np.testing.assert_array_equal(filled.run(images)[0], filled.run_source(images))
    poisoned = np.where(masks.transpose(0, 2, 3, 1) == 0, np.float32(np.nan), images)
    np.testing.assert_array_equal(filled.run(poisoned, masks)[0], scores)


@pytest.mark.parametrize("preset", ["imagenet", "caffe", "tf"])
@pytest.mark.parametrize(("baseline", "colour"), [("black", "black"), ("255,128,0", (255, 128, 0))])
def test_a_colour_is_a_photograph_of_that_colour(preset: str, baseline: str, colour: str | tuple[int, int, int]):
    preprocessing = preprocessing_preset(preset, (6, 6))
    photograph = prepare(Image.new("RGB", (9, 7), colour), preprocessing).array
    values = constant_baseline(baseline, (3, 6, 6), preprocessing, "NCHW", where="here")
    np.testing.assert_array_equal(np.broadcast_to(values, photograph.shape), photograph)


def test_one_channel_takes_one_number():
    preprocessing = Preprocessing(size=(6, 6), resize="exact", channel_order="L", mean=(0.5,), std=(0.25,))
    photograph = prepare(Image.new("L", (6, 6), 200), preprocessing).array
    np.testing.assert_array_equal(
        constant_baseline("200", (1, 6, 6), preprocessing, "NCHW", where="here"), photograph[:, :, :1, :1]
    )
    with pytest.raises(MasktoolError, match=r"colour does not fit the model .*: expected one number"):
        constant_baseline("1,2,3", (1, 6, 6), preprocessing, "NCHW", where="here")


@pytest.mark.parametrize(("dtype", "element"), [(np.float16, "float16"), (np.float64, "double")])
def test_half_and_double_precision(dtype: type, element: str, tmp_path: Path):
    model = parse(
        f"""<ir_version: 10, opset_import: ["" : 20]>
        g ({element}[N, 3, 256, 256] image) => ({element}[N, 3] scores)
        {{ axes = Constant<value_ints = [2, 3]>() scores = ReduceMean<keepdims = 0>(image, axes) }}"""
    )
    masktool.export(model, tmp_path / "filled.onnx", masking="fill", baseline="image-mean")
    session = onnxruntime.InferenceSession(tmp_path / "filled.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    images = (rng.random((1, 3, 256, 256)) + 2).astype(dtype)  # their sum is beyond what a half can hold
    mask = (rng.random((1, 1, 256, 256)) < 0.5).astype(np.float32)
    (scores,) = session.run(None, {"image": images, "mask": mask})
    assert scores.dtype == dtype
    expected = (images * mask).sum((2, 3), dtype=np.float64) / mask.sum()
    np.testing.assert_allclose(scores, expected, rtol=np.finfo(np.float16).eps)


def test_a_network_without_convolutions(tmp_path: Path):
    text = """<ir_version: 10, opset_import: ["" : 20]>
    g (float[N, 3, 8, 8] image) => (float[N, 4] scores) <float[192, 4] weight>
    { flat = Flatten(image) hard = Hardmax(flat) product = MatMul(flat, weight) sum = ReduceMean(hard)
      scores = Add(product, sum) }"""
    model = parse(text)
    with pytest.raises(MasktoolError, match=r"not a convolutional network.*masking=.fill. takes this file"):
        masktool.export(model, tmp_path / "layer.onnx")
    masktool.export(model, tmp_path / "fill.onnx", masking="fill")
    assert read_metadata(tmp_path / "fill.onnx").baseline == "mean"


def test_fill_is_not_promised_to_what_it_cannot_take(tmp_path: Path):
    model = parse(
        """<ir_version: 10, opset_import: ["" : 20]> g (float[N, 3, 8, 8] image) => (float[N, 3] scores)
        { axes = Constant<value_ints = [2, 3]>() means = ReduceMean<keepdims = 0>(image, axes)
          noise = RandomNormalLike(means) scores = Add(means, noise) }"""
    )
    with pytest.raises(MasktoolError, match=r"not a convolutional network.*got none$"):
        masktool.export(model, tmp_path / "layer.onnx")
    with pytest.raises(MasktoolError, match="random"):
        masktool.export(model, tmp_path / "fill.onnx", masking="fill")


def test_a_vision_transformer(torchvision_models, tmp_path: Path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    options = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32, "num_classes": 5}
    network = torchvision_models.VisionTransformer(32, 8, **options).eval()
    torch.nn.init.normal_(network.heads.head.weight)
    metadata = masktool.export(
        network,
        tmp_path / "vit.onnx",
        input_size=(32, 32),
        masking="fill",
        baseline="black",
        preprocessing=preprocessing_preset("imagenet", (32, 32)),
    ).metadata
    assert metadata.parity["ones"] == metadata.parity["invariance"] == 0
    assert metadata.parity["one_image"] < 1e-5
    assert metadata.parity["response"] > 0.01


def test_the_noise_is_the_same_every_time_and_covers_the_range():
    first, second = (constant_baseline("noise", (3, 64, 48), CAFFE, "NCHW", where="here") for _ in range(2))
    np.testing.assert_array_equal(first, second)
    pixels = first + np.array(CAFFE.mean).reshape(1, 3, 1, 1)
    assert first.shape == (1, 3, 64, 48)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert pixels.mean() == pytest.approx(127.5, abs=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "black"}, r"only fill takes a baseline \(masking=.layer.\): black; add masking=.fill."),
        ({"masking": "fill", "baseline": "pink"}, r"unknown baseline \(baseline=.pink.\): expected black, grey, mean"),
        ({"masking": "fill", "baseline": "1,2"}, r"unknown baseline \(baseline=.1,2.\)"),
        ({"masking": "fill", "baseline": "0,0,256"}, "unknown baseline"),
        ({"masking": "fill", "baseline": "0,nan,0"}, "unknown baseline"),
        ({"masking": "fill", "baseline": ""}, "unknown baseline"),
        *[
            ({"masking": "fill", "baseline": name}, r"how pixels become the input .*export with preprocessing=")
            for name in ("black", "grey", "noise", "1,2,3")
        ],
        (
            {"masking": "fill", "baseline": "black", "preprocessing": Preprocessing((8, 8), mean=(0.5,))},
            r"the preprocessing's mean does not fit the model \(baseline=.black.\): expected 3 numbers, got 1",
        ),
    ],
)
def test_bad_use_is_refused(options: dict, message: str, tmp_path: Path):
    with pytest.raises(MasktoolError, match=message) as caught:
        masktool.export(classifier(), tmp_path / "filled.onnx", **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("baseline", ["mean", "image-mean", "blur"])
def test_some_baselines_need_no_preprocessing(baseline: str, tmp_path: Path):
    masktool.export(classifier(), tmp_path / "filled.onnx", masking="fill", baseline=baseline)
    assert read_metadata(tmp_path / "filled.onnx").baseline == baseline


@pytest.mark.parametrize("baseline", quickly(["blur", COLOUR], sorted({*EVERY_BASELINE} - {"noise"})))
def test_a_network_for_any_size(baseline: str, tmp_path: Path):
    text = """<ir_version: 10, opset_import: ["" : 20]>
    g (float[N, 3, H, W] image) => (float[N, 5] scores) <float[5, 3, 3, 3] kernel>
    { map = Conv(image, kernel) active = Relu(map) pooled = GlobalAveragePool(active) scores = Flatten(pooled) }"""
    onnx.save(parse(text), tmp_path / "plain.onnx")
    filled = Filled(tmp_path / "plain.onnx", baseline, preprocessing_preset("imagenet", (224, 224)), tmp_path)
    for side in (224, 40):
        images = np.random.default_rng(0).standard_normal((4, 3, side, side)).astype(np.float32)
        masks = draw_masks(side)
        expected = fill(images.transpose(0, 2, 3, 1), masks, baseline, filled.preprocessing, sigma=10)
        _, seen = filled.run(images, masks)
        np.testing.assert_allclose(seen.transpose(0, 2, 3, 1), expected, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(filled.run(images, np.ones_like(masks))[1], images)


def test_noise_needs_a_fixed_size():
    with pytest.raises(MasktoolError, match=r"noise needs a fixed height and width.*input_size=\(H, W\)"):
        constant_baseline("noise", (3, None, 224), CAFFE, "NCHW", where="here")


def test_the_default_is_the_mean_and_other_modes_have_none():
    assert choose_baseline("fill", None) == "mean"
    assert choose_baseline("layer", None) is None
    assert choose_baseline("partial", None) is None


def test_a_file_from_before_baselines_still_loads(tmp_path: Path):
    metadata = masktool.export(classifier(), tmp_path / "layer.onnx").metadata
    properties = metadata.to_properties()
    assert properties.pop("masktool.baseline") == "null"
    assert Metadata.from_properties(properties) == metadata


def read_metadata(path: Path) -> Metadata:
    metadata = Metadata.from_properties({entry.key: entry.value for entry in onnx.load(path).metadata_props})
    assert metadata is not None
    return metadata
