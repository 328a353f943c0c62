"""Agreement of the most important segments of two explanations: the Jaccard index |A ∩ B| / |A ∪ B|.

Source: Paul Jaccard, "The Distribution of the Flora in the Alpine Zone", 1912.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np


def jaccard(a: Sequence[int], b: Sequence[int]) -> float:
    """Returns the share of two sets' members that are in both, from 0 to 1."""
    return len(set(a) & set(b)) / len(set(a) | set(b))


def agreement(a: Sequence[Sequence[int]], b: Sequence[Sequence[int]]) -> float:
    """Returns the mean Jaccard index of the sets of one mode and those of another, of different seeds each."""
    pairs = itertools.permutations(range(len(a)), 2)
    return float(np.mean([jaccard(a[first], b[second]) for first, second in pairs]))


def expected_jaccard(n: int, k: int) -> float:
    """Returns the mean Jaccard index of two random sets of k among n."""
    common = range(max(0, 2 * k - n), k + 1)
    return sum(math.comb(k, c) * math.comb(n - k, k - c) * c / (2 * k - c) for c in common) / math.comb(n, k)
