"""Masks and label maps in folders of files named like the photographs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from masktool.datasets import read_dataset
from masktool.errors import MasktoolError

SIZE = (40, 30)


def save(path, size=SIZE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, 1).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/3.jpg"):
        save(tmp_path / "photographs" / name)
    return tmp_path / "photographs"


@pytest.mark.parametrize(("option", "attribute"), [("masks", "object_mask"), ("segments", "segments")])
def test_files_are_found_in_subfolders_or_beside_each_other(folder, tmp_path, option, attribute):
    files = tmp_path / "files"
    expected = {
        "cat/1.jpg": save(files / "cat" / "1.png"),
        "cat/2.jpg": save(files / "cat" / "2.png"),
        "dog/1.jpg": save(files / "dog" / "1.png"),
        "dog/3.jpg": files / "dog" / "3.npy",
    }
    np.save(files / "dog" / "3.npy", np.zeros(SIZE[::-1], np.int32))
    dataset = read_dataset(folder, n_classes=9, **{option: files})
    assert {sample.name: getattr(sample, attribute) for sample in dataset.images} == expected
    assert not any(str(files) in problem.where for problem in dataset.problems)


def test_files_that_do_not_fit_are_problems(folder, tmp_path):
    files = tmp_path / "masks"
    save(files / "1.png")
    save(files / "2.png", (30, 40))
    save(files / "3.jpg")
    save(files / "4.png")
    dataset = read_dataset(folder, masks=files, class_names=["cat", "dog"])
    assert all(sample.object_mask is None for sample in dataset.images)
    assert [(problem.where, problem.what) for problem in dataset.problems] == [
        (f"{files}: 4.png", "no such image in the folder"),
        (f"{files}: 1.png", "may be cat/1.jpg or dog/1.jpg"),
        ("cat/1.jpg", f"no mask in {files}"),
        ("dog/1.jpg", f"no mask in {files}"),
        (f"{files / '2.png'}", "30 x 40 pixels, the image has 40 x 30; not used"),
        (f"{files / '3.jpg'}", "its format does not keep exact values: save it as PNG; not used"),
    ]


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_a_damaged_file_is_a_problem(folder, tmp_path, content):
    files = tmp_path / "masks"
    files.mkdir()
    (files / "2.png").write_bytes(content)
    dataset = read_dataset(folder, masks=files, class_names=["cat", "dog"])
    assert (str(files / "2.png"), "not an image, or a damaged one; not used") in [
        (problem.where, problem.what) for problem in dataset.problems
    ]


def test_a_mask_fits_the_photograph_as_it_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "photographs" / "a.jpg", exif=exif)
    mask = save(tmp_path / "masks" / "a.png", SIZE[::-1])
    dataset = read_dataset(tmp_path / "photographs", masks=tmp_path / "masks")
    assert dataset.images[0].object_mask == mask
    assert dataset.problems == ()


def test_masks_of_a_folder_take_the_place_of_segmentations(tmp_path):
    save(tmp_path / "photographs" / "a.png", (6, 5))
    boxes = tmp_path / "coco.json"
    boxes.write_text(
        '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "bbox": [1, 1, 2, 2], '
        '"category_id": 1, "segmentation": [[1, 1, 3, 1, 3, 3]]}], "categories": [{"id": 1, "name": "cat"}]}'
    )
    (tmp_path / "masks").mkdir()
    mask = save(tmp_path / "masks" / "a.png", (6, 5))
    assert read_dataset(tmp_path / "photographs", boxes=boxes, masks=tmp_path / "masks").images[0].object_mask == mask


def test_a_folder_that_is_none(folder, tmp_path):
    with pytest.raises(MasktoolError, match=r"^not a folder .*expected a folder with a mask for each image"):
        read_dataset(folder, masks=folder / "cat" / "1.jpg")
    with pytest.raises(MasktoolError, match=r"^not a folder .*expected a folder with a label map for each image"):
        read_dataset(folder, segments=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MasktoolError, match=r"^no images"):
        read_dataset(folder, masks=tmp_path / "empty")
