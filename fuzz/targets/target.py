"""The shape of a target, and the table of all of them."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fuzz.children import Bounds

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
"""Inputs that failed once, kept small: ``corpus/TARGET/*``; they are tried before any mutant."""


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One input to try.

    Attributes:
        name: what it is called in a report: its seed, or its file in the corpus.
        content: the bytes of the file.
        suffix: of the file's name.
        option: which way the target is to use it, where there are several; drawn with the content.
    """

    name: str
    content: bytes
    suffix: str
    option: int = 0


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        draw: makes a mutant's bytes and suffix from a generator of random numbers.
        run: uses the file at a path as a user would; returns what is wrong with the result, an empty text if nothing.
            A MasktoolError is as good as a right result, any other exception is a fault.
        bounds: what one use may take.
    """

    draw: Callable[[np.random.Generator], tuple[bytes, str]]
    run: Callable[[Path, int], str]
    bounds: Bounds


TARGETS: dict[str, Target] = {}
"""By name, as the command takes it; filled by :func:`load_targets`."""


def load_targets() -> dict[str, Target]:
    """Imports every module of this package, each of which enters its target."""
    import fuzz.targets

    for module in pkgutil.iter_modules(fuzz.targets.__path__):
        importlib.import_module(f"fuzz.targets.{module.name}")
    return TARGETS


def draw_mutant(target: Target, seed: int) -> Mutant:
    """Returns the mutant of a seed."""
    rng = np.random.default_rng(seed)
    content, suffix = target.draw(rng)
    return Mutant(f"seed {seed}", content, suffix, int(rng.integers(1 << 16)))


def past_failures(name: str) -> list[Mutant]:
    """Returns the inputs that failed once, each in its first four ways of use."""
    files = sorted(path for path in (CORPUS / name).glob("*") if path.is_file())
    return [Mutant(f"{path.name} ({way})", path.read_bytes(), path.suffix, way) for path in files for way in range(4)]
