"""Groups of bands: which channels of a network's input are missing together."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Iterable, Iterator, Sequence

from masktool.errors import MasktoolError
from masktool.explainers.bands.baselines import tell_baseline
from masktool.messages import Placeholder, parameter

MOST_ALONE = 16
"""Most bands that are a group each where none were named: more would be a chart that nobody reads."""
PIECE = re.compile(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?")
EXPECTED = "groups such as 0-3,4-6 or 0+2,1"
EXAMPLE = parameter("bands", Placeholder("0-3,4-6"))
BandsLike = str | Sequence[int | Iterable[int]]
"""Groups of bands: as text, ``0-3,4-6``, with a plus sign where a group has gaps, ``0+2-3,1``; or in Python a sequence
whose members are groups, each a band or several."""


@dataclasses.dataclass(frozen=True)
class BandGroup:
    """Bands that are missing together.

    Attributes:
        bands: their indices, ascending, from 0.
    """

    bands: tuple[int, ...]

    @property
    def name(self) -> str:
        """The bands as they are typed: ``4``, ``4-6`` or ``0+2-3``."""
        runs: list[list[int]] = []
        for band in self.bands:
            if runs and band == runs[-1][-1] + 1:
                runs[-1].append(band)
            else:
                runs.append([band])
        return "+".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

    @property
    def title(self) -> str:
        """The bands in words: ``band 4`` or ``bands 4-6``."""
        return f"band{'s' if len(self.bands) > 1 else ''} {self.name}"


@dataclasses.dataclass(frozen=True)
class HiddenBands:
    """A group of bands of which masks hide places, and what stands there.

    Attributes:
        group: the bands.
        baseline: what stands in their hidden places, as :func:`read_band_baseline` returns it.
    """

    group: BandGroup
    baseline: str | tuple[float, ...]

    def describe(self) -> dict[str, object]:
        """Returns the group and the baseline as JSON values, by the names of :func:`masktool.explain`."""
        return {"bands": self.group.name, "band_baseline": self.baseline}

    def notes(self) -> Iterator[str]:
        """Yields what the reader of a map must know: the other bands are whole everywhere."""
        yield f"places are hidden in {self.group.title} alone, by filling the input; all other bands are whole"
        yield from tell_baseline(self.baseline)


def read_groups(bands: BandsLike) -> tuple[BandGroup, ...]:
    """Returns groups of bands in the order in which they were given, before any input is seen.

    Raises:
        MasktoolError: the text is none, a group is empty, or a band stands in two groups.
    """
    if isinstance(bands, str):
        members = [parse_group(text, bands) for text in bands.split(",")]
    else:
        members = [check_group(each) for each in bands]
    if not members:
        raise MasktoolError("no bands", where=parameter("bands"), expected=EXPECTED)
    groups = tuple(BandGroup(tuple(sorted(each))) for each in members)
    seen: set[int] = set()
    for group in groups:
        if twice := sorted(seen & set(group.bands)) or [band for band in group.bands if group.bands.count(band) > 1]:
            raise MasktoolError(
                "groups of bands overlap",
                where=parameter("bands", ",".join(each.name for each in groups)),
                expected="every band in one group",
                got=f"band {twice[0]} twice",
            )
        seen.update(group.bands)
    return groups


def parse_group(text: str, whole: str) -> list[int]:
    """Returns the bands of one group, such as ``4-6`` or ``0+2``; ``whole`` is the text that it stands in."""
    bands: list[int] = []
    for piece in text.split("+"):
        found = PIECE.fullmatch(piece)
        first, last = (0, -1) if found is None else (int(found[1]), int(found[2] or found[1]))
        if not first <= last <= first + 10**6:
            raise MasktoolError("no such bands", where=parameter("bands", whole), expected=EXPECTED, got=repr(piece))
        bands.extend(range(first, last + 1))
    return bands


def check_group(group: int | Iterable[int]) -> list[int]:
    """Returns the bands of one group that a program gave."""
    try:
        members = [operator.index(each) for each in (group if isinstance(group, Iterable) else [group])]
    except TypeError:
        members = []
    if not members or min(members) < 0:
        raise MasktoolError("no such bands", where=parameter("bands"), expected="indices from 0", got=repr(group))
    return members


def choose_groups(groups: tuple[BandGroup, ...] | None, channels: int) -> tuple[BandGroup, ...]:
    """Returns the groups of an input's bands: those that were given, else each band alone.

    Args:
        groups: the groups; None for none.
        channels: the number of the input's channels.

    Raises:
        MasktoolError: the input has one band, a group has a band outside the input, or there are too many to choose.
    """
    if channels == 1:
        raise MasktoolError("one band has no other to be compared with", where="the model's input", expected="several")
    if groups is None:
        if channels > MOST_ALONE:
            raise MasktoolError(
                f"groups are chosen for up to {MOST_ALONE} bands",
                where="the model's input",
                got=f"{channels} bands",
                fix="say which belong together: " + EXAMPLE,
            )
        return tuple(BandGroup((band,)) for band in range(channels))
    for group in groups:
        if group.bands[-1] >= channels:
            raise MasktoolError(
                "a band outside the input",
                where=parameter("bands", ",".join(each.name for each in groups)),
                expected=f"0 to {channels - 1}",
                got=group.bands[-1],
            )
    return groups


def only_group(groups: tuple[BandGroup, ...]) -> BandGroup:
    """Returns the one group in which places are hidden, or raises a MasktoolError where there are several."""
    if len(groups) != 1:
        raise MasktoolError(
            "a map of places is of one group of bands",
            where=parameter("bands", ",".join(each.name for each in groups)),
            expected="one group, such as 4-6",
            fix="ask for each by itself; masktool.explain_bands compares them",
        )
    return groups[0]
