"""What a metric of faithfulness is: its options, the figures and curves that it gives; and all metrics by name.

A metric is a frozen dataclass whose fields are its options. It lives in a file of its own in this package, which is
found by looking into it, so nothing else needs editing to add one.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from masktool.errors import MasktoolError
from masktool.evaluation.metrics.faithfulness.trial import Trial
from masktool.option_checks import build_with_options
from masktool.registry import ClassRegistry

Asks = Literal["masks", "images", "nothing"]
"""What a metric asks the model about: masked images, and so it is measured through each masking mode; images without a
mask; or nothing, since it is about the maps alone."""


class Figure(NamedTuple):
    """One number that a metric gives per map.

    Attributes:
        name: name in records and tables.
        meaning: what the number is, in one line.
        better: which way is better; None where that depends on the rest.
    """

    name: str
    meaning: str
    better: Literal["higher", "lower"] | None


class Curve(NamedTuple):
    """One series of numbers that a metric gives per map.

    Attributes:
        name: name in records and charts.
        title: what is shown.
        x_label: what the horizontal axis shows, with its unit.
        y_label: what the vertical axis shows, with its unit.
        x: positions of the points.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    x: tuple[float, ...]


class Measured(NamedTuple):
    """What a metric says of one map, under the names of its figures and curves; None where undefined."""

    figures: Mapping[str, float | None]
    curves: Mapping[str, Sequence[float | None]] = {}


@dataclasses.dataclass(frozen=True)
class Metric(abc.ABC):
    """A metric; the fields of a subclass are its options.

    Class attributes:
        name: name on the command line and in records.
        title: title in headings.
        figures: figures that the metric gives.
        asks: what the metric asks the model about.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    figures: ClassVar[tuple[Figure, ...]]
    asks: ClassVar[Asks] = "masks"

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The curves that it gives."""
        return ()

    @abc.abstractmethod
    def measure(self, trial: Trial) -> Mapping[str, Measured]:
        """Judges every map of a trial, under the maps' names."""


METRICS: ClassRegistry[Metric] = ClassRegistry("metric", "masktool.evaluation.metrics.faithfulness")
"""The class of every metric, by its name."""
register = METRICS.add


def build_metric(name: str, options: Mapping[str, Any]) -> Metric:
    """Builds a metric with the given options; what is left out takes its default.

    Raises:
        MasktoolError: unknown metric or option, or a value out of range.
    """
    return build_with_options(METRICS.find(name), name, options)


def check_shares(name: str, values: object) -> None:
    """Raises a MasktoolError that names the option unless its value lists rising shares strictly between 0 and 1."""
    numbers = np.asarray(values if isinstance(values, Sequence) and not isinstance(values, str) else [])
    if numbers.ndim != 1 or numbers.size == 0 or numbers.dtype.kind not in "if":
        rising = False
    else:
        rising = bool(numbers[0] > 0 and numbers[-1] < 1 and (np.diff(numbers) > 0).all())
    if not rising:
        raise MasktoolError(
            "option out of range", where=name, expected="rising shares between 0 and 1", got=repr(values)
        )
