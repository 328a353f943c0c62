"""The model's classes, as annotations name them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from masktool.data_files import shorten
from masktool.errors import MasktoolError


def fold_case(name: str) -> str:
    """Returns a name in lower case, its underscores as spaces, to compare where no class has the name exactly."""
    return " ".join(name.casefold().replace("_", " ").split())


def parse_index(label: int | str) -> int | None:
    """Returns the index that a label is, as a number or in digits; None for a name."""
    if isinstance(label, int) or re.fullmatch(r"-?\d{1,18}", label.strip()):
        return int(label)
    return None


class Classes:
    """Finds classes by index or name.

    Args:
        names: names of the classes, one each; None where the model has none.
        count: number of the classes; None where it is unknown.
    """

    def __init__(self, names: Sequence[str] | None, count: int | None) -> None:
        self.known = names is not None
        self.count = count if names is None else len(names)
        self.exact: dict[str, list[int]] = defaultdict(list)
        self.folded: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(names or ()):
            self.exact[name].append(index)
            self.folded[fold_case(name)].append(index)

    def find(self, name: str) -> tuple[int, ...]:
        """Returns the indices of the classes with a name: exactly that, else one that :func:`fold_case` makes equal."""
        return tuple(self.exact.get(name) or self.folded.get(fold_case(name)) or ())

    def resolve(self, label: Any) -> int:
        """Returns the index that a label means.

        Args:
            label: an index, also as digits (they are an index even where classes are called by digits), or a name.

        Raises:
            MasktoolError: the label is neither an index nor a name, the index is out of range, or not exactly one class
                has the name.
        """
        if isinstance(label, bool) or not isinstance(label, int | str):
            raise MasktoolError("not a label", expected="an index or a class name", got=shorten(label))
        index = parse_index(label)
        if index is not None:
            if index < 0 or (self.count is not None and index >= self.count):
                expected = "0 or more" if self.count is None else f"0 to {self.count - 1}"
                raise MasktoolError("no such class", expected=expected, got=shorten(label))
            return index
        name = str(label).strip()
        if not self.known:
            raise MasktoolError("the model's classes have no names", expected="an index", got=repr(name))
        indices = self.find(name)
        if len(indices) != 1:
            what = f"classes {', '.join(map(str, indices))} are" if indices else "no class is"
            raise MasktoolError(f"{what} called {name!r}")
        return indices[0]
