"""How a rule refuses a node."""

from __future__ import annotations

import onnx_ir as ir


class RuleError(Exception):
    """Raised by a rule for a node that it cannot treat.

    Args:
        reason: shown to the user.
        node: what the reason is about, where that is another node than the one at hand.
    """

    def __init__(self, reason: str, node: ir.Node | None = None) -> None:
        super().__init__(reason)
        self.node = node
