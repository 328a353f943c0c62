"""The errors a user may meet: one line saying what, where, expected against got, and the fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

from masktool.messages import Message

OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation")
"""Texts of native libraries' exceptions for a lack of memory: those of ONNX Runtime's arena, and of C++'s allocator."""


class MasktoolError(Exception):
    """An error of the user's call or data, such as a damaged file, a wrong shape or an unknown option.

    As a string the error is one line that names parameters as Python does; the command line names its options instead,
    see :mod:`masktool.messages`.

    Attributes:
        what: short statement of what is wrong.
        where: file, node, parameter or input that the error concerns; None where the error names none.
        expected: value that would have been right; None where the error names none.
        got: value that was found instead; None where the error names none.
        fix: advice on what the user can do about the error; None where there is none.
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
        """Makes an error from its attributes: texts without a full stop at the end, put on one line."""
        self.what = as_message(what)
        self.where = None if where is None else as_message(where)
        self.expected = None if expected is None else as_message(expected)
        self.got = None if got is None else as_message(got)
        self.fix = None if fix is None else as_message(fix)
        super().__init__(str(self.message))

    @property
    def message(self) -> Message:
        """The whole error as a message on one line, whose parameters can still be spelled as command-line options."""
        message = self.what if self.where is None else self.what + " (" + self.where + ")"
        if self.expected is not None:
            message += ": expected " + self.expected
            if self.got is not None:
                message += ", got " + self.got
        elif self.got is not None:
            message += ": " + self.got
        return message if self.fix is None else message + "; " + self.fix

    def advised(self, advice: str) -> Self:
        """Returns the same error with more advice behind ``fix``."""
        more = type(self).__new__(type(self))
        vars(more).update(vars(self))
        more.fix = as_message(advice) if self.fix is None else self.fix + "; " + as_message(advice)
        more.args = (str(more.message),)
        return more

    def __reduce__(self) -> tuple[Any, ...]:
        """Makes errors picklable, also those whose class takes other arguments than ``args``."""
        return restore_error, (type(self), self.args), vars(self)


def restore_error(kind: type[MasktoolError], args: tuple[object, ...]) -> MasktoolError:
    """Returns an error of a class without its attributes, which :mod:`pickle` sets afterwards."""
    return kind.__new__(kind, *args)


def as_message(value: object) -> Message:
    """Returns a value as a message on one line."""
    return (value if isinstance(value, Message) else Message(str(value))).on_one_line()


class UnsupportedNode(NamedTuple):
    """One node without a rule for masks or gradients: its name, operator and opset, and the reason."""

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
def reported_as(what: str, *, where: object | None = None, fix: str | None = None) -> Iterator[None]:
    """Turns whatever a block raises into a MasktoolError that says what failed; the cause is kept.

    A third-party library raises whatever a damaged or unforeseen input leads it to, and its exceptions share no base.
    The block is one call of such a library, never masktool's own code, which raises MasktoolError itself.

    Args:
        what: description of the failure, a whole sentence without a full stop: ``ONNX's checker refuses the graph``.
        where: file or node that the failure concerns; None leaves it out.
        fix: advice on what the user can do about the failure; None leaves it out.

    Raises:
        MasktoolError: the block raised an exception; one that is a MasktoolError already passes as it is.
    """
    try:
        yield
    except MasktoolError:
        raise
    except Exception as error:  # see above
        if is_out_of_memory(error):
            raise MasktoolError(f"{what}: not enough memory", where=where) from error
        raise MasktoolError(what, where=where, got=describe_exception(error), fix=fix) from error


@contextlib.contextmanager
def needing_memory(what: str) -> Iterator[None]:
    """Turns the exception of a native library that ran out of memory in a block into a MasktoolError; lets others pass.

    Args:
        what: description of the failure, a whole sentence without a full stop.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, MasktoolError) or not is_out_of_memory(error):
            raise
        raise MasktoolError(f"{what}: not enough memory") from error


def is_out_of_memory(error: Exception) -> bool:
    """Tells whether an exception, of whatever library, says that there was not enough memory."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)


def describe_exception(error: BaseException) -> str:
    """Returns the type of an exception and the first line of its text that says something."""
    name, text = type(error).__name__, first_line(error)
    return name if text == name else f"{name}: {text}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's text that says something, else its type."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
