"""The table of mask rules, by ATen operator.

Every rule takes what its operator takes, with activations as :class:`Carried`, and returns a :class:`Carried`, or a
plain tensor once the mask is spent.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

RULES: dict[Any, Callable[..., Any]] = {operator.getitem: operator.getitem}
aten = torch.ops.aten


def rule_for(*operators: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function as the rule of these operators."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register
