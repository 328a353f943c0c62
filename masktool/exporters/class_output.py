"""Finds the output of a graph that holds class scores, what kind of scores they are, and the evidence for both.

A graph says little of what its numbers mean: class scores, landmarks and embeddings may all end in one Gemm. So
evidence is collected in words, and a decision is taken only where it leads to one:

1. A candidate is a floating-point output (N, K), (N, K, 1, 1) or (N,) that no operator has selected: what TopK, ArgMax,
   Hardmax, NonMaxSuppression or a comparison gave, moved about or not, holds no scores of all classes.
2. What the user says decides: a name, labels (as many as columns), a kind.
3. An output that another is computed from is a feature map, or the other's scores in front of their softmax: the last
   one counts. Not so where it ends in a softmax or sigmoid itself: class scores that a second head reads look like the
   weights of an attention, so that both are a question.
4. Evidence is a Softmax, LogSoftmax or Sigmoid over the columns; or a linear end together with labels, with the number
   of classes of a hub's configuration or of a well-known data set, or with a name such as ``logits``.
5. One candidate with evidence is taken. Several are a question. A lone candidate without evidence is taken too, of
   unknown kind, and that is said; unless something speaks against it, such as an L2 norm or a name (``landmarks``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import onnx_ir as ir

from masktool.contract import BINARY_KINDS, OutputKind
from masktool.errors import MasktoolError
from masktool.exporters.class_candidates import NOTHING_SAID, Candidate, Claims, describe_candidate, is_vector
from masktool.exporters.class_rivals import drop_inner, find_rivals, weigh_uses
from masktool.exporters.onnx_file import describe_value
from masktool.exporters.output_kinds import settle_kind
from masktool.exporters.score_paths import name_node
from masktool.exporters.selections import find_selection
from masktool.messages import OneOf, Placeholder, call, parameter

NONE = "none"
"""What ``--class-output`` takes for a graph that has none."""


class ClassOutput(NamedTuple):
    """What is taken for the class output.

    Attributes:
        name: the name of the class output; None where there is none.
        kind: what the class output holds; None where that is not known.
        evidence: what speaks for name and kind, in words.
    """

    name: str | None
    kind: OutputKind | None
    evidence: tuple[str, ...]


def choose_class_output(model: ir.Model, claims: Claims = NOTHING_SAID, batch: int | None = None) -> ClassOutput:
    """Returns the output that holds the class scores, and what kind of scores they are.

    Args:
        model: any model, the shapes of whose outputs are known.
        claims: what the user and the graph's origin say.
        batch: the number of images that the model takes; None for any number.

    Raises:
        MasktoolError: several outputs may be meant, or what the user says contradicts the graph.
    """
    outputs = [value for value in model.graph.outputs if is_vector(value, batch)]
    if claims.name == NONE and all(value.name != NONE for value in model.graph.outputs):
        return without_scores(claims)
    if claims.name is not None:
        outputs = [named_output(model, claims.name, batch)]
    candidates = [describe_candidate(value, claims) for value in outputs if find_selection(value) is None]
    candidates = keep_fitting(candidates, claims)
    if claims.name is None:
        candidates = drop_inner(candidates, model)
        candidates = [weigh_uses(each, candidates, model, claims) for each in candidates]
    if not candidates:
        return ClassOutput(None, None, describe_absence(model))
    backed = [each for each in candidates if each.backing and not each.against]
    plausible = (
        [each for each in candidates if each in (*backed, *find_rivals(candidates, claims))]
        or [each for each in candidates if not each.against]
        or (candidates if claims.any else [])
    )
    if not plausible:
        return ClassOutput(None, None, tuple(f"not taken: {each}" for each in candidates))
    if len(plausible) > 1:
        raise MasktoolError(
            f"{len(plausible)} outputs may hold the class scores",
            got=" | ".join(map(str, plausible)),
            fix="say which: " + parameter("class_output", OneOf((*(each.name for each in plausible), NONE), " or ")),
        )
    (chosen,) = plausible
    kind = settle_kind(chosen, claims)
    return ClassOutput(chosen.name, kind, tell_evidence(chosen, kind, claims))


def without_scores(claims: Claims) -> ClassOutput:
    """Returns that there is no class output, as the user says; MasktoolError where the user names a kind of scores."""
    if claims.kind is not None:
        raise MasktoolError(
            "a kind of scores for a model without class scores",
            where=parameter("class_output", NONE),
            got=claims.kind,
            fix="leave out that or " + parameter("output_kind"),
        )
    return ClassOutput(None, None, ("none, as the user says",))


def named_output(model: ir.Model, name: str, batch: int | None) -> ir.Value:
    """Returns the output that the user names.

    Raises:
        MasktoolError: no output has that name, or the output cannot hold class scores.
    """
    where = parameter("class_output", name)
    found = next((value for value in model.graph.outputs if value.name == name), None)
    if found is None:
        listed = ", ".join(describe_value(value) for value in model.graph.outputs)
        raise MasktoolError("no such output", where=where, expected=f"one of {listed}, or {NONE}")
    if not is_vector(found, batch):
        raise MasktoolError(
            "not one score per class",
            where=where,
            expected="floating point (N, K), (N, K, 1, 1) or (N,)" + ("" if batch is None else f", N = {batch}"),
            got=describe_value(found),
            fix=parameter("class_output", NONE)
            + "; `"
            + call("explain", ..., ..., output=name, target=(Placeholder("I"), Placeholder("J")))
            + "` explains one of its values",
        )
    if (selection := find_selection(found)) is not None:
        raise MasktoolError(
            "not one score per class",
            where=where,
            got=f"what {name_node(selection)} selects",
            fix=parameter("class_output", NONE) + ", or the scores in front of that node",
        )
    return found


def keep_fitting(candidates: Sequence[Candidate], claims: Claims) -> list[Candidate]:
    """Returns the candidates that fit the labels and the kind which the user gives.

    Raises:
        MasktoolError: no candidate fits the labels, or the kind.
    """
    labels = claims.labels
    exact = [each for each in candidates if labels is not None and len(labels) == each.columns]
    fitting = exact or [each for each in candidates if labels is None or fit_labels(len(labels), each.columns)]
    if candidates and not fitting:
        assert labels is not None
        raise MasktoolError(
            "the labels do not fit the model", expected=count_names(candidates), got=f"{len(labels)} names"
        )
    if claims.kind is None or not fitting:
        return fitting
    found = [each for each in fitting if fits_columns(claims.kind, each.columns)]
    if not found:
        several = claims.kind in BINARY_KINDS
        kinds = "logits, probabilities or sigmoid" if several else "binary, binary-probability or sigmoid"
        raise MasktoolError(
            "no output is of that kind",
            where=parameter("output_kind", claims.kind),
            expected="one column" if several else "several columns",
            got=", ".join(describe_value(each.value) for each in fitting),
            fix=f"{kinds} are for {'several columns' if several else 'one column'}",
        )
    return [each for each in found if each.kinds is None or claims.kind in each.kinds] or found


def fits_columns(kind: OutputKind, columns: int | None) -> bool:
    """Tells whether an output of so many columns may be of a kind: binary kinds have one, the others several.

    Independent classes, of the kind ``sigmoid``, may be one or several.
    """
    return columns == 1 if kind in BINARY_KINDS else columns != 1 or kind == "sigmoid"


def fit_labels(count: int, columns: int | None) -> bool:
    """Tells whether so many labels fit so many columns: one per column, or two for the classes of a lone column."""
    return columns is None or count == columns or (columns == 1 and count == len(("negative", "positive")))


def count_names(candidates: Sequence[Candidate]) -> str:
    """Returns the number of labels that the candidates take, in words."""
    wanted = sorted({each.columns for each in candidates if each.columns is not None})
    return " or ".join("1 or 2" if columns == 1 else str(columns) for columns in wanted) + " names"


def tell_evidence(chosen: Candidate, kind: OutputKind | None, claims: Claims) -> tuple[str, ...]:
    """Returns what speaks for the chosen output and its kind, and what is not known of them, in words."""
    said = ("kind by the user",) if claims.kind is not None else ()
    assumed = () if chosen.backing or said else ("assumed, not known: nothing says that these are class scores",)
    unknown = ("what the values are is not known",) if kind is None and chosen.backing else ()
    return (chosen.ends_in, *chosen.backing, *chosen.against, *said, *assumed, *unknown)


def describe_absence(model: ir.Model) -> tuple[str, ...]:
    """Returns why no output holds class scores, in words."""
    selected = {str(value.name): find_selection(value) for value in model.graph.outputs if is_vector(value)}
    reasons = [f"{name!r} holds what {name_node(node)} selects" for name, node in selected.items() if node is not None]
    return ("no output (N, K) of class scores", *reasons)
