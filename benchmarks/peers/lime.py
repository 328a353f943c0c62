"""The package lime, around the network in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
from lime.lime_image import LimeImageExplainer

from benchmarks.peers.problem import Explain, Map, Problem

DISTRIBUTION = "lime"


def lime(problem: Problem, samples: int | None, batch: int | None) -> Explain:
    predict = problem.predict_pictures()
    options: dict[str, Any] = {"labels": (problem.target,), "top_labels": None}
    if samples is not None:
        options |= {"num_samples": samples, "segmentation_fn": lambda _: problem.segments, "hide_color": 0}
    if batch is not None:
        options["batch_size"] = batch

    def explain(seed: int) -> Map:
        explainer = LimeImageExplainer(random_state=seed)
        found = explainer.explain_instance(problem.photograph, predict, random_seed=seed, **options)
        values = np.zeros(found.segments.max() + 1)
        for segment, weight in found.local_exp[problem.target]:
            values[segment] = weight
        return values[found.segments]

    return explain


METHODS = {"lime": lime}
