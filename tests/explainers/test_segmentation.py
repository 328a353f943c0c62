"""Segments: labels from 0 without gaps, whatever they came from."""

import numpy as np
import pytest
from PIL import Image

from explainers.models import noise_photograph
from masktool import MasktoolError
from masktool.explainers.segmentation import grid_segments, read_label_map, relabel, slic_segments


@pytest.mark.parametrize("size", [(64, 64), (30, 90), (1, 40), (7, 1), (1, 1)])
@pytest.mark.parametrize("n_segments", [1, 2, 12, 50])
def test_grid_has_about_as_many_segments_as_asked_for(size, n_segments):
    labels = grid_segments(np.zeros((*size, 3), np.uint8), n_segments)
    count = labels.max() + 1
    assert np.unique(labels).tolist() == list(range(count))
    assert count <= 2 * n_segments
    if n_segments * 4 <= min(size) ** 2:
        assert count >= n_segments / 2


@pytest.mark.parametrize("pixels", [noise_photograph((48, 64)), np.zeros((48, 64, 3), np.uint8)])
def test_slic_labels_everything(pixels):
    labels = relabel(slic_segments(pixels, 20))
    assert labels.shape == (48, 64)
    assert np.unique(labels).tolist() == list(range(labels.max() + 1))
    assert labels.max() >= 5


def test_relabel_keeps_the_order():
    assert relabel(np.array([[7, -3], [7, 100]])).tolist() == [[1, 0], [1, 2]]


def test_label_maps_from_files(tmp_path):
    labels = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)
    np.save(tmp_path / "labels.npy", labels.astype(np.int64))
    Image.fromarray(labels).save(tmp_path / "grey.png")
    Image.fromarray(labels.astype(np.uint16) * 1000).save(tmp_path / "wide.png")
    palette = Image.fromarray(labels, "L").convert("P")
    palette.save(tmp_path / "palette.png")
    Image.fromarray(np.stack([labels, labels * 0, labels], axis=-1)).save(tmp_path / "colour.png")
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(relabel(read_label_map(path)), labels), path


def test_unusable_label_maps_are_named(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    np.save(tmp_path / "floats.npy", np.zeros((2, 2)))
    np.save(tmp_path / "flat.npy", np.zeros(4, int))
    with pytest.raises(MasktoolError, match=r"file not found \(.*none\.png\)"):
        read_label_map(tmp_path / "none.png")
    with pytest.raises(MasktoolError, match=r"not an image \(.*text\.png\)"):
        read_label_map(tmp_path / "text.png")
    for name in ("floats.npy", "flat.npy"):
        with pytest.raises(MasktoolError, match=f"not a label map.*{name}"):
            read_label_map(tmp_path / name)
