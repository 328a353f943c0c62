"""TIFF files of many bands: whichever way they lie, of whichever type; photographs stay photographs."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from masktool.errors import MasktoolError
from masktool.explainers.subject import read_subject
from masktool.limits import limits
from masktool.runtime.band_files import read_bands

BANDS = np.random.default_rng(0).integers(0, 4000, (7, 10, 12)).astype(np.uint16)
WAYS = {
    "pixel by pixel": {"planarconfig": "contig"},
    "plane by plane": {"planarconfig": "separate"},
    "deflate": {"planarconfig": "contig", "compression": "zlib"},
    "BigTIFF": {"planarconfig": "separate", "bigtiff": True},
    "big-endian": {"planarconfig": "contig", "byteorder": ">"},
}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_bands_are_read_as_they_were_written(tmp_path, options, dtype):
    written = BANDS.astype(dtype)
    laid = written if options["planarconfig"] == "separate" else written.transpose(1, 2, 0)
    tifffile.imwrite(tmp_path / "bands.tif", laid, photometric="minisblack", **options)
    found = read_subject(tmp_path / "bands.tif")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, written)


def test_four_bands_that_are_no_colours(tmp_path):
    laid = BANDS[:4].transpose(1, 2, 0)
    tifffile.imwrite(tmp_path / "four.tif", laid, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(read_subject(tmp_path / "four.tif"), BANDS[:4])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK"])
def test_photographs_stay_photographs(tmp_path, mode):
    Image.new(mode, (12, 10)).save(tmp_path / "photo.tif")
    assert read_bands(tmp_path / "photo.tif") is None
    assert isinstance(read_subject(tmp_path / "photo.tif"), Image.Image)


def test_damaged_and_large_files(tmp_path):
    path = tmp_path / "bands.tif"
    tifffile.imwrite(path, BANDS.transpose(1, 2, 0), photometric="minisblack", planarconfig="contig")
    content = path.read_bytes()
    for cut in (6, 40, len(content) // 2):
        path.write_bytes(content[:cut])
        with pytest.raises(MasktoolError) as caught:
            read_subject(path)
        assert "\n" not in caught.value.message
    path.write_bytes(content)
    with limits(pixels=800), pytest.raises(MasktoolError, match="beyond a limit"):
        read_subject(path)
    (tmp_path / "text.tif").write_text("hello")
    with pytest.raises(MasktoolError, match="not an image"):
        read_subject(tmp_path / "text.tif")


def test_a_codec_that_is_missing_is_named(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "b.tif", BANDS.transpose(1, 2, 0), photometric="minisblack", planarconfig="contig")

    def fail(*_, **__):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", fail)
    with pytest.raises(MasktoolError, match=r"needs a package.*b\.tif.*pip install imagecodecs"):
        read_subject(tmp_path / "b.tif")
