"""One network and the images that it is evaluated on; models are opened, and images read, on first use."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from masktool.contract import Masking, Metadata, SamplerRule
from masktool.datasets import read_dataset
from masktool.datasets.dataset import Dataset
from masktool.errors import MasktoolError
from masktool.evaluation.named_models import NamedModel, count_classes
from masktool.interface.device_graphs import graphs_for
from masktool.interface.load import load, refuse_for_session
from masktool.interface.models import explains_itself, file_of, known_metadata
from masktool.interface.options import ExportOptions, ModelLike
from masktool.messages import parameter
from masktool.option_checks import check_count
from masktool.progress import Say, log
from masktool.runtime.checks import check_takes_mask
from masktool.runtime.session import MaskedSession
from masktool.sampler_rules import DEFAULT_RULE

OWN_MASKINGS: tuple[Masking, ...] = ("layer", "partial")
"""Names of modes that are ways of masking; every other name but those that say a rule is a baseline of ``fill``."""
RULED_MODES: Mapping[str, SamplerRule] = {f"layer-{rule}": rule for rule in get_args(SamplerRule)}
"""The rule of layer masking by the name of a mode that says it, whatever the default is."""
Paths = str | os.PathLike[str]


@dataclasses.dataclass
class Study:
    """The network, the images and the settings that an evaluation works on.

    Attributes:
        model: the model, as for :func:`masktool.load`.
        folder: the folder of the images.
        stack: the exit stack that closes the sessions.
        export: the options for the export of a model that is not masked yet, without the masking mode.
        labels: the file with the images' classes; None takes the names of the folder's subfolders.
        boxes: the file or folder with the objects' boxes; None where there are none.
        masks: the folder with the objects' pixels; None where there are none.
        segments_folder: the folder with label maps of the images' parts; None where there are none.
        limit: the largest number of images to use, evenly spread over the names; None uses all.
        seed: the seed of every random choice.
        batch: the number of masked images per forward pass; None leaves it to the session.
        directory: the directory that everything is written into; None writes nothing.
        providers: ONNX Runtime's execution providers, as for :func:`masktool.load`.
        threads: the number of threads that one node may use; None leaves it to ONNX Runtime.
        provider_options: options of the providers, as for :func:`masktool.load`.
        say: function that is called with what the user should know, a line at a time.
        session: the session that was opened first, None before; its metadata can be read after it is closed.
        data: the images and what is known of them; None until they are read.
    """

    model: ModelLike
    folder: Path
    stack: contextlib.ExitStack
    export: ExportOptions = dataclasses.field(default_factory=ExportOptions)
    labels: Path | None = None
    boxes: Path | None = None
    masks: Path | None = None
    segments_folder: Path | None = None
    limit: int | None = None
    seed: int = 0
    batch: int | None = None
    directory: Path | None = None
    providers: str | Sequence[str] | None = None
    threads: int | None = None
    provider_options: Mapping[str, object] | None = None
    say: Say = log
    session: MaskedSession | None = None
    data: Dataset | None = None

    def __post_init__(self) -> None:
        check_count("seed", self.seed, 0)
        for name, value in (("limit", self.limit), ("perturbations_per_eval", self.batch)):
            if value is not None:
                check_count(name, value)
        if isinstance(self.model, MaskedSession):
            given = {"providers": self.providers, "threads": self.threads, "provider_options": self.provider_options}
            refuse_for_session(self.model, {**given, **self.export})

    def require_masks(self) -> None:
        """Raises MasktoolError for a file that explains itself, which takes no masks."""
        if (metadata := known_metadata(self.model)) is not None:
            check_takes_mask(metadata, file_of(self.model))

    def open_models(
        self,
        modes: Sequence[str] | None = None,
        gradient: bool = False,
        head: str | None = None,
        feature_map: str | None = None,
    ) -> list[NamedModel]:
        """Opens the model once per masking mode, exporting it into the cache where it is not masked yet.

        Args:
            modes: the masking modes: ``layer``, ``layer-cell``, ``layer-published``, ``partial``, or baselines of
                ``fill``; None takes the one mode of an exported model, and ``layer`` for any other model.
            gradient: whether the files must hold gradients.
            head: the name of the feature map behind which their heads must begin, or ``last``; None needs none.
            feature_map: the name of the feature map that they must give, or ``last``; None needs none.

        Returns:
            One model per distinct mode, in the order of the modes, named after its mode.

        Raises:
            MasktoolError: there is no such model, the model cannot be exported, or an exported model has another mode.
        """
        own = exported_mode(self.model)
        names = list(dict.fromkeys(modes)) if modes is not None else [own or OWN_MASKINGS[0]]
        if own is not None and not (len(names) == 1 and is_mode(own, names[0])):
            raise MasktoolError(
                "an exported model has one masking mode",
                where=self.model if isinstance(self.model, str | os.PathLike) else None,
                expected=own,
                got=", ".join(names),
                fix="name the plain model, which is exported in each mode",
            )
        sessions = {name: self.open(None if own else name, gradient, head, feature_map) for name in names}
        return [NamedModel(name, session, graphs_for(session)) for name, session in sessions.items()]

    def open(
        self, mode: str | None, gradient: bool, head: str | None = None, feature_map: str | None = None
    ) -> MaskedSession:
        """Opens the model in one masking mode; None takes the mode of the exported file."""
        if isinstance(self.model, MaskedSession):
            session = self.model
        else:
            options: ExportOptions = {**self.export, **({} if mode is None else masking_of(mode))}
            session = self.stack.enter_context(
                load(
                    self.model,
                    self.providers,
                    self.threads,
                    provider_options=self.provider_options,
                    gradient=gradient and not explains_itself(self.model),
                    head=None if explains_itself(self.model) else head,
                    feature_map=None if explains_itself(self.model) else feature_map,
                    say=self.say,
                    **options,
                )
            )
        if self.session is None:
            self.session = session
            self.say(session.announcement)
        return session

    def compare_modes(
        self,
        modes: Sequence[str],
        also: Sequence[Paths],
        defaults: Sequence[str],
        gradient: bool = False,
        everywhere: bool = False,
        head: str | None = None,
        feature_map: str | None = None,
    ) -> list[NamedModel]:
        """Opens the network in the masking modes to compare.

        Args:
            modes: the masking modes that were named; empty where none were.
            also: exported files that hold the network in further modes.
            defaults: the modes of a model that is not exported yet, where none were named.
            gradient: whether the model in the first mode must hold gradients.
            everywhere: whether the models in the other named modes must hold what that one must hold, because they
                explain as well.
            head: as for :meth:`open_models`.
            feature_map: as for :meth:`open_models`.

        Raises:
            MasktoolError: a file of ``also`` is not exported, or two models have the same mode; else as for
                :meth:`open_models`.
        """
        names = list(dict.fromkeys(modes or ([] if exported_mode(self.model) else defaults)))
        models = self.open_models(names[:1] or None, gradient, head, feature_map)
        if names[1:]:
            needs = (gradient, head, feature_map) if everywhere else (False, None, None)
            models += self.open_models(names[1:], *needs)
        for path in also:
            other = MaskedSession(
                path, providers=self.providers, threads=self.threads, provider_options=self.provider_options
            )
            session = self.stack.enter_context(other)
            models.append(NamedModel(mode_of(session.metadata), session, graphs_for(session)))
        found = [model.name for model in models]
        if twice := sorted({name for name in found if found.count(name) > 1}):
            raise MasktoolError("one masking mode twice", where=parameter("also"), got=", ".join(twice))
        return models

    def dataset(self) -> Dataset:
        """Returns the images' names and what is known of them, read once; labels are those of the model's classes.

        Raises:
            MasktoolError: there are no images, or a file of labels, boxes, masks or segments cannot be read.
        """
        if self.data is None:
            session = self.session or self.open_models()[0].session
            self.data = read_dataset(
                self.folder,
                labels=self.labels,
                boxes=self.boxes,
                masks=self.masks,
                segments=self.segments_folder,
                class_names=session.metadata.labels,
                n_classes=count_classes(session),
                limit=self.limit,
            )
        return self.data

    def pictured(self, count: int) -> frozenset[str]:
        """Returns the names of the first images, whose maps are written as pictures; none without a directory.

        Raises:
            MasktoolError: the number of images is out of range, or the images cannot be read.
        """
        check_count("pictures", count, 0)
        shown = [] if self.directory is None else self.dataset().images[:count]
        return frozenset(image.name for image in shown)


def exported_mode(model: ModelLike) -> str | None:
    """Returns the masking mode of an exported model (of ``fill``, its baseline); None for any other model."""
    metadata = known_metadata(model)
    return None if metadata is None else mode_of(metadata)


def mode_of(metadata: Metadata) -> str:
    """Returns the masking mode of a file: of ``fill``, its baseline; of ``layer``, with a rule that is no default."""
    if metadata.rule in (None, DEFAULT_RULE):
        return metadata.baseline or metadata.masking
    return f"{metadata.masking}-{metadata.rule}"


def is_mode(own: str, mode: str) -> bool:
    """Whether a masking mode that was named is the one of an exported file; ``layer`` has the default rule."""
    rule_of = {"layer": f"layer-{DEFAULT_RULE}"}
    return rule_of.get(own, own) == rule_of.get(mode, mode)


def masking_of(mode: str) -> ExportOptions:
    """Returns the options that export a model in a masking mode."""
    if mode in RULED_MODES:
        return {"masking": "layer", "rule": RULED_MODES[mode]}
    if mode in OWN_MASKINGS:
        return {"masking": OWN_MASKINGS[OWN_MASKINGS.index(mode)]}
    return {"masking": "fill", "baseline": mode}
