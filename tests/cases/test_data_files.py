"""Arrays, labels, boxes and JSON that are damaged, hostile or merely unusual: one line each, or the right values."""

import io
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from masktool import MasktoolError, load
from masktool.cli import run
from masktool.data_files import read_json, read_text, shorten
from masktool.datasets.formats import read_objects
from masktool.datasets.headers import Header
from masktool.datasets.labels import read_label_entries
from masktool.datasets.matching import ImageNames
from masktool.datasets.pixel_files import find_pixel_files
from masktool.demo import model_path, sample_path
from masktool.explainers.segmentation import read_label_map
from masktool.limits import limits
from masktool.runtime.arrays import read_array

CORPUS = Path(__file__).parent / "corpus"


def npy(header, data=b"", version=(1, 0)):
    text = header.encode().ljust(128 - 10) + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + data


OF_A_FOLDER = ["explain.jsonl", "failed.txt"]
"""What stands beside the pictures of a folder: its journal, and the photographs that could not be explained."""
ARRAYS = {
    "memory": (CORPUS / "memory.npy").read_bytes(),
    "token": (CORPUS / "token.npy").read_bytes(),
    "type": (CORPUS / "type.npy").read_bytes(),
    "empty": b"",
    "negative": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }", b"\0" * 64),
    "beyond 64 bits": npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**70}, 4), }}"),
    "one terabyte": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1048576, 262144), }", b"\0" * 64),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n(S'true'\ntR."),
    "texts": npy("{'descr': '<U0', 'fortran_order': False, 'shape': (1099511627776,), }"),
    "fields": npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", b"\0" * 4),
    "complex": npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
    "signs": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "-" * 60 + "1,), }"),
    "truncated": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8, 8), }", b"\0" * 100),
    "header alone": npy("{'descr': '<f4'")[:40],
    "no numpy": b"PK\x03\x04" + b"\0" * 60,
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("read", [read_array, read_label_map])
def test_a_bad_array_is_one_line(tmp_path, kind, read):
    (tmp_path / "a.npy").write_bytes(ARRAYS[kind])
    with pytest.raises(MasktoolError, match=r"a\.npy") as caught:
        read(tmp_path / "a.npy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "|u1", "<i8", "|b1"])
def test_good_arrays_are_read_in_every_version(tmp_path, order, dtype):
    array = np.asarray(np.arange(24).reshape(2, 3, 4) % 2, dtype, order=order)
    for version in ((1, 0), (2, 0), (3, 0)):
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array, version=version)
        (tmp_path / "a.npy").write_bytes(stream.getvalue())
        assert np.array_equal(read_array(tmp_path / "a.npy"), array)


def test_an_array_beyond_the_limit_is_named_before_it_is_read(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 40, 40), np.float32))
    with limits(pixels=4799), pytest.raises(MasktoolError, match=r"limits\(pixels=4800\)"):
        read_array(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", ["memory", "token", "type", "empty", "objects"])
def test_one_bad_array_does_not_keep_the_rest_of_a_folder_from_being_explained(tmp_path, capsys, kind):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "b.npy").write_bytes(ARRAYS[kind])
    for name in ("a.png", "c.png"):
        (folder / name).write_bytes(sample_path().read_bytes())
    assert run(["explain", str(folder), "--method", "rise", "--samples", "4", "-o", str(tmp_path / "out")]) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.rise.png", "c.rise.png", *OF_A_FOLDER]
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("masktool: error")]
    assert len(errors) == 1
    assert "b.npy" in errors[0]


@pytest.mark.parametrize("values", [np.full((3, 64, 64), np.nan), np.zeros((2, 2)), np.zeros((5, 64, 64))])
def test_nor_does_one_that_the_model_cannot_take(tmp_path, capsys, values):
    np.save(tmp_path / "b.npy", values.astype(np.float32))
    (tmp_path / "c.png").write_bytes(sample_path().read_bytes())
    arguments = ["explain", str(tmp_path), "--method", "rise", "--samples", "4", "-o", str(tmp_path / "out")]
    assert run(arguments) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["c.rise.png", *OF_A_FOLDER]
    assert "b.npy" in capsys.readouterr().err


def test_a_target_that_there_is_not_is_said_once(tmp_path, capsys):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(sample_path().read_bytes())
    assert run(["explain", str(tmp_path), "--method", "rise", "--samples", "4", "--target", "zebra"]) == 2
    assert capsys.readouterr().err.count("unknown label") == 1


def test_an_empty_label_map_is_no_interruption(tmp_path, capsys):
    (tmp_path / "z.npy").touch()
    assert run(["explain", str(sample_path()), "--segments", str(tmp_path / "z.npy")]) == 2
    assert "empty file" in capsys.readouterr().err


# --- text and JSON


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_as_its_byte_order_mark_says(tmp_path, encoding):
    (tmp_path / "labels.json").write_text('{"ä.jpg": "Käfer"}', encoding=encoding)
    assert read_label_entries(tmp_path / "labels.json") == [("ä.jpg", "Käfer")]
    (tmp_path / "labels.csv").write_text("file,label\nä.jpg,Käfer\n", encoding=encoding)
    assert read_label_entries(tmp_path / "labels.csv") == [("ä.jpg", "Käfer")]


def test_text_without_a_mark_that_is_not_utf_8(tmp_path):
    (tmp_path / "a.txt").write_bytes("Käfer".encode("latin-1"))
    with pytest.raises(MasktoolError, match=r"not UTF-8 text \(.*a\.txt, byte 1\).*; save it as UTF-8"):
        read_text(tmp_path / "a.txt", "labels")
    (tmp_path / "b.txt").write_bytes("cat\n".encode("utf-16-le"))
    with pytest.raises(MasktoolError, match=r"not text .*got a character 0; save it as UTF-8"):
        read_text(tmp_path / "b.txt", "labels")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "1" * 5000, "{", "nul", "\ufeff"]
)
def test_json_that_is_none_or_cannot_be_read(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(MasktoolError, match=r"a\.json"):
        read_json(tmp_path / "a.json", "anything")


def test_a_deep_nest_is_shown_and_not_fallen_over():
    nest = []
    for _ in range(100_000):
        nest = [nest]
    assert shorten(nest) == "a deep nest of lists or objects"


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"a.jpg": 5},
        {"a.jpg": {"boxes": 5}},
        {"a.jpg": {"boxes": [[1, 2, 3]]}},
        {"a.jpg": {"boxes": [[True, False, True, False]]}},
        {"a.jpg": {"boxes": [[10**400, 0, 1, 1]]}},
        {"a.jpg": {"boxes": [], "size": [True, 1]}},
        {"images": [5], "annotations": []},
        {"images": [{"id": 1, "file_name": "a", "width": [], "height": {}}], "annotations": [5]},
        {"images": [{"id": 1, "file_name": "a", "width": "x", "height": 1}], "annotations": []},
        {"images": [], "annotations": [{"image_id": [], "bbox": [0, 0, 1, 1]}]},
        {"images": [], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, "1"]}]},
        {"images": [], "annotations": [], "categories": [{"id": {}, "name": "a"}]},
    ],
)
def test_boxes_that_are_none_are_one_line(tmp_path, document):
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    with pytest.raises(MasktoolError, match=r"boxes\.json"):
        read_objects(tmp_path / "boxes.json")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_xml_is_known_in_every_encoding(tmp_path, encoding):
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
    text = f"<annotation><filename>ä.jpg</filename><object><name>ö</name>{box}</object></annotation>"
    (tmp_path / "boxes.data").write_text(text, encoding=encoding)
    (found,) = read_objects(tmp_path / "boxes.data")
    assert (found.name, found.objects[0].class_name, found.objects[0].box) == ("ä.jpg", "ö", (0, 1, 3, 4))


@pytest.mark.parametrize(
    "text", ["<a/>", "<annotation>", "<annotation" + "><x" * 50_000, "<annotation><object/></annotation>", "<\0"]
)
def test_xml_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "boxes.xml").write_text(text)
    with pytest.raises(MasktoolError, match=r"boxes\.xml"):
        read_objects(tmp_path / "boxes.xml")


def test_a_label_map_of_more_parts_than_lime_can_hide_is_one_line(tmp_path, capsys):
    np.save(tmp_path / "m.npy", np.arange(64 * 64).reshape(64, 64))
    arguments = ["explain", str(sample_path()), "--segments", str(tmp_path / "m.npy"), "--samples", "4"]
    assert run(["--limit", "segments=4095", *arguments]) == 2
    assert "at most 4095 segments of one image" in capsys.readouterr().err


def test_an_evaluation_passes_over_pipes_and_loops(tmp_path, capsys):
    """A pipe among the photographs was read for ever."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(sample_path().read_bytes())
    os.mkfifo(folder / "b.png")
    (folder / "c.png").symlink_to("c.png")
    (folder / "d.npy").touch()
    labels = tmp_path / "labels.csv"
    labels.write_text("a.png,0\nb.png,0\nc.png,0\nd.npy,0\n")
    arguments = ["evaluate", "missingness", str(model_path()), str(folder), "--labels", str(labels)]
    assert run([*arguments, "-o", str(tmp_path / "out")]) == 0
    err = capsys.readouterr().err
    assert "1 images" in err
    for said in ("got a pipe", "leads back to itself", "empty file"):
        assert said in err


WRONG_NUMBERS = {
    "NaN": (np.nan, np.float32, "the image holds NaN or infinity, and the model's scores are not finite"),
    "infinity": (np.inf, np.float32, "the image holds NaN or infinity, and the model's scores are not finite"),
    "half": (-np.inf, np.float16, "the image holds NaN or infinity, and the model's scores are not finite"),
    "beyond float32": (1e300, np.float64, "the array holds numbers beyond float32"),
    "below float32": (-1e39, np.float64, "the array holds numbers beyond float32"),
}


@pytest.mark.parametrize("method", ["occlusion", "rise"])
@pytest.mark.parametrize("kind", WRONG_NUMBERS)
def test_an_array_that_is_not_finite_is_blamed_itself(tmp_path, capsys, kind, method):
    value, dtype, told = WRONG_NUMBERS[kind]
    with load(model_path(), "cpu") as session:
        shape = (3, *(side or 32 for side in session.spatial_shape))
    array = np.zeros(shape, dtype)
    array[0, 3, 4] = value
    np.save(tmp_path / "a.npy", array)
    assert run(["explain", str(tmp_path / "a.npy"), "--method", method, "--provider", "cpu"]) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_infinities_and_numbers_within_float32_are_taken(tmp_path):
    from masktool.runtime.arrays import prepare_array

    array = np.array([[[np.inf, -np.inf, np.nan, 3.4e38]]])
    prepared = prepare_array(array, (1, 1, 1, 4), "NCHW")
    assert np.array_equal(prepared.array, array[None].astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("scheme", ["s3", "gs", "hf", "https", "ftp"])
def test_a_url_is_downloaded_with_what_knows_its_scheme(tmp_path, scheme):
    with pytest.raises(MasktoolError, match="download it first") as caught:
        read_array(f"{scheme}://place/a.npy")
    assert ("curl" in str(caught.value)) == (scheme in ("https", "ftp"))


ODD_MAPS = {
    "objects": (np.array([{"a": 1}], object), "pickled objects, which are not read"),
    "texts": (np.array(["a"]), "not an array of numbers"),
    "rank": (np.zeros((2, 3, 4, 5)), "neither (height, width) nor (height, width, 3) uint8"),
}


@pytest.mark.parametrize("kind", ODD_MAPS)
def test_an_array_that_is_no_map_of_pixels_is_named_as_what_it_is(tmp_path, kind):
    array, told = ODD_MAPS[kind]
    np.save(tmp_path / "a.npy", array)
    names = ImageNames(["a.png"])
    _, problems = find_pixel_files(tmp_path, names, {"a.png": Header((4, 4), (4, 4))}, "mask")
    (problem,) = [each for each in problems if str(tmp_path / "a.npy") in str(each)]
    assert told in str(problem)
    assert "damaged" not in str(problem)
