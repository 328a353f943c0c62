"""Orthogonal sets: balanced, uncorrelated, in pairs, and each of them as likely as any other."""

import numpy as np
import pytest

from masktool.explainers.orthogonal_sets import draw_orthogonal_sets, parity


def draw(count, n_features, seed=0):
    return draw_orthogonal_sets(count, n_features, np.random.default_rng(seed))


@pytest.mark.parametrize(("n_features", "block"), [(1, 4), (3, 8), (7, 16), (8, 32), (100, 256)])
def test_a_block_keeps_each_segment_in_half_of_the_sets_and_two_in_a_quarter(n_features, block):
    kept = draw(2 * block, n_features)
    for half in (kept[:block], kept[block:]):
        together = half.T.astype(int) @ half
        assert (np.diag(together) == block // 2).all()
        assert (together[~np.eye(n_features, dtype=bool)] == block // 4).all()


def test_each_set_is_followed_by_its_complement():
    kept = draw(300, 20)
    assert np.array_equal(kept[1::2], ~kept[::2])


@pytest.mark.parametrize("count", [1, 2, 31, 64, 65, 149])
def test_a_smaller_number_is_the_beginning_of_a_larger_one(count):
    assert np.array_equal(draw(count, 12), draw(150, 12)[:count])


def test_every_set_is_as_likely_as_any_other():
    seen = np.concatenate([draw(11, 3, seed) for seed in range(2000)]) @ [1, 2, 4]
    share = np.bincount(seen, minlength=8) / len(seen)
    np.testing.assert_allclose(share, 1 / 8, atol=0.006)  # about three standard errors
    first = np.array([draw(1, 3, seed)[0] @ [1, 2, 4] for seed in range(2000)])
    np.testing.assert_allclose(np.bincount(first, minlength=8) / 2000, 1 / 8, atol=0.025)


def test_the_seed_decides():
    assert not np.array_equal(draw(64, 12, seed=1), draw(64, 12, seed=2))


def test_parity():
    numbers = np.array([0, 1, 2, 3, 7, 255, 256, 2**40 + 1, 2**40])
    assert parity(numbers).tolist() == [bin(each).count("1") % 2 == 1 for each in numbers.tolist()]
