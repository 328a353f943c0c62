"""A run over many photographs: what an earlier one has done stays, what fails is listed, and the table comes last."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from masktool.data_files import is_there
from masktool.files import atomic_path
from masktool.interface.folders.rate import Rate
from masktool.interface.folders.request import PARQUET, ExplanationRequest
from masktool.interface.folders.table import TABLE, write_rows
from masktool.interface.folders.work import PhotographResult, PhotographTask, decode_row
from masktool.interface.photographs import choose_stems, fold_name, real_path
from masktool.interface.rows import Row, failure_row
from masktool.journal import Journal, Record
from masktool.progress import Progress, Say

JOURNAL = "explain.jsonl"
FAILED = "failed.txt"
NUMBERS = re.compile(r"\d[\d.,e+-]*")
Engine = Callable[[Iterable[PhotographTask]], Iterator[PhotographResult]]
"""What explains photographs, in one process or several, and yields what became of each in their order."""


@dataclasses.dataclass
class FolderOutcome:
    """What became of the photographs of a run.

    Attributes:
        photographs: all photographs, in their order.
        before: number of those that an earlier run had explained.
        failures: results of those that could not be explained.
        notes: the first of the notes that differ in their numbers alone, and the number of photographs that they
            concern, by their text without numbers.
        rate: the rate at which the others were explained.
        written: files about the photographs together.
    """

    photographs: Sequence[Path]
    before: int = 0
    failures: list[PhotographResult] = dataclasses.field(default_factory=list)
    notes: dict[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    rate: Rate = dataclasses.field(default_factory=Rate)
    written: list[Path] = dataclasses.field(default_factory=list)

    @property
    def explained(self) -> int:
        """Number of photographs that this run explained."""
        return len(self.photographs) - self.before - len(self.failures)

    def count_notes(self, notes: Iterable[str]) -> None:
        """Counts the notes of one photograph, those that differ in their numbers alone once."""
        for text, note in {NUMBERS.sub("#", note): note for note in notes}.items():
            first, count = self.notes.get(text, (note, 0))
            self.notes[text] = (first, count + 1)


class FolderRun:
    """A run over many photographs.

    Attributes:
        photographs: the photographs, each once, in their order.
        request: what is asked of each.
        settings: what decides the files besides the photographs, so that a later run knows whether they are what it
            would write; None for a run that nobody can resume.
        progress: function that shows progress.
        say: function that is given messages.
        tell: function that is given each photograph and what became of it, in their order.
    """

    def __init__(
        self,
        photographs: Sequence[Path],
        request: ExplanationRequest,
        settings: Mapping[str, Any] | None,
        progress: Progress,
        say: Say,
        tell: Callable[[Path, PhotographResult], None],
    ) -> None:
        self.photographs, self.request, self.settings = photographs, request, settings
        self.progress, self.say, self.tell = progress, say, tell
        self.outcome = FolderOutcome(photographs)

    def run(self, engine: Engine) -> FolderOutcome:
        """Explains the photographs that no earlier run has explained, and returns what became of all.

        Raises:
            MasktoolError: what concerns every photograph: a file cannot be written, or there is no such target.
        """
        if self.settings is None:
            self.explain(engine, None)
            return self.outcome
        with Journal(self.request.directory / JOURNAL, self.settings) as journal:
            self.explain(engine, journal)
            self.list_failures()
            if PARQUET in self.request.formats:
                path = self.request.directory / TABLE
                write_rows(path, self.rows(journal))
                self.outcome.written.append(path)
        return self.outcome

    def explain(self, engine: Engine, journal: Journal | None) -> None:
        """Explains the photographs, and enters each into the journal once its files are written."""
        tasks, outcome = self.plan(journal), self.outcome
        with self.progress("explaining", len(tasks)) as advance, contextlib.closing(engine(tasks)) as results:  # type: ignore[type-var]
            for result in results:
                path = self.photographs[result.place]
                if result.unchanged:
                    outcome.before += 1
                elif result.error is not None:
                    outcome.failures.append(result)
                elif journal is not None and result.digest is not None:
                    journal.add(real_path(path), result.digest, self.record(tasks[result.place], result))
                outcome.count_notes(result.notes)
                self.tell(path, result)
                outcome.rate.count(0 if result.unchanged else 1)
                advance(1, outcome.rate.describe(len(tasks) - result.place - 1))

    def plan(self, journal: Journal | None) -> list[PhotographTask]:
        """Returns the photographs with the stems of their files, and the digests of those that were explained."""
        known = {} if journal is None else self.find_explained(journal)
        if journal is not None and journal.changed:
            self.say(f"an earlier run had other settings ({', '.join(journal.changed)}): starting anew")
        stems = choose_stems(self.photographs, {name: record["stem"] for name, record in known.items()})
        tasks = []
        for index, (path, stem) in enumerate(zip(self.photographs, stems, strict=True)):
            record = known.get(real_path(path))
            whole = journal is not None and record is not None and self.has_files(record)
            digest = journal.entries[real_path(path)].digest if whole and journal is not None else None
            tasks.append(PhotographTask(index, path, stem, digest))
        if done := sum(task.known is not None for task in tasks):
            self.say(f"resuming: {done:,} of {len(tasks):,} photographs are explained, unless they have changed")
        return tasks

    def find_explained(self, journal: Journal) -> dict[str, Record]:
        """Returns stem and files of the photographs that were explained, by their real paths.

        A photograph that is not there any more gives its stem back; of two with one stem the later has it.
        """
        asked = {real_path(path) for path in self.photographs}
        found: dict[str, tuple[str, Record]] = {}
        for name in list(journal.entries):
            if name in asked or is_there(Path(name)):
                record = journal.read(name)
                found[fold_name(record["stem"])] = (name, {"stem": record["stem"], "files": record["files"]})
        return dict(found.values())

    def has_files(self, record: Record) -> bool:
        """Tells whether the files that were written of a photograph are there, as large as they were."""
        for name, size in record["files"].items():
            try:
                if (self.request.directory / name).stat().st_size != size:
                    return False
            except OSError:
                return False
        return True

    def record(self, task: PhotographTask, result: PhotographResult) -> Record:
        """Returns what the journal keeps of a photograph that was explained."""
        return {"stem": task.stem, "files": result.files, "rows": result.rows}

    def rows(self, journal: Journal) -> Iterator[Row]:
        """Yields the rows of the table in the order of the photographs, whoever explained them when."""
        failures = {result.place: result for result in self.outcome.failures}
        for index, path in enumerate(self.photographs):
            name = real_path(path)
            if index in failures:
                yield failure_row(str(path), failures[index].digest, failures[index].error or "")
            elif name in journal.entries:
                for row in journal.read(name)["rows"]:
                    yield decode_row(row) | {"file": str(path)}

    def list_failures(self) -> None:
        """Writes the list of photographs that could not be explained; removes an earlier one where all could."""
        path = self.request.directory / FAILED
        if not self.outcome.failures:
            path.unlink(missing_ok=True)
            return
        lines = [f"{self.photographs[each.place]}\t{each.error}\n" for each in self.outcome.failures]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
        self.outcome.written.append(path)
