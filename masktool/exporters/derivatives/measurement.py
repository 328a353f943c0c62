"""Measures a graph with gradients: its own outputs against the source's, its gradients against central differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from masktool.errors import MasktoolError, needing_memory, reported_as
from masktool.exporters.derivatives.central_differences import (
    EXACT_STEP,
    SMALLEST,
    CentralDifferences,
    SlopeAgreement,
    compare_gradient,
    median_of,
)
from masktool.exporters.derivatives.differentiation import DerivativeGraph
from masktool.exporters.derivatives.float64 import Forward, count_products, possible_forwards
from masktool.exporters.derivatives.points import Drawing, Feed, find_drawing
from masktool.exporters.derivatives.scalar_ends import summands_of
from masktool.exporters.derivatives.source import GraphSource
from masktool.exporters.differences import relative_difference
from masktool.exporters.parity import DEFECT
from masktool.exporters.storage import open_model
from masktool.exporters.tolerance import BATCH_TOLERANCE, HALF_TOLERANCE, SPREAD_FACTOR
from masktool.messages import Placeholder, parameter

POINTS = 3
"""Points that are measured; the median counts, so that a kink at one of them does not."""
LARGEST_REPEATED = 1e8
"""Products of numbers in one pass beyond which a single point is measured."""
EXACT_LIMIT = 1e-2
"""Relative to the length of the gradient: what the file, which computes in float32, may lie from float64. Small
networks show 1e-7; in large ones rounding puts activations on the other side of their kinks, 4e-3 on a detector."""
SINGLE_LIMIT = 2e-2
"""The same where central differences are of float32, which tell it no better; what they disagree by is added."""
LARGEST_SPREAD = 0.2
"""Relative to the length of the gradient: where central differences disagree by more, they tell nothing."""
CONFIRMED = 1e-3
"""Relative to max |output|: a network in float64 that lies farther from the same in float32 computes something else."""
LARGEST_BEND = 1e-2
"""Of what a step ahead and one back differ by: by how much these are unlike where nothing is rounded to float32."""
ROUNDING = 1e-12
"""Relative to max |output|: what float64 itself rounds."""
NEEDS_VALUES = "give values at which it is smooth: "


class DerivativeFigures(NamedTuple):
    """What was measured.

    Attributes:
        figures: figures by name, and what they were measured against and on.
        drawing: how the points were drawn.
        mixes: whether, as measured, a row of the batch changes another's results.
        zero: names of inputs whose gradient is 0 at all points.
        ranks: the number of axes of every output of the file, by name.
    """

    figures: Mapping[str, float | str]
    drawing: Drawing
    mixes: bool
    zero: tuple[str, ...]
    ranks: Mapping[str, int]


def measure_derivative(
    source: GraphSource,
    graph: DerivativeGraph,
    file: onnxruntime.InferenceSession,
    given: Mapping[str, npt.ArrayLike],
) -> DerivativeFigures:
    """Measures a graph with gradients on random points.

    Args:
        source: the network as it was read.
        graph: the graph with gradients.
        file: the same as it will be written, in a session.
        given: values for inputs, by name, which are fed in place of random ones.

    Raises:
        MasktoolError: the network does not run, or gives something else than the file, or a gradient is wrong.
    """
    plain = open_model(source.model)
    names = [each.name for each in plain.get_outputs()]
    inputs = [value for value in source.model.graph.inputs if value.name not in source.model.graph.initializers]
    drawing = find_drawing(inputs, given, lambda feed: run_named(plain, feed)[graph.output])
    rng = np.random.default_rng(0)
    feeds = [drawing.draw(rng) for _ in range(POINTS)]
    answer = run_named(plain, feeds[0])
    check_rows(answer[graph.output], feeds[0], graph)
    differences = choose_differences(graph, plain, feeds[0], answer[graph.output])
    outputs, points, found = 0.0, [], dict[str, np.ndarray]()
    for feed in feeds if count_products(graph.plain, feeds[0]) <= LARGEST_REPEATED else feeds[:1]:
        expected = run_named(plain, feed)
        weights = draw_weights(graph, expected[graph.output], rng)
        found = run_named(file, feed if weights is None else {**feed, str(graph.weights): weights})
        outputs = max(outputs, relative_difference([found[each] for each in names], [expected[each] for each in names]))
        check_numbers(found, weights, graph, max(BATCH_TOLERANCE, half_tolerance(plain)))
        points.append(compare_all(differences, feed, weights, graph, found, rng))
    figures = judge_derivative(graph, points, outputs, differences, source)
    zero = tuple(name for name in graph.gradients if all(point[name].is_zero for point in points))
    return DerivativeFigures(
        {**figures, "points": drawing.kind},
        drawing,
        changes_other_rows(plain, feeds, graph),
        zero,
        {name: array.ndim for name, array in found.items()},
    )


def run_named(session: onnxruntime.InferenceSession, feed: Feed) -> dict[str, np.ndarray]:
    """Returns the outputs of a run by their names."""
    names = [each.name for each in session.get_outputs()]
    with needing_memory("the model does not run"), reported_as("the model does not run"):
        results = session.run(names, feed)
    return {name: np.asarray(each) for name, each in zip(names, results, strict=True)}


def check_rows(output: np.ndarray, feed: Feed, graph: DerivativeGraph) -> None:
    """Raises MasktoolError where the first axis of an output turns out not to be the batch, or a place is outside."""
    lengths = {len(feed[name]) for name in graph.gradients if feed[name].ndim}
    if graph.batched and graph.weights is None and len(output) not in lengths:
        raise MasktoolError(
            "the output does not hold one row for each of the batch, so that it is not known whose number is meant",
            where=parameter("output", graph.output),
            expected=f"{' or '.join(map(str, sorted(lengths)))} rows",
            got=len(output),
            fix="weigh its numbers yourself: " + parameter("target", "weights"),
        )
    rest = output.shape[int(graph.batched) :]
    if isinstance(graph.scalar, tuple) and any(
        index >= length for index, length in zip(graph.scalar, rest, strict=True)
    ):
        raise MasktoolError(
            "no such number",
            where=parameter("output", graph.output) + ", " + parameter("target", graph.scalar),
            expected=f"indices within ({', '.join(map(str, rest))}), as it is on what was tried",
            fix="feed what makes the output larger: " + parameter("inputs", Placeholder("NAME=FILE.npy")),
        )


def choose_differences(
    graph: DerivativeGraph, plain: onnxruntime.InferenceSession, feed: Feed, expected: np.ndarray
) -> CentralDifferences:
    """Returns what differences are taken of: the network in float64 where that runs and agrees, else in float32."""
    for forward in possible_forwards(graph.plain, feed):
        if agrees(forward, feed, expected, max(CONFIRMED, half_tolerance(plain)), graph):
            return CentralDifferences(forward, True, graph.scalar, graph.batched)
    session = open_model(graph.plain)
    return CentralDifferences(lambda point: np.asarray(session.run(None, point)[0]), False, graph.scalar, graph.batched)


def agrees(forward: Forward, feed: Feed, expected: np.ndarray, tolerance: float, graph: DerivativeGraph) -> bool:
    """Tells whether a network in float64 runs, gives what it gives in its own precision, and rounds nothing to that.

    What rounds to float32 on the way shows in steps ahead and back that differ by more than curvature makes them.
    """
    exact = {name: feed[name].astype(np.float64) for name in graph.gradients}
    rng = np.random.default_rng(1)  # of another seed than the points: a step along x changes nothing behind a norm
    step = {name: EXACT_STEP * rng.standard_normal(each.shape) for name, each in exact.items()}
    try:
        with reported_as("the network does not run in float64"):
            here = forward(feed)
            ahead, behind = (
                forward({**feed, **{name: each + way * step[name] for name, each in exact.items()}}) for way in (1, -1)
            )
    except MasktoolError:
        return False
    bend, rise = (np.abs(each).max(initial=0.0) for each in (ahead + behind - 2 * here, ahead - behind))
    smooth = bool(bend <= LARGEST_BEND * rise + ROUNDING * np.abs(here).max(initial=0.0))
    return smooth and relative_difference([here], [expected]) <= tolerance


def half_tolerance(session: onnxruntime.InferenceSession) -> float:
    """Returns by how much a network may be off for its output or input being of 16 bits."""
    types = {each.type for each in (*session.get_inputs(), *session.get_outputs())}
    found = (tolerance for half, tolerance in HALF_TOLERANCE.items() if f"tensor({half.name.lower()})" in types)
    return max(found, default=0.0)


def draw_weights(graph: DerivativeGraph, output: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Returns random weights of the output; None where the file takes none."""
    if graph.weights is None:
        return None
    dtype = np.float64 if output.dtype == np.float64 else np.float32
    return rng.standard_normal(output.shape).astype(dtype)


def check_numbers(
    found: Mapping[str, np.ndarray], weights: np.ndarray | None, graph: DerivativeGraph, tolerance: float
) -> None:
    """Raises MasktoolError where the numbers that are differentiated are not those of the output."""
    summands = summands_of(found[graph.output], graph.scalar, weights, batched=graph.batched)
    expected, given = float(summands.sum()), float(found[graph.objective].astype(np.float64).sum())
    if not abs(given - expected) <= tolerance * max(float(np.abs(summands).sum()), SMALLEST):
        raise MasktoolError(
            "the number that is differentiated is another than that of the output",
            where=f"output {graph.objective!r}",
            expected=expected,
            got=given,
            fix=DEFECT,
        )


def compare_all(
    differences: CentralDifferences,
    feed: Feed,
    weights: np.ndarray | None,
    graph: DerivativeGraph,
    found: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, SlopeAgreement]:
    """Returns how each gradient compares with central differences at one point, by the input's name.

    Raises:
        MasktoolError: a gradient has another shape than its input.
    """
    agreements = {}
    for name, output in graph.gradients.items():
        if found[output].shape != feed[name].shape:
            raise MasktoolError(
                "a gradient has another shape than what it is the gradient of",
                where=f"output {output!r}",
                expected=list(feed[name].shape),
                got=list(found[output].shape),
                fix=DEFECT,
            )
        agreements[name] = compare_gradient(differences, feed, weights, name, found[output], rng)
    return agreements


def judge_derivative(
    graph: DerivativeGraph,
    points: Sequence[Mapping[str, SlopeAgreement]],
    outputs: float,
    differences: CentralDifferences,
    source: GraphSource,
) -> dict[str, Any]:
    """Returns the figures of a file that may be written.

    Raises:
        MasktoolError: the outputs are others than the source's, or a gradient is not that of central differences.
    """
    half = max([HALF_TOLERANCE.get(value.dtype, 0.0) for value in weights_and_ends(source) if value.dtype], default=0.0)
    if not outputs <= max(BATCH_TOLERANCE, half):
        raise MasktoolError(
            "the graph with gradients gives something else than the network",
            where=source.name,
            expected=f"a difference of at most {max(BATCH_TOLERANCE, half):.1e} relative to max |output|",
            got=f"{outputs:.1e}",
            fix=DEFECT,
        )
    figures: dict[str, Any] = {"outputs": outputs}
    for name, output in graph.gradients.items():
        agreement = median_of(points, name)
        check_slopes(agreement, differences, output)
        figures[output] = agreement.difference
        if not differences.exact:
            figures["spread"] = max(figures.get("spread", 0.0), agreement.spread)
    return {**figures, "against": "float64" if differences.exact else "float32"}


def weights_and_ends(source: GraphSource) -> list[Any]:
    """Returns the weights, inputs and outputs of a network, whose types tell its precision."""
    graph = source.model.graph
    return [*graph.initializers.values(), *graph.inputs, *graph.outputs]


def check_slopes(agreement: SlopeAgreement, differences: CentralDifferences, output: str) -> None:
    """Raises MasktoolError where a gradient is not that of central differences, or these tell nothing."""
    where, values = f"output {output!r}", parameter("inputs", Placeholder("NAME=FILE.npy"))
    if agreement.spread > LARGEST_SPREAD:
        raise MasktoolError(
            "the gradient cannot be measured: central differences of the network disagree with one another, and "
            "nothing is written unmeasured",
            where=where,
            expected=f"at most {LARGEST_SPREAD} of the gradient between two steps",
            got=f"{agreement.spread:.1e}",
            fix=NEEDS_VALUES + values,
        )
    limit = EXACT_LIMIT if differences.exact else SINGLE_LIMIT + SPREAD_FACTOR * agreement.spread
    if not agreement.difference <= limit:
        raise MasktoolError(
            "the gradient is not that of central differences, and nothing was written",
            where=where,
            expected=f"a difference of at most {limit:.1e} of its length",
            got=f"{agreement.difference:.1e}",
            fix="where the network is not smooth, " + NEEDS_VALUES + values + "; else " + DEFECT,
        )


def changes_other_rows(session: onnxruntime.InferenceSession, feeds: list[Feed], graph: DerivativeGraph) -> bool:
    """Tells whether the last row of the batch changes the results of the first, as measured."""
    count = len(next(iter(feeds[0].values()))) if graph.batched else 1
    first, other = feeds[:2]
    if count < 2:
        return False
    changed = {name: array.copy() for name, array in first.items()}
    for name in graph.gradients:
        if changed[name].ndim and len(changed[name]) == count:
            changed[name][-1] = other[name][-1]
    before, after = (run_named(session, feed)[graph.output][0] for feed in (first, changed))
    return relative_difference([after], [before]) > BATCH_TOLERANCE
