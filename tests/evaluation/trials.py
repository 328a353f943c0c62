"""Trials on models so small that every figure is known beforehand."""

import numpy as np

from masktool.evaluation.metrics.faithfulness.trial import Trial


def never_redrawn(name, seed):
    raise AssertionError(f"{name} was drawn again")


def make_trial(maps, answer, size=None, image=None, target=0, masking="fill", batch=4, seed=0, **values):
    """A trial whose image is one channel of ones unless given; ``answer`` is the model's, of images and masks."""
    maps = {name: np.asarray(each, np.float64) for name, each in maps.items()}
    if image is None:
        image = np.ones((1, 1, *(size or next(iter(maps.values())).shape)), np.float32)
    defaults = {"name": "image.png", "layout": "NCHW", "redraw": never_redrawn}
    return Trial(
        **(defaults | values),
        image=image,
        maps=maps,
        target=target,
        answer=answer,
        masking=masking,
        batch=batch,
        seed=seed,
    )


def black_fill(score):
    """A model (N, 2) that sees the image times the mask: ``score`` of (N, C, h, w), and what it lacks to 1."""

    def answer(images, masks):
        values = score(images.astype(np.float64) if masks is None else images.astype(np.float64) * masks)
        return np.stack([values, 1 - values], axis=1)

    return answer


def linear(weights):
    """The model that sums weights (h, w) times the image."""
    return black_fill(lambda images: (images * weights).sum(axis=(1, 2, 3)))


class Counting:
    """A model that counts the images it answers for, and remembers the largest batch."""

    def __init__(self, answer):
        self.answer, self.images, self.largest = answer, 0, 0

    def __call__(self, images, masks):
        found = self.answer(images, masks)
        self.images, self.largest = self.images + len(found), max(self.largest, len(found))
        return found
