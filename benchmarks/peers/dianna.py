"""DIANNA, on the network's ONNX file."""

from __future__ import annotations

from typing import Any

import dianna
import numpy as np
from dianna.methods.lime_image import LIMEImage

from benchmarks.peers.problem import PLAIN, Explain, Map, Problem

DISTRIBUTION = "dianna"


def rise(problem: Problem, samples: int | None, batch: int | None) -> Explain:
    options: dict[str, Any] = {} if samples is None else {"n_masks": samples, "feature_res": 7, "p_keep": 0.5}
    options |= {} if batch is None else {"batch_size": batch}

    def explain(seed: int) -> Map:
        np.random.seed(seed)  # noqa: NPY002  # DIANNA draws from it
        path = str(problem.folder / PLAIN)
        (found,) = dianna.explain_image(path, problem.image[0], "RISE", labels=[problem.target], **options)
        return np.asarray(found)

    return explain


def lime(problem: Problem, samples: int | None, batch: int | None) -> Explain:
    options: dict[str, Any] = {"return_masks": False}
    if samples is not None:
        options |= {"num_samples": samples, "segmentation_fn": lambda _: problem.segments, "hide_color": 0}
        options["num_features"] = int(problem.segments.max()) + 1  # ten are left of them otherwise
    if batch is not None:
        options["batch_size"] = batch

    def explain(seed: int) -> Map:
        explainer = LIMEImage(random_state=seed, axis_labels={2: "channels"}, preprocess_function=problem.prepare)
        path = str(problem.folder / PLAIN)
        (found,) = explainer.explain(path, problem.photograph, [problem.target], **options)
        return np.asarray(found)

    return explain


METHODS = {"rise": rise, "lime": lime}
