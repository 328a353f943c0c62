"""What a relative difference is: shares of the largest output, whatever is measured."""

import numpy as np
import pytest

from masktool.exporters.differences import relative_difference

ONES, ZEROS = np.ones((3, 2), np.float32), np.zeros((3, 2), np.float32)


def test_it_is_a_share_of_the_largest_that_was_expected():
    assert relative_difference([ONES], [ONES]) == 0
    assert relative_difference([ONES], [1.5 * ONES]) == pytest.approx(1 / 3)
    assert relative_difference([ONES, ONES], [ONES, 2 * ONES]) == 0.5
    assert relative_difference([], []) == 0


@pytest.mark.parametrize("dust", [1e-7, 1e-30, 3e8])
def test_beside_zeros_anything_is_the_whole(dust):
    assert relative_difference([ZEROS], [ZEROS]) == 0
    assert relative_difference([ZEROS + np.float32(dust)], [ZEROS]) == 1
    assert relative_difference([ZEROS], [ZEROS + np.float32(dust)]) == 1


def test_what_a_kernel_may_take_for_zero_is_no_scale():
    denormal = np.float32(1e-41)
    assert relative_difference([ZEROS], [ZEROS + denormal]) < 1e-3
    assert relative_difference([ZEROS + denormal], [ZEROS]) < 1e-3
    assert relative_difference([ONES], [ZEROS + denormal]) == 1


def test_it_is_infinite_where_shapes_or_nans_differ():
    assert relative_difference([ONES], [ONES[:1]]) == np.inf
    assert relative_difference([ONES * np.nan], [ONES]) == np.inf
    assert relative_difference([ONES], [ONES * np.inf]) == np.inf


def test_the_same_infinities_are_no_difference_and_warn_nobody(recwarn):
    one, other = np.array([[1.0, np.inf, np.nan, -2.0]]), np.array([[1.0, np.inf, np.nan, -1.0]])
    assert relative_difference([one], [one]) == 0
    assert relative_difference([one], [other]) == 1
    assert relative_difference([one], [np.nan_to_num(one)]) == float("inf")
    assert not recwarn.list
