"""Tests of combinations of options: each pair of values by default, all of them among the slow tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest


def every_pair(**axes: Sequence[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Parametrizes a test by all combinations of some values.

    A few combinations, among which every two values of two options meet, run by default; the others are slow tests.
    Faults lie in one value or in two that meet far more often than in three.

    Args:
        axes: the values of each parameter of the test.
    """
    combinations = list(itertools.product(*axes.values()))
    chosen = choose(combinations)
    params = [
        pytest.param(*each, marks=() if position in chosen else pytest.mark.slow)
        for position, each in enumerate(combinations)
    ]
    return pytest.mark.parametrize(list(axes), params)


def choose(combinations: Sequence[tuple[Any, ...]]) -> set[int]:
    """Returns the positions of few combinations that hold every pair that any combination holds, greedily."""
    of_each = [set(pairs_of(each)) for each in combinations]
    missing, chosen = set().union(*of_each), set()
    while missing:
        best = max(range(len(combinations)), key=lambda position: len(of_each[position] & missing))
        chosen.add(best)
        missing -= of_each[best]
    return chosen


def pairs_of(combination: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Returns what a combination holds: two values with their places, as text, for values need not be hashable."""
    placed = [(place, repr(value)) for place, value in enumerate(combination)]
    return list(itertools.combinations(placed, min(2, len(placed))))
