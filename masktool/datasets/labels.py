"""Labels from a CSV or JSON file.

CSV: two columns, the image's file and its label, or a first line that names the columns, ``file`` and ``label``, among
others perhaps. JSON: ``{file: label}``; where the label is an object, its ``index`` counts, else its ``label``, else
its ``name``. A label is the index of a class or its name.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from masktool.data_files import parse_json, read_text, shorten
from masktool.errors import MasktoolError

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")
LABEL_COLUMNS = ("label", "index", "class", "name")
LABEL_KEYS = ("index", "label", "name")
EXPECTED = "labels, as CSV or as JSON {file: label}"

Label = tuple[str, Any]
"""The image's name in the file of labels, and its label as it stands there."""


def read_label_entries(path: Path) -> list[Label]:
    """Returns the labels in a file, by its images' names; a file that starts with a brace is JSON, any other CSV.

    Raises:
        MasktoolError: the file cannot be read, or is of neither format; the error names the line or entry.
    """
    text = read_text(path, EXPECTED)
    return (parse_labels_json if text.lstrip()[:1] in ("{", "[") else parse_labels_csv)(text, path)


def parse_labels_json(text: str, path: Path) -> list[Label]:
    """Returns the labels in the text of a JSON file."""
    document = parse_json(text, path, EXPECTED)
    if not isinstance(document, dict):
        raise MasktoolError("not labels", where=path, expected=EXPECTED, got="a JSON list")
    return [(name, read_label(label, f"{path}, entry {json.dumps(name)}")) for name, label in document.items()]


def read_label(label: Any, where: str) -> Any:
    """Returns a label from JSON, taken out of its object where it stands in one."""
    if not isinstance(label, dict):
        return label
    for key in LABEL_KEYS:
        if key in label:
            return label[key]
    raise MasktoolError("no label", where=where, expected=f"one of {', '.join(LABEL_KEYS)}", got=shorten(label))


def parse_labels_csv(text: str, path: Path) -> list[Label]:
    """Returns the labels in the text of a CSV file."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            if row:
                rows.append((reader.line_num, [cell.strip() for cell in row]))
    except csv.Error as error:
        raise MasktoolError("not CSV", where=f"{path}, line {reader.line_num}", got=error) from error
    columns = find_columns(rows[0][1]) if rows else None
    width, file_column, label_column = columns or (2, 0, 1)
    for line, row in rows:
        if len(row) != width:
            raise MasktoolError(
                "wrong number of columns",
                where=f"{path}, line {line}",
                expected=f"{width}, such as file,label",
                got=len(row),
                fix="quote a name that holds a comma",
            )
    return [(row[file_column], row[label_column]) for _, row in rows[1 if columns else 0 :]]


def find_columns(header: list[str]) -> tuple[int, int, int] | None:
    """Returns the number of columns, and those of the file and of the label; None where the line does not name both."""
    names = [cell.casefold() for cell in header]
    file_column = next((names.index(name) for name in FILE_COLUMNS if name in names), None)
    label_column = next((names.index(name) for name in LABEL_COLUMNS if name in names), None)
    return None if file_column is None or label_column is None else (len(names), file_column, label_column)
