"""Gaussian noise from whole numbers below 2^31, the same to the last bit in every runtime that has integers of 32 bits.

One bit matters: an image that differs in its last bit has some activation on the other side of a ReLU's kink.

Source: Pierre L'Ecuyer, "Efficient and Portable Combined Random Number Generators", Communications of the ACM 31(6),
1988, https://doi.org/10.1145/62959.62969: the combination of three for 16-bit computers, of period 8.1e12,

    s_j <- a_j s_j mod m_j  for j = 1, 2, 3,    z = (s_1 - s_2 + s_3) mod (m_1 - 1)

The state k steps on is a_j^k s_j mod m_j, so that no number depends on those before it. Half of z, rounded down, is one
of 16181 equally likely levels; the value is that quantile of the normal distribution, from a list of whole numbers.
"""

from __future__ import annotations

import functools
import statistics
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


N_LEVELS = CONGRUENCES[0].period // 2
"""Number of levels: two numbers of the generator fall on each; the outermost lie 4 standard deviations off."""
QUANTILE_STEPS = 4096
"""Steps of the stored quantiles in one standard deviation: 16 bits hold them."""


@functools.cache
def normal_quantiles() -> NDArray[np.int16]:
    """Returns the quantile of the normal distribution at the middle of each level, in steps, (N_LEVELS,)."""
    quantile = statistics.NormalDist(sigma=QUANTILE_STEPS).inv_cdf
    return np.array([round(quantile((level + 0.5) / N_LEVELS)) for level in range(N_LEVELS)], np.int16)


def quantile_scale() -> np.float32:
    """Returns what one step of the quantiles is worth, so that the levels have a standard deviation of 1."""
    return np.float32(1 / normal_quantiles().astype(np.float64).std())


@functools.cache
def noise_values() -> NDArray[np.float32]:
    """Returns the value of each level, (N_LEVELS,)."""
    values: NDArray[np.float32] = normal_quantiles() * quantile_scale()
    return values


class GaussianNoise:
    """Noise for any number of copies of one array, each copy of numbers of its own.

    Copy i takes the numbers i · length to (i + 1) · length of the stream.

    Args:
        seed: the seed, which says where in the stream the first copy begins.
        length: the number of values of one copy.
    """

    def __init__(self, seed: int, length: int) -> None:
        random = np.random.default_rng(seed)
        self.length = length
        self.starts = [int(random.integers(1, part.modulus)) for part in CONGRUENCES]
        self._along = [part.powers(np.arange(length)).astype(np.int32) for part in CONGRUENCES]

    def copies(self, first: int, count: int) -> NDArray[np.float32]:
        """Returns the noise of ``count`` copies, (count, length), of mean 0 and standard deviation 1."""
        first_state, second_state, third_state = (
            self.states(part, np.arange(first, first + count)) for part in range(len(CONGRUENCES))
        )
        first_state -= second_state
        first_state += third_state
        first_state += np.int32(CONGRUENCES[0].period)
        reduce_modulo(first_state, CONGRUENCES[0].period)
        first_state //= np.int32(2)
        noise: NDArray[np.float32] = noise_values()[first_state]
        return noise

    def states(self, part: int, copies: NDArray[Any]) -> NDArray[np.int32]:
        """Returns the states of one part of the generator for some copies, (copies, length)."""
        congruence = CONGRUENCES[part]
        begin = congruence.powers(copies * (self.length % congruence.period)) * self.starts[part]
        states: NDArray[np.int32] = (begin % congruence.modulus).astype(np.int32)[:, None] * self._along[part]
        reduce_modulo(states, congruence.modulus)
        return states


def reduce_modulo(values: NDArray[np.int32], modulus: int) -> None:
    """Replaces whole numbers from 0 by their remainders; numpy divides by one number five times as fast as that."""
    quotients = values // np.int32(modulus)
    quotients *= np.int32(modulus)
    values -= quotients
