"""Few combinations of options hold every value, or every pair of them."""

import itertools

import pytest
from combinations import choose, every_pair, every_value, parts_of, quickly


@pytest.mark.parametrize(("strength", "most"), [(1, 8), (2, 28)], ids=["values", "pairs"])  # 24 hold the pairs of two
def test_all_parts_occur_in_few_combinations(strength, most):
    everything = list(itertools.product(range(8), "ab", "xyz", [None, {}]))
    chosen = [everything[position] for position in sorted(choose(everything, strength))]
    found, expected = ({part for each in some for part in parts_of(each, strength)} for some in (chosen, everything))
    assert found == expected
    assert len(chosen) <= most


@pytest.mark.parametrize(("decorate", "quick"), [(every_value, 3), (every_pair, 6)])
def test_the_others_are_slow(decorate, quick):
    mark = decorate(first=[1, 2, 3], second=[1, 2], third=[1, 2]).mark
    slow = [bool(each.marks) for each in mark.args[1]]
    assert (len(slow), slow.count(False)) == (12, quick)


def test_what_was_not_chosen_is_slow():
    assert [bool(each.marks) for each in quickly("ac", "abcd")] == [False, True, False, True]
