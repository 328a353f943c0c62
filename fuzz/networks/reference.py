"""Runs a program in torch, plainly or by the independent mask rules of ``tests/reference``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fuzz.networks.program import OPERATIONS, Program
from masktool.contract import SamplerRule

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))  # the rules are tests' own, and no package

from reference.carried import Carried, carry_map
from reference.cells import sampling
from reference.layer_masking import carries_mask
from reference.rules import RULES


def call_rule(target: Any, *arguments: Any) -> Any:
    """Runs an ATen operator by its mask rule where an argument carries a mask, else as it is."""
    if not any(carries_mask(argument) for argument in arguments):
        return target(*arguments)
    if target not in RULES:
        raise NotImplementedError(f"no reference rule for {target}")
    return RULES[target](*arguments)


def run_reference(
    program: Program, images: Tensor, masks: Tensor | None = None, rule: SamplerRule = "published"
) -> list[Tensor]:
    """Returns every output of a program, in its order.

    Args:
        program: the network.
        images: (N, C, H, W), float64 for a judgement to rely on.
        masks: (N, 1, H, W) of the images' type; None runs the network plainly.
        rule: of samplers narrower than their stride.
    """
    with sampling(rule):
        return run_program(program, images, masks)


def run_program(program: Program, images: Tensor, masks: Tensor | None) -> list[Tensor]:
    """Returns every output of a program, under the rule in force."""
    values: list[Any] = [images if masks is None else carry_map(images, masks)]
    for step in program.instructions:
        weights = {name: torch.from_numpy(array).to(images) for name, array in step.weights.items()}
        arguments = [values[number] for number in step.inputs]
        values.append(OPERATIONS[step.operation].run(call_rule, arguments, step.parameters, weights))
    found = [values[number] for number in program.outputs.values()]
    return [value.value if isinstance(value, Carried) else value for value in found]
