"""The names of the files of an explanation: the photograph's stem, the method, the target, the format."""

from __future__ import annotations

import hashlib

from masktool.explainers.explanation import Explanation

LONGEST_NAME = 255
"""Most bytes of a file's name that common file systems take."""
DIGEST_LENGTH = 12
"""Hexadecimal digits that tell apart the stems which were cut alike."""


def name_file(stem: str, explanation: Explanation, suffix: str, *, several: bool) -> str:
    """Returns the name of a file: different for every stem, method, target and format, and a function of these alone.

    Args:
        stem: the stem of the photograph's files; one that makes the name too long is cut, and a digest put behind.
        explanation: the explanation.
        suffix: the format.
        several: whether several targets were asked for, so that the name tells which this is.
    """
    bands = explanation.settings.get("bands")
    rest = f".{explanation.method}" + ("" if bands is None else f".bands-{bands}")
    rest += (f".{target_slug(explanation)}" if several else "") + f".{suffix}"
    return fit_name(stem, rest)


def fit_name(stem: str, rest: str) -> str:
    """Returns a stem and what follows it as a file's name; a stem that makes it too long is cut, a digest behind."""
    if len((stem + rest).encode(errors="surrogateescape")) <= LONGEST_NAME:
        return stem + rest
    content = stem.encode(errors="surrogateescape")
    digest = hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]
    room = LONGEST_NAME - len(rest.encode(errors="surrogateescape")) - DIGEST_LENGTH - 1
    return f"{content[:room].decode(errors='ignore')}-{digest}{rest}"


def target_slug(explanation: Explanation) -> str:
    """Returns the target as part of a file name: its index and, where known, its label, or its output and indices."""
    return explanation.question.slug
