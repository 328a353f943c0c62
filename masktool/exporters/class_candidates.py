"""The outputs that may hold class scores, with what speaks for and against each, in words."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from masktool.contract import OutputKind
from masktool.exporters.onnx_file import FLOAT_TYPES, describe_value
from masktool.exporters.score_ends import KINDS_OF_END, end_of, is_unbounded, name_end
from masktool.exporters.score_paths import LINEAR, is_constant, name_node
from masktool.exporters.unit_length import scales_to_unit_length
from masktool.exporters.value_bounds import lies_between_0_and_1

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


NOTHING_SAID = Claims()


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
