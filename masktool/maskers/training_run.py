"""The run of a training: step after step, with the progress shown, the state kept on disk, and signals heeded."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from masktool.files import atomic_path
from masktool.maskers.checkpoint import Checkpoint
from masktool.maskers.interruption import deferred_signals
from masktool.maskers.loading import Batch, load_batches
from masktool.maskers.plan import Plan
from masktool.maskers.training import Record, Training
from masktool.messages import parameter
from masktool.progress import Progress, Say

CHECKPOINT_SECONDS = 120.0
"""Seconds from one checkpoint until the next step's end is kept too, so that a crash loses little more work."""
GPU_WORKERS = 8
"""Number of processes that read images for a GPU, where there are as many cores."""


@dataclasses.dataclass
class TrainingRun:
    """The steps of a training, with their progress shown and their state kept on disk.

    Attributes:
        plan: plan of the training.
        training: training, at the step where the run begins.
        records: records of the steps so far; grows.
        identity: everything that decides the course of the training, JSON values by name.
        checkpoint: path of the file that the training is kept in.
        log: path of the file for the records; None writes none.
    """

    plan: Plan
    training: Training
    records: list[Record]
    identity: Mapping[str, Any]
    checkpoint: Path
    log: Path | None

    def train(self, workers: int, progress: Progress, say: Say) -> None:
        """Takes the steps that are left.

        Raises:
            KeyboardInterrupt: a signal came; the step was finished and the checkpoint written.
            MasktoolError: an image does not open, or the loss is no longer finite.
        """
        if self.records:
            self.write_log()  # a kill may have come between the checkpoint and the log
        saved_at, per_epoch = time.monotonic(), self.plan.steps_per_epoch
        with deferred_signals() as interrupted, progress("training", self.plan.steps) as advance:
            advance(self.training.done)
            for images, labels in self.batches(workers):
                record = self.training.step(images, labels)
                self.records.append(record)
                advance(1, describe_record(record))
                ended, stopped = self.training.done % per_epoch == 0, interrupted()
                if ended or stopped or time.monotonic() - saved_at >= CHECKPOINT_SECONDS:
                    self.save()
                    saved_at = time.monotonic()
                if ended:
                    epoch, epochs = self.training.done // per_epoch, self.plan.settings.epochs
                    say(f"epoch {epoch} of {epochs}: {describe_record(average(self.records[-per_epoch:]))}")
                if stopped:  # as asked before the checkpoint was written: a later signal waits for the next step
                    say(
                        f"stopped after step {self.training.done} of {self.plan.steps}, kept in {self.checkpoint}; "
                        + parameter("resume", True)
                        + " goes on"
                    )
                    raise KeyboardInterrupt

    def batches(self, workers: int) -> Iterator[Batch]:
        """Yields the batches of the steps that are left."""
        settings = self.plan.settings
        return load_batches(
            self.plan.examples,
            self.plan.preprocessing,
            seed=settings.seed,
            batch=settings.batch,
            min_crop=settings.min_crop,
            flip=settings.flip,
            workers=workers,
            first_step=self.training.done,
            last_step=self.plan.steps,
            pin_memory=self.plan.device.type == "cuda",
        )

    def save(self) -> None:
        """Writes the checkpoint and the log."""
        Checkpoint(self.identity, self.training.state(), self.records, self.plan.steps).save(self.checkpoint)
        self.write_log()

    def write_log(self) -> None:
        """Writes the records so far to the log, where a log is asked for."""
        if self.log is not None:
            with atomic_path(self.log) as temporary:
                lines = (json.dumps({"step": step, **each}) for step, each in enumerate(self.records, 1))
                temporary.write_text("".join(f"{line}\n" for line in lines))


def choose_workers(workers: int | None, device: torch.device) -> int:
    """Returns the number of processes that read images."""
    if workers is not None:
        return workers
    return min(GPU_WORKERS, os.cpu_count() or 1) if device.type == "cuda" else 0


def average(records: Sequence[Record]) -> Record:
    """Returns the mean of every figure over the records."""
    return {name: sum(each[name] for each in records) / len(records) for name in records[0]}


def describe_record(record: Record) -> str:
    """Returns the figures of a record as one line of text."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in record.items())
