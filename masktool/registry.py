"""Registries of the entries that a package's files hold, by name, so that a new entry is one new file.

A file registers what it holds when it is imported. The files of a package are looked for and imported once, when the
first entry is asked for.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Protocol, TypeVar

from masktool.errors import MasktoolError

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry]):
    """Entries of one kind by name, in the order of their names.

    Args:
        kind: word for an entry in messages, such as ``metric``.
        package: name of the package whose files register the entries.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, Entry] = {}

    def register(self, *names: str) -> Callable[[Entry], Entry]:
        """Returns a decorator that registers its function or class under one or more names.

        Raises:
            ValueError: a name is taken by another entry.
        """

        def add(entry: Entry) -> Entry:
            for name in names:
                if name in self._entries:
                    raise ValueError(f"the {self.kind} {name!r} is registered twice")
                self._entries[name] = entry
            return entry

        return add

    def find(self, name: str) -> Entry:
        """Returns the entry of a name.

        Raises:
            MasktoolError: there is no entry of that name; the message lists the names that there are.
        """
        if name not in self:
            raise MasktoolError(f"unknown {self.kind}", where=name, expected=f"one of {', '.join(self)}")
        return self[name]

    def __getitem__(self, name: str) -> Entry:
        import_files(self._package)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        import_files(self._package)
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        import_files(self._package)
        return len(self._entries)


class Named(Protocol):
    """A class with a name of its own, by which a registry finds it."""

    name: ClassVar[str]


NamedKind = TypeVar("NamedKind", bound=Named)


class ClassRegistry(Registry[type[NamedKind]]):
    """A registry of classes by their own names."""

    def add(self, kind: type[NamedKind]) -> type[NamedKind]:
        """Registers the decorated class under its own name."""
        return self.register(kind.name)(kind)


@functools.cache
def import_files(package: str) -> None:
    """Imports every file of a package, so that each registers its entries; does nothing when called again."""
    for file in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{file.name}")
