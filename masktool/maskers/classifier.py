"""A torch classifier as the training of its masker sees it: logits and the stages' activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from masktool.contract import OutputKind
from masktool.errors import MasktoolError
from masktool.exporters.torch_sources.module_export import flatten_outputs
from masktool.maskers.stages import Stage, reading

SMALLEST_PROBABILITY = 1e-12
"""Least probability before its logarithm is taken: a softmax in float32 gives 0 where a logit is 90 below the first."""


@dataclasses.dataclass(frozen=True)
class TorchClassifier:
    """A classifier in evaluation mode: batch normalisation keeps its statistics even where the weights are trained.

    Attributes:
        module: the network.
        output: name of its class output, as
            :func:`masktool.exporters.torch_sources.module_export.flatten_outputs` names it.
        kind: kind of scores that the class output holds; None counts as logits.
    """

    module: nn.Module
    output: str
    kind: OutputKind | None = None

    def __post_init__(self) -> None:
        if self.kind not in (None, "logits", "probabilities"):
            raise MasktoolError(
                "the masker needs one right class of several", expected="logits or probabilities", got=self.kind
            )

    def logits(self, images: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Returns logits (N, K), or log-probabilities where the network ends in a softmax.

        Args:
            images: images (N, C, H, W), normalised.
            weights: weights by name, in place of the module's own; None takes the module's.
        """
        if weights is None:
            return self.read_logits(self.module(images))
        return self.read_logits(torch.func.functional_call(self.module, dict(weights), (images,)))

    def read(self, images: Tensor, stages: Sequence[Stage]) -> tuple[Tensor, list[Tensor]]:
        """Returns logits (N, K) and the stages' activations (N, C, h, w), in their order, from one pass."""
        with reading(self.module, stages) as activations:
            logits = self.read_logits(self.module(images))
        return logits, [activations[each.name] for each in stages]

    def read_logits(self, outputs: Any) -> Tensor:
        """Returns the logits (N, K), or log-probabilities, among the outputs of the module."""
        scores = flatten_outputs(outputs)[self.output].flatten(1)
        if self.kind == "probabilities":
            return scores.clamp_min(SMALLEST_PROBABILITY).log()
        return scores
