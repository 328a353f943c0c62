"""Preparing a photograph equals torchvision's evaluation transforms, and maps find their way back to its pixels."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from masktool import MasktoolError
from masktool.contract import Preprocessing
from masktool.runtime import prepare
from masktool.runtime.preprocessing import PreparedImage, resize_within

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDING = 1e-6
"""torchvision computes in float32, we round once at the end; values reach 3."""
SIZES = [(1, 1), (1, 50), (50, 1), (37, 21), (224, 224), (225, 300), (333, 501), (640, 427), (1201, 257)]
INTERPOLATIONS = ["nearest", "bilinear", "bicubic", "lanczos"]


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def transforms(torchvision_models):
    from torchvision import transforms

    return transforms


def torchvision_array(transforms, image, preprocessing, resize):
    steps = [transforms.CenterCrop(preprocessing.size), transforms.ToTensor()]
    steps.append(transforms.Normalize(preprocessing.mean, preprocessing.std))
    if resize is not None:
        mode = transforms.InterpolationMode(preprocessing.interpolation)
        steps.insert(0, transforms.Resize(resize, mode, antialias=True))
    return transforms.Compose(steps)(image).numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_shortest_equals_torchvision(transforms, size, interpolation):
    for crop, short in (((224, 224), 256), ((64, 96), 97), ((75, 75), 75)):
        preprocessing = Preprocessing(crop, resize_to=short, interpolation=interpolation, mean=MEAN, std=STD)
        array = prepare(noise(*size), preprocessing).array
        assert (array.shape, array.dtype) == ((1, 3, *crop), np.float32)
        np.testing.assert_allclose(
            array[0], torchvision_array(transforms, noise(*size), preprocessing, short), rtol=0, atol=ROUNDING
        )


@pytest.mark.parametrize("size", SIZES)
def test_exact_equals_torchvision(transforms, size):
    preprocessing = Preprocessing((48, 64), resize="exact", mean=MEAN, std=STD)
    expected = torchvision_array(transforms, noise(*size), preprocessing, (48, 64))
    np.testing.assert_allclose(prepare(noise(*size), preprocessing).array[0], expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("size", [(224, 224), (100, 100), (101, 333), (640, 91), (223, 225), (1, 1)])
def test_crop_and_padding_equal_torchvision(transforms, size):
    preprocessing = Preprocessing((224, 224), resize="none")  # mean 0, so that padding before and after it are the same
    expected = torchvision_array(transforms, noise(*size), preprocessing, None)
    np.testing.assert_allclose(prepare(noise(*size), preprocessing).array[0], expected, rtol=0, atol=ROUNDING)


def test_padding_is_zero_after_normalising():
    array = prepare(noise(2, 2), Preprocessing((4, 4), resize="none", mean=MEAN, std=STD)).array[0]
    border = np.ones((4, 4), bool)
    border[1:3, 1:3] = False
    assert not array[:, border].any()
    assert array[:, ~border].all()


def test_caffe_order_and_range():
    caffe = Preprocessing((8, 8), resize="exact", channel_order="BGR", scale=1.0, mean=(104.0, 117.0, 123.0))
    image = noise(8, 8)
    expected = np.asarray(image).astype(np.float32)[:, :, ::-1] - np.array([104, 117, 123], np.float32)
    np.testing.assert_array_equal(prepare(image, caffe).array[0], expected.transpose(2, 0, 1))


def test_nhwc_and_tensorflow_range():
    tf = Preprocessing((8, 6), resize="exact", scale=1 / 127.5, mean=(1.0,) * 3, layout="NHWC")
    array = prepare(noise(6, 8), tf).array
    assert array.shape == (1, 8, 6, 3)
    assert array.flags.c_contiguous
    np.testing.assert_allclose(array[0], np.asarray(noise(6, 8)) / 127.5 - 1, atol=ROUNDING)


def test_one_grey_channel():
    grey = Preprocessing((5, 5), resize="exact", channel_order="L", mean=(0.5,), std=(0.25,))
    array = prepare(noise(5, 5), grey).array
    np.testing.assert_allclose(array[0, 0], (np.asarray(noise(5, 5).convert("L")) / 255 - 0.5) / 0.25, atol=ROUNDING)


@pytest.mark.parametrize("filter_", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize("size", [(3, 500), (500, 3), (100, 80), (33, 400)])
def test_resizing_within_the_crop_gives_the_same_pixels(size, filter_):
    image, scale = noise(*size), 3.37
    whole = (round(size[0] * scale), round(size[1] * scale))
    crop = (
        whole[0] // 3,
        whole[1] // 3,
        whole[0] // 3 + min(64, whole[0] // 3),
        whole[1] // 3 + min(64, whole[1] // 3),
    )
    plain = np.asarray(image.resize(whole, filter_).crop(crop)).astype(int)
    within = np.asarray(resize_within(image, whole, crop, filter_)).astype(int)
    assert within.shape == plain.shape
    assert np.abs(within - plain).max() <= 2
    assert (within != plain).mean() < 0.05


def test_a_strip_takes_little_memory():
    strip = noise(20_000, 7)  # resized as a whole: 731,428 x 256 pixels, 562 MB
    preprocessing = Preprocessing((224, 224), resize_to=256, mean=MEAN, std=STD)
    middle = strip.crop((9_900, 0, 10_100, 7))
    tracemalloc.start()
    array = prepare(strip, preprocessing).array
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    difference = np.abs(array - prepare(middle, preprocessing).array)  # the longer side's truncation shifts it a little
    assert np.median(difference) < 0.05


def test_half_pixel_geometry_of_the_crop():
    prepared = prepare(noise(500, 333), Preprocessing((224, 224), resize_to=256))
    width = int(256 * 500 / 333)
    left, top = round((width - 224) / 2), 16
    expected = (left * 500 / width, top * 333 / 256, (left + 224) * 500 / width, (top + 224) * 333 / 256)
    np.testing.assert_allclose(prepared.crop_box, expected)
    assert prepared.original_size == (333, 500)
    assert prepared.size == (224, 224)


def draw_disc(width, height, x, y, radius):
    rows, columns = np.mgrid[:height, :width]
    inside = (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2
    return Image.fromarray(np.where(inside[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2))


@pytest.mark.parametrize("rule", [{"resize_to": 80}, {"resize": "exact"}, {"resize": "none"}])
@pytest.mark.parametrize("size", [(320, 200), (150, 260), (90, 90), (47, 31)])
def test_what_the_model_sees_comes_back_to_where_it_was(rule, size):
    width, height = size
    x, y = width / 2 + 5, height / 2 - 4
    prepared = prepare(draw_disc(width, height, x, y, 5), Preprocessing((64, 64), **rule))
    returned = np.nan_to_num(prepared.to_original(prepared.array[0, 0]))
    rows, columns = np.mgrid[:height, :width] + 0.5
    x0, y0, x1, y1 = prepared.crop_box
    assert abs((returned * columns).sum() / returned.sum() - x) <= max((x1 - x0) / 64, 0.5) / 2
    assert abs((returned * rows).sum() / returned.sum() - y) <= max((y1 - y0) / 64, 0.5) / 2


@pytest.mark.parametrize("resolution", [(64, 64), (7, 7), (1, 1), (200, 130)])
@pytest.mark.parametrize("rule", [{"resize_to": 80}, {"resize": "exact"}, {"resize": "none"}])
def test_constant_maps_stay_constant_inside_the_crop(resolution, rule):
    prepared = prepare(noise(300, 200), Preprocessing((64, 64), **rule))
    returned = prepared.to_original(np.full(resolution, 0.7))
    assert (returned.dtype, returned.shape) == (np.float32, (200, 300))
    x0, y0, x1, y1 = prepared.crop_box
    columns, rows = np.arange(300) + 0.5, np.arange(200) + 0.5
    inside = ((rows >= y0) & (rows <= y1))[:, None] & ((columns >= x0) & (columns <= x1))
    assert np.array_equal(~np.isnan(returned), inside)
    assert inside.all() == (rule == {"resize": "exact"})
    assert (returned[inside] == np.float32(0.7)).all()


@pytest.mark.parametrize("peak", [(0, 0), (3, 10), (31, 31), (20, 0)])
def test_a_peak_lands_where_it_should(peak):
    prepared = prepare(noise(500, 300), Preprocessing((64, 64), resize_to=70))
    attributions = np.zeros((32, 32))
    attributions[peak] = 1
    row, column = np.unravel_index(np.nanargmax(prepared.to_original(attributions)), (300, 500))
    x0, y0, x1, y1 = prepared.crop_box
    pixel = (x1 - x0) / 64
    assert abs(column + 0.5 - (x0 + (peak[1] + 0.5) / 32 * (x1 - x0))) <= pixel
    assert abs(row + 0.5 - (y0 + (peak[0] + 0.5) / 32 * (y1 - y0))) <= pixel


def test_a_ramp_is_interpolated_linearly():
    prepared = prepare(noise(100, 100), Preprocessing((10, 10), resize="exact"))
    returned = prepared.to_original(np.tile(np.arange(10) + 0.5, (10, 1)))
    np.testing.assert_allclose(returned[:, 5:95], np.tile(np.arange(5.5, 95) / 10, (100, 1)), rtol=1e-5)


def test_maps_go_there_and_back():
    prepared = prepare(noise(300, 200), Preprocessing((64, 64), resize_to=80))
    coarse = np.random.default_rng(0).random((8, 8))
    back = prepared.from_original(prepared.to_original(coarse))
    expected = prepare(noise(64, 64), Preprocessing((64, 64), resize="exact")).to_original(coarse)
    assert np.abs(back - expected).max() < 0.15  # nearest pixel: up to half a pixel of 1/8 of a unit
    assert not np.isnan(back).any()


def test_label_maps_take_the_nearest_pixel():
    prepared = prepare(noise(12, 6), Preprocessing((3, 3), resize_to=3))
    labels = np.arange(72).reshape(6, 12)
    assert prepared.from_original(labels).tolist() == [[17, 19, 21], [41, 43, 45], [65, 67, 69]]
    assert prepared.from_original(labels).dtype == labels.dtype
    with pytest.raises(
        MasktoolError, match=r"map of the wrong size: expected the photograph's \(6, 12\), got \(12, 6\)"
    ):
        prepared.from_original(labels.T)


def test_label_maps_are_continued_into_the_padding():
    prepared = prepare(noise(2, 2), Preprocessing((4, 4), resize="none"))
    assert prepared.from_original(np.array([[1, 2], [3, 4]])).tolist() == [
        [1, 1, 2, 2],
        [1, 1, 2, 2],
        [3, 3, 4, 4],
        [3, 3, 4, 4],
    ]


@pytest.mark.parametrize("size", [(1, 1), (20_000, 3), (3, 20_000)])
def test_extreme_photographs_get_maps_of_their_size(size):
    prepared = prepare(noise(*size), Preprocessing((64, 64), resize_to=64))
    returned = prepared.to_original(np.ones((64, 64)))
    assert returned.shape == size[::-1]
    assert np.nansum(returned) >= min(size)


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        (None, "does not say how to prepare a photograph .*; export again with preprocessing"),
        (Preprocessing((8, 8)), "preprocessing without a resize_to"),
        (
            Preprocessing((8, 8), resize="exact", mean=(0.5,)),
            r"does not fit the channels \(mean\): expected 3 values, got 1",
        ),
        (Preprocessing((8, 8), resize="exact", std=(1.0, 0.0, 1.0)), r"divides by zero \(std\)"),
    ],
)
def test_unusable_preprocessing(preprocessing, message):
    with pytest.raises(MasktoolError, match=message):
        prepare(noise(8, 8), preprocessing)


@pytest.mark.parametrize("channel_order", ["RGB", "BGR", "L"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_looking_levels_up_gives_the_bits_of_arithmetic(channel_order, layout):
    mean, std = ((0.4,), (0.3,)) if channel_order == "L" else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    levels = np.random.default_rng(0).permutation(np.arange(3 * 256)).reshape(16, 16, 3).astype(np.uint8)
    image = Image.fromarray(levels).convert("L" if channel_order == "L" else "RGB")
    preprocessing = Preprocessing(
        size=(16, 16), resize="none", channel_order=channel_order, mean=mean, std=std, layout=layout
    )
    pixels = np.atleast_3d(np.asarray(image))[:, :, :: -1 if channel_order == "BGR" else 1]
    expected = ((pixels * (1 / 255) - np.array(mean)) / np.array(std)).astype(np.float32)
    found = prepare(image, preprocessing).array
    np.testing.assert_array_equal(found[0] if layout == "NHWC" else found[0].transpose(1, 2, 0), expected)
    assert found.flags.c_contiguous


def test_a_map_of_the_images_own_pixels_comes_back_as_it_is_and_as_a_copy():
    prepared = PreparedImage(np.zeros((1, 3, 5, 7), np.float32), (5, 7), (5, 7), (0, 0, 7, 5))
    values = np.random.default_rng(0).random((5, 7)).astype(np.float32)
    found = prepared.to_original(values)
    np.testing.assert_array_equal(found, values)
    assert not np.shares_memory(found, values)


def test_a_letterbox_fits_the_whole_photograph_in_with_grey_around_it() -> None:
    """As YOLO's networks are fed: scaled by the smaller share, the smaller half of what is left in front."""
    photograph = noise(40, 30)
    preprocessing = Preprocessing((64, 96), resize="letterbox", padding=114, mean=MEAN, std=STD, channel_order="BGR")
    prepared = prepare(photograph, preprocessing)
    share = min(64 / photograph.height, 96 / photograph.width)
    width, height = round(photograph.width * share), round(photograph.height * share)
    left, top = (96 - width) // 2, (64 - height) // 2
    grey = np.full((64, 96, 3), 114, np.uint8)
    resized = photograph.resize((width, height), Image.Resampling.BILINEAR)
    grey[top : top + height, left : left + width] = np.asarray(resized)
    expected = (grey[:, :, ::-1] / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(prepared.array[0].transpose(1, 2, 0), expected, atol=1e-6)
    x0, y0, x1, y1 = prepared.crop_box
    assert (x0, y0) == pytest.approx((-left * photograph.width / width, -top * photograph.height / height))
    assert (x1 - x0, y1 - y0) == pytest.approx((96 * photograph.width / width, 64 * photograph.height / height))
    assert np.isfinite(prepared.to_original(np.ones((64, 96)))).all()
