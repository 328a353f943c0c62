"""What stands where pixels are hidden, against scipy and numpy."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from maskers.small import pictures
from masktool.maskers.infillers import BLUR_SIGMA, REACH, blur, infill
from masktool.maskers.judges import hide

SUMS = 2e-6
"""Of some hundred products in float32, in another order."""


@pytest.mark.parametrize("sigma", [0.8, 2.5])
def test_the_blur_is_scipys(sigma):
    images, _ = pictures(2)
    expected = np.stack(
        [
            [
                ndimage.gaussian_filter(channel, sigma, mode="nearest", radius=int(np.ceil(REACH * sigma)))
                for channel in image
            ]
            for image in images.double().numpy()
        ]
    )
    np.testing.assert_allclose(blur(images, sigma).numpy(), expected, atol=SUMS)


def test_infillers_are_zero_the_mean_colour_and_the_blur():
    images, _ = pictures(3)
    assert infill(images, "none").eq(0).all()
    means = images.numpy().mean(axis=(2, 3))
    np.testing.assert_allclose(infill(images, "mean").expand_as(images)[:, :, 3, 5].numpy(), means, atol=SUMS)
    assert torch.equal(infill(images, "blur"), blur(images, BLUR_SIGMA * 16))
    assert pytest.approx(20) == BLUR_SIGMA * 224


@pytest.mark.parametrize("infiller", ["none", "mean", "blur"])
def test_hiding_blends(infiller):
    images, _ = pictures(2)
    masks = torch.zeros(2, 1, 16, 16)
    masks[0], masks[1, :, :8] = 1, 0.25
    hidden = hide(images, masks, infiller)
    below = infill(images, infiller).expand_as(images)
    assert torch.equal(hidden[0], images[0])
    torch.testing.assert_close(hidden[1, :, :8], 0.25 * images[1, :, :8] + 0.75 * below[1, :, :8])
    assert torch.equal(hidden[1, :, 8:], below[1, :, 8:])
