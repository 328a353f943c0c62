"""Gaussian noise: the published generator, and what noise must be."""

import math
import statistics

import numpy as np
import pytest

from masktool.explainers.gaussian_noise import CONGRUENCES, N_LEVELS, POWER_STRIDE, GaussianNoise, normal_quantiles

PUBLISHED_PERIOD = 8.12544e12


def stream(starts, count):
    """The generator as published, one step after the other."""
    states, numbers = list(starts), []
    for _ in range(count):
        numbers.append((states[0] - states[1] + states[2]) % CONGRUENCES[0].period)
        states = [part.multiplier * state % part.modulus for part, state in zip(CONGRUENCES, states, strict=True)]
    return np.array(numbers)


def test_the_period_is_the_published_one():
    for part in CONGRUENCES:
        powers = {pow(part.multiplier, exponent, part.modulus) for exponent in range(part.period)}
        assert len(powers) == part.period
        assert part.period <= POWER_STRIDE**2
        assert part.modulus**2 < 2**31
    assert math.lcm(*(part.period for part in CONGRUENCES)) == pytest.approx(PUBLISHED_PERIOD, rel=1e-6)


@pytest.mark.parametrize("length", [7, 8])
def test_any_copy_follows_from_the_stream(length):
    noise, normal = GaussianNoise(3, length), statistics.NormalDist()
    levels = stream(noise.starts, length * 5) // 2
    expected = np.array([normal.inv_cdf((level + 0.5) / N_LEVELS) for level in levels]).reshape(5, length)
    np.testing.assert_allclose(noise.copies(0, 5), expected, rtol=1e-4, atol=2e-4)
    np.testing.assert_array_equal(noise.copies(2, 3), noise.copies(0, 5)[2:])


def test_levels_are_symmetric_and_have_the_moments_of_the_normal_distribution():
    quantiles = normal_quantiles().astype(np.float64)
    np.testing.assert_array_equal(quantiles, -quantiles[::-1])
    scaled = quantiles / quantiles.std()
    assert (scaled**4).mean() == pytest.approx(3, rel=2e-3)
    assert scaled.max() == pytest.approx(4, abs=0.02)


def test_far_copies_are_exact():
    """Exponents beyond 32 bits are folded before they are multiplied."""
    noise, copy = GaussianNoise(1, 150528), 60000
    part, period = CONGRUENCES[2], CONGRUENCES[2].period
    expected = noise.starts[2] * pow(part.multiplier, copy * 150528 % period, part.modulus) % part.modulus
    assert noise.states(2, np.array([copy]))[0, 0] == expected


def test_values_are_normal_and_independent():
    copies = GaussianNoise(0, 3072).copies(0, 200)
    assert copies.dtype == np.float32
    assert abs(copies.mean()) < 4 / math.sqrt(copies.size)
    assert copies.var() == pytest.approx(1, abs=4 * math.sqrt(2 / copies.size))
    assert (copies**4).mean() == pytest.approx(3, abs=4 * math.sqrt(96 / copies.size))
    between = np.corrcoef(copies) - np.eye(len(copies))
    assert np.abs(between).max() < 5 / math.sqrt(copies.shape[1])
    for lag in (1, 32, 96, 1536):
        product = (copies[:, lag:] * copies[:, :-lag]).ravel()
        assert abs(product.mean()) < 4 / math.sqrt(product.size)
    assert copies.mean(axis=0).std() == pytest.approx(1 / math.sqrt(len(copies)), rel=0.05)


def test_seeds_draw_other_noise():
    first, second = (GaussianNoise(seed, 1000).copies(0, 1)[0] for seed in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15
