"""How many masked images go through the model at once."""

from __future__ import annotations

from masktool.option_checks import check_count

CPU_PIXELS = 8 * 224 * 224
"""Input pixels per batch on the CPU: 8 images of 224 x 224, beyond which more images cost memory and save no time."""
GPU_PIXELS = 64 * 224 * 224
"""Input pixels per batch on a GPU, which needs more work at once to be busy."""
LARGEST_BATCH = 256
"""Most images in a batch that is chosen here, however small the images are."""
ASSUMED_SIZE = (224, 224)
"""(height, width) of the input where the file leaves it open."""


def choose_batch_size(requested: int | None, size: tuple[int, int] | None, *, on_gpu: bool) -> int:
    """Returns the requested batch size, else one that bounds memory by the input's (height, width).

    Raises:
        MasktoolError: the requested batch size is no whole number from 1.
    """
    if requested is not None:
        return check_count("requested", requested)
    height, width = size or ASSUMED_SIZE
    pixels = GPU_PIXELS if on_gpu else CPU_PIXELS
    return min(max(pixels // (height * width), 1), LARGEST_BATCH)
