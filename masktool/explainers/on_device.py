"""A task's functions where masks, images and gradients stay on the session's device: only scores and sums come back.

The models that make masks and add up are written by :mod:`masktool.embedding.device_graphs`; whoever calls
:func:`masktool.explainers.explaining.explain_all` hands the writers over, for nothing here knows ONNX.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from masktool.contract import GRADIENT_PREFIX, MASK_INPUT, OBJECTIVE
from masktool.explainers.mask_design import MaskDesign, MaskSums, NoGraphError, Rows
from masktool.explainers.reading import Reading, check_finite
from masktool.explainers.target import SettledTarget, measure
from masktool.explainers.task import Differentiable, Evaluate, LineGradients, ScoredMasks, check_finite_gradients
from masktool.progress import Counting
from masktool.runtime.device import BindingError, DeviceArray, DeviceGraph
from masktool.runtime.gradients import IMAGE
from masktool.runtime.session import MaskedSession
from masktool.runtime.session_device import bind_model, open_on_device, run_bound

MASKS, IMAGES, VALUES, WEIGHTS, SUMS, SQUARES = "masks", "images", "values", "weights", "sums", "squares"
PLACES, BASELINE, CHANGE = "places", "baseline", "change"
"""Names of inputs and outputs of the models that run beside the session's own."""


class WriteSums(Protocol):
    """Writes a model that adds up rows of values with weights."""

    def __call__(self, dtype: np.dtype[Any], *, squares: bool) -> bytes:
        """Returns the model for values of an element type; ``squares`` says whether it adds up their squares too."""


class DeviceGraphs(NamedTuple):
    """Writers of the models that run beside the session's own.

    Attributes:
        write_masks: writer of a model that makes ``masks`` of rows; of a design, a batch of its rows, and the element
            type of the masks.
        write_steps: writer of a model that makes ``images`` at ``places`` on the way from ``baseline`` by ``change``;
            of an image and the element type of the images.
        write_sums: writer of a model that gives ``sums`` of ``values`` with ``weights``, and ``squares``.
    """

    write_masks: Callable[[MaskDesign, Rows, np.dtype[Any]], bytes]
    write_steps: Callable[[NDArray[Any], np.dtype[Any]], bytes]
    write_sums: WriteSums


@dataclasses.dataclass(frozen=True)
class MasksOnDevice:
    """The masks of one batch on the device, until the next batch is made.

    Attributes:
        masks: the masks (M, 1, h, w).
        open_sums: function that opens the model that adds up masks, and, where that is asked for, their squares.
    """

    masks: DeviceArray
    open_sums: Callable[[bool], DeviceGraph]

    def __len__(self) -> int:
        """Returns the number of masks."""
        return self.masks.length

    def add_up(self, scores: NDArray[np.float32], *, binary: bool) -> MaskSums:
        """Returns sums over the masks; no mask leaves the device."""
        weights = np.concatenate([np.ones((1, len(self)), np.float32), scores, np.square(scores)])
        model = self.open_sums(not binary)
        model.bind({VALUES: self.masks, WEIGHTS: weights})
        found, _ = model.run(len(weights))
        plain, squares = found[SUMS], found[SUMS if binary else SQUARES]
        scored, squared = slice(1, 1 + len(scores)), slice(1 + len(scores), None)
        return MaskSums(plain[0], squares[0], plain[scored], squares[scored], squares[squared])


@dataclasses.dataclass(frozen=True)
class DeviceEvaluation:
    """Runs the model on one image under masks that are made on the device; called as :class:`Evaluate` is.

    Where nothing can be bound to the device, or no graph is written for the design, the masks are made in memory, and
    the session notes why.

    Attributes:
        reading: what is read of the model.
        image: the image (1, ...), as the model takes it.
        targets: the targets.
        counting: function that starts to count up to a number of masks.
        graphs: writers of the models that run beside the session's own.
        in_memory: function that runs the model under masks made in memory.
    """

    reading: Reading
    image: NDArray[Any]
    targets: Sequence[SettledTarget]
    counting: Counting
    graphs: DeviceGraphs
    in_memory: Evaluate

    def __call__(self, batches: Iterable[Any], total: int, design: MaskDesign | None = None) -> Iterator[ScoredMasks]:
        """Yields each batch of masks with its scores."""
        if design is None:
            yield from self.in_memory(batches, total)
            return
        ahead = iter(batches)
        first = next(ahead)
        found = self.score(design, first, ahead)
        try:
            beginning = next(found)
        except (BindingError, NoGraphError) as error:
            self.reading.session.leave_device(error)
            yield from self.in_memory(itertools.chain([first], ahead), total, design)
            return
        with self.counting(total) as advance:
            for batch in itertools.chain([beginning], found):
                yield batch
                advance(len(batch.masks))

    def score(self, design: MaskDesign, first: Rows, ahead: Iterator[Rows]) -> Iterator[ScoredMasks]:
        """Yields each batch of masks with its scores, from the first rows and those that come behind."""
        session, names = self.reading.session, list(self.reading.names)
        open_sums, model, length = functools.cache(self.open_sums), bind_model(session, names), 0
        for masks in self.make_masks(design, first, ahead):
            if masks.length != length:  # other inputs may have a row for each mask
                length = masks.length
                model.bind(session.feed_image(self.image, self.reading.inputs, names, length))
            model.bind({MASK_INPUT: masks})
            values, _ = run_bound(session, model, length)
            scores = check_finite(measure(self.targets, self.reading.answer(values)))
            yield ScoredMasks(MasksOnDevice(masks, open_sums), scores)

    def make_masks(self, design: MaskDesign, first: Rows, ahead: Iterator[Rows]) -> Iterator[DeviceArray]:
        """Yields the masks of each batch; those of the next take their place."""
        session = self.reading.session
        model = open_on_device(
            session, self.graphs.write_masks(design, first, np.dtype(session.mask_type)), kept=[MASKS]
        )
        model.bind(design.shared)
        for rows in itertools.chain([first], ahead):
            model.bind(rows)
            _, made = model.run(len(next(iter(rows.values()))))
            yield made[MASKS]

    def open_sums(self, squares: bool) -> DeviceGraph:
        """Opens the model that adds up masks, and, where that is asked for, their squares."""
        session = self.reading.session
        written = self.graphs.write_sums(np.dtype(session.mask_type), squares=squares)
        return open_on_device(session, written, [SUMS, SQUARES] if squares else [SUMS])


@dataclasses.dataclass(frozen=True)
class DifferentiableOnDevice(Differentiable):
    """The model of a task, for methods that ask for gradients, where these stay on the device.

    Attributes:
        session: a session whose file holds gradients.
        inputs: the values of the model's inputs other than the image and the mask, by name.
        counting: function that starts to count up to a number of steps, to show progress.
        graphs: writers of the models that run beside the session's own.
    """

    graphs: DeviceGraphs

    def open_line(
        self, image: NDArray[np.float32], baseline: NDArray[np.float32], target: SettledTarget
    ) -> LineGradients:
        """Returns the function that adds up gradients at places on the straight way from a baseline to an image.

        Of several classes, and of an output's values, gradients are added up in memory, where each image may have
        weights of its own for them.
        """
        in_memory = super().open_line(image, baseline, target)
        if len(target.classes) != 1 or self.session.gradient_output is not None:
            return in_memory
        line = LineOnDevice(self, image, baseline, target.classes[0])

        def add_up(places: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float64]:
            if self.session.device is not None:
                try:
                    return line(places, weights)
                except BindingError as error:
                    self.session.leave_device(error)
            return in_memory(places, weights)

        return add_up


class LineOnDevice:
    """Adds up gradients on the straight way from a baseline to an image; called as :class:`LineGradients` is.

    Args:
        model: the model of a task.
        image: the image (1, ...).
        baseline: the baseline (1, ...).
        target: the class whose logit is differentiated.
    """

    def __init__(
        self, model: DifferentiableOnDevice, image: NDArray[np.float32], baseline: NDArray[np.float32], target: int
    ) -> None:
        self.model, self.image, self.baseline, self.target = model, image, baseline, target
        self.length = 0

    @functools.cached_property
    def steps(self) -> DeviceGraph:
        """The model that makes the images."""
        session: MaskedSession = self.model.session
        written = self.model.graphs.write_steps(self.image, np.dtype(session.image_type))
        steps = open_on_device(session, written, kept=[IMAGES])
        steps.bind({BASELINE: self.baseline, CHANGE: self.image - self.baseline})
        return steps

    @functools.cached_property
    def network(self) -> DeviceGraph:
        """The network with its gradient."""
        return bind_model(self.model.session, [OBJECTIVE], [GRADIENT_PREFIX + IMAGE])

    @functools.cached_property
    def sums(self) -> DeviceGraph:
        """The model that adds up gradients."""
        written = self.model.graphs.write_sums(np.dtype(self.model.session.image_type), squares=False)
        return open_on_device(self.model.session, written, [SUMS])

    def __call__(self, places: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the weighted sum of the gradients at some places."""
        session = self.model.session
        self.steps.bind({PLACES: places})
        _, made = self.steps.run(len(places))
        if self.length != len(places):  # other inputs may have a row for each image
            self.length = len(places)
            feed = session.feed_gradient(self.image, self.model.inputs, self.target, "logit", self.length)
            self.network.bind(feed)
        self.network.bind({session.metadata.image_input: made[IMAGES]})
        found, gradients = run_bound(session, self.network, len(places))
        self.sums.bind({VALUES: gradients[GRADIENT_PREFIX + IMAGE], WEIGHTS: weights[None].astype(np.float32)})
        sums, _ = self.sums.run(1)
        check_finite_gradients(objective=found[OBJECTIVE], image=sums[SUMS])
        return sums[SUMS].astype(np.float64).reshape(self.image.shape[1:])
