"""Photographs that are none, that never end, that are huge, or whose values have more bits than a screen."""

import io
import os
import struct
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from masktool import MasktoolError
from masktool.datasets.folders import list_folder
from masktool.datasets.headers import read_image_header
from masktool.explainers.segmentation import read_label_map
from masktool.explainers.subject import read_subject
from masktool.limits import limits
from masktool.runtime import pictures, read_image
from masktool.runtime.images import notes_of

CORPUS = Path(__file__).parent / "corpus"
RAMP = np.tile(np.linspace(0, 4095, 96).astype(np.uint16), (64, 1))
"""Grey of 12 bits."""
IN_8_BITS = np.rint(RAMP * (255 / 4095)).astype(np.uint8)


def grey_of(image):
    return np.asarray(image)[:, :, 0]


def png_chunk(kind, content):
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values, *chunks, bits=16, colour=0):
    """A PNG of grey or RGB values, with chunks of our own in front of the pixels."""
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour, 0, 0, 0)
    parts = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def save_tiff(path, values, **tags):
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in tags.items():
        directory[int(number.removeprefix("tag"))] = value
    Image.fromarray(values).save(path, tiffinfo=directory)
    return path


# --- the depth of grey values


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_12_bits_in_16_are_read_as_16_with_a_note(tmp_path, suffix):
    Image.fromarray(RAMP).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert grey_of(image).max() == 16
    (note,) = notes_of(image)
    assert note.startswith("grey values reach only 4,095 of 65,535: read as 16 bits; if they have 12 bits, multiply")


@pytest.mark.parametrize(("bits", "factor"), [(10, 64), (14, 4)])
def test_the_note_names_the_bits_and_the_mending_works(tmp_path, bits, factor):
    values = np.linspace(0, 2**bits - 1, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    (note,) = notes_of(read_image(tmp_path / "a.png"))
    assert f"if they have {bits} bits, multiply them by {factor}" in note
    Image.fromarray(values * np.uint16(factor)).save(tmp_path / "b.png")
    mended = read_image(tmp_path / "b.png")
    assert notes_of(mended) == ()
    assert grey_of(mended).max() >= 254


def test_16_bits_that_are_used_and_black_have_no_note(tmp_path):
    for values in (RAMP * np.uint16(16), RAMP * np.uint16(0)):
        Image.fromarray(values).save(tmp_path / "a.png")
        assert notes_of(read_image(tmp_path / "a.png")) == ()


def test_a_tiff_that_tells_its_maximum_is_scaled_by_it(tmp_path):
    image = read_image(save_tiff(tmp_path / "a.tif", RAMP, tag281=4095))
    assert np.array_equal(grey_of(image), IN_8_BITS)
    assert notes_of(image) == ()


def test_a_maximum_that_is_no_depth_does_not_brighten_a_tiff(tmp_path):
    image = read_image(save_tiff(tmp_path / "a.tif", RAMP * np.uint16(8), tag281=4095 * 8))
    assert grey_of(image).max() == 127


def test_12_bits_packed_in_a_tiff_are_scaled(tmp_path):
    values = RAMP[:2].astype(int)
    even, odd = values[:, ::2], values[:, 1::2]
    packed = np.stack([even >> 4, (even & 15) << 4 | odd >> 8, odd & 255], -1)
    entries = {256: (4, 96), 257: (4, 2), 258: (3, 12), 259: (3, 1), 262: (3, 1), 273: (4, 130), 277: (3, 1)}
    entries |= {278: (4, 2), 279: (4, packed.size)}
    fields = b"".join(struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", n) for tag, (kind, n) in entries.items())
    head = struct.pack("<4sIH", b"II*\0", 8, len(entries)) + fields + struct.pack("<I", 0)
    (tmp_path / "a.tif").write_bytes(head.ljust(130, b"\0") + packed.astype(np.uint8).tobytes())
    image = read_image(tmp_path / "a.tif")
    assert np.array_equal(grey_of(image), IN_8_BITS[:2])
    assert notes_of(image) == ()


def test_a_pgm_is_scaled_by_its_maximum(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 96 64 4095\n" + RAMP.astype(">u2").tobytes())
    image = read_image(tmp_path / "a.pgm")
    assert np.abs(grey_of(image).astype(int) - IN_8_BITS).max() <= 1
    assert notes_of(image) == ()


def test_significant_bits_of_a_png(tmp_path):
    """The specification wants values scaled to 16 bits; some writers leave them as they are."""
    told = png_chunk(b"sBIT", bytes([12]))
    for values in (RAMP, RAMP << 4, RAMP << 4 | RAMP >> 8):
        (tmp_path / "a.png").write_bytes(png(values, told))
        image = read_image(tmp_path / "a.png")
        assert np.abs(grey_of(image).astype(int) - IN_8_BITS).max() <= 1
        assert notes_of(image) == ()
    dark = (RAMP >> 5) << 4  # scaled as the specification asks, and dark
    (tmp_path / "a.png").write_bytes(png(dark, told))
    assert grey_of(read_image(tmp_path / "a.png")).max() == round(int(dark.max()) * 255 / 65535)


def test_white_is_zero_at_16_bits_as_at_8(tmp_path):
    wide = read_image(save_tiff(tmp_path / "a.tif", RAMP * np.uint16(16), tag262=0))
    assert grey_of(wide)[0, 0] == 255
    assert grey_of(wide)[0, -1] == 0


def test_12_bits_in_colours_of_16_have_a_note(tmp_path):
    colours = np.stack([RAMP, RAMP, RAMP], -1).reshape(64, -1)
    header = struct.pack(">IIBBBBB", 96, 64, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    parts = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    (note,) = notes_of(read_image(tmp_path / "a.png"))
    assert note.startswith("colour values reach only 15 of 255: read as 16 bits")


@pytest.mark.parametrize(("bits", "left"), [(12, 4), (10, 2)])
def test_colours_of_a_tiff_that_tells_their_maximum_are_bright(tmp_path, bits, left):
    tifffile = pytest.importorskip("tifffile")
    maximum = 2**bits - 1
    colours = np.stack([RAMP >> (12 - bits)] * 3, -1)
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb", extratags=[(281, "H", 3, (maximum,) * 3, True)])
    image = read_image(tmp_path / "a.tif")
    step = 255 / (2**left - 1)
    assert np.abs(grey_of(image).astype(int) - IN_8_BITS).max() <= step
    assert (grey_of(image).min(), grey_of(image).max()) == (0, 255)
    (note,) = notes_of(image)
    assert note.startswith(f"colours of {bits} bits in samples of 16, of which {left} bits could be read: multiply")
    tifffile.imwrite(tmp_path / "b.tif", colours * np.uint16(2 ** (16 - bits)), photometric="rgb")
    assert notes_of(read_image(tmp_path / "b.tif")) == ()  # the mending works


def test_a_png_that_tells_its_depth_and_is_dark_has_a_note(tmp_path):
    """PNG asks for values that are scaled to all bits, which a dark picture cannot be told from."""
    colours = np.stack([RAMP, RAMP, RAMP], -1).reshape(64, 96, 3)
    header = struct.pack(">IIBBBBB", 96, 64, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    parts = [png_chunk(b"IHDR", header), png_chunk(b"sBIT", bytes((12, 12, 12)))]
    parts += [png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    (note,) = notes_of(read_image(tmp_path / "a.png"))
    assert "if their 12 bits are the lower ones, scale them to 16 bits" in note


def test_signed_grey_of_16_bits_ends_at_their_maximum(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", (RAMP.astype(int) * 8).astype(np.int16))
    assert np.abs(grey_of(read_image(tmp_path / "a.tif")).astype(int) - IN_8_BITS).max() <= 1


def test_an_image_of_pillow_has_the_note_too():
    assert notes_of(read_subject(Image.fromarray(RAMP)))


# --- what is no photograph


def test_a_link_that_leads_back_to_itself(tmp_path):
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "b.png").symlink_to("a.png")
    with pytest.raises(MasktoolError, match=r"a symbolic link that leads back to itself \(.*a\.png\)"):
        read_image(tmp_path / "a.png")
    (tmp_path / "c.png").symlink_to("nothing.png")
    with pytest.raises(MasktoolError, match=r"a link to a missing file \(.*c\.png\)"):
        read_image(tmp_path / "c.png")
    assert [path.name for path in list_folder(tmp_path).images] == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("read", [read_image, read_label_map, read_subject])
def test_a_named_pipe_is_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(MasktoolError, match=r"not a file \(.*a\.png\): expected an image, got a pipe; write what"):
        read(tmp_path / "a.png")
    assert read_image_header(tmp_path / "a.png") is None
    assert [path.name for path in list_folder(tmp_path).images] == ["a.png"]


def test_a_device_is_refused():
    with pytest.raises(MasktoolError, match=r"not a file \(/dev/zero\): expected an image, got a device"):
        read_image("/dev/zero")


def test_a_pipe_that_the_shell_hands_over_is_read():
    stream = io.BytesIO()
    Image.new("RGB", (300, 200), (10, 20, 30)).save(stream, "PNG")
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        writer = threading.Thread(target=lambda: (pipe.write(stream.getvalue()), pipe.close()))
        writer.start()
        assert read_image(f"/dev/fd/{reading}").getpixel((299, 199)) == (10, 20, 30)
        writer.join()
    os.close(reading)


def test_an_endless_pipe_ends_at_the_limit():
    reading, writing = os.pipe()
    os.write(writing, b"x" * 5000)
    os.close(writing)
    with limits(bytes=4096), pytest.raises(MasktoolError, match=r"at most 4096 bytes of one file of data.*, got 4097"):
        read_image(f"/dev/fd/{reading}")
    os.close(reading)


@pytest.mark.parametrize("url", ["https://example.org/a.png", "http://x/y.jpg", "s3://bucket/a.png"])
def test_a_url_is_told_from_a_missing_file(url):
    with pytest.raises(MasktoolError, match=rf"a URL \({url}\): expected an image on disk; download it first"):
        read_image(Path(url))


def test_heic_names_what_it_needs(monkeypatch):
    monkeypatch.setattr(pictures, "known_formats", lambda: tuple(f for f in pictures.FORMATS if f != "HEIF"))
    with pytest.raises(MasktoolError, match=r"needs pillow-heif .* pip install 'masktool\[heif\]'"):
        read_image(CORPUS / "phone.heic")


def test_heic_is_read_where_pillow_heif_is_installed():
    pytest.importorskip("pillow_heif")
    image = read_image(CORPUS / "phone.heic")
    assert image.size == (96, 64)
    assert np.abs(np.asarray(image)[30, 45].astype(int) - (250, 220, 20)).max() < 8


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n", "got PostScript"),
        (b"<!DOCTYPE html><title>404</title>", "got a web page"),
        (b'\xef\xbb\xbf<svg xmlns="http://www.w3.org/2000/svg"/>', "got an SVG drawing"),
        (b"8BPS\0\1" + b"\0" * 40, "got a Photoshop document"),
        (b"SIMPLE  =                    T" + b" " * 50, "HEIC"),
    ],
)
def test_formats_that_nobody_photographs_in_are_not_opened(tmp_path, content, named):
    """An EPS called photo.jpg started Ghostscript."""
    (tmp_path / "photo.jpg").write_bytes(content)
    for read in (read_image, read_label_map):
        with pytest.raises(MasktoolError, match=rf"not an image .*{named}"):
            read(tmp_path / "photo.jpg")
    assert read_image_header(tmp_path / "photo.jpg") is None


def test_every_format_that_is_promised_is_opened(tmp_path):
    picture = Image.new("RGB", (32, 24), (200, 100, 50))
    for suffix in ("jpg", "png", "webp", "tif", "bmp", "gif", "ppm", "jp2", "avif", "dib", "jfif", "apng"):
        picture.save(tmp_path / f"a.{suffix}")
        found = np.asarray(read_image(tmp_path / f"a.{suffix}")).astype(int)
        assert np.abs(found - (200, 100, 50)).max() <= 8, suffix
    assert len(list_folder(tmp_path).images) == 12


def test_a_tiff_of_floats_says_what_it_holds(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "grey.tif")
    with pytest.raises(MasktoolError, match=r"unsupported pixel type .* got floating point; scale it to 0\.\.255"):
        read_image(tmp_path / "grey.tif")
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "colour.tif", np.zeros((4, 4, 3), np.float32), photometric="rgb")
    with pytest.raises(MasktoolError, match=r"got 3 samples of 32 bits \(floating point\) per pixel"):
        read_image(tmp_path / "colour.tif")


@pytest.mark.parametrize(
    ("name", "values", "options", "told"),
    [
        ("planes", np.zeros((3, 8, 9), np.uint16), {"photometric": "rgb", "planarconfig": "separate"}, "interleaved"),
        ("signed", np.full((8, 9), -5, np.int8), {}, "signed ones of 8 bits; shift them to 0..255"),
        ("five", np.zeros((8, 9, 5), np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}, "1, 3 or 4"),
        ("half", np.zeros((8, 9), np.float16), {}, "unsigned samples, got 1 sample of 16 bits"),
        ("raw", np.zeros((8, 9), np.uint16), {"photometric": 32803}, "a camera's raw image.*develop it first"),
        ("wide", np.full((8, 9), 4 * 10**9, np.uint32), {}, "got 4000000000 to 4000000000"),
    ],
)
def test_a_tiff_that_pillow_misreads_or_refuses_says_why(tmp_path, name, values, options, told):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / f"{name}.tif", values, **options)
    with pytest.raises(MasktoolError, match=told):
        read_image(tmp_path / f"{name}.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_planes_that_pillow_reads_right_are_read(tmp_path, dtype):
    tifffile = pytest.importorskip("tifffile")
    planes = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (3, 8, 9)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", compression="zlib")
    shift = 8 * (planes.itemsize - 1)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.tif")), planes.transpose(1, 2, 0) >> shift)


# --- what is too large


@pytest.mark.parametrize("size", [(13_000, 13_000), (170_000_000, 1)])
def test_a_few_kilobytes_of_png_do_not_fill_the_memory(tmp_path, size):
    header = struct.pack(">IIBBBBB", *size, 1, 0, 0, 0, 0)
    row = zlib.compress(b"\0" * 1000)
    (tmp_path / "b.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", row) + png_chunk(b"IEND", b"")
    )
    for read in (read_image, read_label_map):
        with pytest.raises(MasktoolError, match=rf"at most 100000000 pixels .*limits\(pixels={size[0] * size[1]}\)"):
            read(tmp_path / "b.png")


def test_a_lossy_file_is_no_label_map(tmp_path):
    Image.new("L", (8, 8), 3).save(tmp_path / "a.jpg")
    with pytest.raises(MasktoolError, match=r"not a label map .* keeps exact values, such as PNG, got JPEG"):
        read_label_map(tmp_path / "a.jpg")


def test_a_label_map_of_16_bits_in_either_byte_order(tmp_path):
    labels = np.array([[0, 300], [70, 65535]], np.uint16)
    tifffile = pytest.importorskip("tifffile")
    for order in "<>":
        tifffile.imwrite(tmp_path / "a.tif", labels, byteorder=order)
        assert np.array_equal(read_label_map(tmp_path / "a.tif"), labels)


def test_only_the_allowed_readers_are_loaded():
    """A fresh process: no reader of a format outside the list is even imported."""
    import subprocess

    code = (
        "import sys\nfrom masktool.runtime import read_image\n"
        f"try: read_image({str(CORPUS / 'memory.npy')!r})\nexcept Exception as error: print(error)\n"
        "print('PIL.EpsImagePlugin' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "a numpy array, whose name should end in .npy" in done.stdout
