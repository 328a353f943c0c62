"""Runs of an evaluation: image by image, resumable, with whatever cannot be used reported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from masktool.contract import __version__
from masktool.datasets.dataset import Dataset, DatasetImage, Problem
from masktool.errors import MasktoolError
from masktool.evaluation.findings import Evaluation
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.part import Part
from masktool.evaluation.processes import measure_here, measure_in_processes
from masktool.identity import digest_code
from masktool.journal import Journal, Record
from masktool.progress import Progress, Say, log, no_progress
from masktool.runtime.scores import note_corrected_scores, note_unknown_scores


def run_part(
    part: Part,
    dataset: Dataset,
    journal_path: Path | None = None,
    progress: Progress = no_progress,
    say: Say = log,
    jobs: int = 1,
) -> Evaluation:
    """Returns the evaluation of a data set; images that an earlier run has measured are taken from its journal.

    Args:
        part: the part to measure.
        dataset: the data set to measure it on.
        journal_path: path of the file in which records are kept; None keeps them in memory.
        progress: function that shows progress, see :data:`masktool.progress.Progress`.
        say: function that is given messages on what an earlier run has left, a line at a time.
        jobs: number of processes that measure; one is this process.

    Raises:
        MasktoolError: no image could be measured, or the models are of different networks.
    """
    started = time.monotonic()
    check_same_source(part.models)
    models = [model.describe() for model in part.models]
    settings = {**part.settings(), "models": models, "tool_version": __version__}
    digests = {image.name: image.digest() for image in dataset.images}
    with Journal(journal_path, {"part": part.name, "code": digest_code(), **settings}) as journal:
        measured, failed = measure_all(part, dataset.images, digests, journal, progress, say, jobs)
    problems = (*dataset.problems, *failed)
    if not measured:
        first = f"{problems[0].where}: " + problems[0].what if problems else "there are none"
        raise MasktoolError("no image could be measured", where=f"{len(dataset.images)} images", got=first)
    findings = part.summarise(measured)
    unknown = tuple(note_unknown_scores(part.models[0].session.metadata))
    corrected = (
        f"{model.name}: {note}" for model in part.models for note in note_corrected_scores(model.session.metadata)
    )
    findings = dataclasses.replace(findings, notes=(*findings.notes, *unknown, *corrected))
    return Evaluation(
        part=part.name,
        title=part.title,
        settings=settings,
        findings=findings,
        problems=problems,
        n_images=len(measured),
        seconds=time.monotonic() - started,
        images=measured,
        data_sha256=hashlib.sha256(json.dumps(digests).encode()).hexdigest(),
    )


def measure_all(
    part: Part,
    images: Sequence[DatasetImage],
    digests: Mapping[str, str],
    journal: Journal,
    progress: Progress,
    say: Say,
    jobs: int,
) -> tuple[dict[str, Record], list[Problem]]:
    """Returns the records by image, in the order of the images, and the problems of images that could not be measured.

    Problems are not written to the journal: the next run tries those images again.
    """
    found = {image.name: journal.find(image.name, digests[image.name]) for image in images}
    done = sum(record is not None for record in found.values())
    if journal.changed:
        say(f"an earlier run had other settings ({', '.join(journal.changed)}): starting anew")
    if done:
        say(f"resuming: {done} of {len(images)} images are measured")
    failed = []
    with progress(part.title, len(images)) as advance:
        advance(done)
        todo = [image for image in images if found[image.name] is None]
        measured = measure_here(part, todo) if jobs == 1 else measure_in_processes(part, todo, jobs)
        for image, outcome in measured:
            if isinstance(outcome, MasktoolError):
                failed.append(Problem(image.name, outcome.message))
            else:
                found[image.name] = journal.add(image.name, digests[image.name], outcome)
            advance(1)
    return {name: record for name, record in found.items() if record is not None}, failed


def check_same_source(models: Sequence[NamedModel]) -> None:
    """Raises MasktoolError unless all models were exported from one network."""
    digests = {model.session.metadata.source_sha256 for model in models}
    if len(digests) > 1:
        names = ", ".join(f"{model.name}: {model.session.metadata.source}" for model in models)
        raise MasktoolError(
            "the models are different networks", expected="exports of one", got=names, fix="evaluate them one by one"
        )
