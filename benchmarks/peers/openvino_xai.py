"""OpenVINO XAI, on the network's ONNX file, run by OpenVINO."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from openvino_xai.methods.black_box.aise.classification import AISEClassification
from openvino_xai.methods.black_box.rise import RISE
from openvino_xai.methods.white_box.recipro_cam import ReciproCAM

from benchmarks.peers.problem import PLAIN, Explain, Map, Problem

DISTRIBUTION = "openvino-xai"


def read_model(problem: Problem) -> Any:
    """Reads the network for one image at a time, as OpenVINO XAI runs it."""
    model = openvino.Core().read_model(str(problem.folder / PLAIN))
    model.reshape(problem.image.shape)
    return model


def probabilities(outputs: Any) -> Any:
    """Returns the probabilities (1, K)."""
    return outputs[0].reshape(1, -1)


def by_box(kind: Any, problem: Problem, options: dict[str, Any], *, seeded: bool) -> Explain:
    """Returns the function that explains by a method that only asks for scores."""
    method = kind(read_model(problem), probabilities)
    forward = method.model_forward

    def counted(*arguments: Any, **named: Any) -> Any:
        problem.counted += 1
        return forward(*arguments, **named)

    method.model_forward = counted

    def explain(seed: int) -> Map:
        chosen = options | ({"seed": seed} if seeded else {})
        found = method.generate_saliency_map(problem.image, [problem.target], scale_output=False, **chosen)
        return np.asarray(found[problem.target])

    return explain


def rise(problem: Problem, samples: int | None, batch: int | None) -> Explain:  # noqa: ARG001
    options = {} if samples is None else {"num_masks": samples, "num_cells": 7, "prob": 0.5}
    return by_box(RISE, problem, options, seeded=True)


def aise(problem: Problem, samples: int | None, batch: int | None) -> Explain:  # noqa: ARG001
    return by_box(AISEClassification, problem, {}, seeded=False)


def recipro_cam(problem: Problem, samples: int | None, batch: int | None) -> Explain:  # noqa: ARG001
    method = ReciproCAM(read_model(problem), embed_scaling=False)
    method.prepare_model()

    def explain(seed: int) -> Map:  # noqa: ARG001
        found = np.asarray(method.generate_saliency_map(problem.image))
        return found.reshape(-1, *found.shape[-2:])[problem.target]

    return explain


METHODS = {"rise": rise, "aise": aise, "recipro-cam": recipro_cam}
