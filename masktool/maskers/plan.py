"""The plan of a training: everything known before the first step; whatever can fail is tried here."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from masktool.contract import Preprocessing, Size
from masktool.datasets.examples import Example, digest, read_examples
from masktool.errors import MasktoolError
from masktool.exporters.class_candidates import count_columns
from masktool.exporters.class_output import ClassOutput, choose_class_output
from masktool.exporters.sources import Source, source_from_module
from masktool.exporters.torch_sources.module_export import make_example
from masktool.exporters.torch_sources.modules import LoadedModule
from masktool.maskers.checkpoint import digest_weights
from masktool.maskers.loading import steps_per_epoch
from masktool.maskers.settings import TrainingSettings
from masktool.maskers.stages import Stage, choose_stages, list_maps
from masktool.maskers.training import choose_device
from masktool.messages import PREPROCESSINGS, parameter


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that is known before the first step of a training.

    Attributes:
        loaded: loaded classifier and what its origin knows of it; its module is this training's own.
        source: plain graph of the classifier, as a source to export.
        head: class output of the classifier: its name, and the kind of scores that it holds.
        preprocessing: preprocessing of the images.
        labels: names of the classes; None where they have none.
        examples: images to train on, with their classes.
        stages: stages of the classifier that the masker reads.
        settings: settings of the training.
        device: device that the training runs on.
    """

    loaded: LoadedModule
    source: Source
    head: ClassOutput
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    examples: tuple[Example, ...]
    stages: tuple[Stage, ...]
    settings: TrainingSettings
    device: torch.device

    @property
    def module(self) -> nn.Module:
        """The classifier's torch module."""
        return self.loaded.known.module

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in one pass over the images."""
        return steps_per_epoch(len(self.examples), self.settings.batch)

    @property
    def steps(self) -> int:
        """Number of batches in the whole training."""
        return self.steps_per_epoch * self.settings.epochs

    def describe(self) -> Iterator[str]:
        """Yields lines on the training for the user to read before the first step."""
        yield f"classifier: {self.loaded.name}"
        yield from ("note: " + note for note in self.loaded.notes)
        yield f"stages: {', '.join(map(str, self.stages))}"
        classes = len({example.label for example in self.examples})
        yield f"pictures: {len(self.examples)} of {classes} classes; {self.steps} steps of {self.settings.batch}"

    def identity(self) -> dict[str, Any]:
        """Returns everything that decides the course of the training, JSON values by name."""
        return self.settings.to_json() | {
            "stages": [each.name for each in self.stages],
            "preprocessing": json.loads(json.dumps(dataclasses.asdict(self.preprocessing))),
            "pictures": digest(self.examples),
            "weights": digest_weights(self.module),
            "device": self.device.type,
        }


def make_plan(
    loaded: LoadedModule,
    data: Path,
    input_size: Size | None,
    preprocessing: Preprocessing | None,
    labels: Sequence[str] | None,
    class_output: str | None,
    settings: TrainingSettings,
) -> Plan:
    """Reads and checks everything that can fail before the first step."""
    if loaded.frozen and settings.classifier == "ca":
        raise MasktoolError(
            "the classifier cannot be trained alongside",
            where=loaded.name,
            got="an exported program, whose weights are frozen",
            fix="give the state dict and " + parameter("arch") + ", or " + parameter("classifier", "fix"),
        )
    preprocessing = preprocessing_at(loaded, input_size, preprocessing)
    loaded = own_module(loaded)
    channels = len(preprocessing.mean)
    source = source_from_module(loaded, preprocessing.size, channels)
    names = source.labels if labels is None else tuple(labels)
    head = choose_class_output(source.model, source.claims.with_user(class_output, None, names))
    n_classes = next((count_columns(each) for each in source.model.graph.outputs if each.name == head.name), None)
    if n_classes is None or n_classes < 2:
        raise MasktoolError("no class output to explain", where=loaded.name, expected="class scores (N, K)")
    maps = list_maps(loaded.known.module, make_example(loaded.known.module, preprocessing.size, channels))
    stages = choose_stages(maps, settings.stages, loaded.name)
    examples = read_examples(
        data, class_names=names, n_classes=n_classes, per_class=settings.per_class, seed=settings.seed
    )
    return Plan(loaded, source, head, preprocessing, names, examples, stages, settings, choose_device(settings.device))


def preprocessing_at(loaded: LoadedModule, size: Size | None, preprocessing: Preprocessing | None) -> Preprocessing:
    """Returns the preprocessing of the images, scaled to the input size that is asked for."""
    chosen = preprocessing or loaded.known.preprocessing
    if chosen is None:
        raise MasktoolError(
            "preprocessing unknown", where=loaded.name, fix="add " + parameter("preprocessing", PREPROCESSINGS)
        )
    return chosen if size is None else chosen.scaled_to(size)


def own_module(loaded: LoadedModule) -> LoadedModule:
    """Returns a loaded classifier with its own module, in evaluation mode: a copy where the user holds the module."""
    module = loaded.known.module
    if loaded.sha256 is None and not loaded.known.configuration:
        module = copy.deepcopy(module)
    return dataclasses.replace(loaded, known=dataclasses.replace(loaded.known, module=module.eval()))
