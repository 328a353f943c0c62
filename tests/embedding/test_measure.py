"""How far a map in a file lies from Python's."""

import numpy as np

from masktool.embedding.measure import share_of_range


def test_differences_count_by_the_range():
    expected = np.array([[1.0, 3.0]])
    assert share_of_range(expected, expected) == 0
    assert share_of_range(np.array([[1.0, 3.5]]), expected) == 0.25


def test_a_map_without_a_range_counts_by_its_value():
    expected = np.full((2, 2), 4.0)
    assert share_of_range(expected + 1, expected) == 0.25
    assert share_of_range(np.zeros((2, 2)), np.zeros((2, 2))) == 0
    assert share_of_range(np.full((2, 2), 1e-9), np.zeros((2, 2))) == np.inf
