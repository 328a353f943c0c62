"""R-OMS: how much of the reference prediction an occlusion leaves, whatever is occluded.

Source: Stefan Blücher, Johanna Vielhaben and Nils Strodthoff, "Decoupling Pixel Flipping and Occlusion Strategy for
Consistent XAI Benchmarks", TMLR 2024, https://arxiv.org/abs/2401.06654: the reference-out-of-model-scope score says how
much information about the original sample the model still sees in occluded ones, by the following, as the authors'
program measures it:

    R-OMS(q) = mean over the images of  p_c(x with the share q of its segments removed at random)
    R-OMS    = area under R-OMS(q) over the shares removed

c is the class that the model predicts for the whole image, p_c its probability; one random set of segments is drawn for
each image and share. Higher means that what is occluded stays within the model's scope. Two things differ from the
program: c is predicted with nothing removed, where it takes the prediction with one segment removed; and the area is
divided by the span of the shares, so that it is a mean probability, from 0 to 1, whatever shares are measured.

In the other orders of removal the same area is that of pixel flipping: MIF for the most salient first, LIF for the
least salient; their difference is the symmetric relevance gain
(:mod:`masktool.evaluation.metrics.faithfulness.symmetric_relevance_gain`), over segments instead of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def mean_over_shares(scores: NDArray[np.float64], shares: Sequence[float]) -> NDArray[np.float64]:
    """Returns each image's area under its scores (N, F) over the shares removed (F,), divided by the shares' span.

    Of one share it is the score there.
    """
    span = shares[-1] - shares[0]
    if span == 0:
        return np.asarray(scores.mean(axis=1))
    return np.asarray(np.trapezoid(scores, np.asarray(shares), axis=1) / span)
