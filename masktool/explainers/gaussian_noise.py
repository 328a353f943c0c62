"""Gaussian noise from whole numbers below 2^31, so that every runtime that has integers of 32 bits draws the same.

Source: Pierre L'Ecuyer, "Efficient and Portable Combined Random Number Generators", Communications of the ACM 31(6),
1988, https://doi.org/10.1145/62959.62969: the combination of three for 16-bit computers, of period 8.1e12,

    s_j <- a_j s_j mod m_j  for j = 1, 2, 3,    z = (s_1 - s_2 + s_3) mod (m_1 - 1),    u = (z + 1) / m_1

The state k steps on is a_j^k s_j mod m_j, so that no number depends on those before it. Two numbers u and v make two
values of the normal distribution (Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958):

    sqrt(-2 log u) cos(2 pi v)    and    sqrt(-2 log u) sin(2 pi v)

u being a multiple of 1 / 32363, values lie within 4.6 standard deviations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

POWER_STRIDE = 180
"""The least number whose square is above every exponent that matters: any power is the product of two from lists of
this length."""


class Congruence(NamedTuple):
    """One of the three parts of the generator: s <- multiplier · s mod modulus, of period modulus - 1."""

    multiplier: int
    modulus: int

    @property
    def period(self) -> int:
        """The number of steps after which states repeat."""
        return self.modulus - 1

    def power_lists(self) -> NDArray[np.int64]:
        """Returns the powers of the multiplier, (2, POWER_STRIDE): multiples of the stride, and what is below it."""
        exponents = np.arange(POWER_STRIDE)
        factors = [pow(self.multiplier, POWER_STRIDE, self.modulus), self.multiplier]
        return np.array([[pow(factor, int(each), self.modulus) for each in exponents] for factor in factors], np.int64)

    def powers(self, exponents: NDArray[Any]) -> NDArray[np.int64]:
        """Returns the powers of the multiplier, modulo the modulus."""
        coarse, fine = self.power_lists()
        high, low = np.divmod(exponents % self.period, POWER_STRIDE)
        powers: NDArray[np.int64] = coarse[high] * fine[low] % self.modulus
        return powers


CONGRUENCES = (Congruence(157, 32363), Congruence(146, 31727), Congruence(142, 31657))


class GaussianNoise:
    """Noise for any number of copies of one array, each copy of numbers of its own.

    Copy i takes the numbers i · 2p to (i + 1) · 2p of the stream, p being half its length, rounded up: the first p of
    them are its u, the others its v. The cosines come first in the copy, then the sines.

    Args:
        seed: the seed, which says where in the stream the first copy begins.
        length: the number of values of one copy.
    """

    def __init__(self, seed: int, length: int) -> None:
        random = np.random.default_rng(seed)
        self.length = length
        self.n_pairs = (length + 1) // 2
        self.starts = [int(random.integers(1, part.modulus)) for part in CONGRUENCES]
        self._along = [part.powers(np.arange(2 * self.n_pairs)).astype(np.int32) for part in CONGRUENCES]

    def copies(self, first: int, count: int) -> NDArray[np.float32]:
        """Returns the noise of ``count`` copies, (count, length), of mean 0 and standard deviation 1."""
        first_number, second_number, third_number = (
            self.states(part, np.arange(first, first + count)) for part in range(len(CONGRUENCES))
        )
        period = np.int32(CONGRUENCES[0].period)
        numbers = (first_number - second_number + third_number + period) % period
        shares = (numbers + np.int32(1)).astype(np.float32) * np.float32(1 / CONGRUENCES[0].modulus)
        radii = np.sqrt(np.float32(-2) * np.log(shares[:, : self.n_pairs]))
        angles = shares[:, self.n_pairs :] * np.float32(2 * np.pi)
        return np.concatenate([radii * np.cos(angles), radii * np.sin(angles)], axis=1)[:, : self.length]

    def states(self, part: int, copies: NDArray[Any]) -> NDArray[np.int32]:
        """Returns the states of one part of the generator for some copies, (copies, 2 · pairs)."""
        congruence = CONGRUENCES[part]
        begin = congruence.powers(copies * (2 * self.n_pairs % congruence.period)) * self.starts[part]
        states: NDArray[np.int32] = (begin % congruence.modulus).astype(np.int32)[:, None] * self._along[part]
        return np.remainder(states, np.int32(congruence.modulus), out=states)
