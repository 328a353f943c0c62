"""The sizes at which a network of open height and width is tried."""

import math

from masktool.contract import DEFAULT_SIZE
from masktool.exporters.probes import LARGEST_TRIED, OTHER_SIZES, choose_sizes


def test_of_many_channels_only_small_images_are_tried():
    tried = []
    assert choose_sizes(5000, (None, 12), None, lambda size: bool(tried.append(size))) == [(DEFAULT_SIZE[0], 12)]
    usual, *others = tried
    assert usual == (DEFAULT_SIZE[0], 12)
    others.pop()  # the larger one beside the usual size, whose run is to say why
    assert others
    assert len(set(others)) == len(others)
    assert all(5000 * math.prod(size) <= LARGEST_TRIED for size in others)


def test_of_three_channels_all_are_tried():
    tried = []
    choose_sizes(3, (None, None), None, lambda size: bool(tried.append(size)))
    assert set(OTHER_SIZES) <= set(tried)


def test_the_first_that_runs_is_taken_with_a_larger_one():
    assert choose_sizes(3, (None, None), None, lambda size: size[0] in (96, 128)) == [(96, 96), (128, 160)]
