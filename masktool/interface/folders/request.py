"""What is asked of every photograph of a run; it travels to other processes, so that all of it can be pickled."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masktool.contract import Size
from masktool.explainers.explanation import FORMATS, Explanation
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.method import METHODS
from masktool.explainers.model_outputs import Scale
from masktool.explainers.regions import Region
from masktool.explainers.subject import NamedImage
from masktool.identity import digest_values
from masktool.interface.explain import explain_targets
from masktool.progress import Progress
from masktool.runtime.batching import BatchSize
from masktool.runtime.session import MaskedSession

PARQUET = "parquet"
"""The format of one file for all photographs, beside those of an explanation."""
FOLDER_FORMATS = (*FORMATS, PARQUET)


@dataclasses.dataclass(frozen=True)
class ExplanationRequest:
    """The methods, targets and settings that hold for every photograph.

    Attributes:
        methods: the options of each method, by the method's name.
        targets: the targets: ``top``, indices or labels; None for the class with the highest score, or the one value of
            an output that holds a single value.
        output: the name of the output that the targets are indices into; None where targets are classes.
        sum_with: the classes that are explained together with each target, as one.
        against: what each target is compared with; None explains it alone.
        bands: the group of bands in which places are hidden; None hides them in all.
        band_baseline: what stands in hidden bands.
        rgb: the bands that are red, green and blue in the pictures of arrays; None leaves that to masktool.
        reference: the image to which every photograph's similarity is explained; None explains none.
        region: the region of a segmentation over which a class is explained, as it was read; None for none.
        detector: the kind of a detector's head, for targets that are detections.
        least_score: the score from which on a place counts as a detection, for the same; None for the usual one.
        score: the score of a class that is explained: ``probability`` or ``log-odds``.
        inputs: the values of the model's inputs other than the image and the mask, by name.
        input_size: (height, width) of the image input in pixels, for a model that leaves them open.
        seed: the seed of every random choice.
        batch: the number of masks per forward pass; None leaves it to the session, ``fastest`` measures it.
        stopping: when methods that draw samples stop, by the names of :func:`masktool.explain`.
        threads: the number of threads that the user asked for, which explanations tell, whatever the share of the
            process that made one; None for none.
        directory: the directory that the files are written into.
        formats: the formats of the files; empty writes none.
        documents: whether JSON documents are wanted, besides files.
        timing: whether JSON files say how long a run took; without, another run gives the same bytes.
        spell: function that spells a note for its reader; it can be imported, as the next one.
        describe: function that describes an explanation in one line.
    """

    methods: Mapping[str, Mapping[str, Any]]
    targets: Sequence[str | None]
    output: str | None
    score: Scale
    inputs: Mapping[str, np.ndarray | Image.Image]
    input_size: Size | None
    seed: int
    batch: BatchSize
    stopping: Mapping[str, Any]
    directory: Path
    formats: Sequence[str]
    sum_with: Sequence[str] = ()
    against: str | None = None
    reference: NamedImage | None = None
    region: Region | None = None
    detector: str | None = None
    least_score: float | None = None
    bands: str | None = None
    band_baseline: str = "mean"
    rgb: tuple[int, int, int] | None = None
    threads: int | None = None
    documents: bool = False
    timing: bool = True
    spell: Callable[[str], str] = str
    describe: Callable[[Explanation], str] = repr

    @property
    def file_formats(self) -> tuple[str, ...]:
        """The formats of which every explanation gets a file of its own."""
        return tuple(each for each in self.formats if each != PARQUET)

    @property
    def shared_settings(self) -> ExplanationSettings:
        """What decides, with the targets, which numbers of the model are explained."""
        return ExplanationSettings(
            output=self.output,
            sum_with=self.sum_with,
            against=self.against,
            reference=self.reference,
            region=self.region,
            detector=self.detector,
            least_score=self.least_score,
        )

    def stopping_of(self, method: str) -> dict[str, Any]:
        """Returns when a method stops; of one that draws no samples, its budget alone."""
        if METHODS[method].draws():
            return dict(self.stopping)
        return {name: value for name, value in self.stopping.items() if name == "budget"}

    def settings(self) -> dict[str, Any]:
        """Returns what decides the files' bytes besides photographs and model, as JSON values."""
        asked = ("targets", "output", "sum_with", "against", "detector", "least_score", "score")
        decisive = (
            *asked,
            "bands",
            "band_baseline",
            "rgb",
            "input_size",
            "seed",
            "batch",
            "stopping",
            "threads",
            "timing",
        )
        methods = {
            name: {key: describe_option_value(each) for key, each in given.items()}
            for name, given in self.methods.items()
        }
        return {
            **{name: getattr(self, name) for name in decisive},
            "region": describe_option_value(self.region),
            "methods": methods,
            "inputs": {name: describe_option_value(value) for name, value in self.inputs.items()},
            "reference": describe_option_value(self.reference),
            "formats": sorted(self.formats),
        }


def describe_option_value(value: Any) -> Any:
    """Returns a value of an option as JSON values; an array or a picture by the digest of its numbers."""
    if isinstance(value, NamedImage):
        return {"name": value.name, **describe_option_value(value.image)}
    if isinstance(value, Image.Image):
        return {"size": value.size, "sha256": hashlib.sha256(value.tobytes()).hexdigest()}
    if isinstance(value, np.ndarray):
        return {"shape": value.shape, "type": str(value.dtype), "sha256": digest_values({"": value.tolist()})}
    return value


def explain_photograph(
    session: MaskedSession,
    photograph: Image.Image | NDArray[Any],
    method: str,
    request: ExplanationRequest,
    progress: Progress | None = None,
) -> list[Explanation]:
    """Explains one photograph by one method; returns one explanation per target.

    Raises:
        MasktoolError: the photograph, the model, a target or an option cannot be used.
    """
    found = explain_targets(
        session,
        photograph,
        request.targets,
        method,
        output=request.output,
        sum_with=request.sum_with,
        against=request.against,
        reference=request.reference,
        region=request.region,
        detector=request.detector,
        least_score=request.least_score,
        bands=request.bands,
        band_baseline=request.band_baseline,
        rgb=request.rgb,
        score=request.score,
        inputs=request.inputs,
        input_size=request.input_size,
        seed=request.seed,
        perturbations_per_eval=request.batch,
        progress=progress,
        **request.stopping_of(method),
        **request.methods[method],
    )
    told = [dataclasses.replace(each, settings={**each.settings, "threads": request.threads}) for each in found]
    return list({explanation.question: explanation for explanation in told}.values())
