"""The result of asking which bands mattered: a number for each group; as a chart, as JSON, as a table."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from masktool.errors import MasktoolError
from masktool.explainers.bands.band_chart import Bar, draw_band_chart
from masktool.explainers.bands.groups import BandGroup
from masktool.explainers.explanation import PNG_EFFORT, encode_compactly
from masktool.explainers.target import SettledTarget
from masktool.files import atomic_path
from masktool.option_checks import check_several
from masktool.runtime.pictures import PNG_KEY

BAND_FORMATS = ("png", "json", "csv")
BAND_SCHEMA = "masktool.bands/1"
TITLE = "Bands"


@dataclasses.dataclass(frozen=True, eq=False)
class BandExplanation:
    """Which groups of bands a model's score for one target relied on.

    Attributes:
        groups: the names of the groups, such as ``4-6``.
        bands: the bands of each group, indices from 0.
        shapley: the Shapley value of each group, (g,) float64, in units of the score; they sum to ``score - nothing``.
        errors: their standard errors, (g,); 0 where the values are exact.
        left_out: how far the score drops where a group alone is missing, (g,).
        score: the score with nothing missing.
        nothing: the score with all groups missing.
        score_name: what the score is, as in :class:`masktool.Explanation`.
        question: the target in full.
        is_exact: whether all sets of groups were scored; otherwise samples of them.
        settings: every option, defaults included, with seed, batch, threads and providers.
        notes: what the reader must know, one sentence each.
        seconds: the wall time of the run.
        forward_passes: the number of images pushed through the model in the run.
        model: the origin of the file, as in :class:`masktool.Explanation`.
        image: a picture of the input for people, RGB; None where the input is no image.
    """

    groups: tuple[str, ...]
    bands: tuple[tuple[int, ...], ...]
    shapley: NDArray[np.float64]
    errors: NDArray[np.float64]
    left_out: NDArray[np.float64]
    score: float
    nothing: float
    score_name: str
    question: SettledTarget
    is_exact: bool
    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    seconds: float
    forward_passes: int
    model: Mapping[str, Any]
    image: Image.Image | None = dataclasses.field(repr=False)

    @property
    def name(self) -> str:
        """The target in words."""
        return self.question.name

    @property
    def meaning(self) -> str:
        """What a Shapley value and what is lost without a group are, in words."""
        how = "over all sets of the others" if self.is_exact else "over samples of sets of the others"
        return f"mean gain in {self.score_name} from a group's bands, {how}"

    def rows(self) -> list[dict[str, Any]]:
        """Returns what is known of each group, as JSON values."""
        return [
            {
                "group": name,
                "bands": list(bands),
                "shapley": float(value),
                "standard_error": float(error),
                "left_out": float(lost),
            }
            for name, bands, value, error, lost in zip(
                self.groups, self.bands, self.shapley, self.errors, self.left_out, strict=True
            )
        ]

    def summary(self) -> dict[str, Any]:
        """Returns everything but the timing, as JSON values."""
        return {
            "schema": BAND_SCHEMA,
            "meaning": self.meaning,
            "target": {**self.question.describe(), self.score_name: self.score},
            "groups": self.rows(),
            "nothing": self.nothing,
            "exact": self.is_exact,
            "settings": dict(self.settings),
            "notes": list(self.notes),
            "forward_passes": self.forward_passes,
            "model": dict(self.model),
        }

    def to_json(self, extra: Mapping[str, Any] | None = None) -> str:
        """Returns one compact JSON document; the same run gives the same bytes, apart from the key ``timing``.

        Args:
            extra: more entries, which come first in the document; None adds none.
        """
        return encode_compactly({**(extra or {}), **self.summary(), "timing": {"seconds": self.seconds}})

    def to_csv(self) -> str:
        """Returns the table of groups as CSV: group, shapley, standard_error, left_out."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["group", "shapley", "standard_error", "left_out"])
        for row in self.rows():
            writer.writerow([row["group"], *(f"{row[name]:.6g}" for name in ("shapley", "standard_error", "left_out"))])
        return stream.getvalue()

    def plot(self) -> Image.Image:
        """Draws the picture of the input and beside it a bar for each group."""
        bars = [
            Bar(BandGroup(bands).title, *numbers)
            for bands, *numbers in zip(self.bands, self.shapley, self.errors, self.left_out, strict=True)
        ]
        return draw_band_chart(
            self.image,
            bars,
            title=f"{TITLE}: {self.question.title}, {self.score_name} {self.score:.3g}",
            subtitle=" \N{MIDDLE DOT} ".join(
                [self.cost, f"all missing: {self.nothing:.3g}", str(self.model["source"])]
            ),
            meaning=self.meaning,
        )

    @property
    def cost(self) -> str:
        """The number of forward passes, in words."""
        return f"{self.forward_passes} pass{'' if self.forward_passes == 1 else 'es'}"

    def save(
        self, directory: str | os.PathLike[str], formats: Sequence[str] = ("png",), stem: str = "bands"
    ) -> list[Path]:
        """Writes ``directory/stem.FORMAT`` for every format and returns the paths.

        Args:
            directory: the directory to write into, made where it does not exist.
            formats: the formats to write: some of ``png``, ``json``, ``csv``.
            stem: the stem of the file names.

        Raises:
            MasktoolError: an unknown format, or the directory cannot be written.
        """
        check_several("formats", formats)
        if unknown := sorted(set(formats) - set(BAND_FORMATS)):
            expected = f"some of {', '.join(BAND_FORMATS)}"
            raise MasktoolError("unknown format", where=", ".join(unknown), expected=expected)
        paths = []
        for suffix in formats:
            path = Path(directory) / f"{stem}.{suffix}"
            with atomic_path(path) as temporary:
                self.write(temporary, suffix)
            paths.append(path)
        return paths

    def write(self, path: Path, suffix: str) -> None:
        """Writes the result in one format to a path."""
        if suffix == "png":
            text = PngImagePlugin.PngInfo()
            text.add_text(PNG_KEY, encode_compactly(self.summary()))
            self.plot().save(path, format="PNG", pnginfo=text, compress_level=PNG_EFFORT)
        else:
            path.write_text(self.to_csv() if suffix == "csv" else self.to_json() + "\n", encoding="utf-8")
