"""Text from files and paths made safe for a terminal: nothing in it moves the cursor or reverses the writing."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of control and format characters (bidirectional overrides among them), of surrogates, and of
line and paragraph separators."""
JOINERS = "\u200c\u200d"
"""Format characters that Persian, Indic scripts and emoji are spelled with."""
UNITS = (("TB", 1e12, 1e12), ("GB", 1e9, 1e9), ("MB", 1e6, 1e5), ("kB", 1e3, 0))
"""Units of sizes: name, bytes of one unit, and number of bytes from which the unit is used."""


def printable(text: object, keep: str = "") -> str:
    r"""Returns a text with every character that would steer a terminal written as an escape, such as ``\x1b``.

    Args:
        text: text from any source, or an object with one.
        keep: characters that stay as they are, such as line ends between masktool's own lines.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(each if is_shown(each) or each in keep else escape(each) for each in shown)


def is_shown(character: str) -> bool:
    """Tells whether a character may be shown as it is: one that does not steer the terminal."""
    return character in JOINERS or unicodedata.category(character) not in HIDDEN


def escape(character: str) -> str:
    """Returns a character as Python's escape sequence for it."""
    return character.encode("unicode_escape").decode("ascii")


def describe_bytes(count: int) -> str:
    """Returns a size in the unit that fits it."""
    unit, size = next((unit, size) for unit, size, least in UNITS if count >= least)
    return f"{count / size:.1f} {unit}"


def cut_text(text: str, most: int) -> str:
    """Returns a text of at most ``most`` characters, with an ellipsis where the rest is left out."""
    return text if len(text) <= most else text[: most - 3] + "..."


def list_some(texts: Sequence[str], most: int) -> str:
    """Returns the first ``most`` texts, and how many there are besides."""
    rest = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {rest} more" if rest > 0 else "")
