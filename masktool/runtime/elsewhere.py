"""A session in another process: what is pickled of it, and what is left of it where a process was forked.

A session of ONNX Runtime is neither: it has no bytes to be pickled, and its threads are not in a forked process, where
a run would wait for them without end. So what travels is how the file was opened, and it is opened again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from masktool.errors import MasktoolError
from masktool.identity import digest_model, named_files, size_and_time

Opened = TypeVar("Opened", covariant=True)
Mark = tuple[tuple[int, int] | None, ...]
"""Size in bytes and time of the last change of each file of a model."""


class Recipe(NamedTuple):
    """How to open a model again in another process or on another machine.

    Attributes:
        path: absolute path of the file.
        sha256: digest of the file and of the files of weights that it names.
        providers: providers as they were asked for, so that ``auto`` is decided where the model is opened.
        threads: number of threads that one node may use; None where ONNX Runtime chooses.
        provider_options: options of the providers as they were asked for.
    """

    path: str
    sha256: str
    providers: str | Sequence[str] | None
    threads: int | None
    provider_options: Mapping[str, object] | None


class OpensModels(Protocol[Opened]):
    """A class of sessions."""

    def __call__(
        self,
        path: str,
        *,
        providers: str | Sequence[str] | None,
        threads: int | None,
        provider_options: Mapping[str, object] | None,
    ) -> Opened:
        """Opens the model at a path."""


def open_recipe(kind: OpensModels[Opened], recipe: Recipe) -> Opened:
    """Opens a model again: what unpickling a session calls.

    Args:
        kind: class of the session.
        recipe: how to open it.

    Raises:
        MasktoolError: there is no file at the path, or another one than was pickled, or it cannot be opened.
    """
    path = Path(recipe.path)
    if not path.is_file():
        raise MasktoolError(
            "the model of a pickled session is not there",
            where=path,
            fix="a session is pickled as the path of its file: put the file there, on every machine",
        )
    found = digest_model(path)
    if found != recipe.sha256:
        raise MasktoolError(
            "the model is another one than that of the pickled session",
            where=path,
            expected=f"SHA-256 {recipe.sha256}",
            got=found,
            fix="put the same file there, on every machine, with the weights beside it",
        )
    return kind(
        recipe.path, providers=recipe.providers, threads=recipe.threads, provider_options=recipe.provider_options
    )


def mark_model(path: Path) -> Mark:
    """Returns sizes and times of a model's files, which tell cheaply whether it has changed since."""
    try:
        return tuple(map(size_and_time, (path, *named_files(path))))
    except OSError:
        return ()


def digest_unchanged(path: Path, mark: Mark) -> str:
    """Returns the digest of a model's files, which have to be those that it was opened from.

    Args:
        path: path of the model.
        mark: mark of the files from before it was opened.

    Raises:
        MasktoolError: the files have changed since, or are gone.
    """
    if mark_model(path) == mark:
        with contextlib.suppress(OSError):
            return digest_model(path)
    raise MasktoolError(
        "the file has changed or gone since it was opened, so that another process would open another model",
        where=path,
        fix="load the file again",
    )


class LeftByForks(Protocol):
    """What is open in this process and cannot be used in one that is forked from it."""

    def leave_behind(self) -> None:
        """Gives up what is open, without freeing it; called first thing in the forked process."""


_OPEN: weakref.WeakSet[LeftByForks] = weakref.WeakSet()


def watch_forks(opened: LeftByForks) -> None:
    """Has an object give up what is open in every process that is forked from this one, as long as it lives."""
    _OPEN.add(opened)


def keep_forever(value: object) -> None:
    """Keeps an object from ever being freed: to free a session in a forked process waits for threads without end."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _after_fork() -> None:
    for opened in list(_OPEN):
        opened.leave_behind()


if hasattr(os, "register_at_fork"):  # not on Windows, where no process is forked
    os.register_at_fork(after_in_child=_after_fork)
