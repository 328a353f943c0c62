"""Masks that are cut, and figures of a mask, whichever method made it: its size, and the class that comes first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.mask_design import Masks

CUT = 0.5
"""Value from which on a soft mask counts as kept."""
LEAK = 0.02
"""Value of a missing pixel, and 1 minus that of a kept one, where the gradient by a cut mask is taken through layers.

Of a mask of 0 and 1 no derivative says whether to bring a missing pixel back, for nothing of it reaches the scores. The
less, the nearer to the cut mask: with .1 the fill sees an outline that the cut mask hides."""
SURVIVES = "the class survives although the mask, cut at .5, is taken away"


def cut_masks(masks: NDArray[np.floating[Any]]) -> Masks:
    """Returns soft masks cut at .5: 1 where a mask is .5 or more, 0 elsewhere."""
    return (masks >= CUT).astype(np.float32)


def leaking_masks(masks: NDArray[np.floating[Any]], leak: float) -> Masks:
    """Returns soft masks cut at .5, with ``leak`` in place of 0 and 1 - ``leak`` in place of 1."""
    return np.where(masks >= CUT, np.float32(1 - leak), np.float32(leak))


def areas_of(mask: NDArray[np.floating[Any]]) -> dict[str, float]:
    """Returns the shares of the picture that a soft mask keeps: uncut (its mean), and cut at .5."""
    return {"area_soft": float(mask.mean()), "area_cut": float(cut_masks(mask).mean())}


def describe_answer(scores: NDArray[np.floating[Any]] | None, score: float, name: str) -> dict[str, float]:
    """Returns the class with the highest of the scores (K,), and the target's score; ``name`` ends both keys.

    Of a model without class scores it is the target's score alone.
    """
    first = {} if scores is None else {f"class{name}": int(scores.argmax())}
    return {**first, f"score{name}": float(score)}


def loses_class(figure: Mapping[str, float], name: str | None = None) -> str:
    """Returns a note that a mask which is meant to keep the class, or what has a name in its place, loses it."""
    if name is not None:
        return f"{name} does not survive the mask cut at .5: its score is {figure['score_cut']:.3g} there"
    return (
        f"the class does not survive the mask cut at .5: class {figure['class_cut']} comes first there, and "
        f"the explained one has a score of {figure['score_cut']:.3g}"
    )
