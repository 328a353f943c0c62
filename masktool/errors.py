"""The errors a user may meet: one line saying what, where, expected against got, and the fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation")
"""What exceptions of native libraries say that are no MemoryError: ONNX Runtime's arena, C++ of two compilers."""


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

    def advised(self, advice: str) -> Self:
        """Returns the same error with one more thing that the user can do."""
        more = type(self).__new__(type(self), f"{self}; {advice}")
        vars(more).update(vars(self))
        return more


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

    def __init__(
        self, nodes: Sequence[UnsupportedNode], *, what: str = "no mask rule for", fix: str | None = None
    ) -> None:
        self.nodes = tuple(nodes)
        count = f"{len(self.nodes)} node" + ("s" if len(self.nodes) != 1 else "")
        super().__init__(
            f"{what} {count}",
            got=" | ".join(str(node) for node in self.nodes),
            fix=fix or "nothing was written; docs/operators.md lists the operators that have one",
        )


@contextlib.contextmanager
def stage(what: str, *, where: object | None = None, fix: str | None = None) -> Iterator[None]:
    """Turns whatever a block raises into a MasktoolError that says which stage failed; the cause is kept.

    A library of others raises whatever a damaged or unforeseen input leads it to, and its exceptions share no base.
    This stands around one call of such a library, never around code of our own whose errors are ours.

    Args:
        what: failed, as a whole sentence without a full stop: ``ONNX's checker refuses the graph``.
        where: file or node that it concerns.
        fix: what the user can do about it.

    Raises:
        MasktoolError: the block raised an exception; one that is a MasktoolError already passes as it is.
    """
    try:
        yield
    except MasktoolError:
        raise
    except Exception as error:  # see above
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY):
            raise MasktoolError(f"{what}: not enough memory", where=where) from error
        raise MasktoolError(what, where=where, got=describe_exception(error), fix=fix) from error


def describe_exception(error: BaseException) -> str:
    """Returns the type of an exception and the first line of its text that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    text = next((line for line in lines if line), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
