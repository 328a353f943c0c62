"""Random sets of segments that are spread evenly: each segment is kept in half of them, any two together in a quarter.

Rows of a Hadamard matrix, of Sylvester's kind, without its first column: entry (r, c) is the parity of the bits that r
and c have in common, and any two columns agree in half of the rows. Which columns stand for the segments, the order of
the rows, and which columns are turned over is random, so that each row alone is what independent draws would give:
every set is as likely as any other. Each row is followed by its complement.

In a linear regression the columns then say nothing of each other, as the chance correlations of independent draws do
(with 250 of them for 100 segments, variances are 1.7 times as large); and interactions of an even number of segments,
which are the same in both of a pair, drop out. Sources: R. L. Plackett and J. P. Burman, "The Design of Optimum
Multifactorial Experiments", Biometrika 33, 1946; G. E. P. Box and K. B. Wilson, "On the Experimental Attainment of
Optimum Conditions", Journal of the Royal Statistical Society B 13, 1951, section 3.3 (complements).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw_orthogonal_sets(count: int, n_features: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Returns sets of segments (count, n_features), True = kept; a larger count goes on behind the same ones."""
    order = 1 << n_features.bit_length()  # of the matrix: the next power of two, whose columns but the first are enough
    kept = np.zeros((count, n_features), np.bool_)
    for start in range(0, count, 2 * order):
        columns = 1 + random.permutation(order - 1)[:n_features]
        rows = random.permutation(order)[: (count - start + 1) // 2]
        turned = random.random(n_features) < 0.5
        pairs = parity(rows[:, None] & columns) ^ turned
        block = kept[start : start + 2 * order]
        block[::2] = pairs
        block[1::2] = ~pairs[: len(block) // 2]
    return kept


def parity(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tells which whole numbers have an odd number of bits set."""
    for shift in (32, 16, 8, 4, 2, 1):
        numbers = numbers ^ (numbers >> shift)
    return (numbers & 1).astype(np.bool_)
