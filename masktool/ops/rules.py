"""Tables of rules: which rule treats which ``op_type`` of the standard domain.

A new operator is one new file in this package: a function under ``@mask_rule("OpType")``, one under
``@gradient_rule("OpType")``, and its samples.
"""

from __future__ import annotations

from typing import TypeVar

import onnx_ir as ir

from masktool.registry import Registry

Rule = TypeVar("Rule")


class RuleTable(Registry[Rule]):
    """Rules of one kind, by ``op_type``.

    Args:
        kind: the name of such a rule in messages, such as ``mask rule``.
        package: the package whose files register the rules.
    """

    def __init__(self, kind: str, package: str = "masktool.ops") -> None:
        super().__init__(kind, package)

    def rule_of(self, node: ir.Node) -> Rule | None:
        """Returns the rule of a node; None where there is none."""
        return self.get(node.op_type) if node.domain in ("", "ai.onnx") else None
