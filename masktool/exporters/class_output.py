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

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from masktool.contract import BINARY_KINDS, OutputKind
from masktool.errors import MasktoolError
from masktool.exporters.onnx_file import FLOAT_TYPES, describe_value
from masktool.exporters.score_ends import (
    KINDS_OF_END,
    LINEAR,
    core_of,
    end_of,
    find_selection,
    is_constant,
    is_unbounded,
    name_end,
    name_node,
    scales_to_unit_length,
)
from masktool.exporters.value_bounds import lies_between_0_and_1
from masktool.messages import OneOf, Placeholder, call, parameter

NONE = "none"
"""What ``--class-output`` takes for a graph that has none."""
KNOWN_COUNTS: Mapping[int, str] = {
    1000: "ImageNet-1k",
    1001: "ImageNet-1k with a background class",
    21841: "ImageNet-21k",
    21843: "ImageNet-21k",
    365: "Places365",
}
"""Numbers of classes that hardly anything else has; 10 and 100 may be coordinates of 5 and 50 landmarks."""
SPEAKING_FOR = frozenset(
    {
        *("logit", "logits", "prob", "probs", "probability", "probabilities", "softmax", "softmaxout"),
        *("class", "classes", "classifier", "classification", "categories"),
    }
)
SPEAKING_AGAINST = frozenset(
    {
        *("box", "boxes", "bbox", "bboxes", "landmark", "landmarks", "keypoint", "keypoints", "coords", "coordinates"),
        *("embedding", "embeddings", "feature", "features", "descriptor", "descriptors", "offsets", "regression"),
    }
)


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


@dataclasses.dataclass(frozen=True)
class Claims:
    """What the user and the origin of the graph say of the class output.

    Attributes:
        name: the name of the class output, ``none`` for a graph without one; None where nobody says.
        kind: what the class output holds; None where nobody says.
        labels: the names of the classes, one per column, or two for a lone column; None where nobody says.
        n_classes: the number of classes that the origin of the graph gives; None where it gives none.
        said_by: the words for the origin in messages.
        own_name: the name that masktool gave to an output without one, which says nothing of what the output holds.
    """

    name: str | None = None
    kind: OutputKind | None = None
    labels: Sequence[str] | None = None
    n_classes: int | None = None
    said_by: str = "its origin"
    own_name: str | None = None

    def with_user(self, name: str | None, kind: OutputKind | None, labels: Sequence[str] | None) -> Claims:
        """Returns what the origin says together with the name, kind and labels that the user gives."""
        return dataclasses.replace(self, name=name, kind=kind, labels=labels)

    @property
    def any(self) -> bool:
        """Whether the user says that there is a class output."""
        return self.name is not None or self.kind is not None or self.labels is not None


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An output that may hold class scores.

    Attributes:
        value: the output.
        columns: the number of scores per image, K in (N, K); None where it is open.
        end: what the output ends in, a key of ``score_ends.KINDS_OF_END``; None for anything else.
        unbounded: whether the output ends in an operator that gives unbounded scores.
        share: whether the output lies between 0 and 1, whatever the image.
        ends_in: what the output ends in, in words.
        backing: what speaks for class scores, in words.
        against: what speaks against class scores, in words.
    """

    value: ir.Value
    columns: int | None
    end: str | None
    unbounded: bool
    share: bool
    ends_in: str
    backing: tuple[str, ...]
    against: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the output."""
        return str(self.value.name)

    @property
    def kinds(self) -> tuple[OutputKind, ...] | None:
        """What the output may hold, the likeliest kind first; None where its end says nothing of that."""
        if self.end is None and self.share:
            return ("binary-probability", "sigmoid") if self.columns == 1 else ("probabilities", "sigmoid")
        return KINDS_OF_END.get(self.end or "")

    def __str__(self) -> str:
        return "; ".join((f"{describe_value(self.value)} {self.ends_in}", *self.backing, *self.against))


def choose_class_output(model: ir.Model, claims: Claims = Claims(), batch: int | None = None) -> ClassOutput:
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


def is_vector(value: ir.Value, batch: int | None = None) -> bool:
    """Tells whether a value is floating point and of shape (N, K), (N, K, 1, 1) or (N,), where N may be known.

    (N, K, 1) does not count: detectors give one score per anchor that way.
    """
    if value.shape is None or value.dtype not in FLOAT_TYPES or value.shape.rank() not in (1, 2, 4):
        return False
    if batch is not None and isinstance(value.shape[0], int) and value.shape[0] != batch:
        return False
    if value.shape.rank() == 1:  # of one image a vector (K,) without a batch would look the same
        return value.shape[0] == 1 or not isinstance(value.shape[0], int)
    return all(dim == 1 for dim in value.shape[2:])


def count_columns(value: ir.Value) -> int | None:
    """Returns the number of scores per image: K of (N, K, ...), 1 of (N,); None where K is open."""
    assert value.shape is not None
    if value.shape.rank() == 1:
        return 1
    columns = value.shape[1]
    return columns if isinstance(columns, int) else None


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


def describe_candidate(value: ir.Value, claims: Claims) -> Candidate:
    """Returns a candidate for the class output, with what speaks for and against it."""
    columns, end = count_columns(value), end_of(value)
    kind_of_end = name_end(value, columns)
    unbounded = kind_of_end is None and is_unbounded(value)
    ends_in = "has no operator of its own" if end is None else f"ends in {name_node(end)}"
    against = tuple(find_objections(value, end, kind_of_end))
    backing = tuple(find_backing(value, columns, kind_of_end, claims, unbounded=unbounded))
    return Candidate(value, columns, kind_of_end, unbounded, lies_between_0_and_1(value), ends_in, backing, against)


def find_backing(
    value: ir.Value, columns: int | None, end: str | None, claims: Claims, *, unbounded: bool
) -> Iterator[str]:
    """Yields what speaks for class scores in an output, in words."""
    if end == "Complement":
        yield "p and 1 - p of one sigmoid in its two columns"
    elif end is not None:
        columns_named = "its one column" if columns == 1 else f"all {count_in_words(columns, 'column')}"
        alike = " (numbers scaled to 0..1, such as coordinates, would end alike)" if end.startswith("Sigmoid") else ""
        yield f"{end.split()[0]} over {columns_named}{alike}"
    if claims.name is not None:
        yield "named by the user"
    if claims.labels is not None:
        yield f"{count_in_words(len(claims.labels), 'label')} for {count_in_words(columns, 'column')}"
    if not unbounded or columns is None:
        return
    if claims.n_classes is not None and claims.n_classes == columns > 1:
        yield f"{claims.said_by} has {columns} classes"
    if columns in KNOWN_COUNTS:
        yield f"{columns} columns, as many as {KNOWN_COUNTS[columns]} has classes"
    if columns > 1 and (words := speaks_for(value, claims)):
        yield f"its name says {', '.join(sorted(words))}"


def speaks_for(value: ir.Value, claims: Claims) -> set[str]:
    """Returns the words in an output's name that speak for class scores; none in a name that masktool gave."""
    return set() if value.name == claims.own_name else words_of(value) & SPEAKING_FOR


def count_in_words(number: int | None, thing: str) -> str:
    """Returns a number of things in words, such as "1 column" or, where the number is open, "K columns"."""
    return f"{number or 'K'} {thing}{'' if number == 1 else 's'}"


def find_objections(value: ir.Value, end: ir.Node | None, kind_of_end: str | None) -> Iterator[str]:
    """Yields what speaks against class scores in an output, in words; behind a softmax its name does not count."""
    if end is not None and scales_to_unit_length(end):
        yield "of unit length (L2 norm), as embeddings are"
    joined = end if end is not None and end.op_type == "Concat" and kind_of_end is None else None
    if joined is not None and len(parts := ends_of_parts(joined)) > 1:
        yield f"put together from parts that end in {', '.join(parts)}, as detections are"
    if end is not None and value.shape is not None and value.shape.rank() == 1 and kind_of_end is None:
        yield "one number for each image"
    shares = kind_of_end is not None and not kind_of_end.startswith("Sigmoid")
    if not shares and (words := words_of(value) & SPEAKING_AGAINST):
        yield f"its name says {', '.join(sorted(words))}"


def ends_of_parts(node: ir.Node) -> list[str]:
    """Returns the operators that the parts of a concatenation end in, each once; constants have none."""
    parts = [each for each in node.inputs if each is not None and not is_constant(each)]
    ends = [end.op_type for each in parts if (end := end_of(each)) is not None]
    return sorted({"a linear layer" if each in LINEAR else each for each in ends})


def words_of(value: ir.Value) -> set[str]:
    """Returns the words in an output's name, in lower case."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(value.name))
    return {word.rstrip("0123456789") for word in re.split(r"[^A-Za-z0-9]+", spaced.lower())}


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


def drop_inner(candidates: Sequence[Candidate], model: ir.Model) -> list[Candidate]:
    """Returns the candidates that no other output is computed from; of several with the same scores, the first."""
    if len(model.graph.outputs) == 1:
        return list(candidates)
    distinct = list({core_of(each.value): each for each in reversed(candidates)}.values())[::-1]
    every = {core_of(value) for value in model.graph.outputs}
    return [each for each in distinct if not is_inner(each, [head for head in distinct if not head.against], every)]


def is_inner(candidate: Candidate, heads: Sequence[Candidate], every: set[ir.Value]) -> bool:
    """Tells whether a candidate is a feature map of another output, or another candidate's scores before their softmax.

    What ends in a softmax or sigmoid itself is no feature map: a second head may read the first one's answer.
    """
    near, far = reach_of(core_of(candidate.value))
    if candidate.end is None and far & every:
        return True
    return any(core_of(head.value) in near and may_be_made_of(head, candidate) for head in heads)


def may_be_made_of(head: Candidate, inner: Candidate) -> bool:
    """Tells whether a head may count instead of a candidate that it is computed from.

    It may where there is evidence for it, where it has as many columns, or where the candidate itself does not end in a
    softmax or sigmoid.
    """
    return inner.end is None or bool(head.backing) or head.columns == inner.columns


def find_rivals(candidates: Sequence[Candidate], claims: Claims) -> list[Candidate]:
    """Returns the candidates without evidence that are computed from one that ends in a softmax or sigmoid.

    The one that they are computed from may be the weights of an attention, a gate or a router, and they the class
    scores; or it holds the class scores, which a second head reads. Its name may tell.
    """
    reached: set[ir.Value] = set()
    for each in candidates:
        if each.end is not None and not each.against and not speaks_for(each.value, claims):
            reached |= set().union(*reach_of(core_of(each.value))) | reach_of_twins(each)
    return [each for each in candidates if not each.backing and not each.against and core_of(each.value) in reached]


def weigh_uses(candidate: Candidate, candidates: Sequence[Candidate], model: ir.Model, claims: Claims) -> Candidate:
    """Returns a candidate with one more objection where an output that holds no class scores is computed from it."""
    known = claims.labels is not None or claims.kind is not None or speaks_for(candidate.value, claims)
    if candidate.end is None or known:
        return candidate
    (_, far), twins = reach_of(core_of(candidate.value)), reach_of_twins(candidate)
    heads = {each.name for each in candidates if not each.against}
    others = {each.name: core_of(each) for each in model.graph.outputs if each.name not in heads}
    reasons = [
        f"{name!r} is computed from {'it' if core in far else 'the values in front of it'} through a linear layer"
        for name, core in others.items()
        if core in far | twins
    ]
    return dataclasses.replace(candidate, against=(*candidate.against, *reasons))


def reach_of_twins(candidate: Candidate) -> set[ir.Value]:
    """Returns the values computed, through a linear layer, from the scores before a candidate's softmax or sigmoid.

    A graph may hold that softmax or sigmoid twice: once for its output, and once for the layers behind it.
    """
    producer = core_of(candidate.value).producer()
    scores = [] if producer is None else [each for each in producer.inputs if each is not None]
    return {value for each in scores if not is_constant(each) for value in reach_of(each)[1]}


def reach_of(start: ir.Value) -> tuple[set[ir.Value], set[ir.Value]]:
    """Returns the values computed from a value: without a linear layer on the way, and with at least one."""
    near: set[ir.Value] = set()
    far: set[ir.Value] = set()
    waiting = [(start, False)]
    while waiting:
        value, beyond = waiting.pop()
        for node in value.consumers():
            crossed = beyond or node.op_type in LINEAR
            found = far if crossed else near
            for output in node.outputs:
                if output not in found:
                    found.add(output)
                    waiting.append((output, crossed))
    return near, far


def settle_kind(chosen: Candidate, claims: Claims) -> OutputKind | None:
    """Returns what the chosen output holds.

    Raises:
        MasktoolError: the graph contradicts the kind that the user gives: a softmax or sigmoid would be taken twice; or
            two labels are given for one column that is not known to tell two classes apart.
    """
    kind = find_output_kind(chosen, claims)
    named = claims.labels is not None and len(claims.labels) > 1
    if named and chosen.columns == 1 and kind not in BINARY_KINDS:
        kinds = OneOf(tuple(each for each in sorted(BINARY_KINDS) if each in (chosen.kinds or BINARY_KINDS)), " or ")
        said = f", called {kind}" if kind is not None else ", of unknown kind"
        raise MasktoolError(
            "two labels for one column are its negative and its positive class",
            expected=" or ".join(map(str, kinds.values)),
            got=f"{chosen.name!r}, which {chosen.ends_in}{said}",
            fix="say " + parameter("output_kind", kinds) + ", or give one label",
        )
    return kind


def find_output_kind(chosen: Candidate, claims: Claims) -> OutputKind | None:
    """Returns the kind that the user gives an output, else the kind that follows from the output's end.

    Raises:
        MasktoolError: the graph contradicts the kind that the user gives.
    """
    allowed = chosen.kinds
    if claims.kind is not None:
        if allowed is not None and claims.kind not in allowed:
            told = chosen.end is not None and chosen.end.split()[0] in chosen.ends_in
            raise MasktoolError(
                "the graph says otherwise",
                where=parameter("output_kind", claims.kind),
                expected=" or ".join(allowed),
                got=f"{chosen.name!r}, which {chosen.ends_in}"
                + (" and lies between 0 and 1" if chosen.share and not told else ""),
                fix="leave " + parameter("output_kind") + " out",
            )
        return claims.kind
    if allowed is not None and chosen.end is not None:
        return allowed[0]
    if not chosen.unbounded or not chosen.backing:
        return None
    if chosen.columns == 1:
        named = claims.labels is not None and len(claims.labels) > 1
        return "binary" if named else None  # one name may be that of a regression
    return "logits"


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
