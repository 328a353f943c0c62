"""How alike two maps are, whatever their units.

Sources: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 3.1, https://arxiv.org/abs/1810.03292,
for the choice; Spearman, "The Proof and Measurement of Association between Two Things", 1904; Wang et al., "Image
Quality Assessment: From Error Visibility to Structural Similarity", 2004,
https://doi.org/10.1109/TIP.2003.819861.
"""

from __future__ import annotations

import numpy as np

from masktool.evaluation.maps import Map
from masktool.evaluation.metrics.scaling import is_flat, min_max

WINDOW = 7
"""Side of SSIM's windows in pixels."""


def rank_correlation(first: Map, second: Map) -> float | None:
    """Returns Spearman's rank correlation of two maps (h, w), from -1 to 1; equal values share the mean of their ranks.

    Returns:
        The correlation; None where either map is flat.
    """
    from scipy.stats import spearmanr

    if is_flat(first) or is_flat(second):
        return None
    return float(spearmanr(first.reshape(-1), second.reshape(-1)).statistic)


def absolute_rank_correlation(first: Map, second: Map) -> float | None:
    """Returns the rank correlation of two maps' absolute values: what the maps have in common whatever the sign."""
    return rank_correlation(np.abs(first), np.abs(second))


def structural_similarity(first: Map, second: Map) -> float | None:
    """Returns the mean structural similarity (SSIM) of two maps (h, w), each stretched to [0, 1]; at most 1.

    Returns:
        The mean SSIM; None where either map is flat or smaller than the windows.
    """
    from skimage.metrics import structural_similarity as ssim

    if is_flat(first) or is_flat(second) or min(first.shape) < WINDOW:
        return None
    return float(ssim(min_max(first), min_max(second), win_size=WINDOW, data_range=1.0))
