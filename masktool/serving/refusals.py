"""What a request is answered that cannot be served: an error with its status of HTTP."""

from __future__ import annotations

from http import HTTPStatus

from masktool.errors import MasktoolError
from masktool.messages import Message, differently


class RequestError(MasktoolError):
    """A request that cannot be served; the error's one line is what the client is told.

    Args:
        what: short statement of what is wrong.
        status: status of HTTP.
        retry_after: seconds after which the client may ask again; None where asking again is of no use.
        **parts: the error's other parts, see :class:`MasktoolError`.
    """

    def __init__(
        self,
        what: str,
        *,
        status: HTTPStatus = HTTPStatus.BAD_REQUEST,
        retry_after: int | None = None,
        **parts: object,
    ) -> None:
        super().__init__(what, **parts)  # type: ignore[arg-type]  # passed on as they came
        self.status = status
        self.retry_after = retry_after


def setting(name: str) -> Message:
    """Returns what the server was started with, as part of a message: a name in Python, an option of the command."""
    return differently(python=name, command="--" + name.replace("_", "-"))


def refuse_while_ending() -> RequestError:
    """Returns the refusal of a server that is about to end."""
    return RequestError(
        "the server is ending", status=HTTPStatus.SERVICE_UNAVAILABLE, retry_after=5, fix="ask another, or later"
    )
