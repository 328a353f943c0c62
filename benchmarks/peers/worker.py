"""One peer in a process of its own, on one core and one thread; reads requests from stdin, answers on stdout.

``python -m benchmarks.peers.worker PEER FOLDER``; requests and answers are lines of JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.problem import Problem

WARM_UP = 16
"""Samples of the run before the first of a method, which imports and compiles what the method needs."""


class Worker:
    """A peer that explains on request."""

    def __init__(self, peer: str, folder: Path) -> None:
        self.module = importlib.import_module(f"benchmarks.peers.{peer}")
        self.problem = Problem.read(folder)
        self.ready: dict[str, Any] = {}

    def introduce(self) -> dict[str, Any]:
        """Returns the version of the peer and the names of its methods."""
        version = importlib.metadata.version(self.module.DISTRIBUTION)
        return {"version": version, "methods": list(self.module.METHODS), "python": sys.version.split()[0]}

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Explains once, and returns what it took; the map is written where the request says."""
        method, samples, batch = request["method"], request["samples"], request["batch"]
        key = f"{method} {samples} {batch}"
        if key not in self.ready:
            self.ready[key] = self.module.METHODS[method](self.problem, samples, batch)
            if not any(each.startswith(f"{method} ") for each in self.ready if each != key):
                self.module.METHODS[method](self.problem, WARM_UP, batch)(0)
        before, wall, cpu = self.problem.counted, time.perf_counter(), time.process_time()
        found = self.ready[key](request["seed"])
        taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        np.save(request["map"], np.asarray(found, np.float64))
        return {**taken, "passes": self.problem.counted - before or None}


def serve() -> None:
    """Answers requests until stdin ends; what a peer prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[os.getpid() % len(os.sched_getaffinity(0))]})
    worker = Worker(sys.argv[1], Path(sys.argv[2]))
    answers.write(json.dumps(worker.introduce()) + "\n")
    answers.flush()
    for line in sys.stdin:
        try:
            found = worker.answer(json.loads(line))
        except Exception as error:  # a peer's method that fails is a row of the table, whatever it raises
            found = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        answers.write(json.dumps(found) + "\n")
        with contextlib.suppress(BrokenPipeError):
            answers.flush()


if __name__ == "__main__":
    serve()
