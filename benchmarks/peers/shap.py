"""The package shap, around the network in ONNX Runtime; its KernelExplainer hides the segments that all share."""

from __future__ import annotations

from typing import Any

import numpy as np
import shap
from numpy.typing import NDArray

from benchmarks.peers.problem import Explain, Map, Problem

DISTRIBUTION = "shap"
CHUNK = 16
"""Images in one pass where no batch is asked for: shap hands over all samples at once."""


def kernel_shap(problem: Problem, samples: int | None, batch: int | None) -> Explain:
    predict = problem.open_runtime()
    count = int(problem.segments.max()) + 1
    size = batch or CHUNK

    def score(rows: NDArray[Any]) -> NDArray[np.float32]:
        found = []
        for start in range(0, len(rows), size):
            kept = rows[start : start + size].astype(np.float32)[:, problem.segments]
            found.append(predict(problem.image * kept[:, None])[:, problem.target])
        return np.concatenate(found)

    def explain(seed: int) -> Map:
        np.random.seed(seed)  # noqa: NPY002  # shap draws from it
        explainer = shap.KernelExplainer(score, np.zeros((1, count)))
        chosen = "auto" if samples is None else samples
        return problem.paint(explainer.shap_values(np.ones((1, count)), nsamples=chosen, silent=True)[0])

    return explain


METHODS = {"kernel-shap": kernel_shap}
