"""Methods that differentiate the network on many images made from one; the first is the image itself."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import onnx_ir as ir

from masktool.contract import GRADIENT_PREFIX, OBJECTIVE
from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.method import Asked, Explained, Options
from masktool.embedding.network import Network
from masktool.embedding.rounds import Passed, RoundsMethod


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

    A row is one of these images; row 0 is the image itself. The steps, whose gradients count, come last.

    Class attributes:
        first_step: the number of rows before the steps.
    """

    first_step: ClassVar[int] = 1

    @property
    @abc.abstractmethod
    def n_steps(self) -> int:
        """The number of steps."""

    @property
    def n_rows(self) -> int:
        """The number of steps, and of what comes before them."""
        return self.first_step + self.n_steps

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

    @property
    @abc.abstractmethod
    def n_sums(self) -> int:
        """The number of sums, each float32 in the shape of the image, from 0."""

    @abc.abstractmethod
    def finish(self, flow: Flow, stepped: Stepped, asked: Asked) -> Explained:
        """Emits the map, and what goes with it; the predictions stay empty."""

    def emit(self, flow: Flow, asked: Asked) -> Explained:
        """Emits the loop over the rows, and what is made of their gradients."""
        shape = [1, *self.network.image_shape]
        image = flow.typed(flow.as_type(asked.image, FLOAT), FLOAT, shape)
        asked = asked._replace(image=image)
        asked = asked._replace(extra={**asked.extra, **self.prepare(flow, asked)})
        zeros = flow.emit("ConstantOfShape", flow.ints(*shape), value=ir.tensor([0], dtype=FLOAT))
        sums = [flow.typed(zeros, FLOAT, shape)] * self.n_sums
        rounds = self.run_rounds(flow, self.network.differentiable(), sums, asked)
        objectives = flow.typed(flow.reshape(rounds.stacked[0], -1), FLOAT, [self.n_rows])
        return self.finish(flow, Stepped(objectives, rounds.sums), asked)._replace(predictions=rounds.predictions)

    def emit_pass(
        self, flow: Flow, network: Network, rows: ir.Value, target: ir.Value, sums: Sequence[ir.Value], asked: Asked
    ) -> Passed:
        """Emits the images of one round, and the network with its gradient on them."""
        shape = [self.chunk, *self.network.image_shape]
        images = flow.typed(self.images(flow, rows, asked), FLOAT, shape)
        found, target = network.place_differentiated(
            flow, flow.as_type(images, network.image_type), target, asked.others, one_image=True
        )
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
