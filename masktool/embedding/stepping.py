"""Methods that differentiate the network on many images made from one; the first is the image itself."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import onnx_ir as ir

from masktool.contract import GRADIENT_PREFIX, OBJECTIVE
from masktool.embedding.flow import FLOAT, INT64, Flow
from masktool.embedding.method import Asked, Comparison, Explained, ExtraInput, Options
from masktool.embedding.network import Network
from masktool.embedding.rounds import Passed, RoundsMethod

COUNT = "count"
"""Name in ``asked.extra`` of the number of steps, (1,) int64."""


class Stepped(NamedTuple):
    """What the rows gave.

    Attributes:
        objectives: the target's logit of each row, (rows,) float32; the first is the image's.
        sums: what was added up over the rows, see :meth:`SteppingMethod.add`.
    """

    objectives: ir.Value
    sums: Sequence[ir.Value]


class SteppingMethod(RoundsMethod[Options]):
    """A method that differentiates the target's logit on many images made from one.

    A row is one of these images; row 0 is the image itself. The steps, whose gradients count, come behind the rows
    that do not. Their number may be an input of the file; the last round may then have rows beyond them.

    Class attributes:
        first_step: the number of rows before the steps.
        fewest_steps: the fewest steps that make a map; an input below counts as this.
        n_sums: the number of sums over the steps, each float32 in the shape of the image, from 0.
    """

    first_step: ClassVar[int] = 1
    fewest_steps: ClassVar[int] = 1
    n_sums: ClassVar[int] = 1

    @property
    def count_option(self) -> str:
        """The name of the option that says how many steps there are, and of the input."""
        assert self.options.samples_option is not None
        return self.options.samples_option

    @property
    def n_steps(self) -> int:
        """The number of steps; where an input says it, its default."""
        return int(getattr(self.options, self.count_option))

    @property
    def n_rows(self) -> int:
        """The number of steps, and of what comes before them."""
        return self.first_step + self.n_steps

    @property
    def is_counted_by_input(self) -> bool:
        """Whether an input of the file says how many steps there are."""
        return self.network.samples_input != "fixed"

    @property
    def chunk(self) -> int:
        """The number of rows in one round."""
        return self.chunk_limit if self.is_counted_by_input else super().chunk

    def check_samples_input(self) -> None:
        """Allows the number of steps to be an input."""

    def extra_inputs(self) -> tuple[ExtraInput, ...]:
        """Returns the number of steps, where it is an input."""
        if not self.is_counted_by_input:
            return ()
        default = [self.n_steps] if self.network.samples_input == "optional" else None
        return (ExtraInput(self.count_option, INT64, (1,), default),)

    def comparison(self) -> Comparison:
        """Returns the comparison with Python's steps, which are fed where the file cannot do without."""
        if self.network.samples_input != "required":
            return Comparison(self.options)
        return Comparison(self.options, {self.count_option: np.array([self.n_steps])})

    def count(self, flow: Flow, asked: Asked) -> ir.Value:
        """Returns the number of steps, (1,) float32."""
        return flow.as_type(asked.extra[COUNT], FLOAT)

    def are_steps(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits 1 for rows (m,) that are steps, 0 for others, in a shape that goes with images."""
        end = flow.emit("Add", asked.extra[COUNT], flow.integer(self.first_step))
        after = flow.emit("GreaterOrEqual", rows, flow.integer(self.first_step))
        return self.per_row(flow, flow.as_type(flow.emit("And", after, flow.emit("Less", rows, end)), FLOAT))

    def prepare(self, flow: Flow, asked: Asked) -> Mapping[str, ir.Value]:  # noqa: ARG002  # many need nothing
        """Emits what both the images and the map are made from, once, outside the loop; by names of the method's own.

        The values join ``asked.extra``.
        """
        return {}

    @abc.abstractmethod
    def images(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits the images (m, ...) float32 of rows (m,) int64, from ``asked.image`` (1, ...) in float32."""

    @abc.abstractmethod
    def add(
        self, flow: Flow, rows: ir.Value, gradients: ir.Value, sums: Sequence[ir.Value], asked: Asked
    ) -> list[ir.Value]:
        """Emits the sums (1, ...) with what the gradients (m, ...) of rows (m,) add."""

    @abc.abstractmethod
    def finish(self, flow: Flow, stepped: Stepped, asked: Asked) -> Explained:
        """Emits the map, and what goes with it; the predictions stay empty."""

    def emit(self, flow: Flow, asked: Asked) -> Explained:
        """Emits the loop over the rows, and what is made of their gradients."""
        shape = [1, *self.network.image_shape]
        image = flow.typed(flow.as_type(asked.image, FLOAT), FLOAT, shape)
        steps = self.settle_count(flow, asked.extra.get(self.count_option))
        asked = asked._replace(image=image, extra={COUNT: steps})
        asked = asked._replace(extra={COUNT: steps, **self.prepare(flow, asked)})
        zeros = flow.emit("ConstantOfShape", flow.ints(*shape), value=ir.tensor([0], dtype=FLOAT))
        sums = [flow.typed(zeros, FLOAT, shape)] * self.n_sums
        rounds = self.run_rounds(flow, self.network.differentiable(), sums, asked, self.count_rounds(flow, steps))
        objectives = flow.typed(flow.reshape(rounds.stacked[0], -1), FLOAT, [None])
        return self.finish(flow, Stepped(objectives, rounds.sums), asked)._replace(predictions=rounds.predictions)

    def settle_count(self, flow: Flow, given: ir.Value | None) -> ir.Value:
        """Returns the number of steps, (1,) int64, from the input where there is one."""
        if given is None:
            return flow.ints(self.n_steps)
        return flow.emit("Max", given, flow.integer(self.fewest_steps))

    def count_rounds(self, flow: Flow, steps: ir.Value) -> ir.Value | int:
        """Returns the number of rounds that the steps (1,), and what comes before them, need."""
        if not self.is_counted_by_input:
            return self.n_rows // self.chunk
        rows = flow.emit("Add", steps, flow.integer(self.first_step + self.chunk - 1))
        return flow.emit("Squeeze", flow.emit("Div", rows, flow.integer(self.chunk)), flow.ints(0))

    def emit_pass(
        self, flow: Flow, network: Network, rows: ir.Value, target: ir.Value, sums: Sequence[ir.Value], asked: Asked
    ) -> Passed:
        """Emits the images of one round, and the network with its gradient on them."""
        shape = [self.chunk, *self.network.image_shape]
        images = flow.typed(self.images(flow, rows, asked), FLOAT, shape)
        found, target = network.place_differentiated(flow, images, target, asked.others, one_image=True)
        gradients = flow.typed(found[GRADIENT_PREFIX + "image"], FLOAT, shape)
        objectives = flow.typed(found[OBJECTIVE], FLOAT, [self.chunk])
        added = [
            flow.typed(each, FLOAT, [1, *self.network.image_shape])
            for each in self.add(flow, rows, gradients, sums, asked)
        ]
        return Passed(found, target, added, [objectives])

    def per_row(self, flow: Flow, values: ir.Value) -> ir.Value:
        """Returns numbers (m,), one for each row, in a shape that goes with images."""
        return flow.reshape(values, -1, 1, 1, 1)

    def sum_of_rows(self, flow: Flow, values: ir.Value) -> ir.Value:
        """Returns the sum (1, ...) of the images (m, ...) of one round."""
        return values if self.chunk == 1 else flow.emit("ReduceSum", values, flow.ints(0), keepdims=1)
