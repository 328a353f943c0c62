"""Evaluations as they were saved, checked before a page is made of them: the files may come from anybody."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from masktool.contract import conforms
from masktool.data_files import read_json, shorten
from masktool.errors import MasktoolError
from masktool.evaluation.findings import SCHEMA

EXPECTED = "what `masktool evaluate` wrote"
Objects = tuple[Mapping[str, Any], ...]
EVALUATION: Mapping[str, Any] = {
    "part": str,
    "title": str,
    "command": str,
    "settings": Mapping[str, Any],
    "data_sha256": str,
    "n_images": int,
    "tables": Objects,
    "charts": Objects,
    "notes": tuple[str, ...],
    "problems": Objects,
}
SETTINGS: Mapping[str, Any] = {"models": Objects}
MODEL: Mapping[str, Any] = {"name": str}
TABLE: Mapping[str, Any] = {
    "name": str,
    "caption": str,
    "columns": tuple[str, ...],
    "rows": tuple[tuple[Any, ...], ...],
}
CHART: Mapping[str, Any] = {"name": str, "title": str}
PROBLEM: Mapping[str, Any] = {"where": str, "what": str}
INTERVAL: Mapping[str, Any] = {"value": float | None, "low": float | None, "high": float | None, "n": int}
CELL = str | float | None
"""Types of any cell but an interval."""


def read_evaluation(path: Path) -> Mapping[str, Any] | None:
    """Returns the evaluation in a file; None for a JSON document of another kind.

    Raises:
        MasktoolError: the file cannot be read, or is damaged.
    """
    document = read_json(path, EXPECTED)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        return None
    check_fields(document, EVALUATION, str(path))
    check_fields(document["settings"], SETTINGS, f"{path}, settings")
    for model in document["settings"]["models"]:
        check_fields(model, MODEL, f"{path}, settings, models")
    for chart in document["charts"]:
        check_fields(chart, CHART, f"{path}, charts")
    for problem in document["problems"]:
        check_fields(problem, PROBLEM, f"{path}, problems")
    for table in document["tables"]:
        check_table(table, f"{path}, tables")
    return document


def check_table(table: Mapping[str, Any], where: str) -> None:
    """Raises MasktoolError unless a table has all that the page shows, in the right types."""
    check_fields(table, TABLE, where)
    for row in table["rows"]:
        if len(row) != len(table["columns"]):
            raise damaged_evaluation(where, f"{len(table['columns'])} cells a row", len(row))
        for cell in row:
            if isinstance(cell, dict):
                check_fields(cell, INTERVAL, where)
            elif not conforms(cell, CELL):
                raise damaged_evaluation(where, "a text, a number or an interval", shorten(cell))


def check_fields(entry: Mapping[str, Any], fields: Mapping[str, Any], where: str) -> None:
    """Raises MasktoolError unless an object has fields of the right types."""
    for name, kind in fields.items():
        if name not in entry:
            raise damaged_evaluation(where, repr(name), "none")
        if not conforms(entry[name], kind):
            raise damaged_evaluation(f"{where}, {name}", "another type", shorten(entry[name]))


def damaged_evaluation(where: str, expected: object, got: object) -> MasktoolError:
    """Returns the error for a saved evaluation that was damaged."""
    return MasktoolError("a damaged evaluation", where=where, expected=expected, got=got, fix="measure again")


def find_inside(directory: Path, name: str) -> Path:
    """Returns the path of a file that a saved evaluation names, checked to stand in the evaluation's folder.

    Raises:
        MasktoolError: the name, or the link behind it, leads out of the folder, whose files alone a page may show.
    """
    path = directory / name
    plain = PurePosixPath(name).name == name == PureWindowsPath(name).name and name.isprintable()
    if not plain or Path(os.path.realpath(path)).parent != Path(os.path.realpath(directory)):
        raise MasktoolError(
            "a file outside the folder of the evaluation", where=path, expected=f"a file in {directory}"
        )
    return path
