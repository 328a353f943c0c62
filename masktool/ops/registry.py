"""The registry of operators: which rule carries a mask through which ``op_type``, and the samples that test it.

A new operator is one new file in this package: a function under ``@mask_rule("OpType")`` and a call of
:func:`add_samples`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import onnx_ir as ir

if TYPE_CHECKING:
    from masktool.ops.graph import MaskedGraph

MaskRule = Callable[["MaskedGraph", ir.Node], None]


class RuleError(Exception):
    """Raised by a rule for a node that it cannot treat.

    Args:
        reason: shown to the user.
        node: what the reason is about, where that is another node than the one at hand.
    """

    def __init__(self, reason: str, node: ir.Node | None = None) -> None:
        super().__init__(reason)
        self.node = node


@dataclasses.dataclass(frozen=True)
class Sample:
    """A small graph that exercises one rule.

    Attributes:
        name: what is special about it.
        text: nodes in ONNX's textual syntax, from the image ``x`` (float32, N × channels × size) to the output ``y``.
        weights: shapes of random float32 initializers.
        constants: integer initializers, int64.
        channels: of ``x``.
        size: (height, width) of ``x`` in pixels.
        ones_tolerance: what a mask of ones may change, relative to max |y|: 0, but where sums are taken in another
            order, by the rule or by ONNX Runtime.
        opset: version of the standard domain.
    """

    name: str
    text: str
    weights: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    constants: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    channels: int = 4
    size: tuple[int, int] = (9, 11)
    ones_tolerance: float = 0.0
    opset: int = 20


Rule = TypeVar("Rule", bound=Callable[..., Any])


class RuleTable(Generic[Rule]):
    """Rules of one kind, by ``op_type`` of the standard domain.

    Args:
        kind: what the rules are called in messages.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._rules: dict[str, Rule] = {}

    def register(self, *op_types: str) -> Callable[[Rule], Rule]:
        """Registers the decorated function as the rule of these operators."""

        def add(rule: Rule) -> Rule:
            for op_type in op_types:
                if op_type in self._rules:
                    former = self._rules[op_type].__name__
                    raise ValueError(f"two {self._kind} rules for {op_type}: {former} and {rule.__name__}")
                self._rules[op_type] = rule
            return rule

        return add

    def find(self, node: ir.Node) -> Rule | None:
        """Returns the rule of a node, or None."""
        load_rules()
        return self._rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None

    def by_operator(self) -> dict[str, Rule]:
        """Returns every rule, by ``op_type``."""
        load_rules()
        return dict(sorted(self._rules.items()))


MASK_RULES: RuleTable[MaskRule] = RuleTable("mask")
mask_rule = MASK_RULES.register
_SAMPLES: dict[str, list[Sample]] = {}


def add_samples(op_type: str, *samples: Sample) -> None:
    """Adds graphs on which the contract test runs the rule of ``op_type``."""
    _SAMPLES.setdefault(op_type, []).extend(samples)


def registered_operators() -> dict[str, tuple[MaskRule, tuple[Sample, ...]]]:
    """Returns every operator with its mask rule and its samples, by ``op_type``."""
    return {op_type: (rule, tuple(_SAMPLES.get(op_type, ()))) for op_type, rule in MASK_RULES.by_operator().items()}


@functools.cache
def load_rules() -> None:
    """Imports every module of this package, which registers its rules; does nothing when called again."""
    import masktool.ops

    for module in pkgutil.iter_modules(masktool.ops.__path__):
        importlib.import_module(f"masktool.ops.{module.name}")
