"""The drawn set: reproducible, exact masks, and a class that shows in the outline alone."""

import numpy as np
import pytest

from masktool.demo import shapes

CHANCE = 1 / len(shapes.LABELS)
FOUR_SIGMA = 4 * np.sqrt(CHANCE * (1 - CHANCE))


@pytest.fixture(scope="module")
def drawn():
    return shapes.draw(11, 1600)


def test_types_and_shapes():
    drawn = shapes.draw(0, 3, (40, 56))
    assert drawn.images.shape == (3, 40, 56, 3)
    assert drawn.images.dtype == np.uint8
    assert drawn.labels.dtype == np.int64
    assert drawn.object_masks.shape == (3, 40, 56)
    assert drawn.object_masks.dtype == np.bool_


def test_same_seed_same_pictures():
    first, second, other = shapes.draw(5, 12), shapes.draw(5, 12), shapes.draw(6, 12)
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))
    assert not np.array_equal(first.images, other.images)


def test_a_generator_is_advanced():
    rng = np.random.default_rng(5)
    first, second = shapes.draw(rng, 12), shapes.draw(rng, 12)
    assert np.array_equal(first.images, shapes.draw(5, 12).images)
    assert not np.array_equal(first.images, second.images)


@pytest.mark.parametrize("n", [8, 20])
def test_classes_are_balanced(n):
    counts = np.bincount(shapes.draw(1, n).labels, minlength=len(shapes.LABELS))
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("label", range(len(shapes.LABELS)), ids=shapes.LABELS)
@pytest.mark.parametrize("size", [(64, 64), (90, 120)])
def test_mask_is_every_pixel_the_object_touches(monkeypatch, label, size):
    picture, object_mask = shapes.draw_one(np.random.default_rng(3), label, *size)
    with monkeypatch.context() as patch:
        patch.setattr(shapes, "draw_object", lambda *_: np.zeros(size))  # drawn last: all before it stays the same
        background, empty = shapes.draw_one(np.random.default_rng(3), label, *size)
    changed = (picture != background).any(axis=2)
    assert not empty.any()
    assert not (changed & ~object_mask).any()
    assert changed[object_mask].mean() > 0.98  # at the rim a trace of paint may round to the same 8 bits


@pytest.mark.parametrize("outline", shapes.OUTLINES, ids=shapes.LABELS)
def test_outlines_have_unit_area_around_the_origin(outline):
    assert np.allclose(shapes.normalise_outline(outline), outline, atol=1e-12)
    x, y = outline.T
    assert abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2 == pytest.approx(1)


def test_outlines_differ_by_more_than_a_rotation():
    reach = [np.sort(np.linalg.norm(outline, axis=1))[[0, -1]] for outline in shapes.OUTLINES]
    distances = [np.linalg.norm(a - b) for index, a in enumerate(reach) for b in reach[:index]]
    assert min(distances) > 0.05


@pytest.mark.parametrize("size", [48, 64, (150, 200)])
def test_objects_lie_inside_and_cover_their_share_at_any_resolution(size):
    masks = shapes.draw(2, 80, size).object_masks
    assert not masks[:, [0, -1]].any()
    assert not masks[:, :, [0, -1]].any()
    share = masks.sum(axis=(1, 2)) / min(masks.shape[1:]) ** 2
    assert share.min() > shapes.AREA_RANGE[0]
    assert share.max() < shapes.AREA_RANGE[1] + 0.05  # plus the pixels that the rim only touches


def test_mean_and_deviation_are_the_sets(drawn):
    scaled = drawn.images / 255
    assert scaled.mean(axis=(0, 1, 2)) == pytest.approx(shapes.MEAN, abs=0.01)
    assert scaled.std(axis=(0, 1, 2)) == pytest.approx(shapes.STD, abs=0.01)


def mean_colour_of_object(drawn):
    return np.stack([image[mask].mean(axis=0) for image, mask in zip(drawn.images, drawn.object_masks, strict=True)])


def mean_colour_of_picture(drawn):
    return drawn.images.mean(axis=(1, 2))


def centre_of_object(drawn):
    return np.stack([np.argwhere(mask).mean(axis=0) for mask in drawn.object_masks])


def roundness_of_object(drawn):
    offsets = [np.argwhere(mask) - np.argwhere(mask).mean(axis=0) for mask in drawn.object_masks]
    distances = [np.linalg.norm(offset, axis=1) for offset in offsets]
    return np.stack([[d.max() / np.sqrt(len(d)), d.mean() / np.sqrt(len(d))] for d in distances])


def classify_by_neighbours(features, labels, neighbours=15):
    """Accuracy of a nearest-neighbour vote, trained on the first half and tested on the second."""
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    half = len(labels) // 2
    distances = np.linalg.norm(scaled[half:, None] - scaled[None, :half], axis=2)
    votes = labels[:half][np.argsort(distances, axis=1)[:, :neighbours]]
    predicted = [np.bincount(vote).argmax() for vote in votes]
    return np.mean(predicted == labels[half:])


@pytest.mark.parametrize("describe", [mean_colour_of_object, mean_colour_of_picture, centre_of_object])
def test_colour_and_place_say_nothing_of_the_class(drawn, describe):
    accuracy = classify_by_neighbours(describe(drawn), drawn.labels)
    assert abs(accuracy - CHANCE) < FOUR_SIGMA / np.sqrt(len(drawn.labels) / 2)


def test_the_outline_says_much_of_the_class(drawn):
    assert classify_by_neighbours(roundness_of_object(drawn), drawn.labels) > 4 * CHANCE
