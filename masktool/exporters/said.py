"""What another exporter wrote into a file beside its graph: the names of the classes, and the network's task.

Ultralytics' exporters write each entry of ``metadata_props`` as Python shows its value: ``names`` is the text
``{0: 'person', 1: 'bicycle'}``, YOLOv5's first ones a list, and ``task`` is ``detect``. Such a text is read as a
literal, never run; what is no list of names is a note for the user and no error, for the graph is sound without it.

Source: Jocher et al., https://docs.ultralytics.com/modes/export/; the entries as files of YOLOv5 and of 8.4 have them.
"""

from __future__ import annotations

import ast
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from masktool.contract import Metadata, SourceTask
from masktool.data_files import shorten
from masktool.limits import limit

NAMES, TASK = "names", "task"
"""Keys of the entries."""


@dataclasses.dataclass(frozen=True)
class SaidByFile:
    """What a file says of its network beside the graph.

    Attributes:
        labels: one name per class; None where the file has none, or none that can be read.
        task: what the network is for; None where the file does not say.
        problem: why the names that the file has are not taken; None where they are, or where there are none.
    """

    labels: tuple[str, ...] | None = None
    task: SourceTask | None = None
    problem: str | None = None


NOTHING = SaidByFile()


def read_said(properties: Mapping[str, str]) -> SaidByFile:
    """Returns what the entries of a file's ``metadata_props`` say."""
    task = next((known for known in get_args(SourceTask) if known == properties.get(TASK)), None)
    text = properties.get(NAMES)
    if text is None:
        return SaidByFile(task=task)
    try:
        return SaidByFile(read_names(text), task)
    except ValueError as error:
        return SaidByFile(None, task, str(error))


def read_names(text: str) -> tuple[str, ...]:
    """Returns the names of classes from a literal of Python's: a mapping of 0 to K - 1, or a list.

    Raises:
        ValueError: the text is none, or is too long.
    """
    if len(text) > limit("text"):
        raise ValueError(f"{len(text)} characters, more than {limit('text')}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
            value: Any = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"{shorten(text)} is no literal") from error
    if isinstance(value, dict):
        value = [value.get(index) for index in range(len(value))]
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{shorten(text)} are no names by number")
    for index, name in enumerate(value):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{shorten(text)} has no name for class {index}")
    return tuple(value)


def note_said(said: SaidByFile, metadata: Metadata) -> Iterator[str]:
    """Yields what an exported file has from what its source said, and what of that was not taken."""
    if said.labels is not None and metadata.labels == said.labels:
        yield f"labels as the source's own metadata have them ({NAMES!r})"
    elif said.labels is not None and metadata.labels is None:
        count = len(said.labels)
        yield f"the source's metadata have {count} {NAMES!r}, and the class output has another number: no labels taken"
    elif said.problem is not None and metadata.labels is None:
        yield f"the {NAMES!r} in the source's metadata are not taken as labels: {said.problem}"
