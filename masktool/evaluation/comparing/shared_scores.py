"""Scores under masks that several maps of one image ask for: each mask is run once.

The samples of a run are the first of a longer one, whatever method draws them, wherever its design goes on behind the
same rows. So nothing is assumed of methods: rows are known by their bytes and by how they become masks, and a row that
was scored before is not scored again. The map is the one that the method makes alone, but for the last bits, which the
number of masks in a pass may decide. What a pass took, in time, is charged to every map that asks for it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.mask_design import MaskDesign, MasksInMemory, MasksOfRows, Rows
from masktool.explainers.task import Evaluate, ScoredMasks

MASKS = "masks"
"""Name of the rows that are masks themselves, where there is no design."""


class Times(NamedTuple):
    """Time in seconds: of the processors together, and on the wall."""

    cpu: float = 0.0
    wall: float = 0.0

    @classmethod
    def now(cls) -> Times:
        """Returns the clocks of this process."""
        return cls(time.process_time(), time.perf_counter())

    def plus(self, other: Times) -> Times:
        """Returns the sum of both."""
        return Times(self.cpu + other.cpu, self.wall + other.wall)

    def less(self, other: Times) -> Times:
        """Returns the difference of both."""
        return Times(self.cpu - other.cpu, self.wall - other.wall)

    def times(self, factor: float) -> Times:
        """Returns the time multiplied by a factor."""
        return Times(self.cpu * factor, self.wall * factor)


class KnownScore(NamedTuple):
    """The targets' scores (T,) under one mask, and what its pass took."""

    scores: NDArray[np.float64]
    times: Times


class SharedScores:
    """Runs the model on one image under masks that were not asked for before; called as :class:`Evaluate` is.

    Args:
        evaluate: function that runs the model.

    Attributes:
        asked: number of masks that were asked for.
        run: number of masks that were run.
        charged: what the passes took of all that were asked for, whenever they were run.
        spent: what the passes took of those that were run.
    """

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate
        self.asked = self.run = 0
        self.charged, self.spent = Times(), Times()
        self._known: dict[bytes, KnownScore] = {}

    def __call__(self, batches: Iterable[Any], total: int, design: MaskDesign | None = None) -> Iterator[ScoredMasks]:  # noqa: ARG002  # as Evaluate is
        """Yields each batch of masks with its scores."""
        kind = describe_design(design)
        for batch in batches:
            rows: Rows = {MASKS: batch} if design is None else batch
            found = self.score(rows, kind, design)
            masks = MasksInMemory(batch) if design is None else MasksOfRows(design, batch)
            yield ScoredMasks(masks, np.stack([each.scores for each in found]))

    def score(self, rows: Rows, kind: bytes, design: MaskDesign | None) -> list[KnownScore]:
        """Returns the scores under the masks of some rows, of which those that are not known are run."""
        keys = [row_key(rows, kind, place) for place in range(len(next(iter(rows.values()))))]
        places = list({key: place for place, key in enumerate(keys) if key not in self._known}.values())
        if places:
            self.run_rows(keys, places, rows, design)
        found = [self._known[key] for key in keys]
        self.asked += len(found)
        for each in found:
            self.charged = self.charged.plus(each.times)
        return found

    def run_rows(self, keys: list[bytes], places: list[int], rows: Rows, design: MaskDesign | None) -> None:
        """Runs the masks of the rows at some places, and remembers their scores."""
        chosen = {name: values[places] for name, values in rows.items()}
        started = Times.now()
        batch = chosen[MASKS] if design is None else chosen
        (scored,) = self.evaluate([batch], len(places), design)
        took = Times.now().less(started)
        self.run += len(places)
        self.spent = self.spent.plus(took)
        each = took.times(1 / len(places))
        for place, scores in zip(places, scored.scores, strict=True):
            self._known[keys[place]] = KnownScore(scores, each)


def describe_design(design: MaskDesign | None) -> bytes:
    """Returns a digest of how rows become masks: the design's kind and the values that it holds."""
    digest = hashlib.blake2b(type(design).__name__.encode(), digest_size=16)
    if design is not None:
        for field in dataclasses.fields(design):  # type: ignore[arg-type]  # every design is a dataclass
            value = getattr(design, field.name)
            is_array = isinstance(value, np.ndarray)
            digest.update(field.name.encode() + (value.tobytes() if is_array else repr(value).encode()))
    return digest.digest()


def row_key(rows: Rows, kind: bytes, place: int) -> bytes:
    """Returns what a row is known by."""
    digest = hashlib.blake2b(kind, digest_size=16)
    for name in sorted(rows):
        digest.update(name.encode() + np.ascontiguousarray(rows[name][place]).tobytes())
    return digest.digest()
