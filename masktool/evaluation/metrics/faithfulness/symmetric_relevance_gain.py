"""Symmetric relevance gain (SRG): by how much the score outlives the removal of what a map calls least relevant.

Source: Stefan Blücher, Johanna Vielhaben and Nils Strodthoff, "Decoupling Pixel Flipping and Occlusion Strategy for
Consistent XAI Benchmarks", TMLR 2024, https://arxiv.org/abs/2401.06654.

    SRG = integral over q from 0 to 1 of  LIF(q) - MIF(q)

MIF(q) is the score of the target with the share q of the pixels removed, the most relevant first; LIF(q) the same, the
least relevant first. Both are removals of one order of the pixels and of its reverse, with the same occlusion, so that
what a removal costs whatever is removed drops out of the difference: a random order has 0 in expectation, and a map
with the opposite sign the same gain with the opposite sign.

It is insertion - deletion, exactly, as these two are measured here: the share q of the least relevant pixels is gone
where the share 1 - q of the most relevant ones has been inserted, LIF(q) = I(1 - q); deletion removes the most relevant
first, D(q) = MIF(q); ties come in one order for both, and both go missing by the same masking. So it costs no pass
beyond theirs. It would not be so where insertion starts from a blurred picture and deletion ends in a grey one.

The score is a probability, so that the gain lies between -1 and 1; it is the mean over images of one gain each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class RemovalCurve(NamedTuple):
    """The score of the target while pixels go in one order.

    Attributes:
        removed: shares of the pixels that are gone, (S + 1,), rising from 0 to 1.
        scores: score at each, (S + 1,).
    """

    removed: npt.ArrayLike
    scores: npt.ArrayLike

    @property
    def area(self) -> float:
        """Area under the curve, by the trapezoid rule."""
        return float(np.trapezoid(np.asarray(self.scores, np.float64), np.asarray(self.removed, np.float64)))


def symmetric_relevance_gain(least_first: RemovalCurve, most_first: RemovalCurve) -> float:
    """Returns the area between two curves of removal, from -1 to 1; higher is better.

    Args:
        least_first: scores while the least relevant pixels go first.
        most_first: scores while the most relevant pixels go first.
    """
    return least_first.area - most_first.area
