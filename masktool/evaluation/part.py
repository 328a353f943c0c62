"""What an evaluation is, and how one is run: image by image, resumable, with whatever cannot be used reported."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from masktool.errors import MasktoolError
from masktool.evaluation.dataset import Dataset
from masktool.evaluation.findings import Evaluation, Findings, Problem
from masktool.evaluation.journal import Journal, Record
from masktool.evaluation.scene import Scene, read_scene
from masktool.explainers.explaining import Progress, no_progress
from masktool.runtime.session import MaskedSession

FAILURE = "problem"
"""Key of a record that says why an image could not be measured."""


@dataclasses.dataclass(frozen=True)
class NamedModel:
    """A model under the name that tables show.

    Attributes:
        name: such as the masking mode, ``layer`` or ``black``.
        session: of the exported file.
    """

    name: str
    session: MaskedSession

    def describe(self) -> dict[str, Any]:
        """Returns what decides the model's answers, as JSON values."""
        metadata = self.session.metadata
        return {
            "name": self.name,
            "source": metadata.source,
            "source_sha256": metadata.source_sha256,
            "masking": metadata.masking,
            "baseline": metadata.baseline,
        }


class Part(abc.ABC):
    """One kind of evaluation.

    Class attributes:
        name: on the command line and in files.
        title: in headings and progress.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    @property
    @abc.abstractmethod
    def models(self) -> Sequence[NamedModel]:
        """The models; images are prepared as the first one's file says."""

    @abc.abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Returns everything besides models and images that decides the records, as JSON values."""

    @abc.abstractmethod
    def measure(self, scene: Scene) -> Record:
        """Measures one image.

        Raises:
            MasktoolError: the image cannot be measured; it is reported and skipped.
        """

    @abc.abstractmethod
    def summarise(self, records: Mapping[str, Record]) -> Findings:
        """Sums up the records, in the order of the images."""


def run_part(
    part: Part, dataset: Dataset, journal_path: Path | None = None, progress: Progress = no_progress
) -> Evaluation:
    """Measures every image that an earlier run has not, and sums up.

    Args:
        part: what to measure.
        dataset: on what.
        journal_path: where records are kept while the run lasts; None keeps them in memory.
        progress: shows how far it is.

    Raises:
        MasktoolError: no image could be measured, or the models are of different networks.
    """
    started = time.monotonic()
    check_same_source(part.models)
    settings = {**part.settings(), "models": [model.describe() for model in part.models]}
    with Journal(journal_path, {"part": part.name, **settings}) as journal, contextlib.ExitStack() as stack:
        missing = [sample for sample in dataset.samples if sample.name not in journal.records]
        advance = stack.enter_context(progress(part.title, len(dataset.samples)))
        advance(len(dataset.samples) - len(missing))
        for sample in missing:
            try:
                record = part.measure(read_scene(sample, part.models[0].session))
            except MasktoolError as error:
                record = {FAILURE: str(error)}
            journal.add(sample.name, record)
            advance(1)
        found = {sample.name: journal.records[sample.name] for sample in dataset.samples}
    failed = tuple(Problem(name, record[FAILURE]) for name, record in found.items() if FAILURE in record)
    measured = {name: record for name, record in found.items() if FAILURE not in record}
    problems = (*dataset.problems, *failed)
    if not measured:
        first = f"{problems[0].where}: {problems[0].what}" if problems else "there are none"
        raise MasktoolError("no image could be measured", where=f"{len(dataset.samples)} images", got=first)
    findings = part.summarise(measured)
    seconds = time.monotonic() - started
    return Evaluation(part.name, settings, findings, problems, len(measured), seconds)


def check_same_source(models: Sequence[NamedModel]) -> None:
    """Raises MasktoolError unless all models were exported from one network."""
    digests = {model.session.metadata.source_sha256 for model in models}
    if len(digests) > 1:
        names = ", ".join(f"{model.name}: {model.session.metadata.source}" for model in models)
        raise MasktoolError(
            "the models are different networks", expected="exports of one", got=names, fix="evaluate them one by one"
        )
