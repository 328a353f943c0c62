"""Consent: what reading a file would run, and how the refusal says so."""

from __future__ import annotations

from masktool.errors import MasktoolError
from masktool.messages import parameter

CONSENT = "if you trust whoever made it: " + parameter("trust_code", True)


def refuse_code(where: object, why: str, *, otherwise: str) -> MasktoolError:
    """Returns the refusal of a file that may run code.

    Args:
        where: the file.
        why: which part of it, and by which way.
        otherwise: what the user can do without consent.
    """
    return MasktoolError("reading the file may run code from it", where=where, got=why, fix=otherwise + "; " + CONSENT)
