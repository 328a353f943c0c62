"""Methods that hide segments of the image: which segments, and the masks that keep some of them."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.mask_design import MaskDesign, Masks, Rows
from masktool.explainers.method import Method
from masktool.explainers.segmentation import LABEL_RANKS, SEGMENTERS, Segments, check_label_map, relabel
from masktool.explainers.task import Task
from masktool.option_checks import check_count

INTERVALS = "grid"
"""Kind of segments of signals: superpixels are of pictures."""
GIVEN = "input"
"""Kind of segments that are given with each image."""


@dataclasses.dataclass(frozen=True)
class SegmentMethod(Method):
    """A method that gives every segment of the image one value.

    Attributes:
        segments: the kind of segments: ``slic`` (superpixels) or ``grid`` (rectangles), computed in the model's input,
            of signals intervals either way; ``input`` stands for a label map that a file which explains itself takes
            with each image.
        n_segments: the rough number of segments; for ``input`` the largest.
        feature_mask: a label map to use as segments instead, (h, w) integers in the model's input or in the
            photograph's own pixels; None computes them.
    """

    segments: str = "slic"
    n_segments: int = 100
    feature_mask: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        check_count("n_segments", self.n_segments)
        known = (*SEGMENTERS, GIVEN)
        if not isinstance(self.segments, str) or self.segments not in known:
            raise MasktoolError("unknown segments", where=self.segments, expected=f"one of {', '.join(known)}")
        if self.feature_mask is not None:
            check_label_map(self.feature_mask, where="feature_mask", ranks=LABEL_RANKS)

    def with_segments_for(self, n_samples: int, budget: int, per_segment: int = 2, fewest: int = 2) -> Self:
        """Returns the method with no more segments than a budget of passes has samples for.

        Fewer samples than twice as many would leave the weights to what is assumed of them beforehand. A number of
        segments, or a label map, that the user gives stays.

        Args:
            n_samples: the largest number of samples that the method draws.
            budget: the passes, of which one is of the image as it is.
            per_segment: how many samples a segment takes.
            fewest: segments that are taken where twice as many samples fit, although each takes more.
        """
        if not self.leaves_open("n_segments") or self.feature_mask is not None:
            return self
        samples = min(n_samples, budget - 1)
        most = max(samples // per_segment, min(fewest, samples // 2), 2)
        return dataclasses.replace(self, n_segments=min(self.n_segments, most))

    def cut(self, task: Task) -> Segments:
        """Returns the segments of the model's input."""
        if self.feature_mask is None:
            if self.segments == GIVEN:
                raise MasktoolError(
                    "only a file that explains itself has an input for segments",
                    where="segments=input",
                    expected=f"one of {', '.join(SEGMENTERS)}",
                    fix="give the label map as feature_mask",
                )
            kind = self.segments if len(task.size) > 1 else INTERVALS
            return relabel(SEGMENTERS[kind](task.pixels, self.n_segments))
        labels = check_label_map(self.feature_mask, where="feature_mask", ranks=LABEL_RANKS)
        if labels.shape == task.size:
            return relabel(labels)
        original = tuple(task.prepared.original_size)
        if labels.shape != original:
            raise MasktoolError(
                "label map of another size",
                where="feature_mask",
                expected=f"{original} like the photograph or {task.size} like the model's input (height, width)",
                got=labels.shape,
            )
        return relabel(task.prepared.from_original(relabel(labels)))

    def settings(self, n_features: int, task: Task | None = None) -> dict[str, Any]:
        """Returns the options as JSON values, with the number of segments that were found."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if task is not None and len(task.size) == 1:
            values["segments"] = INTERVALS
        if values.pop("feature_mask") is not None:
            values |= {"segments": "feature_mask", "n_segments": n_features}
        return values | {"n_features": n_features}


@dataclasses.dataclass(frozen=True, eq=False)
class KeptSegments(MaskDesign):
    """Masks that keep some segments; a row is which ones: ``kept`` (M, S) float32, 1 = kept, 0 = missing.

    Attributes:
        segments: the segment of each pixel, (h, w) int32 labels from 0.
    """

    segments: Segments

    @property
    def shared(self) -> Rows:
        """The segment of each pixel."""
        return {"segments": self.segments}

    def expand(self, rows: Rows) -> Masks:
        """Returns masks that are 1 in the segments that are kept."""
        masks: Masks = rows["kept"][:, self.segments][:, None]
        return masks
