"""Gauss and Legendre's rule: numpy's where that is quick, and as exact beyond."""

import numpy as np
import pytest

from masktool.explainers.gauss_legendre import MOST_EIGENVALUES, gauss_legendre


def test_few_points_are_numpys_to_the_last_bit():
    for count in (1, 2, 50, MOST_EIGENVALUES):
        for found, expected in zip(gauss_legendre(count), np.polynomial.legendre.leggauss(count), strict=True):
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("count", [MOST_EIGENVALUES + 1, MOST_EIGENVALUES + 2, 700])
def test_many_points_agree_with_numpys(count):
    for found, expected in zip(gauss_legendre(count), np.polynomial.legendre.leggauss(count), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_ten_thousand_points_integrate():
    points, weights = gauss_legendre(10_000)
    assert (np.diff(points) > 0).all()
    assert abs(weights @ np.exp(points) - (np.e - 1 / np.e)) < 1e-13
    assert abs(weights @ np.cos(900 * points) - 2 * np.sin(900) / 900) < 1e-13
