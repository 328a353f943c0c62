"""What ``masktool explain`` tells while it explains one photograph, or many: results on stdout, the rest on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from masktool.commands import options
from masktool.explainers import Explanation
from masktool.explainers.subject import read_subject
from masktool.interface.folders.pipeline import explain_in_order
from masktool.interface.folders.rate import describe_duration, describe_rate
from masktool.interface.folders.request import ExplanationRequest, explain_photograph
from masktool.interface.folders.run import FAILED, FolderOutcome, FolderRun
from masktool.interface.folders.work import PhotographResult, PhotographTask, ReadPhotograph, write_result
from masktool.interface.folders.workers import SessionOpening, WorkerPool
from masktool.interface.photographs import choose_stems
from masktool.runtime.session import MaskedSession

NOISY = 0.1
"""Share of the map's range from which its standard error blurs the picture visibly."""
MOST_TOLD = 5
"""Failures of a folder that are told one by one; a file lists all of them."""


def explain_single(session: MaskedSession, path: Path, request: ExplanationRequest) -> None:
    """Explains one photograph, and tells what came of each method as soon as it is there.

    Raises:
        MasktoolError: the photograph cannot be explained.
    """
    photograph = read_subject(path)
    (stem,) = choose_stems([path])
    teller = Teller(request)
    for method in request.methods:
        found = explain_photograph(session, photograph, method, request, options.progress)
        task = PhotographTask(0, path, stem)
        teller.tell(path, write_result(task, ReadPhotograph(None, photograph), found, request))


def explain_many(
    session: MaskedSession,
    photographs: Sequence[Path],
    request: ExplanationRequest,
    settings: Mapping[str, Any] | None,
    jobs: int,
    opening: SessionOpening,
    briefly: bool,
) -> FolderOutcome:
    """Explains many photographs, and tells what came of them: briefly, or of each one.

    Args:
        session: the open model; several processes open it for themselves.
        photographs: the photographs.
        request: what is asked of each.
        settings: what a later run compares, see :class:`FolderRun`.
        jobs: the number of processes.
        opening: how a process opens the model.
        briefly: whether rate and totals stand in place of a line for each photograph.
    """
    teller = BriefTeller(request, settings is not None) if briefly else Teller(request)
    run = FolderRun(photographs, request, settings, options.progress, options.say, teller.tell)
    jobs = min(jobs, len(photographs))
    if jobs == 1:
        outcome = run.run(lambda tasks: explain_in_order(session, tasks, request))
    else:
        session.close()
        with WorkerPool(opening, request, jobs, options.say) as pool:
            outcome = run.run(pool.explain)
    teller.conclude(outcome)
    return outcome


class Teller:
    """Tells of every photograph what came of it."""

    def __init__(self, request: ExplanationRequest) -> None:
        self.request = request

    def tell(self, path: Path, result: PhotographResult) -> None:
        """Tells what became of a photograph."""
        if result.error is not None:
            self.tell_failure(path, result.error)
        else:
            for line in result.lines:
                options.say(f"{path}: {line}")
            self.print_result(result)

    def tell_failure(self, path: Path, error: str) -> None:
        """Tells why a photograph could not be explained."""
        options.say("masktool: error: " + name_photograph(path, error))

    def print_result(self, result: PhotographResult) -> None:
        """Prints the documents of a photograph, or the paths of its files, on stdout."""
        if self.request.documents:
            for document in result.documents:
                click.echo(document)
        else:
            for name in result.files:
                options.print_path(self.request.directory / name)

    def conclude(self, outcome: FolderOutcome) -> None:
        """Tells what there is about all photographs together."""
        for path in outcome.written if not self.request.documents else ():
            options.print_path(path)


class BriefTeller(Teller):
    """Tells of a folder's photographs what failed first, and at the end what came of all."""

    def __init__(self, request: ExplanationRequest, listed: bool) -> None:
        super().__init__(request)
        self.most_told = MOST_TOLD if listed else sys.maxsize  # without a list of them, all are told
        self.failures = 0

    def tell(self, path: Path, result: PhotographResult) -> None:
        """Tells the first failures, and prints what was made."""
        if result.error is None:
            if self.request.documents or not sys.stdout.isatty():  # on a terminal the bar stands in their place
                self.print_result(result)
            return
        self.failures += 1
        if self.failures <= self.most_told:
            self.tell_failure(path, result.error)

    def conclude(self, outcome: FolderOutcome) -> None:
        """Tells how many photographs were explained, how many were not, and what is to be known of their maps."""
        rate = outcome.rate
        line = f"explained {outcome.explained:,} photographs in {describe_duration(rate.seconds)}"
        if outcome.explained and rate.seconds:
            line += f" ({describe_rate(outcome.explained / rate.seconds)})"
        options.say(line + (f"; {outcome.before:,} were explained before" if outcome.before else ""))
        for note, count in outcome.notes.values():
            photographs = "1 photograph" if count == 1 else f"{count:,} photographs, for the first of which it reads"
            options.say(f"{photographs}: {note}")
        if outcome.failures:
            names = ", ".join(outcome.photographs[each.place].name for each in outcome.failures[:MOST_TOLD])
            names += ", ..." if len(outcome.failures) > MOST_TOLD else ""
            listed = [path for path in outcome.written if path.name == FAILED]
            where = f"; {listed[0]} says why" if listed else ""
            share = f"{len(outcome.failures):,} of {len(outcome.photographs):,} photographs"
            options.say(f"{share} could not be explained: {names}{where}")
        super().conclude(outcome)


def name_photograph(path: Path, error: str) -> str:
    """Returns an error with the photograph's path in front, unless the error names it."""
    return error if str(path) in error else f"{path}: {error}"


def describe_explanation(explanation: Explanation) -> str:
    """Returns one line on what was explained, at what cost, and with what sampling error and gap."""
    line = (
        f"{explanation.title} of {explanation.name}, {explanation.score_name} {explanation.score:.3g}, "
        f"{explanation.cost} in {explanation.seconds:.1f} s"
    )
    error = explanation.relative_error
    if error is not None:
        line += f", sampling error {error:.1%} of the map's range"
        if error > NOISY:
            line += " (four times the --samples halve it)"
    gap = explanation.quality.get("completeness_gap")
    if gap is not None:
        line += f", completeness gap {gap:.3g}"
        if (total := explanation.quality.get("completeness_total")) is not None:
            line += f" of {total:.3g}"
    return line
