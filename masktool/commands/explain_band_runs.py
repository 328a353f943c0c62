"""What ``masktool explain --bands`` does: a number for every group of bands, and maps of where each group mattered."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray
from PIL import Image

from masktool.commands import options
from masktool.commands.explain_runs import Teller, name_photograph
from masktool.errors import MasktoolError
from masktool.explainers.bands.asking import explain_groups
from masktool.explainers.bands.band_explanation import BAND_FORMATS, BandExplanation
from masktool.explainers.explanation import FORMATS
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.stopping import Stopping
from masktool.explainers.subject import read_subject
from masktool.explainers.target import TargetError
from masktool.interface.folders.names import fit_name
from masktool.interface.folders.request import ExplanationRequest, explain_photograph
from masktool.interface.folders.work import PhotographResult, PhotographTask, ReadPhotograph, write_result
from masktool.interface.photographs import choose_stems
from masktool.option_names import for_command_line
from masktool.runtime.session import MaskedSession


@dataclasses.dataclass(frozen=True)
class BandRequest:
    """What is asked of the bands of every image.

    Attributes:
        groups: the groups of bands as they were typed; None for each band.
        formats: the formats to write.
        n_samples: the number of sets of groups to sample; None leaves it open.
        request: what else is asked: targets, settings, and the methods of maps, of which there may be none.
    """

    groups: str | None
    formats: Sequence[str]
    n_samples: int | None
    request: ExplanationRequest

    def settings(self) -> ExplanationSettings:
        """Returns the settings of the bands' numbers."""
        shared = {each.name for each in dataclasses.fields(ExplanationSettings)}
        asked = {each.name: getattr(self.request, each.name) for each in dataclasses.fields(self.request)}
        own = {
            "bands": self.groups,
            "perturbations_per_eval": self.request.batch,
            "stopping": Stopping(**self.request.stopping),
            "progress": options.progress,
        }
        return ExplanationSettings(**{name: asked[name] for name in shared & set(asked)} | own)


def explain_bands_of(session: MaskedSession, photographs: Sequence[Path], asked: BandRequest) -> bool:
    """Explains the bands of images one after the other; returns whether all could be.

    Raises:
        MasktoolError: the only image cannot be explained, or there is no such target, whatever the image.
    """
    whole = True
    for path, stem in zip(photographs, choose_stems(photographs), strict=True):
        try:
            explain_bands_in(session, path, stem, asked)
        except TargetError:
            raise
        except MasktoolError as error:
            if len(photographs) == 1:
                raise
            whole = False
            options.say("masktool: error: " + name_photograph(path, for_command_line(error.message)))
    return whole


def explain_bands_in(session: MaskedSession, path: Path, stem: str, asked: BandRequest) -> None:
    """Explains the bands of one image, and tells and writes what came of it."""
    request = asked.request
    image = read_subject(path)
    found = explain_groups(session, image, request.targets, asked.settings(), asked.n_samples)
    found = list({each.question: each for each in found}.values())
    for each in found:
        tell_bands(path, stem, each, asked)
    told = {line for each in found for line in map(request.spell, each.notes)}
    for method in request.methods:
        for name in found[0].groups:
            asked_of_group = dataclasses.replace(request, bands=name)
            result = draw_group(session, path, stem, image, method, asked_of_group)
            lines = [line for line in result.lines if line not in told]
            told.update(result.notes)
            Teller(request).tell(path, dataclasses.replace(result, lines=lines))


def tell_bands(path: Path, stem: str, found: BandExplanation, asked: BandRequest) -> None:
    """Writes the files of one target, and tells the numbers of its groups."""
    spelled = dataclasses.replace(
        found,
        notes=tuple(map(asked.request.spell, found.notes)),
        settings={**found.settings, "threads": asked.request.threads},
    )
    middle = f".{found.question.slug}" if len(asked.request.targets) > 1 else ""
    written = []
    for suffix in [each for each in asked.formats if each in BAND_FORMATS]:
        name = fit_name(stem, f".bands{middle}.{suffix}")
        written += spelled.save(asked.request.directory, [suffix], name.removesuffix(f".{suffix}"))
    for line in (*describe_bands(spelled), *spelled.notes):
        options.say(f"{path}: {line}")
    if asked.request.documents:
        click.echo(spelled.to_json({"file": str(path), "written": [str(each) for each in written]}))
    else:
        for each in written:
            options.print_path(each)


def describe_bands(found: BandExplanation) -> list[str]:
    """Returns what was explained at what cost, and a line for each group."""
    first = f"Bands of {found.name}, {found.score_name} {found.score:.3g}, {found.cost} in {found.seconds:.1f} s"
    width = max(map(len, found.groups))
    lines = [
        f"  {row['group']:>{width}}  {row['shapley']:+.3g}"
        + (f" ± {row['standard_error']:.2g}" if row["standard_error"] else "")
        + f"  (lost without it alone: {row['left_out']:+.3g})"
        for row in found.rows()
    ]
    return [first, *lines]


def draw_group(
    session: MaskedSession,
    path: Path,
    stem: str,
    image: Image.Image | NDArray[Any],
    method: str,
    request: ExplanationRequest,
) -> PhotographResult:
    """Explains where one group of bands mattered, by one method."""
    found = explain_photograph(session, image, method, request, options.progress)
    files = tuple(each for each in request.formats if each in FORMATS)
    asked = dataclasses.replace(request, formats=files)
    return write_result(PhotographTask(0, path, stem), ReadPhotograph(None, image), found, asked)
