"""What is done with one photograph: read, explained, written; each step by itself, so that threads can share them."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masktool.data_files import check_readable, descriptor_of
from masktool.errors import MasktoolError, describe_exception
from masktool.explainers.explanation import Explanation
from masktool.explainers.subject import read_subject
from masktool.explainers.target import TargetError
from masktool.files import atomic_path, sha256_of
from masktool.interface.folders.names import name_file
from masktool.interface.folders.request import PARQUET, ExplanationRequest, explain_photograph
from masktool.interface.rows import Row, explanation_row
from masktool.runtime.session import MaskedSession

MAP = "map"
"""The column of a row that holds an array, which JSON has none of."""
MAP_EFFORT = 1
"""zlib's level for maps in a journal: those of segments shrink to a thirtieth, others hardly, at any level."""
MAP_TYPE = np.dtype("<f4")


class UnforeseenError(RuntimeError):
    """An error that masktool did not foresee, at a photograph that is named; what it was follows as a note."""


class PhotographTask(NamedTuple):
    """One photograph to explain.

    Attributes:
        place: its place in the order of photographs.
        path: its path, as it was given.
        stem: the stem of its files' names.
        known: the digest that it had when it was explained before, its files being there; None if it was not.
    """

    place: int
    path: Path
    stem: str
    known: str | None = None


class ReadPhotograph(NamedTuple):
    """A photograph as it was read.

    Attributes:
        digest: SHA-256 of its bytes; None where it cannot be read again, as standard input, or not at all.
        image: the photograph, or an array; None where it is the one that was explained before.
        error: why it cannot be read; None where it can.
    """

    digest: str | None
    image: Image.Image | NDArray[Any] | None
    error: MasktoolError | None = None


@dataclasses.dataclass(frozen=True)
class PhotographResult:
    """What became of one photograph; small, and of plain values, so that another process can send it.

    Attributes:
        place: the photograph's place in the order of photographs.
        digest: as :attr:`ReadPhotograph.digest`.
        unchanged: whether it was explained before, so that nothing was done.
        error: why it could not be explained; None where it could.
        files: sizes in bytes of the files that were written, by name.
        rows: the rows of the table, maps encoded, where one is asked for.
        lines: lines on what was explained, for people.
        notes: notes on the explanations, each once.
        documents: JSON documents, where they are asked for.
    """

    place: int
    digest: str | None
    unchanged: bool = False
    error: str | None = None
    files: dict[str, int] = dataclasses.field(default_factory=dict)
    rows: list[Row] = dataclasses.field(default_factory=list)
    lines: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    documents: list[str] = dataclasses.field(default_factory=list)


def read_photograph(task: PhotographTask) -> ReadPhotograph:
    """Reads a photograph, unless it is the one that was explained before; what is wrong with it is part of the answer.

    The digest is of the file's bytes as they are before the photograph is decoded from them.
    """
    digest = None
    try:
        if descriptor_of(task.path) is None:
            check_readable(task.path, "an image")
            digest = sha256_of(task.path)
        if digest is not None and digest == task.known:
            return ReadPhotograph(digest, None)
        return ReadPhotograph(digest, read_subject(task.path))
    except MasktoolError as error:
        return ReadPhotograph(digest, None, error)


def explain_read(
    session: MaskedSession, read: ReadPhotograph, request: ExplanationRequest
) -> list[Explanation] | MasktoolError:
    """Explains a photograph by every method; returns the explanations, or why there are none.

    Raises:
        TargetError: there is no such target, whatever the photograph.
    """
    if read.error is not None or read.image is None:
        return read.error or []
    try:
        return [each for method in request.methods for each in explain_photograph(session, read.image, method, request)]
    except TargetError:
        raise
    except MasktoolError as error:
        return error


def write_result(
    task: PhotographTask,
    read: ReadPhotograph,
    found: list[Explanation] | MasktoolError,
    request: ExplanationRequest,
) -> PhotographResult:
    """Writes the files of a photograph, and returns what became of it.

    Raises:
        CannotWriteError: a file cannot be written, so that going on with other photographs is of no use.
    """
    if isinstance(found, MasktoolError):
        return PhotographResult(task.place, read.digest, error=request.spell(found.message))
    if not found:
        return PhotographResult(task.place, read.digest, unchanged=True)
    result = PhotographResult(task.place, read.digest)
    for explanation in found:
        if PARQUET in request.formats:
            result.rows.append(encode_row(explanation_row(explanation, str(task.path), read.digest)))
        spelled = dataclasses.replace(explanation, notes=tuple(map(request.spell, explanation.notes)))
        names = write_explanation_files(spelled, task.stem, request)
        result.files.update(names)
        result.lines.append(request.describe(spelled))
        result.lines.extend(spelled.notes)
        result.notes.extend(note for note in spelled.notes if note not in result.notes)
        if request.documents:
            written = [str(request.directory / name) for name in names]
            result.documents.append(spelled.to_json({"file": str(task.path), "written": written}))
    return result


def write_explanation_files(explanation: Explanation, stem: str, request: ExplanationRequest) -> dict[str, int]:
    """Writes one explanation in every format that has a file of its own; returns the sizes by the files' names."""
    sizes = {}
    for suffix in request.file_formats:
        path = request.directory / name_file(stem, explanation, suffix, several=len(request.targets) > 1)
        with atomic_path(path) as temporary:
            explanation.write(temporary, suffix, request.timing)
            size = temporary.stat().st_size
        sizes[path.name] = size
    return sizes


def encode_row(row: Row) -> Row:
    """Returns a row with its map as text."""
    content = zlib.compress(row[MAP].astype(MAP_TYPE).tobytes(), MAP_EFFORT)
    return row | {MAP: base64.b64encode(content).decode("ascii")}


def decode_row(row: Row) -> Row:
    """Returns a row whose map was made text, as it was."""
    return row | {MAP: np.frombuffer(zlib.decompress(base64.b64decode(row[MAP])), MAP_TYPE)}


@contextlib.contextmanager
def naming_photograph(path: Path) -> Iterator[None]:
    """Turns an unforeseen error within the block into one that names the photograph; masktool's own pass as they are.

    Raises:
        UnforeseenError: the block raised something else.
    """
    try:
        yield
    except MasktoolError:
        raise
    except Exception as error:
        told = UnforeseenError(f"{path}: {describe_exception(error)}")
        told.add_note(traceback.format_exc())  # which another process would not be sent otherwise
        raise told from error


def work_on(session: MaskedSession, task: PhotographTask, request: ExplanationRequest) -> PhotographResult:
    """Does all steps for one photograph, one after the other."""
    with naming_photograph(task.path):
        read = read_photograph(task)
        return write_result(task, read, explain_read(session, read, request), request)
