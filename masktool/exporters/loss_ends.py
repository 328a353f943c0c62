"""What is differentiated at the end of a graph, and its gradient with respect to the scores: one end for each loss.

All are computed side by side, and the input ``loss`` picks one: scores are few beside a network; or one alone, where
nothing is to be picked. With z the scores, p
their softmax (or σ their sigmoid), t the target, e_t its unit vector and H the entropy in nats:

=============  ==========================  ====================  =============================  ==================
loss           of classes that exclude     gradient              of independent classes         gradient
=============  ==========================  ====================  =============================  ==================
logit          z_t                         e_t                   z_t                            e_t
log-softmax    log p_t                     e_t - p               log σ_t                        (1 - σ_t) e_t
softmax        p_t                         p_t (e_t - p)         σ_t                            σ_t (1 - σ_t) e_t
entropy        H = -Σ p_k log p_k          -p_k (log p_k + H)    H = Σ H(σ_k)                   -z_k σ_k (1 - σ_k)
=============  ==========================  ====================  =============================  ==================

One binary logit z stands for the pair of logits (0, z). Of probabilities p whose logits the graph does not hold, log p
stand for the logits, whose softmax is p; of independent ones log p - log(1 - p).

Source of the entropy as an objective: Phang, Park and Geras, "Investigating and Simplifying Masking-based Saliency
Methods for Model Interpretability", 2020, section 3, https://arxiv.org/abs/2010.09750; the gradients are calculus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from masktool.contract import BATCH_AXIS, BINARY_KINDS, LOSS_INPUT, LOSSES, TARGET_INPUT, Loss, OutputKind
from masktool.errors import MasktoolError
from masktool.ops.builder import dtype_of, rank_of, sizes_of
from masktool.ops.gradients import GradientGraph

LEAST = 1e-37
"""Probabilities below this count as this where their logarithm is taken: about the least that float32 holds in full."""
SURE = 1e4
"""Logits and log-probabilities beyond ± this weigh in the entropy as this: the probability is 0 in float32 long before
(below e^-104), and 0 · ∞ is not a number."""


class LossEnd(NamedTuple):
    """The end of a graph whose gradient is wanted.

    Attributes:
        objective: the value that is differentiated: (B, 1) for each loss, (B,) for the one chosen.
        seed: the gradient (B, K) of the objective with respect to the scores.
    """

    objective: ir.Value
    seed: ir.Value


def add_loss_end(
    graph: GradientGraph,
    scores: ir.Value,
    output_kind: OutputKind | None,
    loss: Loss,
    *,
    are_logits: bool = True,
    selectable: bool = True,
) -> LossEnd:
    """Adds the inputs ``target`` and ``loss``, and emits the end that ``loss`` chooses, in float32.

    Args:
        graph: the graph, behind whose nodes the end is emitted.
        scores: the scores to differentiate, (N, K), (N, K, 1, 1) or (N,).
        output_kind: what the class output holds, which tells whether classes exclude one another.
        loss: the default of the input ``loss``.
        are_logits: whether the scores are logits, whatever ``output_kind`` says of the output behind them.
        selectable: whether there is an input ``loss``; without it there is the end of ``loss`` alone.

    Returns:
        The objective (B,), float32, and the seed (B, K) in the element type of the scores.

    Raises:
        MasktoolError: the number of scores is not fixed.
    """
    classes = count_scores(scores)
    flat = graph.emit("Reshape", scores, graph.ints(-1, classes))
    flat.shape, flat.type = ir.Shape([BATCH_AXIS, classes]), scores.type
    given = graph.as_type(flat, ir.DataType.FLOAT)
    logits, slope = (given, None) if are_logits else logits_of(graph, given, output_kind)
    if output_kind in BINARY_KINDS:
        pair = graph.emit("Concat", graph.emit("Mul", logits, graph.number(0, logits)), logits, axis=1)
        ends = exclusive_ends(graph, pair, one_hot(graph, pair, 2))
        of_logit = (graph.ints(1), graph.ints(2), graph.ints(1))
        ends = {name: end._replace(seed=graph.emit("Slice", end.seed, *of_logit)) for name, end in ends.items()}
    else:
        make_ends = independent_ends if output_kind == "sigmoid" else exclusive_ends
        ends = make_ends(graph, logits, one_hot(graph, logits, classes))
    objective, seed = choose_end(graph, loss, ends) if selectable else ends[loss]
    if slope is not None:
        seed = graph.emit("Mul", seed, slope)
    return LossEnd(graph.emit("Squeeze", objective, graph.ints(1)), graph.as_type(seed, dtype_of(scores)))


def count_scores(scores: ir.Value) -> int:
    """Returns the number of scores per image: K of (N, K) or (N, K, 1, 1), 1 of (N,); MasktoolError where K is open."""
    sizes = sizes_of(scores)
    if rank_of(scores) == 1:
        return 1
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


def logits_of(graph: GradientGraph, shares: ir.Value, output_kind: OutputKind | None) -> tuple[ir.Value, ir.Value]:
    """Returns the logits of probabilities (B, K), and their derivative with respect to the probabilities."""
    one = graph.number(1, shares)
    share = graph.bounded(shares, low=LEAST)
    if output_kind == "probabilities":
        return graph.emit("Log", share), graph.emit("Reciprocal", share)
    rest = graph.bounded(graph.emit("Sub", one, shares), low=LEAST)
    logits = graph.emit("Sub", graph.emit("Log", share), graph.emit("Log", rest))
    return logits, graph.emit("Add", graph.emit("Reciprocal", share), graph.emit("Reciprocal", rest))


def exclusive_ends(graph: GradientGraph, logits: ir.Value, chosen: ir.Value) -> Mapping[Loss, LossEnd]:
    """Returns the ends, by loss, for classes that exclude one another."""
    shares, logs = graph.emit("Softmax", logits, axis=1), log_softmax(graph, logits)
    share, towards = picked(graph, shares, chosen), graph.emit("Sub", chosen, shares)
    surprise = graph.bounded(graph.emit("Neg", logs), high=SURE)
    entropy = sum_over_classes(graph, graph.emit("Mul", shares, surprise))
    slope = graph.emit("Mul", shares, graph.emit("Sub", surprise, entropy))
    return {
        "logit": LossEnd(picked(graph, logits, chosen), chosen),
        "log-softmax": LossEnd(picked(graph, logs, chosen), towards),
        "softmax": LossEnd(share, graph.emit("Mul", share, towards)),
        "entropy": LossEnd(entropy, slope),
    }


def log_softmax(graph: GradientGraph, logits: ir.Value) -> ir.Value:
    """Returns the logarithms (B, K) of the softmax of logits: LogSoftmax has no kernel on every device."""
    below = graph.emit("Sub", logits, graph.emit("ReduceMax", logits, graph.ints(1)))
    return graph.emit("Sub", below, graph.emit("Log", sum_over_classes(graph, graph.emit("Exp", below))))


def independent_ends(graph: GradientGraph, logits: ir.Value, chosen: ir.Value) -> Mapping[Loss, LossEnd]:
    """Returns the ends, by loss, for independent classes.

    A class's entropy is even in its logit: softplus(-|z|) + |z| σ(-|z|), in which nothing cancels. σ(-|z|) is written
    out, for ONNX Runtime's Sigmoid is coarse there, and 0 from about σ(-18) on.
    """
    score, one = picked(graph, logits, chosen), graph.number(1, logits)
    share = graph.emit("Sigmoid", score)
    rest = graph.emit("Sub", one, share)
    logarithm = graph.emit("Neg", graph.emit("Softplus", graph.emit("Neg", score)))
    bounded = graph.emit("Clip", logits, graph.number(-SURE, logits), graph.number(SURE, logits))
    size = graph.emit("Abs", bounded)
    negative = graph.emit("Neg", size)
    tail = graph.emit("Exp", negative)
    lesser = graph.emit("Div", tail, graph.emit("Add", one, tail))
    entropies = graph.emit("Add", graph.emit("Softplus", negative), graph.emit("Mul", size, lesser))
    slope = graph.emit("Mul", lesser, graph.emit("Sub", one, lesser))
    return {
        "logit": LossEnd(score, chosen),
        "log-softmax": LossEnd(logarithm, graph.emit("Mul", chosen, rest)),
        "softmax": LossEnd(share, graph.emit("Mul", chosen, graph.emit("Mul", share, rest))),
        "entropy": LossEnd(sum_over_classes(graph, entropies), graph.emit("Neg", graph.emit("Mul", bounded, slope))),
    }


def one_hot(graph: GradientGraph, logits: ir.Value, classes: int) -> ir.Value:
    """Adds the input ``target`` (T,), and returns a value (B, K) float32 that is 1 at the target and 0 elsewhere."""
    target = ir.Value(name=TARGET_INPUT, shape=ir.Shape(["target_batch"]), type=ir.TensorType(ir.DataType.INT64))
    graph.graph.inputs.append(target)
    column = graph.emit("Unsqueeze", target, graph.ints(1))
    matches = graph.emit("Equal", column, graph.constant([range(classes)], ir.DataType.INT64))
    return graph.emit("Expand", graph.as_type(matches, ir.DataType.FLOAT), graph.emit("Shape", logits))


def picked(graph: GradientGraph, values: ir.Value, chosen: ir.Value) -> ir.Value:
    """Returns the value (B, 1) at the target, of one value per class."""
    return sum_over_classes(graph, graph.emit("Where", graph.positive(chosen), values, graph.number(0, values)))


def sum_over_classes(graph: GradientGraph, values: ir.Value) -> ir.Value:
    """Returns the sum (B, 1) of values (B, K) over the classes."""
    return graph.emit("ReduceSum", values, graph.ints(1), keepdims=1)


def add_switch(graph: GradientGraph, loss: Loss) -> ir.Value:
    """Adds the optional input ``loss`` with its default, and returns it."""
    default = ir.tensor(LOSSES.index(loss), dtype=ir.DataType.INT64, name=LOSS_INPUT)
    shape, element = ir.Shape([]), ir.TensorType(ir.DataType.INT64)
    switch = ir.Value(name=LOSS_INPUT, shape=shape, type=element, const_value=default)
    graph.graph.inputs.append(switch)
    graph.graph.register_initializer(switch)
    return switch


def choose_end(graph: GradientGraph, loss: Loss, ends: Mapping[Loss, LossEnd]) -> LossEnd:
    """Adds the input ``loss`` with its default, and returns the end that it chooses."""
    switch = add_switch(graph, loss)
    objective = choose(graph, switch, [ends[name].objective for name in LOSSES])
    return LossEnd(objective, choose(graph, switch, [ends[name].seed for name in LOSSES]))


def choose(graph: GradientGraph, switch: ir.Value, kinds: Sequence[ir.Value]) -> ir.Value:
    """Returns the one of several values of one shape whose index the switch holds.

    ONNX Runtime refuses an index beyond them.
    """
    rows = [graph.emit("Unsqueeze", kind, graph.ints(0)) for kind in kinds]
    return graph.emit("Gather", graph.emit("Concat", *rows, axis=0), switch, axis=0)
