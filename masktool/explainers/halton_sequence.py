"""Halton sequences: points that fill a cube more evenly than random ones do.

Source: John H. Halton, "On the Efficiency of Certain Quasi-random Sequences of Points in Evaluating Multi-dimensional
Integrals", Numerische Mathematik 2, 1960; randomised as by Art B. Owen, "A Randomized Halton Algorithm in R", 2017,
https://arxiv.org/abs/1706.02808.

Each axis has a prime number b of its own, and coordinate n is number n with its digits in base b behind the point, the
last one first. Digits are exchanged by a random permutation for each place, so that every single point lies anywhere
with equal probability. Of b points that follow each other along an axis each b-th holds one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

RESOLUTION = 2.0**-32
"""Digits that are worth less are left out."""


def halton_points(count: int, n_axes: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Returns the first points of a random Halton sequence, (count, n_axes) from 0 up to, and not including, 1.

    A larger count goes on behind the same points.
    """
    bases = itertools.islice(primes(), n_axes)
    return np.stack([reverse_digits(np.arange(count), base, random) for base in bases], axis=1)


def reverse_digits(numbers: NDArray[np.int64], base: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Returns numbers with their digits in a base behind the point, exchanged at random, the last one first."""
    values, worth = np.zeros(len(numbers)), 1.0
    while worth > RESOLUTION:
        worth /= base
        values += random.permutation(base)[numbers % base] * worth
        numbers = numbers // base
    return values


def primes() -> Iterator[int]:
    """Yields the prime numbers."""
    found: list[int] = []
    for number in itertools.count(2):
        if all(number % prime for prime in found):
            found.append(number)
            yield number
