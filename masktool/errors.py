"""The errors a user may meet: one line saying what, where, expected against got, and the fix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class MasktoolError(Exception):
    """Bad use or bad input.

    Args:
        what: what is wrong, without a full stop.
        where: file, node, option or input that it concerns.
        expected: what should have been there.
        got: what was there instead.
        fix: what the user can do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object | None = None,
        expected: object | None = None,
        got: object | None = None,
        fix: str | None = None,
    ) -> None:
        message = what if where is None else f"{what} ({where})"
        if expected is not None:
            message += f": expected {expected}" + ("" if got is None else f", got {got}")
        elif got is not None:
            message += f": {got}"
        if fix is not None:
            message += f"; {fix}"
        super().__init__(" ".join(message.split()))


class UnsupportedNode(NamedTuple):
    """One node that has no rule, and why."""

    name: str
    op_type: str
    opset: int
    reason: str

    def __str__(self) -> str:
        return f"{self.op_type}-{self.opset} (node {self.name!r}): {self.reason}"


class UnsupportedOperatorError(MasktoolError):
    """The graph holds nodes without a rule for masks or gradients; ``nodes`` lists every one of them."""

    def __init__(self, nodes: Sequence[UnsupportedNode], *, what: str = "no mask rule") -> None:
        self.nodes = tuple(nodes)
        count = f"{len(self.nodes)} node" + ("s" if len(self.nodes) != 1 else "")
        super().__init__(
            f"{what} for {count}",
            got=" | ".join(str(node) for node in self.nodes),
            fix="nothing was written; docs/operators.md lists the operators that have one",
        )
