"""Tests of many cases: by default few that hold every value, or every pair of values; all of them are slow tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import pytest

Test = Callable[..., None]
Combination = tuple[Any, ...]


def every_value(**axes: Iterable[Any]) -> Callable[[Test], Test]:
    """Parametrizes a test by all combinations of some values; by default every value occurs, the rest is slow.

    For options that have nothing to do with one another.

    Args:
        axes: the values of each parameter of the test.
    """
    return parametrize(axes, strength=1)


def every_pair(**axes: Iterable[Any]) -> Callable[[Test], Test]:
    """Parametrizes a test by all combinations of some values; by default every two values meet, the rest is slow.

    Faults lie in one value or in two that meet far more often than in three.

    Args:
        axes: the values of each parameter of the test.
    """
    return parametrize(axes, strength=2)


def quickly(chosen: Collection[Any], everything: Iterable[Any]) -> list[Any]:
    """Returns the values of a parameter of which those that were not chosen are for slow tests."""
    return [pytest.param(each, marks=() if each in chosen else pytest.mark.slow) for each in everything]


def parametrize(axes: dict[str, Iterable[Any]], strength: int) -> Callable[[Test], Test]:
    """Parametrizes a test so that by default every so many values that any combination holds occur together."""
    combinations = list(itertools.product(*axes.values()))
    chosen = choose(combinations, strength)
    params = [
        pytest.param(*each, marks=() if position in chosen else pytest.mark.slow)
        for position, each in enumerate(combinations)
    ]
    return pytest.mark.parametrize(list(axes), params)


def choose(combinations: Sequence[Combination], strength: int) -> set[int]:
    """Returns the positions of few combinations in which all that any of them holds occurs, greedily."""
    of_each = [set(parts_of(each, strength)) for each in combinations]
    missing, chosen = set().union(*of_each), set()
    while missing:
        best = max(range(len(combinations)), key=lambda position: len(of_each[position] & missing))
        chosen.add(best)
        missing -= of_each[best]
    return chosen


def parts_of(combination: Combination, strength: int) -> list[Combination]:
    """Returns every so many values of a combination with their places, as text: values need not be hashable."""
    placed = [(place, repr(value)) for place, value in enumerate(combination)]
    return list(itertools.combinations(placed, min(strength, len(placed))))
