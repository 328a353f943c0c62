"""Shape leak: where the same hole may go, and what is told of the accuracies."""

import itertools

import numpy as np
import pytest

from masktool.evaluation.metrics.missingness.shape_leak import Leak, leak_masks, move_shape, summarise_leak

L_SHAPE = np.array([[1, 0], [1, 0], [1, 1]], bool)
NAN = float("nan")


def place(size, cut, top, left):
    whole = np.zeros(size, bool)
    whole[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return whole


def test_a_shape_moves_to_every_place_free_of_itself_and_to_no_other():
    size, shape = (6, 5), place((6, 5), L_SHAPE, 1, 1)
    places = (place(size, L_SHAPE, *corner) for corner in itertools.product(range(4), range(4)))
    free = {each.tobytes() for each in places if not (each & shape).any()}
    moved = [move_shape(shape, np.random.default_rng(seed)) for seed in range(200)]
    assert {each.tobytes() for each in moved} == free
    assert place(size, L_SHAPE, 0, 2).tobytes() in free  # bounding boxes may overlap


def test_there_may_be_no_room():
    shape = np.ones((4, 4), bool)
    shape[0] = False
    assert move_shape(shape, np.random.default_rng(0)) is None
    masks = leak_masks(shape, np.random.default_rng(0))
    np.testing.assert_array_equal(masks, ~shape[None, None])
    assert masks.dtype == np.float32


def test_masks_hide_the_object_then_the_same_shape_elsewhere():
    shape = np.zeros((40, 60), bool)
    shape[5:20, 10:30] = True
    removed, elsewhere = leak_masks(shape, np.random.default_rng(3))[:, 0]
    np.testing.assert_array_equal(removed == 0, shape)
    assert (elsewhere == 0).sum() == shape.sum()
    assert not ((elsewhere == 0) & shape).any()


def test_distance_from_chance_by_hand():
    leak = Leak(np.array([1.0, 0, 0, 1, NAN]), np.array([1.0, 1, NAN, 0, NAN]))
    removed, elsewhere, distance = leak.figures(0.125, seed=0)
    assert (removed.value, removed.n) == (0.5, 4)
    assert (elsewhere.value, elsewhere.n) == (pytest.approx(2 / 3), 3)
    assert (distance.value, distance.n) == (0.375, 4)
    assert 0 <= distance.low <= 0.375 <= distance.high <= 0.875
    below = Leak(np.zeros(4), np.zeros(4)).figures(0.125, seed=0)[2]
    assert (below.value, below.low, below.high) == (0.125, 0.125, 0.125)


def test_table_says_where_there_is_no_room_and_is_left_out_without_objects():
    leaks = {"layer": Leak(np.array([0.0, 1]), np.array([1.0, NAN])), "black": Leak(np.ones(2), np.array([0.0, NAN]))}
    findings = summarise_leak(leaks, 0.5, seed=0)
    (table,) = findings.tables
    assert [(row[0], *(cell.value for cell in row[1:])) for row in table.rows] == [
        ("layer", 0.5, 1.0, 0.0),
        ("black", 1.0, 0.0, 0.5),
    ]
    assert findings.notes == ("1 of 2 objects leave no room for the hole elsewhere: it is undefined for them.",)
    assert summarise_leak({"layer": Leak(np.full(2, NAN), np.full(2, NAN))}, 0.5, seed=0).tables == ()
