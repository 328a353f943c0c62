"""pytorch-grad-cam, on the network in torch."""

from __future__ import annotations

import torch

from benchmarks.peers.problem import Explain, Map, Problem
from benchmarks.peers.squeezenet_torch import build_module

DISTRIBUTION = "grad-cam"


def grad_cam(problem: Problem, samples: int | None, batch: int | None) -> Explain:  # noqa: ARG001
    module = build_module(problem)  # which imports torchvision where its operators cannot be loaded
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    image = torch.from_numpy(problem.image)
    method = GradCAM(module, [module[0].features[-1]])

    def explain(seed: int) -> Map:  # noqa: ARG001
        return method(image, [ClassifierOutputTarget(problem.target)])[0]

    return explain


METHODS = {"grad-cam": grad_cam}
