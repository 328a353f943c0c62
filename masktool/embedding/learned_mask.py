"""Methods that learn a mask, in the graph: one loop that predicts, learns, and judges the mask.

The network stands in the loop's body once. Its first step sees the image as it is: the prediction, and the class to
explain. Then it sees the image under the mask of each step of learning, with the gradient by which the mask is changed;
and last, under the learned mask cut at .5. A step takes one row, or two where a mask is learned in two games.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
import onnx_ir as ir

from masktool.contract import GRADIENT_PREFIX, OBJECTIVE, Loss
from masktool.embedding.baseline import emit_baseline
from masktool.embedding.flow import FLOAT, INT64, Flow
from masktool.embedding.iterations import ITERATIONS, IteratedMethod
from masktool.embedding.learning import Losses, begin_memory, emit_change, emit_slowed
from masktool.embedding.method import Asked, Comparison, Explained
from masktool.embedding.network import Network
from masktool.embedding.rounds import Passed, choose_chunk
from masktool.explainers.hiding import check_through
from masktool.explainers.learned_mask import LearnedMask
from masktool.explainers.learning import Momentum, RmsProp
from masktool.explainers.mask_figures import CUT

LearnedOptions = TypeVar("LearnedOptions", bound=LearnedMask)

PREDICTING, LEARNING, JUDGING, OVER = range(4)
"""What a step is for, one after the other."""
FILL = "fill"
"""Name in :attr:`.method.Asked.extra` of the values that missing pixels take."""


class State(NamedTuple):
    """What one round hands to the next.

    Attributes:
        phase: what the step is for, () int64.
        step: the number of steps of learning so far, () int64.
        parameters: what the mask is made of, float32.
        memory: the optimiser's memory, of the shape of the parameters.
        latest: the losses of the latest steps, see :class:`.learning.Losses`.
        lowest: the lowest of those before, (1,).
        objective: what the rows of the step gave so far, (1,).
        gradient: their gradient with respect to the mask, (1, 1, h, w).
        kept: whether the class came first in the latest row, (1,) float32.
    """

    phase: ir.Value
    step: ir.Value
    parameters: ir.Value
    memory: ir.Value
    latest: ir.Value
    lowest: ir.Value
    objective: ir.Value
    gradient: ir.Value
    kept: ir.Value

    def declared_like(self, flow: Flow, before: State) -> State:
        """Declares the types and shapes of the values before on these, and returns these."""
        for value, other in zip(self, before, strict=True):
            assert other.shape is not None
            flow.typed(value, other.dtype or FLOAT, list(other.shape))
        return self


class Softened(NamedTuple):
    """The mask (1, 1, h, w) that parameters make, and what its gradient needs besides."""

    masks: ir.Value
    others: Sequence[ir.Value] = ()


class MaskAnswer(NamedTuple):
    """The objective (1,) of a step, and its gradient with respect to the mask (1, 1, h, w)."""

    objective: ir.Value
    gradient: ir.Value


class LearnedMaskMethod(IteratedMethod[LearnedOptions]):
    """A method that learns a mask.

    Class attributes:
        loss: what is differentiated.
        compared_iterations: the number of steps over which the mask in the file is compared with Python's at export.
            Every stage of the method and the optimiser's memory are in them. They are few, because a descent enlarges
            what rounding leaves, however right the file is, and a whole one takes as long as explaining does, twice.
        comparison_limit: the largest difference that rounding leaves after the steps that an export compares, where
            that is more than of other methods; otherwise 0.
    """

    loss: ClassVar[Loss]
    compared_iterations: ClassVar[int]
    comparison_limit: ClassVar[float] = 0

    @property
    def signs(self) -> tuple[float, ...]:
        """The weight of the objective of each row of a step; below 0, the row sees what the mask leaves."""
        return (1.0,)

    @property
    @abc.abstractmethod
    def optimiser(self) -> RmsProp | Momentum:
        """The optimiser of one mask."""

    @abc.abstractmethod
    def start(self, flow: Flow) -> ir.Value:
        """Emits the parameters to start from, float32 of a declared shape."""

    @abc.abstractmethod
    def soften(self, flow: Flow, parameters: ir.Value) -> Softened:
        """Emits the mask that parameters make."""

    @abc.abstractmethod
    def evaluate(
        self, flow: Flow, parameters: ir.Value, soft: Softened, answer: MaskAnswer, step: ir.Value, steps: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """Emits the whole loss (1,) of a step, and its gradient with respect to the parameters.

        Args:
            flow: the graph to emit into.
            parameters: the parameters.
            soft: the mask that they make.
            answer: what the network gives under it.
            step: the number of the step, () int64.
            steps: the number of all steps, () int64.
        """

    def attributions(self, flow: Flow, masks: ir.Value) -> ir.Value:  # noqa: ARG002  # most masks stay as they are
        """Emits the map (1, 1, h, w) of a learned mask."""
        return masks

    def bounded(self, flow: Flow, parameters: ir.Value) -> ir.Value:  # noqa: ARG002  # most are not bounded
        """Emits parameters brought into their bounds."""
        return parameters

    def settles_from(self, flow: Flow, steps: ir.Value) -> ir.Value:  # noqa: ARG002  # most may settle from the start
        """Emits the first step whose loss counts for settling, () int64."""
        return flow.integer(0)

    def comparison(self) -> Comparison:
        """Returns how the file is compared with Python: over the first few steps."""
        steps = min(self.n_iterations, self.compared_iterations)
        method = dataclasses.replace(self.options, n_iterations=steps)
        feeds = {ITERATIONS: np.array([steps])}
        return Comparison(method, feeds, {ITERATIONS: self.n_iterations}, self.comparison_limit)

    @property
    def n_rows(self) -> int:
        """The number of rows of the prediction, of all steps that the option asks for, and of the judgement."""
        return (self.n_iterations + 2) * len(self.signs)

    @property
    def chunk(self) -> int:
        """The number of rows in one round, all of one step."""
        return choose_chunk(len(self.signs), self.chunk_limit)

    def emit(self, flow: Flow, asked: Asked) -> Explained:
        """Emits the loop, and the map of the mask that it ends with."""
        check_through(self.options.through, self.network.metadata.masking)
        through_layers = self.options.through == "layer"
        image = flow.typed(flow.as_type(asked.image, FLOAT), FLOAT, [1, *self.network.image_shape])
        asked = asked._replace(image=image)
        if not through_layers:
            fill = emit_baseline(flow, self.network, image, self.options.baseline)
            asked = asked._replace(extra={**asked.extra, FILL: fill})
        steps = flow.emit("Add", self.emit_iterations(flow, asked), flow.integer(2))
        rounds = flow.emit("Mul", steps, flow.integer(len(self.signs) // self.chunk))
        network = self.network.differentiable(self.loss, takes_masks=through_layers)
        found = self.run_rounds(flow, network, self.begin(flow), asked, flow.typed(rounds, INT64, []), goes_on)
        last = State(*found.sums)
        masks = self.attributions(flow, self.soften(flow, last.parameters).masks)
        figures = {
            "kept_cut": last.kept,
            "iterations": flow.typed(flow.reshape(flow.as_type(last.step, FLOAT), 1), FLOAT, [1]),
        }
        return Explained(found.predictions, flow.typed(masks, FLOAT, [1, 1, *self.network.size]), figures=figures)

    def begin(self, flow: Flow) -> State:
        """Emits what the first round starts from."""
        parameters = self.start(flow)
        none = Losses.none(flow)
        return State(
            phase=flow.integer(PREDICTING),
            step=flow.integer(0),
            parameters=parameters,
            memory=flow.filled(declared_shape(parameters), begin_memory(self.optimiser)),
            latest=none.latest,
            lowest=none.lowest,
            objective=flow.floats([0]),
            gradient=flow.filled([1, 1, *self.network.size], 0),
            kept=flow.floats([0]),
        )

    def emit_pass(
        self, flow: Flow, network: Network, rows: ir.Value, target: ir.Value, sums: Sequence[ir.Value], asked: Asked
    ) -> Passed:
        """Emits the network on the rows of one round and, behind the last row of a step, the change of the mask."""
        before = State(*sums)
        soft = self.soften(flow, before.parameters)
        judging = flow.emit("Equal", before.phase, flow.integer(JUDGING))
        places = flow.emit("Mod", rows, flow.integer(len(self.signs)))
        seen = self.seen_by(flow, soft, places)
        if self.options.through == "layer":
            seen = leaking(flow, seen, self.options.leak)
        shown = flow.emit("Where", judging, self.judged(flow, soft), seen)
        predicting = flow.emit("Equal", before.phase, flow.integer(PREDICTING))
        found, target, answers = self.hide(flow, network, shown, predicting, target, asked)
        answer = self.add_up(flow, answers, places, before)
        after = self.step(flow, before, soft, answer, places, self.emit_iterations(flow, asked))
        top = flow.rows(flow.emit("ArgMax", network.probabilities(flow, found), axis=1, keepdims=0), 0, 1)
        after = after._replace(kept=flow.as_type(flow.emit("Equal", top, target), FLOAT))
        outputs = {name: found[name] for name in network.outputs}
        return Passed(outputs, target, after.declared_like(flow, before), [])

    def judged(self, flow: Flow, soft: Softened) -> ir.Value:
        """Emits the mask that is judged at the end: the map cut at .5, or what it leaves where that is to be kept."""
        masks = self.attributions(flow, soft.masks)
        if self.signs == (-1.0,):
            masks = flow.emit("Sub", flow.floats(1), masks)
        return cut(flow, masks)

    def seen_by(self, flow: Flow, soft: Softened, places: ir.Value) -> ir.Value:
        """Emits the masks (m, 1, h, w) of rows at places (m,) of a step."""
        left = flow.emit("Sub", flow.floats(1), soft.masks)
        if len(self.signs) == 1:
            return soft.masks if self.signs[0] > 0 else left
        keeps = flow.emit("Gather", flow.floats(self.signs), places)
        return flow.emit("Where", flow.reshape(flow.positive(keeps), -1, 1, 1, 1), soft.masks, left)

    def hide(
        self, flow: Flow, network: Network, masks: ir.Value, predicting: ir.Value, target: ir.Value, asked: Asked
    ) -> tuple[dict[str, ir.Value], ir.Value, MaskAnswer]:
        """Emits the network on the image under masks (m, 1, h, w), or on the image as it is.

        Returns:
            The network's outputs, the class that is explained, and each row's objective and gradient.
        """
        if self.options.through == "layer":
            shown = flow.emit("Where", predicting, flow.floats(1), masks)
            flow.typed(shown, FLOAT, [self.chunk, 1, *self.network.size])
            image = flow.as_type(asked.image, network.image_type)
            found, target = network.place_differentiated(flow, image, target, asked.others, one_image=True, masks=shown)
            return found, target, MaskAnswer(found[OBJECTIVE], found[GRADIENT_PREFIX + "mask"])
        fill = asked.extra[FILL]
        missing = flow.emit("Sub", asked.image, fill)
        if self.network.channel_axis != 1:
            masks = flow.reshape(masks, -1, *self.network.size, 1)
        blended = flow.emit("Add", fill, flow.emit("Mul", masks, missing))
        images = flow.as_type(flow.emit("Where", predicting, asked.image, blended), network.image_type)
        flow.typed(images, network.image_type, [self.chunk, *self.network.image_shape])
        found, target = network.place_differentiated(flow, images, target, asked.others, one_image=True)
        along = flow.emit("Mul", found[GRADIENT_PREFIX + "image"], missing)
        gradient = flow.emit("ReduceSum", along, flow.ints(self.network.channel_axis), keepdims=0)
        return found, target, MaskAnswer(found[OBJECTIVE], flow.reshape(gradient, -1, 1, *self.network.size))

    def add_up(self, flow: Flow, answers: MaskAnswer, places: ir.Value, before: State) -> MaskAnswer:
        """Emits the sum over the rows of a step so far; a mask that takes away turns its gradient's sign twice."""
        if len(self.signs) == 1:
            sign = flow.floats(self.signs)
            return (
                answers
                if self.signs[0] > 0
                else MaskAnswer(flow.emit("Mul", answers.objective, sign), answers.gradient)
            )
        signs = flow.emit("Gather", flow.floats(self.signs), places)
        beginning = flow.emit("Equal", flow.rows(places, 0, 1), flow.integer(0))
        sums = []
        for values, so_far in (
            (flow.emit("Mul", answers.objective, signs), before.objective),
            (answers.gradient, before.gradient),
        ):
            total = flow.emit("ReduceSum", values, flow.ints(0), keepdims=1)
            sums.append(flow.emit("Add", flow.emit("Where", beginning, flow.floats(0), so_far), total))
        return MaskAnswer(*sums)

    def step(
        self, flow: Flow, before: State, soft: Softened, answer: MaskAnswer, places: ir.Value, steps: ir.Value
    ) -> State:
        """Emits the state after the rows of a round: with other parameters behind the last row of a step."""
        loss, gradient = self.evaluate(flow, before.parameters, soft, answer, before.step, steps)
        learning = flow.emit("Equal", before.phase, flow.integer(LEARNING))
        last = flow.emit("Equal", flow.rows(places, self.chunk - 1, self.chunk), flow.integer(len(self.signs) - 1))
        whole = flow.emit("Squeeze", last, flow.ints(0))
        moves = flow.emit("And", learning, whole)
        change, memory = emit_change(flow, self.optimiser, gradient, before.memory)
        if self.options.final_rate != 1:
            change = flow.emit("Mul", emit_slowed(flow, self.options.final_rate, before.step, steps), change)
        parameters = self.bounded(flow, flow.emit("Add", before.parameters, change))
        losses = self.count_loss(flow, before, flow.reshape(loss, 1), moves, steps)
        made = flow.emit("Add", before.step, flow.as_type(moves, INT64))
        ends = flow.emit("GreaterOrEqual", made, steps)
        if self.options.tolerance:
            ends = flow.emit("Or", ends, losses.have_settled(flow, self.options.tolerance))
        stays = flow.emit("And", learning, flow.emit("Not", ends))
        moved_on = flow.emit("Where", stays, before.phase, flow.emit("Add", before.phase, flow.integer(1)))
        return State(
            phase=flow.emit("Where", whole, moved_on, before.phase),
            step=made,
            parameters=flow.emit("Where", moves, parameters, before.parameters),
            memory=flow.emit("Where", moves, memory, before.memory),
            latest=losses.latest,
            lowest=losses.lowest,
            objective=flow.reshape(answer.objective, 1),
            gradient=flow.emit("Identity", answer.gradient),
            kept=before.kept,
        )

    def count_loss(self, flow: Flow, before: State, loss: ir.Value, moves: ir.Value, steps: ir.Value) -> Losses:
        """Emits the losses with that of a step of learning, if it counts for settling."""
        first = self.settles_from(flow, steps)
        counts = flow.emit("And", moves, flow.emit("GreaterOrEqual", before.step, first))
        number = flow.emit("Max", flow.emit("Sub", before.step, first), flow.integer(0))
        return Losses(before.latest, before.lowest).with_loss(flow, loss, number, counts)


def goes_on(flow: Flow, sums: Sequence[ir.Value]) -> ir.Value:
    """Emits whether another round follows."""
    return flow.emit("Less", State(*sums).phase, flow.integer(OVER))


def cut(flow: Flow, masks: ir.Value) -> ir.Value:
    """Emits masks cut at .5."""
    return flow.as_type(flow.emit("GreaterOrEqual", masks, flow.floats(CUT)), FLOAT)


def leaking(flow: Flow, masks: ir.Value, leak: float) -> ir.Value:
    """Emits masks cut at .5, with ``leak`` in place of 0 and 1 - ``leak`` in place of 1."""
    kept = flow.emit("GreaterOrEqual", masks, flow.floats(CUT))
    return flow.emit("Where", kept, flow.floats(1 - leak), flow.floats(leak))


def declared_shape(value: ir.Value) -> tuple[int, ...]:
    """Returns the declared shape of a value, all of whose lengths are known."""
    assert value.shape is not None
    return tuple(length for length in value.shape if isinstance(length, int))
