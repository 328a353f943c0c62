"""The error by which a rule refuses a node."""

from __future__ import annotations

import onnx_ir as ir


class RuleError(Exception):
    """Raised by a rule for a node that it cannot treat.

    Args:
        reason: the reason of the refusal, which the user is shown.
        node: the node that the reason is about; None for the node that the rule was given.
    """

    def __init__(self, reason: str, node: ir.Node | None = None) -> None:
        super().__init__(reason)
        self.node = node
