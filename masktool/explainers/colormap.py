"""Colour maps that keep the order and the distances of the values: straight paths through Oklab.

Source: Bjoern Ottosson, "A perceptual color space for image processing", 2020,
    https://bottosson.github.io/posts/oklab/.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

LEVELS = 256

NEUTRAL = (0.96, 0.0, 0.0)
"""Lightness, chroma, hue in degrees: nearly white, where nothing supports or opposes."""
SUPPORT = (0.56, 0.20, 32.0)
OPPOSE = (0.56, 0.14, 254.0)
"""Red and blue of the same lightness: equal strengths look equally strong, to colour-blind readers too."""

DARK = (0.30, 0.11, 295.0)
MIDDLE = (0.62, 0.19, 375.0)
BRIGHT = (0.93, 0.14, 462.0)
"""Violet, red, yellow: lightness rises evenly, so the order survives grey print. Hues above 360 lead through red."""

LMS_FROM_OKLAB = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
RGB_FROM_LMS = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def oklab(colour: tuple[float, float, float]) -> NDArray[np.float64]:
    """Returns Oklab coordinates of (lightness, chroma, hue in degrees)."""
    lightness, chroma, hue = colour
    return np.array([lightness, chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))])


def srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns sRGB (..., 3) in 0..1 of Oklab colours (..., 3); outside of 0..1 where the screen has no such colour."""
    linear = (lab @ LMS_FROM_OKLAB.T) ** 3 @ RGB_FROM_LMS.T
    magnitude = np.abs(linear)
    encoded = np.where(magnitude <= 0.0031308, 12.92 * magnitude, 1.055 * magnitude ** (1 / 2.4) - 0.055)
    return np.copysign(encoded, linear)


def path(*colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns LEVELS Oklab colours along straight lines from one colour to the next."""
    corners = np.stack(colours)
    along = np.linspace(0, len(corners) - 1, LEVELS)
    return np.stack([np.interp(along, np.arange(len(corners)), channel) for channel in corners.T], axis=1)


@functools.cache
def diverging() -> NDArray[np.float64]:
    """Returns the colour table, (LEVELS, 3) sRGB in 0..1, from opposing through neutral to supporting."""
    return np.clip(srgb(path(oklab(OPPOSE), oklab(NEUTRAL), oklab(SUPPORT))), 0, 1)


@functools.cache
def sequential() -> NDArray[np.float64]:
    """Returns the colour table, (LEVELS, 3) sRGB in 0..1, from dark to bright."""
    return np.clip(srgb(path(oklab(DARK), oklab(MIDDLE), oklab(BRIGHT))), 0, 1)


def colour(share: NDArray[np.floating], table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the colours (..., 3) of shares (...) in 0..1 along a colour table."""
    indices = np.clip(np.rint(np.asarray(share) * (LEVELS - 1)), 0, LEVELS - 1).astype(int)
    return table[indices]
