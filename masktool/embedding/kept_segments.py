"""Methods in the graph whose masks keep some segments of every image, the same for all images, by a stored design."""

from __future__ import annotations

import abc
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from masktool.embedding.compact import emit_bits, store_bits, store_integers
from masktool.embedding.designs import spread_over_segments
from masktool.embedding.flow import FLOAT, INT64, Flow
from masktool.embedding.method import Asked, Explained, Options
from masktool.embedding.sampling import SamplingMethod
from masktool.errors import MasktoolError
from masktool.explainers.segment_method import SegmentMethod
from masktool.explainers.segmentation import axis_labels, check_label_map, relabel


class StoredSegmentMethod(SamplingMethod[Options]):
    """A method whose segments and masks are the same for all images; row 0 keeps everything."""

    @property
    @abc.abstractmethod
    def segments(self) -> NDArray[np.int32]:
        """The segment of each pixel, (h, w) labels from 0."""

    @property
    @abc.abstractmethod
    def kept(self) -> NDArray[np.float32]:
        """How much of each segment the masks behind row 0 keep, (M, S)."""

    @property
    def n_rows(self) -> int:
        """The number of masks, and one that keeps everything."""
        return 1 + len(self.kept)

    @property
    def n_segments(self) -> int:
        """The number of segments."""
        return self.kept.shape[1]

    def prepare(self, flow: Flow, asked: Asked) -> Mapping[str, ir.Value]:  # noqa: ARG002  # the same for all images
        """Emits the label of every pixel, and the masks' segments, as bits where they are kept or missing."""
        whole = np.ones((1, self.n_segments), np.float32)
        design = np.concatenate([whole, self.kept])
        bits = np.isin(design, (0, 1)).all()
        labels = flow.typed(flow.as_type(store_integers(flow, self.segments), INT64), INT64, self.network.size)
        return {
            "labels": labels,
            "bits" if bits else "soft": store_bits(flow, design == 1) if bits else flow.floats(design),
        }

    def segments_of(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits how much of each segment the rows (m,) keep, (m, S) float32."""
        if "soft" in asked.extra:
            return flow.emit("Gather", asked.extra["soft"], rows, axis=0)
        first = flow.emit("Mul", flow.reshape(rows, -1, 1), flow.integer(self.n_segments))
        positions = flow.emit("Add", first, flow.ints(*range(self.n_segments)))
        return flow.typed(emit_bits(flow, asked.extra["bits"], positions), FLOAT, [None, self.n_segments])

    def masks(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits the kept segments as masks."""
        kept = self.segments_of(flow, rows, asked)
        return spread_over_segments(flow, kept, asked.extra["labels"], self.network.size)

    def explained(self, flow: Flow, values: ir.Value, error: ir.Value, asked: Asked) -> Explained:
        """Emits the map, from the value of each segment (S,) and their standard error ()."""
        attributions = flow.typed(flow.reshape(values, 1, self.n_segments), FLOAT, [1, self.n_segments])
        painted = flow.reshape(
            flow.emit("Gather", attributions, asked.extra["labels"], axis=1), 1, 1, *self.network.size
        )
        figures = {"attributions_error": flow.typed(flow.reshape(error, 1), FLOAT, [1])}
        return Explained({}, flow.typed(painted, FLOAT, [1, 1, *self.network.size]), attributions, figures)


def refuse_superpixels(options: SegmentMethod) -> None:
    """Raises a MasktoolError where the segments would have to be found in each image."""
    if options.feature_mask is None and options.segments == "slic":
        raise MasktoolError(
            "superpixels depend on the image, and no operators of ONNX find them",
            where="segments=slic",
            fix="set segments=grid; or segments=input, and give the file a label map with every image",
        )


def settled_segments(options: SegmentMethod, size: tuple[int, int]) -> NDArray[np.int32]:
    """Returns the segments (h, w) of all images: a given label map, or rectangles as Python cuts them."""
    if options.feature_mask is None:
        rows, columns = axis_labels(size, options.n_segments)
        return relabel(rows[:, None] + columns)
    labels = check_label_map(options.feature_mask, where="feature_mask")
    if labels.shape != size:
        raise MasktoolError(
            "label map of another size",
            where="feature_mask",
            expected=f"{size} like the model's input (height, width)",
            got=labels.shape,
        )
    return relabel(labels)


def root_mean_square(flow: Flow, variances: ir.Value) -> ir.Value:
    """Emits the standard error () that stands for those of all segments, from their squares (S,)."""
    return flow.emit("Sqrt", flow.emit("ReduceMean", variances, flow.ints(0), keepdims=0))
