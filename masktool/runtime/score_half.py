"""The half of a file with gradients that gives everything else, for passes that ask for no gradient.

ONNX Runtime computes every output of a file, whichever is asked for, so that such passes pay for the gradients. Once
they have taken longer than it takes to open another model, the part of the file that gives the other outputs is opened
beside it. It runs from then on where its results for one pass were the file's to the last bit.
"""

from __future__ import annotations

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
        self._model: Any = None
        self._inputs: frozenset[str] = frozenset()

    @property
    def is_open(self) -> bool:
        """Whether it runs in the file's place."""
        return self._model is not None

    def run(self, outputs: Sequence[str], values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Returns outputs, as the session of the file does; values of inputs that only gradients have are left out."""
        return self._run(self._model, self._inputs, outputs, values)

    def is_due(self, seconds: float) -> bool:
        """Tells one thread, once, that it is worth it to open the half.

        Args:
            seconds: seconds that a pass without a gradient has taken.
        """
        with self._lock:
            self._left -= seconds
            due = self._left <= 0 and not self._tried
            self._tried |= due
            return due

    def open_where_equal(self, repeat: Callable[[Run], list[np.ndarray]], expected: Sequence[np.ndarray]) -> None:
        """Opens the half, which runs from now on where it gives the results of a pass to the last bit.

        Where it does not, or cannot be opened, all goes on with the file, and the log says why.

        Args:
            repeat: function that repeats the pass with another way to run it.
            expected: results of the pass.
        """
        try:
            model = open_beside(self._write(self._path, self._outputs), HOST, {}, self._threads)
            inputs = frozenset(node.name for node in model.get_inputs() + model.get_overridable_initializers())
            found = repeat(lambda outputs, values: self._run(model, inputs, outputs, values))
        except Exception as error:  # whatever a damaged file raises, and ONNX Runtime, which has no common base
            self._stay(runtime_reason(error))
            return
        if all(map(is_same, found, expected)):
            self._inputs = inputs
            self._model = model
        else:
            self._stay("it gives other numbers")

    def _stay(self, reason: str) -> None:
        log(f"passes without gradients are not made faster by a model without them, of {self._path}: {reason}")

    @staticmethod
    def _run(
        model: Any, inputs: Collection[str], outputs: Sequence[str], values: Mapping[str, np.ndarray]
    ) -> list[np.ndarray]:
        found: list[np.ndarray] = model.run(outputs, {name: each for name, each in values.items() if name in inputs})
        return found


def is_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays of numbers are the same to the last bit."""
    alike = (one.dtype, one.shape) == (other.dtype, other.shape) and one.dtype != object
    return alike and one.tobytes() == other.tobytes()
