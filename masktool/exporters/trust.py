"""The refusal of a file that may run code when it is read, without the user's consent."""

from __future__ import annotations

from masktool.errors import MasktoolError
from masktool.messages import parameter

CONSENT = "if you trust whoever made it: " + parameter("trust_code", True)


def refuse_code(where: object, why: str, *, otherwise: str) -> MasktoolError:
    """Returns the refusal of a file that may run code.

    Args:
        where: the path of the file.
        why: the reason: which part of the file may run code, and how.
        otherwise: advice on what the user can do without consent.
    """
    return MasktoolError("reading the file may run code from it", where=where, got=why, fix=otherwise + "; " + CONSENT)
