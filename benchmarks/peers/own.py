"""masktool itself, for the peers ``masktool_layer`` and ``masktool_fill``: the same methods on either file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from benchmarks.peers.problem import DRAWING, Explain, Map, Problem

SEGMENTED = ("lime", "kernel-shap")
OTHERS = ("occlusion", "recipro-cam")
GRADIENT = ("grad-cam", "integrated-gradients")
EQUAL: dict[str, dict[str, Any]] = {"rise": {"grid_size": 7, "p": 0.5}}
"""Settings besides the number of samples and the segments where all peers have the same."""
PASSES_OF_A_POINT = 7 * 7 / 2 + 2
"""Passes that each point of Sobol's sequence costs on a grid of 7 x 7 cells."""


def own_methods(file: str) -> dict[str, Callable[..., Explain]]:
    """Returns the methods that this version of masktool has, on a file of the problem's folder."""
    from masktool.explainers.method import METHODS

    names = (*DRAWING, *OTHERS, *(GRADIENT if file == "masked.onnx" else ()))
    return {name: functools.partial(explain_by, file, name) for name in names if name in METHODS}


@functools.cache
def open_file(path: str, *, gradient: bool) -> Any:
    """Opens a file once, on one thread."""
    import masktool

    return masktool.load(path, "cpu", threads=1, gradient=gradient)


def explain_by(file: str, name: str, problem: Problem, samples: int | None, batch: int | None) -> Explain:
    """Returns the function that explains by a method of masktool's."""
    import masktool

    session = open_file(str(problem.folder / file), gradient=name in GRADIENT)
    options: dict[str, Any] = {"perturbations_per_eval": batch}
    if samples is not None:
        options |= EQUAL.get(name, {})
        options |= {"feature_mask": problem.segments} if name in SEGMENTED else {}
        if name in DRAWING:
            options["n_samples"] = max(2, round(samples / PASSES_OF_A_POINT)) if name == "sobol" else samples

    def explain(seed: int) -> Map:
        with session.counter.tally() as tally:
            found = masktool.explain(session, problem.image[0], name, problem.target, seed=seed, **options)
        problem.counted += tally.passes
        return found.model_attributions

    return explain
