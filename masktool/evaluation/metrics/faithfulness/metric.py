"""Metrics of faithfulness: their options, the figures and curves that they give; and all metrics by name.

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
"""What a metric asks the model about: masked images, so that the metric is measured through each masking mode; images
without a mask; or nothing, since the metric is about the maps alone."""


class Figure(NamedTuple):
    """One number that a metric gives per map.

    Attributes:
        name: name in records and tables.
        meaning: meaning of the number, in one line.
        better: direction that is better; None where that depends on other figures.
    """

    name: str
    meaning: str
    better: Literal["higher", "lower"] | None


class Curve(NamedTuple):
    """One series of numbers that a metric gives per map.

    Attributes:
        name: name in records and charts.
        title: heading of the curve's chart: what it shows.
        x_label: label of the horizontal axis, with its unit.
        y_label: label of the vertical axis, with its unit.
        x: positions of the points.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    x: tuple[float, ...]


class Measured(NamedTuple):
    """A metric's result for one map, by the names of its figures and curves; None where undefined."""

    figures: Mapping[str, float | None]
    curves: Mapping[str, Sequence[float | None]] = {}


@dataclasses.dataclass(frozen=True)
class Metric(abc.ABC):
    """A metric; the fields of a subclass are its options.

    Class attributes:
        name: name on the command line and in records.
        title: title in headings.
        figures: figures that the metric gives.
        asks: kind of images that the metric asks the model about, see :data:`Asks`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    figures: ClassVar[tuple[Figure, ...]]
    asks: ClassVar[Asks] = "masks"

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The curves that the metric gives."""
        return ()

    @abc.abstractmethod
    def measure(self, trial: Trial) -> Mapping[str, Measured]:
        """Returns the metric's result for every map of a trial, by the maps' names."""


METRICS: ClassRegistry[Metric] = ClassRegistry("metric", "masktool.evaluation.metrics.faithfulness")
"""The class of every metric, by its name."""
register = METRICS.add


def build_metric(name: str, options: Mapping[str, Any]) -> Metric:
    """Returns a metric with the given options; an option that is left out takes its default.

    Raises:
        MasktoolError: the metric or an option is unknown, or a value is out of range.
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
