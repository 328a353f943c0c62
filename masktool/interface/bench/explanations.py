"""What each method costs end to end on one image, and how much of that ONNX Runtime spends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from masktool.errors import MasktoolError
from masktool.explainers.method import METHODS, Method
from masktool.explainers.subject import ImageLike
from masktool.interface.bench.spread import Clocks, Lap, Spread, clocks_of, time_call
from masktool.interface.explain import explain
from masktool.progress import Say
from masktool.runtime.session import MaskedSession

FIRST_SAMPLES = 8
"""Samples of the run before the first that counts, which imports what a method needs and makes ONNX Runtime's
buffers."""


@dataclasses.dataclass(frozen=True)
class MethodFigures:
    """What one explanation by a method took.

    Attributes:
        passes: the number of images pushed through the model.
        seconds: the seconds from the opened model and image to the map.
        runtime_share: the share of the time on the wall that was spent inside ONNX Runtime.
    """

    passes: int
    seconds: Clocks
    runtime_share: Spread


@dataclasses.dataclass(frozen=True)
class MethodFailure:
    """A method that does not explain the model.

    Attributes:
        reason: why not.
    """

    reason: str


class MethodRun:
    """Runs of one method on one image, one after the other.

    Args:
        session: the open model.
        image: the image.
        name: the name of the method.
        samples: the number of samples; None takes the method's default.
    """

    def __init__(self, session: MaskedSession, image: ImageLike, name: str, samples: int | None) -> None:
        self._session, self._image, self._name = session, image, name
        self._samples = samples if METHODS[name].samples_option else None
        self._laps: list[Lap] = []
        self._shares: list[float] = []
        self._passes = 0

    def warm_up(self) -> None:
        """Runs the method once with few samples, where it draws any."""
        if METHODS[self._name].samples_option:
            self._explain(FIRST_SAMPLES)

    def repeat(self) -> None:
        """Runs the method once more, and keeps what it took."""
        with self._session.counter.tally() as tally:
            lap = time_call(lambda: self._explain(self._samples))
        self._laps.append(lap)
        self._shares.append(tally.seconds / lap.wall)
        self._passes = tally.passes

    def figures(self) -> MethodFigures:
        """Returns what the runs so far took."""
        return MethodFigures(self._passes, clocks_of(self._laps), Spread.of(self._shares))

    def _explain(self, samples: int | None) -> None:
        explain(self._session, self._image, self._name, n_samples=samples)


def measure_methods(
    sessions: Mapping[str, MaskedSession | str], image: ImageLike, repeats: int, samples: int | None, say: Say
) -> dict[str, MethodFigures | MethodFailure]:
    """Measures methods in turns: every repetition runs each of them once.

    Args:
        sessions: the open model for each method by its name, or the reason why there is none.
        image: the image.
        repeats: the number of repetitions.
        samples: the number of samples of methods that take one; None takes each method's default.
        say: function that is called with what is being measured.
    """
    found: dict[str, MethodFigures | MethodFailure] = {
        name: MethodFailure(reason) for name, reason in sessions.items() if isinstance(reason, str)
    }
    runs = {name: MethodRun(each, image, name, samples) for name, each in sessions.items() if not isinstance(each, str)}
    for number in range(repeats):
        for name in [name for name in runs if name not in found]:
            say(f"{name}, {number + 1} of {repeats}")
            try:
                if number == 0:
                    runs[name].warm_up()
                runs[name].repeat()
            except MasktoolError as error:
                found[name] = MethodFailure(error.message)
    return {name: found[name] if name in found else runs[name].figures() for name in sessions}


def list_methods(wanted: Sequence[str], session: MaskedSession) -> list[str]:
    """Returns the names of the methods to measure: those that are wanted, else all that a file has the outputs for.

    A file with a head or a feature map is another one than the session's, and gives what methods with ``needs_head`` or
    ``needs_feature_map`` read.
    """
    found = (name for name, method in METHODS.items() if method.needs_head or has_outputs(session, method))
    return list(wanted) or list(found)


def has_outputs(session: MaskedSession, method: type[Method]) -> bool:
    """Tells whether a file has the outputs that a method reads besides the scores."""
    return all(map(session.has_output, method.outputs))
