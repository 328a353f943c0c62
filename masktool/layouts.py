"""Where the axes of images (N, C, H, W) and (N, H, W, C) lie."""

from __future__ import annotations

from collections.abc import Mapping

from masktool.contract import Layout

CHANNEL_AXIS: Mapping[Layout, int] = {"NCHW": 1, "NHWC": 3}
SPATIAL_AXES: Mapping[Layout, tuple[int, int]] = {"NCHW": (2, 3), "NHWC": (1, 2)}
"""Indices of the axes of height and width, by layout."""
