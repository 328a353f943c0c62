"""Exports and explains with the version of masktool that PYTHONPATH names, on one thread, in a process of its own.

``python -P child.py``; requests from stdin and answers on stdout are lines of JSON. Only what every version of masktool
has is used here, so that the same lines ask all of them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

import masktool
from masktool.contract import Preprocessing


def export_files(request: Mapping[str, Any]) -> dict[str, Any]:
    """Exports a network, once for each set of options, and returns the class of a photograph."""
    steps = Preprocessing.from_json(request["preprocessing"])
    for path, options in request["files"].items():
        if not os.path.exists(path):  # noqa: PTH110  # a line that both versions run as it is
            masktool.export(request["network"], path, preprocessing=steps, **options)
    with masktool.load(next(iter(request["files"])), "cpu", threads=1) as session:
        found = masktool.explain(session, request["image"], "lime", n_samples=8)
    assert isinstance(found.target, int)
    return {"target": found.target, "place": os.path.dirname(masktool.__file__)}  # noqa: PTH120


def explain_once(request: Mapping[str, Any]) -> dict[str, Any]:
    """Explains a photograph with a model that was just opened, and writes the map where the request says."""
    with masktool.load(request["file"], "cpu", threads=1) as session:
        wall, cpu = time.perf_counter(), time.process_time()
        found = masktool.explain(
            session,
            request["image"],
            request["method"],
            request["target"],
            seed=request["seed"],
            n_samples=request["samples"],
        )
        taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    np.save(request["map"], found.model_attributions.astype(np.float64))
    return {**taken, "passes": found.forward_passes}


def serve() -> None:
    """Answers requests until stdin ends; what is printed goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            found = export_files(request) if "files" in request else explain_once(request)
        except Exception as error:  # a method that one version lacks or refuses is a row of the report
            found = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
