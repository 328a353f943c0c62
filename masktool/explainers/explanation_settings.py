"""Settings that hold for every image that is explained, whatever the method."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import get_args

from masktool.contract import Size
from masktool.explainers.bands.baselines import BandBaseline, read_band_baseline
from masktool.explainers.bands.false_colour import check_rgb
from masktool.explainers.bands.groups import BandGroup, BandsLike, read_groups
from masktool.explainers.image_inputs import read_inputs
from masktool.explainers.model_outputs import Scale
from masktool.explainers.regions import RegionLike
from masktool.explainers.stopping import Stopping
from masktool.explainers.subject import ImageLike, NamedImage, read_named
from masktool.explainers.target import TargetLike
from masktool.option_checks import check_choice, check_count, check_several, check_share, check_size
from masktool.progress import Progress
from masktool.runtime.batching import FASTEST, BatchSize
from masktool.runtime.inputs import Inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplanationSettings:
    """Arguments of :func:`masktool.explain` that belong to no single method.

    Attributes:
        output: the name of an output of which values are explained; None explains classes.
        bands: the group of bands in which masks hide places, or the groups that are compared; None hides in all bands.
        band_baseline: what stands in missing bands.
        rgb: the bands of an array that are red, green and blue in its picture; None leaves that to masktool.
        sum_with: the classes that are explained together with each target, as one.
        against: what each target is compared with; None explains it alone.
        reference: the image to whose embedding that of each image is compared; None explains no similarity.
        region: the region of a segmentation over which a class is explained; None explains classes and values.
        detector: the kind of a detector's head, for targets that are detections; None finds it from the outputs.
        least_score: the score from which on a place counts as a detection, for the same; None for the target's own.
        score: the score of a class: its ``probability`` or its ``log-odds``.
        inputs: the values of the model's inputs other than the image and the mask, by name; photographs, or paths of
            such, are prepared as the image is.
        input_size: (height, width) of the image input in pixels, for a model that leaves them open; None takes that of
            the model's preprocessing.
        seed: the seed of every random choice.
        perturbations_per_eval: the number of masks per forward pass; None chooses it from the input's size, and
            ``fastest`` measures which number runs the most masks per second.
        stopping: when a method that draws samples stops.
        progress: function that shows progress, as for :func:`masktool.explain`; None shows none.
    """

    output: str | None = None
    bands: BandsLike | None = None
    band_baseline: BandBaseline = "mean"
    rgb: tuple[int, int, int] | None = None
    sum_with: Sequence[TargetLike] = ()
    against: TargetLike = None
    reference: ImageLike | NamedImage | None = None
    region: RegionLike | None = None
    detector: str | None = None
    least_score: float | None = None
    score: Scale = "probability"
    inputs: Inputs | None = None
    input_size: Size | None = None
    seed: int = 0
    perturbations_per_eval: BatchSize = None
    stopping: Stopping = dataclasses.field(default_factory=Stopping)
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.perturbations_per_eval not in (None, FASTEST):
            check_count("perturbations_per_eval", self.perturbations_per_eval)
        if self.input_size is not None:
            check_size("input_size", self.input_size)
        if self.least_score is not None:
            check_share("least_score", self.least_score)
        check_count("seed", self.seed, 0)
        check_several("sum_with", self.sum_with)
        check_choice("score", self.score, get_args(Scale))
        if self.reference is not None:
            object.__setattr__(self, "reference", read_named(self.reference))
        object.__setattr__(self, "inputs", read_inputs(self.inputs))
        object.__setattr__(self, "band_baseline", read_band_baseline(self.band_baseline))
        if self.rgb is not None:
            object.__setattr__(self, "rgb", check_rgb(self.rgb))
        if self.bands is not None:
            read_groups(self.bands)

    @property
    def groups(self) -> tuple[BandGroup, ...] | None:
        """The groups of bands; None where none were given."""
        return None if self.bands is None else read_groups(self.bands)


SHARED_ARGUMENTS = (
    "n_samples",
    *(field.name for field in dataclasses.fields(ExplanationSettings) if field.name != "stopping"),
)
"""Keyword arguments of ``explain`` that are not a method's own options, besides those that say when to stop."""
