"""What a file with gradients differentiates: a loss of its class scores, or the weighed sum of an output's values.

Either adds the inputs that a caller chooses by, ``target`` and ``loss``, or ``output_weights``. With y the values of an
output for one image and w their weights, the number is Σ w · y and its gradient with respect to y is w, whatever the
output holds: one pass gives the gradient of every linear function of the output, and of any other function f whose
derivative is known where it is asked, w = ∂f/∂y.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, Protocol

import onnx_ir as ir

from masktool.contract import WEIGHTS_INPUT, Loss, OutputKind
from masktool.errors import MasktoolError
from masktool.exporters.class_candidates import count_columns, is_vector
from masktool.exporters.loss_ends import add_loss_end
from masktool.exporters.onnx_file import describe_value
from masktool.exporters.score_ends import is_unbounded, name_end
from masktool.exporters.score_paths import MEANS, NORMALISING, SUMS, find_score_producer
from masktool.exporters.value_bounds import lies_between_0_and_1
from masktool.messages import parameter
from masktool.ops.builder import dtype_of, rank_of
from masktool.ops.gradients import GradientGraph

PROBABILITY_KINDS = frozenset({"probabilities", "sigmoid", "binary-probability"})
"""Kinds of outputs that hold no logits themselves."""
WEIGHTS_BATCH = "weights_batch"
"""Name of the first axis of the weights: the batch, or 1."""


class GradientEnd(NamedTuple):
    """The end of a graph whose gradient is wanted.

    Attributes:
        value: the value that the backward walk begins at.
        objective: the numbers that are differentiated, (B,) float32.
        seed: their gradient with respect to the value, in its shape and type.
    """

    value: ir.Value
    objective: ir.Value
    seed: ir.Value


class Differentiated(Protocol):
    """What a file's gradients are of."""

    def add_to(self, graph: GradientGraph) -> GradientEnd:
        """Adds the inputs that choose what is differentiated, and emits its end behind the graph's nodes."""


@dataclasses.dataclass(frozen=True)
class ScoreLosses:
    """A class's score in one of its forms, or the entropy of all scores.

    Attributes:
        class_output: the name of the output that holds the scores, (N, K), (N, K, 1, 1) or (N,).
        output_kind: what it holds; None where that is not known.
        loss: the default of the input ``loss``.
        selectable: whether there is an input ``loss``; without it ``loss`` is all that can be differentiated.
    """

    class_output: str
    output_kind: OutputKind | None
    loss: Loss = "logit"
    selectable: bool = True

    def add_to(self, graph: GradientGraph) -> GradientEnd:
        """Adds ``target`` and ``loss``, and emits the loss; the backward walk begins at the logits, where they are."""
        scores, are_logits = scores_of(graph.graph, self.class_output, self.output_kind)
        end = add_loss_end(
            graph, scores, self.output_kind, self.loss, are_logits=are_logits, selectable=self.selectable
        )
        return GradientEnd(scores, end.objective, graph.reshaped_as(scores, end.seed))


@dataclasses.dataclass(frozen=True)
class WeighedOutput:
    """The sum of an output's values times their weights, which are an input.

    Attributes:
        output: the name of the output.
    """

    output: str

    def add_to(self, graph: GradientGraph) -> GradientEnd:
        """Adds ``output_weights``, in the output's shape, and emits the sum over each image's values."""
        output = find_weighed_output(graph.graph, self.output)
        shape = require_rows(output)
        weights = ir.Value(
            name=WEIGHTS_INPUT,
            shape=ir.Shape([WEIGHTS_BATCH, *shape[1:]]),
            type=ir.TensorType(ir.DataType.FLOAT),
        )
        graph.graph.inputs.append(weights)
        weighed = graph.emit("Mul", graph.as_type(output, ir.DataType.FLOAT), weights)
        axes = range(1, rank_of(output))
        objective = graph.emit("ReduceSum", weighed, graph.ints(*axes), keepdims=0) if axes else weighed
        spread = graph.emit("Expand", weights, graph.emit("Shape", output))
        return GradientEnd(output, objective, graph.like(output, graph.as_type(spread, dtype_of(output))))


def find_weighed_output(graph: ir.Graph, name: str) -> ir.Value:
    """Returns the output of a name whose values can be weighed.

    Raises:
        MasktoolError: there is no such output, or it holds no real numbers.
    """
    where = parameter("gradient_output", name)
    value = next((each for each in graph.outputs if each.name == name), None)
    if value is None:
        described = ", ".join(map(describe_value, graph.outputs))
        raise MasktoolError("no such output", where=where, expected="the name of an output", got=described)
    if value.dtype is None or not value.dtype.is_floating_point():
        raise MasktoolError(
            "only real numbers have a gradient", where=where, expected="a float output", got=describe_value(value)
        )
    return value


def require_rows(output: ir.Value) -> ir.Shape:
    """Returns the shape of an output that has a row for each image; MasktoolError where it has none."""
    shape = output.shape
    if shape is None or len(shape) == 0 or (isinstance(shape[0], int) and shape[0] != 1):
        raise MasktoolError(
            "the output has no row for each image, so that it is not known whose gradient is meant",
            where=parameter("gradient_output", str(output.name)),
            expected="a first axis of the images",
            got=describe_value(output),
        )
    return shape


def scores_of(graph: ir.Graph, class_output: str, output_kind: OutputKind | None) -> tuple[ir.Value, bool]:
    """Returns the value to differentiate, and whether it holds logits.

    The value is what the softmax or sigmoid at the end reads, or else the class output itself.
    """
    output = next(value for value in graph.outputs if value.name == class_output)
    producer = find_score_producer(output)
    if (logits := logits_before(producer, output)) is not None:
        return logits, True
    if output_kind not in PROBABILITY_KINDS or is_unbounded(output):
        return output, True
    open_end = producer is None or producer.op_type in SUMS | MEANS
    return output, open_end and not lies_between_0_and_1(output)


def logits_before(producer: ir.Node | None, output: ir.Value) -> ir.Value | None:
    """Returns what the softmax or sigmoid at the end reads; None where there is none, or columns are rearranged."""
    if producer is None or producer.op_type not in NORMALISING or name_end(output, count_columns(output)) is None:
        return None
    logits = producer.inputs[0]
    if logits is None or not is_vector(logits) or count_columns(logits) != count_columns(output):
        return None
    return logits
