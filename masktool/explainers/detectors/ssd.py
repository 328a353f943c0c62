"""SSD: offsets from default boxes of six grids, and class logits of which the first is the background's.

    centre = default centre + given · default size / 10        size = default size · exp(given / 5)

Known are the default boxes of inputs of 300 x 300 (scales of COCO, or of VOC where there are 20 classes) and of
SSDlite's 320 x 320. A default box of scale s and ratio r is s · sqrt(r) wide and s / sqrt(r) high; each place has one
of scale s, one of the geometric mean of s and the next grid's scale, and for each ratio one of r and one of 1 / r.

Source: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, section 2.2, https://arxiv.org/abs/1512.02325;
order of boxes, of columns and numbers as in torchvision's and the authors' networks.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import ClassVar, NamedTuple, Self

import numpy as np

from masktool.explainers.detections import Detections
from masktool.explainers.detector import (
    DETECTORS,
    InputSize,
    Shapes,
    TwoOutputs,
    Values,
    are_probabilities,
    from_centres,
    share_out,
    to_pixels,
)

CENTRE_WEIGHT, SIZE_WEIGHT = 10.0, 5.0
LARGEST_GROWTH = math.log(1000 / 16)
"""Logarithm at which the growth of a default box is cut, as torchvision has it."""
VOC_COLUMNS = 21


class DefaultBoxes(NamedTuple):
    """The grids of default boxes of a network.

    Attributes:
        counts: the number of cells along a side of each grid.
        cells: the number of cells that would fill the input's side, which decides the centres.
        scales: the scale of each grid, as a share of the input, and one more.
        ratios: the ratios of each grid.
    """

    counts: tuple[int, ...]
    cells: tuple[float, ...]
    scales: tuple[float, ...]
    ratios: tuple[tuple[int, ...], ...]

    @property
    def boxes(self) -> int:
        """The number of default boxes."""
        return sum(count**2 * (2 + 2 * len(ratios)) for count, ratios in zip(self.counts, self.ratios, strict=True))


USUAL_RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
CELLS = (37.5, 18.75, 9.375, 4.6875, 3.0, 1.0)
"""300 by the published steps of 8, 16, 32, 64, 100 and 300 pixels."""
COCO = DefaultBoxes((38, 19, 10, 5, 3, 1), CELLS, (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05), USUAL_RATIOS)
VOC = COCO._replace(scales=(0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05))
LITE = DefaultBoxes((20, 10, 5, 3, 2, 1), (20, 10, 5, 3, 2, 1), (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0), ((2, 3),) * 6)


@DETECTORS.add
@dataclasses.dataclass(frozen=True)
class Ssd(TwoOutputs):
    """The head of SSD.

    Attributes:
        is_shared_out: whether the classes have been through a softmax.
    """

    name: ClassVar[str] = "ssd"
    summary: ClassVar[str] = "offsets (N, 8732 or 3234, 4) from default boxes, and classes (N, ., 1 + K)"

    is_shared_out: bool = False

    @classmethod
    def candidates(cls, shapes: Shapes) -> Shapes:
        """Returns the outputs with as many places as there are default boxes."""
        known = {COCO.boxes, LITE.boxes}
        return {name: shape for name, shape in super().candidates(shapes).items() if shape[1] in known}

    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:
        """Tells whether the number of default boxes is that of the input's size."""
        expected = {(300, 300): COCO.boxes, (320, 320): LITE.boxes}
        return shapes[self.boxes][1] == shapes[self.scores][1] == expected.get(size)

    def settle(self, values: Values, size: InputSize) -> Self:  # noqa: ARG002
        """Returns the head with whether there was a softmax: then all numbers lie in 0..1."""
        return dataclasses.replace(self, is_shared_out=are_probabilities(values[self.scores]))

    def decode(self, values: Values, size: InputSize) -> Detections:
        """Returns the detections of M images; there is an object where there is no background."""
        given = np.asarray(values[self.scores], np.float64)
        shares = given if self.is_shared_out else share_out(given)
        classes = shares[..., 1:]
        grids = LITE if shares.shape[1] == LITE.boxes else VOC if shares.shape[2] == VOC_COLUMNS else COCO
        offsets = np.asarray(values[self.boxes], np.float64)
        defaults = list_default_boxes(grids)
        centres = defaults[:, :2] + offsets[..., :2] * defaults[:, 2:] / CENTRE_WEIGHT
        sides = defaults[:, 2:] * np.exp(np.minimum(offsets[..., 2:] / SIZE_WEIGHT, LARGEST_GROWTH))
        boxes = to_pixels(from_centres(np.concatenate([centres, sides], axis=-1)), size)
        return Detections(boxes, classes, 1 - shares[..., 0], classes.max(axis=2))


@functools.cache
def list_default_boxes(grids: DefaultBoxes) -> np.ndarray:
    """Returns the default boxes (centre x, centre y, width, height) as shares of the input, row by row in each grid."""
    found = []
    for count, cells, scale, following, ratios in zip(
        grids.counts, grids.cells, grids.scales[:-1], grids.scales[1:], grids.ratios, strict=True
    ):
        mean = math.sqrt(scale * following)
        sides = [(scale, scale), (mean, mean)]
        for ratio in ratios:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            sides += [(long, short), (short, long)]
        clipped = np.minimum(sides, 1.0)
        rows, columns = np.mgrid[:count, :count]
        centres = (np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5) / cells
        found.append(np.concatenate([centres.repeat(len(sides), 0), np.tile(clipped, (len(centres), 1))], axis=1))
    return np.concatenate(found)
