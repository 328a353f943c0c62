"""One option per field of :class:`masktool.maskers.settings.TrainingSettings`, its default taken from there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import click

from masktool.maskers.settings import CHOICES, LAMBDA_OUT, STAGE_WORDS, TrainingSettings

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

HELP = {
    "objective": "What masks are trained for: that the class survives under the mask (in), that it is lost without "
    "what the mask shows (out), or both.",
    "classifier": "Leave the classifier as it is (fix), or train it alongside on masked pictures, its earlier selves "
    "judging too (ca); the file then holds the classifier so trained.",
    "through": "How pictures are masked in training: by colour (fill) or through layer masking (layer).",
    "infiller": "What stands where fill hides pixels: the mean that the preprocessing subtracts (none), the picture's "
    "own mean, or the picture blurred. The file's own fill takes the first, whatever was trained with.",
    "out_loss": "What the masked-out picture is to have: a high entropy, or a high classification loss.",
    "target_area": "Share of the picture, 0 to 1, up to which a mask costs nothing.  [default: every pixel costs]",
    "lambda_in": "Weight of the mask's area while the class survives.",
    "lambda_out": "Weight of the mask's area while the class is lost.  [default: "
    + ", ".join(f"{weight:g} with {name}" for name, weight in LAMBDA_OUT.items())
    + "]",
    "lambda_tv": "Weight of the total variation, which makes masks smooth.",
    "stages": "Modules of MODEL whose activations the masker reads: its last two stages, all of them, or names; a "
    "name that is none lists them.",
    "per_class": "Train on so many pictures of each class.  [default: all]",
    "epochs": "Passes over the pictures.",
    "batch": "Pictures per step.",
    "learning_rate": "Of the masker (Adam); a tenth after each third of the training.",
    "classifier_learning_rate": "Of the classifier with ca (SGD, momentum .9).",
    "weight_decay": "Of both.",
    "clip": "Norm to which the masker's gradient is clipped.",
    "history_size": "How many earlier selves of the classifier ca keeps.",
    "history_interval": "Steps between two of them.",
    "min_crop": "Least share of a picture's area that a random crop keeps; 1 crops as the classifier is run.",
    "flip": "Mirror every other picture.",
    "seed": "All random choices come from it; on a CPU, with as many threads, the same seed gives the same losses.",
    "precision": "Of the passes; auto takes bf16 on a GPU that has it.",
    "device": "Where to train, as torch names it; auto takes a GPU where there is one.",
}
"""Help texts by field. A field without an entry fails at import, so that no setting goes undocumented."""
METAVARS = {"stages": f"{'|'.join(STAGE_WORDS)}|NAME,NAME", "device": "NAME"}
NUMBER_METAVAR = "N"


def read_stages(context: click.Context, parameter: click.Parameter, value: str) -> str | tuple[str, ...]:  # noqa: ARG001
    """Returns the value of --stages: one of its words, or a tuple of modules' names."""
    return value if value in STAGE_WORDS else tuple(name.strip() for name in value.split(","))


def training_options(command: Decorated) -> Decorated:
    """Decorator that adds one option per field of the training settings to a command, in the order of the fields."""
    for field in reversed(dataclasses.fields(TrainingSettings)):  # a decorator further down is listed further down
        command = option_of(field)(command)
    return command


def option_of(field: dataclasses.Field[Any]) -> Callable[[Decorated], Decorated]:
    """Returns the option for a field of the training settings, which check the values themselves."""
    name = field.name.replace("_", "-")
    common: dict[str, Any] = {
        "default": field.default,
        "show_default": field.default is not None,
        "help": HELP[field.name],
    }
    if isinstance(field.default, bool):
        return click.option(f"--{name}/--no-{name}", **common)
    if field.name in CHOICES:
        return click.option(f"--{name}", type=click.Choice(CHOICES[field.name]), **common)
    if isinstance(field.default, str):
        callback = read_stages if field.name == "stages" else None
        return click.option(f"--{name}", metavar=METAVARS[field.name], callback=callback, **common)
    number = int if str(field.type).startswith("int") else float  # annotations are text: "int", "float | None"
    return click.option(f"--{name}", type=number, metavar=NUMBER_METAVAR, **common)


def take_training_settings(values: dict[str, Any]) -> TrainingSettings:
    """Takes the training settings out of a command's parameters, and returns them.

    Raises:
        MasktoolError: a setting is out of range, or two settings do not go together.
    """
    return TrainingSettings(**{field.name: values.pop(field.name) for field in dataclasses.fields(TrainingSettings)})
