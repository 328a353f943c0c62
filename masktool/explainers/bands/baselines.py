"""What stands in a missing band: its name, or numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from masktool.errors import MasktoolError
from masktool.messages import parameter

BandBaseline = str | float | Sequence[float]
"""What stands in a missing band: ``mean``, ``image-mean``, ``blur``, or numbers in the units of the model's input: one
for all bands or one for each, also as text with commas."""
NAMED = ("mean", "image-mean", "blur")
EXPECTED = f"{', '.join(NAMED)}, or numbers in the units of the model's input: one, or one for each band"


def read_band_baseline(baseline: BandBaseline) -> str | tuple[float, ...]:
    """Returns a baseline of bands: a name, or numbers.

    Raises:
        MasktoolError: it is neither.
    """
    if isinstance(baseline, str) and baseline in NAMED:
        return baseline
    try:
        given = baseline.split(",") if isinstance(baseline, str) else np.atleast_1d(np.asarray(baseline)).tolist()
        numbers = tuple(float(each) for each in given)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not np.isfinite(numbers).all():
        raise MasktoolError("no such baseline of bands", where=parameter("band_baseline", baseline), expected=EXPECTED)
    return numbers


def tell_baseline(baseline: str | tuple[float, ...]) -> Iterator[str]:
    """Yields a note on what stands in missing bands, where that is not what the user gave."""
    if baseline == "mean":
        yield (
            "where a band is missing stands 0 in the model's input, which is the mean of the data only where the input "
            "is normalised so"
        )
    if baseline == "blur":
        yield "where a band is missing it stands blurred, so that its level over the image counts as kept"
