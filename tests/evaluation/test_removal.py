"""Removal: which segments there are, which go first, and the masks that result."""

import numpy as np
import pytest
from explainers.models import noise_photograph, write_region_model
from PIL import Image

from masktool import MasktoolError, load
from masktool.datasets.dataset import DatasetImage
from masktool.evaluation.removal import (
    SegmentChoice,
    cut_cells,
    cut_segments,
    descending_order,
    masks_without,
    remove_first,
    remove_fractions,
    segment_means,
)
from masktool.evaluation.scene import read_scene


@pytest.fixture
def make_scene(tmp_path):
    """Returns a function that reads a picture for a model of a size, with a label map where one is given."""

    def make(size, original=None, labels=None):
        write_region_model(tmp_path / "model.onnx", size=size)
        Image.fromarray(noise_photograph(original or size)).save(tmp_path / "picture.png")
        path = None
        if labels is not None:
            path = tmp_path / "labels.npy"
            np.save(path, labels)
        with load(tmp_path / "model.onnx", "cpu", threads=1) as session:
            return read_scene(DatasetImage("picture.png", tmp_path / "picture.png", segments=path), session)

    return make


def test_cells_are_counted_row_by_row_and_cut_at_the_far_borders():
    expected = [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    np.testing.assert_array_equal(cut_cells((3, 5), 2), expected)


@pytest.mark.parametrize(("size", "count"), [((224, 224), 14 * 14), ((64, 64), 13 * 13), ((28, 56), 14 * 28)])
def test_default_cells_are_a_fourteenth_of_the_shorter_side(make_scene, size, count):
    segments = cut_segments(make_scene(size), SegmentChoice())
    assert segments.shape == size
    assert len(np.unique(segments)) == segments.max() + 1 == count


def test_superpixels_leave_nothing_out(make_scene):
    segments = cut_segments(make_scene((64, 64)), SegmentChoice("slic", n_segments=20))
    assert 10 <= segments.max() + 1 <= 30
    np.testing.assert_array_equal(np.unique(segments), np.arange(segments.max() + 1))


def test_a_given_label_map_follows_the_photograph(make_scene):
    labels = np.full((8, 12), 7)
    labels[:, 6:] = 3
    segments = cut_segments(make_scene((16, 24), (8, 12), labels), SegmentChoice("given"))
    np.testing.assert_array_equal(segments, np.repeat([[1, 0]], 12, axis=1).repeat(16, axis=0))


def test_what_cannot_be_cut_says_why(make_scene):
    with pytest.raises(MasktoolError, match=r"no label map.*picture\.png"):
        cut_segments(make_scene((16, 24)), SegmentChoice("given"))
    with pytest.raises(MasktoolError, match="map of the wrong size"):
        cut_segments(make_scene((16, 24), labels=np.zeros((3, 3), np.int64)), SegmentChoice("given"))
    for wrong in ({"kind": "circles"}, {"side": 0}, {"kind": "slic", "n_segments": 0}, {"kind": "slic", "side": 4}):
        with pytest.raises(MasktoolError):
            SegmentChoice(**wrong)


def test_means_of_segments():
    values = np.array([[1.0, 2.0, 6.0], [3.0, 5.0, 4.0]])
    np.testing.assert_allclose(segment_means(values, np.array([[0, 0, 1], [0, 2, 1]])), [2, 5, 5])


def test_the_highest_goes_first_and_ties_stand_at_random():
    scores = np.array([1.0, 3.0, 1.0, 2.0, 1.0])
    orders = {tuple(descending_order(scores, np.random.default_rng(seed)).tolist()) for seed in range(60)}
    assert {order[:2] for order in orders} == {(1, 3)}
    assert len(orders) == 6  # every arrangement of 0, 2 and 4


def test_fractions_are_of_the_number_of_segments():
    removed = remove_fractions(np.array([3, 0, 4, 1, 2]), [0, 0.3, 0.5, 1])
    expected = [[0, 0, 0, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 1, 1], [1, 1, 1, 1, 1]]  # 0, 1.5, 2.5 and 5 of 5
    np.testing.assert_array_equal(removed, np.array(expected, bool))
    np.testing.assert_array_equal(remove_first(np.array([2, 0, 1]), [1, 2]), [[0, 0, 1], [1, 0, 1]])


def test_masks_are_0_where_segments_are_gone():
    segments = np.array([[0, 0, 1], [2, 2, 1]], np.int32)
    removed = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 1]], bool)
    batches = list(masks_without(removed, segments, batch=2))
    assert [batch.shape for batch in batches] == [(2, 1, 2, 3), (1, 1, 2, 3)]
    assert batches[0].dtype == np.float32
    expected = [[[1, 1, 1], [1, 1, 1]], [[0, 0, 1], [1, 1, 1]], [[1, 1, 0], [0, 0, 0]]]
    np.testing.assert_array_equal(np.concatenate(batches)[:, 0], expected)
