"""Every kind of photograph is read as RGB the right way up; every bad file gets its line."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from masktool import MasktoolError
from masktool.limits import limits
from masktool.runtime import read_image

ORIENTATION = 0x0112


def save(path, image, **options):
    image.save(path, **options)
    return path


def gradient(mode="RGB", size=(40, 30)):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_lossless_modes(tmp_path, mode):
    image = gradient(mode)
    read = read_image(save(tmp_path / "image.png", image))
    assert read.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(read), np.asarray(image.convert("RGB")))


def test_cmyk_jpeg(tmp_path):
    read = read_image(save(tmp_path / "image.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0))))
    assert read.mode == "RGB"
    red, green, blue = np.asarray(read).reshape(-1, 3).mean(axis=0)
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize(("mode", "clear"), [("RGBA", (9, 8, 7, 0)), ("LA", (9, 0))])
def test_transparent_is_white(tmp_path, mode, clear):
    read = read_image(save(tmp_path / "image.png", Image.new(mode, (4, 4), clear)))
    assert np.asarray(read).tolist() == np.full((4, 4, 3), 255).tolist()


def test_half_transparent_is_blended(tmp_path):
    read = read_image(save(tmp_path / "image.png", Image.new("RGBA", (4, 4), (0, 0, 0, 127))))
    assert np.abs(np.asarray(read).astype(int) - 128).max() <= 1


def test_palette_with_a_transparent_entry(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.putpixel((0, 0), 0)
    read = read_image(save(tmp_path / "image.png", image, transparency=0))
    assert read.getpixel((0, 0)) == (255, 255, 255)
    assert read.getpixel((1, 1)) == (200, 10, 10)


def test_rgb_with_a_transparent_colour(tmp_path):
    image = Image.new("RGB", (2, 1), (0, 0, 0))
    image.putpixel((1, 0), (5, 6, 7))
    read = read_image(save(tmp_path / "image.png", image, transparency=(0, 0, 0)))
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (5, 6, 7)]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_is_scaled_and_not_cut_off(tmp_path, suffix):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    read = read_image(save(tmp_path / f"image.{suffix}", Image.fromarray(values)))
    assert np.asarray(read)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_32_bit_and_float_are_refused(tmp_path):
    values = np.array([[0, 70_000]], np.int32)
    with pytest.raises(MasktoolError, match=r"unsupported pixel values .* expected 0 to 65535, got 0 to 70000"):
        read_image(save(tmp_path / "wide.tif", Image.fromarray(values)))
    with pytest.raises(MasktoolError, match=r"unsupported pixel type .* got floating point"):
        read_image(save(tmp_path / "float.tif", Image.fromarray(values.astype(np.float32))))


def test_exif_rotation(tmp_path):
    image, exif = gradient(), Image.Exif()
    exif[ORIENTATION] = 6
    read = read_image(save(tmp_path / "image.png", image, exif=exif))
    np.testing.assert_array_equal(np.asarray(read), np.asarray(image.transpose(Image.Transpose.ROTATE_270)))


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    read = read_image(save(tmp_path / "image.gif", frames[0], save_all=True, append_images=frames[1:]))
    assert read.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 7)])
def test_extreme_sizes(tmp_path, size):
    assert read_image(save(tmp_path / "image.png", gradient(size=size))).size == size


def test_missing_directory_and_empty(tmp_path):
    with pytest.raises(MasktoolError, match=r"file not found \(.*none.jpg\)"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(MasktoolError, match="expected an image, got a directory"):
        read_image(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(MasktoolError, match=r"empty file \(.*empty.jpg\): expected an image"):
        read_image(tmp_path / "empty.jpg")


def test_not_an_image(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("not a photograph\n" * 50)
    with pytest.raises(MasktoolError, match=r"not an image \(.*notes.jpg\): expected a photograph: JPEG, PNG"):
        read_image(path)


@pytest.mark.parametrize(
    ("kind", "share"), [("JPEG", 0.5), ("JPEG", 0.9), ("PNG", 0.5), ("PNG", 0.05), ("GIF", 0.5), ("TIFF", 0.5)]
)
def test_truncated(tmp_path, kind, share):
    stream = io.BytesIO()
    gradient(size=(200, 150)).save(stream, kind)
    path = tmp_path / "image"
    path.write_bytes(stream.getvalue()[: int(share * stream.tell())])
    with pytest.raises(MasktoolError, match=r"damaged or truncated image|not an image") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_decompression_bomb(tmp_path):
    path = save(tmp_path / "image.png", gradient(size=(100, 100)))
    with limits(pixels=9_999), pytest.raises(MasktoolError, match=r"at most 9999 pixels .*limits\(pixels=10000\)"):
        read_image(path)


def test_the_limit_on_pixels_is_the_declared_one_whatever_pillow_has(tmp_path, monkeypatch):
    path = save(tmp_path / "image.png", gradient(size=(100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_000)
    assert read_image(path).size == (100, 100)
    assert Image.MAX_IMAGE_PIXELS == 4_000


def test_large_but_allowed_gives_no_warning(tmp_path, monkeypatch):
    path = save(tmp_path / "image.png", gradient(size=(100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).size == (100, 100)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"]
)
def test_a_damaged_exif_entry_does_no_harm(tmp_path, exif):
    path = save(tmp_path / "image.jpg", gradient(), exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).size == (40, 30)
