"""The half of a file with gradients that gives everything else, for passes that ask for no gradient.

ONNX Runtime computes every output of a file, whichever is asked for, so that such passes pay for the gradients. Once
they have taken longer than it takes to open another model, the part of the file that gives the other outputs is opened
beside it. It runs from then on in passes of the kinds, by outputs and shapes, in which its results were the file's to
the last bit: one of each kind is run by both.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from masktool.execution_providers.provider import HOST
from masktool.exported_files import count_file_bytes
from masktool.progress import log
from masktool.runtime.native_log import runtime_reason
from masktool.runtime.providers import open_beside

WriteHalf = Callable[[Path, Collection[str]], bytes]
"""Writes the part of a file that gives some of its outputs, as a model in memory."""
BESIDE = "score half"
"""What a session knows its half by."""
LEAST_SECONDS = 0.5
"""Seconds that passes without a gradient take before the half is opened: about as long as it takes to import what reads
a graph, and to open a small model."""
SECONDS_PER_BYTE = 1e-8
"""As many more for each byte of the file, whose weights are read and brought into blocks."""
MOST_BYTES = 1_500_000_000
"""Largest file whose half is made: a message of Protocol Buffers holds 2 GiB."""
Kind = tuple[tuple[str, ...], frozenset[tuple[str, tuple[int, ...]]]]
"""Names of the outputs that a pass gives, and shapes of its values by their names."""
Run = Callable[[Sequence[str], Mapping[str, np.ndarray]], list[np.ndarray]]
"""Function that returns outputs by their names, in their order, from values by the inputs' names."""


class ScoreHalf:
    """The part of a file with gradients that gives its other outputs.

    Args:
        path: path of the file.
        outputs: names of the outputs that it gives.
        threads: number of threads that one node may use; None where ONNX Runtime chooses.
        write: writer of that part.
    """

    def __init__(self, path: Path, outputs: Collection[str], threads: int | None, write: WriteHalf) -> None:
        self._path, self._outputs, self._threads, self._write = path, frozenset(outputs), threads, write
        self._lock = threading.Lock()
        size = count_file_bytes(path)
        self._left = LEAST_SECONDS + SECONDS_PER_BYTE * size
        self._tried = size > MOST_BYTES
        self._model: Run | None = None
        self._equal: set[Kind] = set()

    @property
    def is_open(self) -> bool:
        """Whether it is there to run in the file's place."""
        return self._model is not None

    def find_run(self, outputs: Sequence[str], values: Mapping[str, np.ndarray]) -> Run | None:
        """Returns what runs it, if a pass of this kind has shown that it gives the file's results."""
        model = self._model  # another thread may find that it gives other numbers
        return None if model is None or kind_of_pass(outputs, values) not in self._equal else model

    def follow(
        self,
        seconds: float,
        outputs: Sequence[str],
        values: Mapping[str, np.ndarray],
        repeat: Callable[[Run], list[np.ndarray]],
        expected: Sequence[np.ndarray],
    ) -> None:
        """Takes note of a pass of the file: opens the half once it is worth it, and compares it in each new kind.

        Kernels are chosen by shapes, so that each kind is compared once. Where the half gives other numbers, or cannot
        be opened, all goes on with the file, and the log says why.

        Args:
            seconds: seconds that the pass has taken.
            outputs: names of the outputs that it gave.
            values: values by the inputs' names.
            repeat: function that repeats the pass with another way to run it.
            expected: results of the pass.
        """
        try:
            if not self.is_open and self._is_due(seconds):
                self._open()
            model = self._model
            if model is None:
                return
            found = repeat(model)
        except Exception as error:  # whatever a damaged file raises, and ONNX Runtime, which has no common base
            self._stay(runtime_reason(error))
            return
        if all(map(is_same, found, expected)):
            self._equal.add(kind_of_pass(outputs, values))
        else:
            self._stay("it gives other numbers")

    def _is_due(self, seconds: float) -> bool:
        """Tells one thread, once, that it is worth it to open the half."""
        with self._lock:
            self._left -= seconds
            due = self._left <= 0 and not self._tried
            self._tried |= due
            return due

    def _open(self) -> None:
        model = open_beside(self._write(self._path, self._outputs), HOST, {}, self._threads)
        inputs = frozenset(node.name for node in model.get_inputs() + model.get_overridable_initializers())
        self._model = functools.partial(run_model, model, inputs)

    def _stay(self, reason: str) -> None:
        self._model = None
        log(f"passes without gradients are not made faster by a model without them, of {self._path}: {reason}")


def run_model(
    model: Any, inputs: Collection[str], outputs: Sequence[str], values: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Returns outputs of a session of ONNX Runtime's; values of inputs that it does not have are left out."""
    found: list[np.ndarray] = model.run(outputs, {name: each for name, each in values.items() if name in inputs})
    return found


def kind_of_pass(outputs: Sequence[str], values: Mapping[str, np.ndarray]) -> Kind:
    """Returns what decides a pass's kernels, and what of it can be compared."""
    return tuple(outputs), frozenset((name, each.shape) for name, each in values.items())


def is_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays of numbers are the same to the last bit."""
    alike = (one.dtype, one.shape) == (other.dtype, other.shape) and one.dtype != object
    return alike and one.tobytes() == other.tobytes()
