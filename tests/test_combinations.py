"""Few combinations of options hold every pair of them."""

import itertools

from combinations import choose, every_pair, pairs_of


def test_every_pair_occurs_in_few_combinations():
    everything = list(itertools.product(range(8), "ab", "xyz", [None, {}]))
    chosen = [everything[position] for position in sorted(choose(everything))]
    assert {pair for each in chosen for pair in pairs_of(each)} == {
        pair for each in everything for pair in pairs_of(each)
    }
    assert len(chosen) <= 28  # 24 hold the pairs of the two longest


def test_the_others_are_slow():
    mark = every_pair(first=[1, 2, 3], second=[1, 2], third=[1, 2]).mark
    slow = [bool(each.marks) for each in mark.args[1]]
    assert len(slow) == 12
    assert slow.count(False) == 6
