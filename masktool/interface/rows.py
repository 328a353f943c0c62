"""Explanations as rows of a table, one per photograph, method and target; of Parquet, or of whatever reads Arrow.

A row is a function of the photograph, the model and the settings alone: it holds no time, so that whoever explains the
same photographs again, in whatever order and in however many processes, gets the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from masktool.contract import DEFAULT_SIZE, __version__
from masktool.explainers.explanation import Explanation, encode_compactly
from masktool.extras import require_extra

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]
"""The values of one row by the columns' names, in the order of :data:`COLUMNS`."""


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        name: the column's name.
        kind: the type of its values: a name of Arrow's, in brackets that of the values of a list.
        meaning: what it holds, and when it is null, in words.
    """

    name: str
    kind: str
    meaning: str


COLUMNS = (
    Column("file", "string", "the photograph's path, as it was given"),
    Column("sha256", "string", "SHA-256 of the file's bytes; null where the file could not be read"),
    Column("method", "string", "the method's name; null, as all that follows but `error`, where there is an error"),
    Column("target", "int64", "index of the explained class, of a contrast that of the first; null for all else"),
    Column("label", "string", "label of that class, or of the value; null where it is unknown"),
    Column("output", "string", "name of the output that holds the explained value; null for a class"),
    Column("place", "[int64]", "indices of that value in the output; null for classes and slices"),
    Column("asked", "string", "what is explained, as the JSON document's `target` has it, JSON"),
    Column("score", "double", "the target's score with nothing missing"),
    Column("score_name", "string", "what scores are: `probability`, `log-odds`, `score` or `value`"),
    Column("height", "int32", "the photograph's height in pixels; null for signals and volumes"),
    Column("width", "int32", "its width"),
    Column("map", "[float]", "the map in the pixels of the model's input, row by row, in units of the score"),
    Column("map_height", "int32", "the map's height; null for signals and volumes"),
    Column("map_width", "int32", "its width"),
    Column("crop_box", "[double]", "what the map covers: x0, y0, x1, y1 in the photograph's pixels; null for arrays"),
    Column("meaning", "string", "what a value of the map is, in words"),
    Column("signed", "bool", "whether the sign of such a value separates support from opposition"),
    Column("forward_passes", "int64", "number of images pushed through the model"),
    Column("quality", "string", "figures by which to judge the map, JSON"),
    Column("options", "string", "every option of the method and the run, defaults included, JSON"),
    Column(
        "notes", "[string]", "what the reader of the map must know; parameters have their names of keyword arguments"
    ),
    Column("model", "string", "the source that the model was exported from"),
    Column("model_sha256", "string", "SHA-256 of that source"),
    Column("masking", "string", "how the mask acts: `layer`, `partial` or `fill`"),
    Column("rule", "string", "rule of samplers narrower than their stride: `cell` or `published`; null unless `layer`"),
    Column("masktool_version", "string", "version of masktool that explained"),
    Column("error", "string", "why the photograph could not be explained; else null"),
)
"""All columns, in their order."""
PURPOSE = "writing Parquet"


def explanation_row(explanation: Explanation, file: str, sha256: str | None) -> Row:
    """Returns the row of one explanation.

    Args:
        explanation: the explanation.
        file: the photograph's path, or another name of it, such as an object's in a store.
        sha256: the SHA-256 of the file's bytes; None where there is no file.
    """
    is_image = len(explanation.image_size) == len(DEFAULT_SIZE)
    height, width = explanation.image_size if is_image else (None, None)
    shape = explanation.model_attributions.shape if is_image else (None, None)
    of_class = explanation.output is None
    return {
        "file": as_text(file),
        "sha256": sha256,
        "method": explanation.method,
        "target": explanation.target if isinstance(explanation.target, int) and of_class else None,
        "label": explanation.label,
        "output": explanation.output,
        "place": None if of_class else place_of(explanation.target),
        "asked": encode_compactly(explanation.question.describe()),
        "score": float(explanation.score),
        "score_name": explanation.score_name,
        "height": height,
        "width": width,
        "map": np.ascontiguousarray(explanation.model_attributions, np.float32).reshape(-1),
        "map_height": shape[0],
        "map_width": shape[1],
        "crop_box": None if explanation.crop_box is None else [float(each) for each in explanation.crop_box],
        "meaning": explanation.meaning,
        "signed": explanation.signed,
        "forward_passes": explanation.forward_passes,
        "quality": encode_compactly(explanation.quality),
        "options": encode_compactly(explanation.settings),
        "notes": [str(note) for note in explanation.notes],
        "model": str(explanation.model["source"]),
        "model_sha256": explanation.model["source_sha256"],
        "masking": explanation.model["masking"],
        "rule": explanation.model["rule"],
        "masktool_version": __version__,
        "error": None,
    }


def place_of(target: object) -> list[int] | None:
    """Returns the indices of a value in its output; None for a slice."""
    return None if isinstance(target, str) else np.atleast_1d(np.asarray(target, np.int64)).tolist()


def failure_row(file: str, sha256: str | None, error: str) -> Row:
    """Returns the row of a photograph that could not be explained; arguments as for :func:`explanation_row`.

    Args:
        file: the photograph's path.
        sha256: the SHA-256 of the file's bytes; None where it could not be read.
        error: why, in one line.
    """
    empty: Row = {column.name: None for column in COLUMNS}
    return empty | {"file": as_text(file), "sha256": sha256, "masktool_version": __version__, "error": as_text(error)}


def as_text(name: str) -> str:
    """Returns a path as text that a table may hold: bytes of a name that are no UTF-8 become question marks."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def arrow_schema() -> pyarrow.Schema:
    """Returns the table's schema; each field's metadata tells what it holds.

    Raises:
        MasktoolError: pyarrow is not installed.
    """
    with require_extra(PURPOSE, "parquet"):
        import pyarrow as pa
    fields = []
    for name, kind, meaning in COLUMNS:
        element = pa.type_for_alias(kind.strip("[]"))
        fields.append(pa.field(name, pa.list_(element) if kind[0] == "[" else element, metadata={"meaning": meaning}))
    return pa.schema(fields)


def arrow_table(rows: Sequence[Mapping[str, Any]]) -> pyarrow.Table:
    """Returns rows as a table of Arrow's, whose columns are :data:`COLUMNS`.

    Raises:
        MasktoolError: pyarrow is not installed.
    """
    schema = arrow_schema()
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=schema)
