"""The settings of an export, in frozen objects that are handed from step to step."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import TypeAlias, get_args

from masktool.contract import (
    DEVICE_PROVIDERS,
    LOSSES,
    DeviceProvider,
    FilePrecision,
    Loss,
    Masking,
    OutputKind,
    Preprocessing,
    SamplerRule,
    Size,
)
from masktool.errors import MasktoolError
from masktool.messages import join, parameter
from masktool.option_checks import check_count, check_named, check_size

IN_EVERY_RUN = "a file with gradients computes them in every run, so that it saves nothing"
"""Why the plain network does not stand beside one with gradients."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """How photographs become a network's input, whatever size, channels and layout that input turns out to have.

    Attributes:
        name_or_file: ``imagenet``, ``caffe``, ``tf``, ``yolo``, or the path of a JSON file with the fields of
            :class:`masktool.Preprocessing`; None takes plain pixels in 0..1 with ImageNet's resize and crop.
        mean: the mean of each channel, in units of the scaled pixels; None keeps the preset's or the file's.
        std: the standard deviation of each channel, in units of the scaled pixels; None keeps the preset's or the
            file's.
    """

    name_or_file: str | os.PathLike[str] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Raises MasktoolError for a field of another type; whether the numbers fit, an image input tells later."""
        name = self.name_or_file
        if name is not None and not isinstance(name, str | os.PathLike):
            expected = "the name of a preset, or the path of a JSON file"
            raise MasktoolError("not a preprocessing", where="name_or_file", expected=expected, got=repr(name))
        for field, values in (("mean", self.mean), ("std", self.std)):
            if isinstance(values, str) or not isinstance(values, Iterable | None):
                raise MasktoolError("not one number per channel", where=field, got=repr(values))

    @property
    def text(self) -> str | None:
        """The preset's name or the file's path, as text; None where there is neither."""
        return None if self.name_or_file is None else os.fspath(self.name_or_file)


PreprocessingLike: TypeAlias = str | os.PathLike[str] | Preset | Preprocessing
"""How a photograph becomes the input: ``imagenet``, ``caffe``, ``tf``, ``yolo``, a JSON file's path, a preset with
another mean or standard deviation, or the steps themselves."""
LabelsLike: TypeAlias = str | os.PathLike[str] | Sequence[str]
"""Names of the classes in their order, or the path of a file that holds them: one per line, or ``.json``."""


@dataclasses.dataclass(frozen=True)
class SourceSettings:
    """What a file does not say of the model in it. The fields are parameters of :func:`masktool.export`."""

    arch: str | None = None
    input_size: Size | None = None
    channels: int | None = None
    image_input: str | None = None
    trust_code: bool = False

    def __post_init__(self) -> None:
        """Raises MasktoolError for an input size, channels or an architecture of another form."""
        if self.input_size is not None:
            check_size("input_size", self.input_size)
        if self.channels is not None:
            check_count("channels", self.channels)
        if self.arch is not None and not isinstance(self.arch, str):
            raise MasktoolError("not an architecture", where=parameter("arch"), expected="a text", got=repr(self.arch))


@dataclasses.dataclass(frozen=True)
class OutputSettings:
    """What a model's output means. The fields are parameters of :func:`masktool.export`; labels are names, no path."""

    class_output: str | None = None
    output_kind: OutputKind | None = None
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Raises MasktoolError for an unknown kind of scores."""
        if self.output_kind is not None:
            check_named("output kind", self.output_kind, get_args(OutputKind))


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """What :func:`masktool.export` is asked to do with a model that was read.

    Attributes:
        output: the name of the class output, the kind of its scores, and the names of the classes.

    The other fields are parameters of :func:`masktool.export`.
    """

    output: OutputSettings = OutputSettings()
    masking: Masking = "layer"
    baseline: str | None = None
    mask_required: bool | None = None
    preprocessing: Preprocessing | Preset | None = None
    gradient: Loss | None = None
    feature_map: tuple[str, ...] = ()
    portable: bool = False
    precision: FilePrecision | None = None
    for_provider: DeviceProvider | None = None
    head: str | None = None
    plain_branch: bool = False
    rule: SamplerRule | None = None
    gradient_output: str | None = None

    def __post_init__(self) -> None:
        """Raises MasktoolError for an unknown mode or loss, or options that exclude or need one another."""
        check_named("masking mode", self.masking, get_args(Masking))
        if self.for_provider is not None:
            check_named("provider", self.for_provider, DEVICE_PROVIDERS)
        if self.precision is not None:
            check_named("precision", self.precision, get_args(FilePrecision))
        check_gradient_choice(self.gradient, self.gradient_output)
        if self.head is not None:
            self.check_head(self.head)
        if self.portable and self.mask_required is False:
            raise MasktoolError(
                "every input of a portable file is required",
                where=parameter("mask_required", False),
                fix="leave that out, or " + parameter("portable", True),
            )
        if self.plain_branch:
            self.check_plain_branch()

    def check_plain_branch(self) -> None:
        """Raises MasktoolError for options that exclude the plain network beside the masked one."""
        excluding = (
            ("gradient", self.gradient, IN_EVERY_RUN),
            ("gradient_output", self.gradient_output, IN_EVERY_RUN),
            ("head", self.head, "the head of a file begins at a feature map, which it does not give"),
            ("feature_map", self.feature_map, "it gives the outputs that both networks have, and no feature map"),
            ("portable", self.portable, "it serves callers who leave the mask out, which no portable file allows"),
        )
        for name, value, reason in excluding:
            if value:
                raise MasktoolError(
                    f"the plain network cannot stand beside the masked one: {reason}",
                    where=parameter("plain_branch", True),
                    fix="leave that or " + parameter(name, value) + " out",
                )

    def check_head(self, head: str) -> None:
        """Raises MasktoolError for a head that the other options exclude."""
        if not isinstance(head, str) or not head:
            expected = "the name of a feature map, or last"
            raise MasktoolError("not a head", where=parameter("head"), expected=expected, got=repr(head))
        if self.portable:
            raise MasktoolError(
                "a portable file takes one mask at a time, and a head has one for every place",
                where=parameter("head", head),
                fix="leave that or " + parameter("portable", True) + " out",
            )
        if self.feature_map and head not in self.feature_map:
            raise MasktoolError(
                "the head of a file begins behind one of the feature maps that the file gives",
                where=parameter("feature_map", self.feature_map),
                got=parameter("head", head),
                fix="name the same in both, or leave " + parameter("feature_map") + " out",
            )


def check_gradient_choice(loss: Loss | None, gradient_output: str | None) -> None:
    """Raises MasktoolError for an unknown loss, an output that is no name, or both: a file differentiates one thing."""
    if loss is not None:
        check_named("loss", loss, LOSSES)
    if gradient_output is None:
        return
    if not isinstance(gradient_output, str) or not gradient_output:
        where = parameter("gradient_output")
        raise MasktoolError("not an output", where=where, expected="the name of an output", got=repr(gradient_output))
    if loss is not None:
        raise MasktoolError(
            "a loss is of class scores, and the values of an output are weighed by the caller",
            where=join(", ", [parameter("gradient", loss), parameter("gradient_output", gradient_output)]),
            fix="leave one of them out",
        )
