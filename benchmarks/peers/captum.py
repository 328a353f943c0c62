"""Captum, on the network in torch."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import IntegratedGradients, KernelShap, Lime, Occlusion

from benchmarks.peers.problem import Explain, Map, Problem
from benchmarks.peers.squeezenet_torch import build_module

DISTRIBUTION = "captum"
WINDOW, STRIDE = 32, 16
STEPS = 50


def arguments_of(problem: Problem, batch: int | None) -> tuple[torch.Tensor, dict[str, Any]]:
    """Returns the image, and the arguments that all methods share."""
    per_pass = {} if batch is None else {"perturbations_per_eval": batch}
    return torch.from_numpy(problem.image), {"target": problem.target, **per_pass}


def by_segments(kind: Any, problem: Problem, samples: int | None, batch: int | None) -> Explain:
    """Returns the function that explains by a method that hides segments; Captum has none of its own."""
    method, (image, arguments) = kind(build_module(problem)), arguments_of(problem, batch)
    mask = torch.from_numpy(problem.segments.astype("int64"))[None, None]
    if samples is not None:
        arguments["n_samples"] = samples

    def explain(seed: int) -> Map:
        torch.manual_seed(seed)
        with torch.no_grad():
            found = method.attribute(image, feature_mask=mask, **arguments)
        return found[0, 0].numpy()

    return explain


def lime(problem: Problem, samples: int | None, batch: int | None) -> Explain:
    return by_segments(Lime, problem, samples, batch)


def kernel_shap(problem: Problem, samples: int | None, batch: int | None) -> Explain:
    return by_segments(KernelShap, problem, samples, batch)


def occlusion(problem: Problem, samples: int | None, batch: int | None) -> Explain:  # noqa: ARG001
    method, (image, arguments) = Occlusion(build_module(problem)), arguments_of(problem, batch)

    def explain(seed: int) -> Map:  # noqa: ARG001
        with torch.no_grad():
            found = method.attribute(image, (3, WINDOW, WINDOW), strides=(3, STRIDE, STRIDE), **arguments)
        return found[0, 0].numpy()

    return explain


def integrated_gradients(problem: Problem, samples: int | None, batch: int | None) -> Explain:  # noqa: ARG001
    method, image = IntegratedGradients(build_module(problem)), torch.from_numpy(problem.image)

    def explain(seed: int) -> Map:  # noqa: ARG001
        found = method.attribute(image, target=problem.target, n_steps=STEPS, internal_batch_size=batch)
        return found[0].sum(0).detach().numpy()

    return explain


METHODS = {
    "lime": lime,
    "kernel-shap": kernel_shap,
    "occlusion": occlusion,
    "integrated-gradients": integrated_gradients,
}
