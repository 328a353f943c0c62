"""Gradients as part of the file: reverse-mode differentiation of an exported graph, in standard operators.

1. Model-local functions are inlined, and images and masks are brought to one batch, so that every (image, mask) pair
   has a gradient of its own.
2. The scores to differentiate are found: the logits, in front of a softmax or sigmoid where the network ends in one.
3. The loss end is added: the logit of the target, its log-softmax or its softmax, chosen by the input ``loss``.
4. The rules of :mod:`masktool.ops` walk the graph backwards.

Source: Griewank and Walther, "Evaluating Derivatives", 2nd edition, 2008, section 3.2.
"""

from __future__ import annotations

import dataclasses

import onnx_ir as ir
from onnx_ir.passes import common

from masktool.contract import (
    BATCH_AXIS,
    FEATURE_MAP,
    GRADIENT_PREFIX,
    LOSS_INPUT,
    LOSSES,
    MASK_INPUT,
    OBJECTIVE,
    TARGET_INPUT,
    Loss,
    OutputKind,
)
from masktool.errors import MasktoolError, UnsupportedOperatorError
from masktool.exporters.canonical import infer_shapes
from masktool.exporters.feature_maps import find_feature_map
from masktool.exporters.onnx_file import find_score_producer
from masktool.ops.builder import GraphBuilder, rank_of, sizes_of
from masktool.ops.gradients import GradientGraph

LOGIT, LOG_SOFTMAX, SOFTMAX = range(len(LOSSES))
NORMALISING = {"Softmax", "LogSoftmax", "Sigmoid"}


@dataclasses.dataclass(frozen=True)
class LossEnd:
    """The end of a graph whose gradient is wanted.

    Attributes:
        objective: (B,) what is differentiated.
        seed: (B, K) its gradient with respect to the scores.
    """

    objective: ir.Value
    seed: ir.Value


class Prologue(GraphBuilder):
    """Emits nodes in front of everything else."""

    prefix = "gradient_prologue"

    def __init__(self, graph: ir.Graph) -> None:
        super().__init__(graph)
        self._first = next(iter(graph))

    @property
    def label(self) -> str:
        """What the names of emitted nodes begin with."""
        return "gradient/inputs"

    def place(self, node: ir.Node) -> None:
        """Puts an emitted node in front of what was the first one."""
        self.graph.insert_before(self._first, node)


def add_gradients(
    model: ir.Model,
    image_input: str,
    class_output: str,
    output_kind: OutputKind | None,
    loss: Loss = "logit",
    feature_map: str | None = None,
) -> str | None:
    """Adds gradients with respect to the image, the mask (where there is one) and a feature map, in place.

    Inputs ``target`` (T,) int64, T the batch or 1, and ``loss`` () int64, optional, are added; outputs ``objective``
    (B,), ``gradient_image`` in the image's shape, ``gradient_mask`` (B, 1, H, W), ``feature_map`` and
    ``gradient_feature_map`` (B, c, h, w), all float32. B is the larger of the image's and the mask's batch.

    Args:
        model: a masked graph, or any canonical one.
        image_input: name of the image input.
        class_output: name of the output to differentiate, (N, K) or (N, K, 1, 1).
        output_kind: what that output holds.
        loss: the default of the input ``loss``.
        feature_map: name of a value (N, c, h, w); None takes the last one.

    Returns:
        The name of the feature map; None for a network without any.

    Raises:
        UnsupportedOperatorError: nodes without a gradient rule; it lists all of them. The model is then unusable.
        MasktoolError: no such feature map, or scores of no fixed number.
    """
    common.InlinePass()(model)
    sources = share_one_batch(model.graph, image_input)
    infer_shapes(model)
    scores = scores_of(model.graph, class_output)
    graph = GradientGraph(model.graph, sources.values())
    end = loss_end(graph, scores, output_kind, loss)
    chosen = find_feature_map(model.graph, feature_map, graph.needs)
    graph.add(scores, graph.reshaped_as(scores, end.seed))
    refused = graph.propagate()
    if refused:
        raise UnsupportedOperatorError(refused, what="no gradient rule")
    add_output(graph, OBJECTIVE, end.objective, [BATCH_AXIS])
    for name, source in sources.items():
        gradient = graph.total(source)
        assert source.shape is not None
        add_output(graph, GRADIENT_PREFIX + name, gradient or graph.zeros_like(source), source.shape)
    if chosen is not None:
        gradient = graph.total(chosen)
        assert chosen.shape is not None
        add_output(graph, FEATURE_MAP, chosen, chosen.shape)
        add_output(graph, GRADIENT_PREFIX + FEATURE_MAP, gradient or graph.zeros_like(chosen), chosen.shape)
    common.RemoveUnusedNodesPass()(model)
    common.NameFixPass()(model)
    return None if chosen is None else chosen.name


def share_one_batch(graph: ir.Graph, image_input: str) -> dict[str, ir.Value]:
    """Repeats a single image for many masks, and a single mask for many images.

    Returns:
        What stands for the image and the mask from there on, by "image" and "mask".
    """
    inputs = {value.name: value for value in graph.inputs}
    found = {"image": inputs[image_input]}
    if MASK_INPUT in inputs:
        found["mask"] = inputs[MASK_INPUT]
    prologue = Prologue(graph)
    users = {name: tuple(value.uses()) for name, value in found.items()}
    lengths = [prologue.length_of(value, 0) for value in found.values()]
    batch = lengths[0] if len(lengths) == 1 else prologue.emit("Max", *lengths)
    shape = prologue.emit("Concat", batch, prologue.constant([1, 1, 1], ir.DataType.INT64), axis=0)
    for name, value in tuple(found.items()):
        repeated = prologue.emit("Expand", value, shape)
        assert value.shape is not None
        repeated.shape = ir.Shape([BATCH_AXIS, *value.shape[1:]])
        for user, index in users[name]:
            user.replace_input_with(index, repeated)
        found[name] = repeated
    return found


def scores_of(graph: ir.Graph, class_output: str) -> ir.Value:
    """Returns the value to differentiate: what the last softmax or sigmoid reads, else the class output itself."""
    output = next(value for value in graph.outputs if value.name == class_output)
    producer = find_score_producer(output)
    if producer is not None and producer.op_type in NORMALISING and producer.inputs[0] is not None:
        return producer.inputs[0]
    return output


def loss_end(graph: GradientGraph, scores: ir.Value, output_kind: OutputKind | None, loss: Loss) -> LossEnd:
    """Emits what is differentiated, and its gradient with respect to the scores."""
    classes = count_scores(scores)
    flat = graph.emit("Reshape", scores, graph.ints(-1, classes))
    flat.shape, flat.type = ir.Shape([BATCH_AXIS, classes]), scores.type
    if output_kind == "binary":  # one logit against 0: two classes
        pair = graph.emit("Concat", graph.emit("Mul", flat, graph.number(0, flat)), flat, axis=1)
        end = softmax_end(graph, pair, 2, loss)
        return dataclasses.replace(end, seed=graph.emit("Slice", end.seed, graph.ints(1), graph.ints(2), graph.ints(1)))
    if output_kind == "sigmoid":
        return sigmoid_end(graph, flat, classes, loss)
    return softmax_end(graph, flat, classes, loss)


def count_scores(scores: ir.Value) -> int:
    """Returns K of scores (N, K) or (N, K, 1, 1)."""
    sizes = sizes_of(scores)
    classes = sizes[1] if rank_of(scores) > 1 else None
    if classes is None or any(size != 1 for size in sizes[2:]):
        raise MasktoolError(
            "the scores to differentiate have no fixed number",
            where=f"value {scores.name!r}",
            expected="(N, K) or (N, K, 1, 1)",
            got=scores.shape,
            fix="export without gradients",
        )
    return classes


def softmax_end(graph: GradientGraph, scores: ir.Value, classes: int, loss: Loss) -> LossEnd:
    """The loss end of scores of which one is right: ∂ z_t = e_t, ∂ log p_t = e_t − p, ∂ p_t = p_t (e_t − p)."""
    chosen = one_hot(graph, classes)
    shares = graph.emit("Softmax", scores, axis=1)
    share = picked(graph, shares, chosen)
    kinds = (picked(graph, scores, chosen), picked(graph, graph.emit("LogSoftmax", scores, axis=1), chosen), share)
    is_kind = loss_switch(graph, loss)
    objective = choose(graph, is_kind, kinds)
    zero, one = graph.number(0, scores), graph.number(1, scores)
    towards = graph.emit("Sub", chosen, graph.emit("Where", is_kind[LOGIT], zero, shares))
    seed = graph.emit("Mul", graph.emit("Where", is_kind[SOFTMAX], share, one), towards)
    return LossEnd(graph.emit("Squeeze", objective, graph.ints(1)), seed)


def sigmoid_end(graph: GradientGraph, scores: ir.Value, classes: int, loss: Loss) -> LossEnd:
    """The loss end of independent scores: ∂ z_t = e_t, ∂ log σ_t = (1 − σ_t) e_t, ∂ σ_t = σ_t (1 − σ_t) e_t."""
    chosen = one_hot(graph, classes)
    score = picked(graph, scores, chosen)
    share = graph.emit("Sigmoid", score)
    rest = graph.emit("Sub", graph.number(1, scores), share)
    logarithm = graph.emit("Neg", graph.emit("Softplus", graph.emit("Neg", score)))
    is_kind = loss_switch(graph, loss)
    objective = choose(graph, is_kind, (score, logarithm, share))
    slope = choose(graph, is_kind, (graph.number(1, scores), rest, graph.emit("Mul", share, rest)))
    return LossEnd(graph.emit("Squeeze", objective, graph.ints(1)), graph.emit("Mul", chosen, slope))


def one_hot(graph: GradientGraph, classes: int) -> ir.Value:
    """Adds the input ``target`` (T,) and returns it as (T, K) float32, 1 at the target."""
    target = ir.Value(name=TARGET_INPUT, shape=ir.Shape(["target_batch"]), type=ir.TensorType(ir.DataType.INT64))
    graph.graph.inputs.append(target)
    column = graph.emit("Unsqueeze", target, graph.ints(1))
    matches = graph.emit("Equal", column, graph.constant([range(classes)], ir.DataType.INT64))
    return graph.as_type(matches, ir.DataType.FLOAT)


def picked(graph: GradientGraph, scores: ir.Value, chosen: ir.Value) -> ir.Value:
    """Returns the scores of the target, (B, 1)."""
    return graph.emit("ReduceSum", graph.emit("Mul", scores, chosen), graph.ints(1), keepdims=1)


def loss_switch(graph: GradientGraph, loss: Loss) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Adds the optional input ``loss`` with its default; returns for each kind whether it is chosen."""
    name = LOSS_INPUT
    default = ir.tensor(LOSSES.index(loss), dtype=ir.DataType.INT64, name=name)
    switch = ir.Value(name=name, shape=ir.Shape([]), type=ir.TensorType(ir.DataType.INT64), const_value=default)
    graph.graph.inputs.append(switch)
    graph.graph.register_initializer(switch)
    first, second, third = (
        graph.emit("Equal", switch, graph.constant(kind, ir.DataType.INT64)) for kind in (LOGIT, LOG_SOFTMAX, SOFTMAX)
    )
    return first, second, third


def choose(
    graph: GradientGraph, is_kind: tuple[ir.Value, ir.Value, ir.Value], kinds: tuple[ir.Value, ir.Value, ir.Value]
) -> ir.Value:
    """Returns the value that belongs to the chosen loss."""
    later = graph.emit("Where", is_kind[LOG_SOFTMAX], kinds[LOG_SOFTMAX], kinds[SOFTMAX])
    return graph.emit("Where", is_kind[LOGIT], kinds[LOGIT], later)


def add_output(graph: GradientGraph, name: str, value: ir.Value, shape: ir.Shape | list[str]) -> None:
    """Makes a value an output of the graph, under a name of its own, as float32."""
    result = graph.emit("Identity", graph.as_type(value, ir.DataType.FLOAT))
    result.name, result.type = name, ir.TensorType(ir.DataType.FLOAT)
    result.shape = ir.Shape([BATCH_AXIS, *list(shape)[1:]])
    graph.graph.outputs.append(result)
