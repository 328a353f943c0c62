"""The command line's spelling of the parameters and calls in the library's messages: one table, read in one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from masktool.messages import Arguments, FunctionCall, Message, OneOf, Parameter, Part, TwoWordings, Unsaid


@dataclasses.dataclass(frozen=True)
class OptionName:
    """The command line's option for a parameter.

    Attributes:
        option: option as it is typed.
        separator: text between the members of a tuple.
        words: words that are typed for False and for True; None where the option itself is typed for True, and nothing
            for False.
    """

    option: str
    separator: str = " "
    words: tuple[str, str] | None = None


OPTIONS: Mapping[str, OptionName] = {
    "against": OptionName("--against"),
    "also": OptionName("--also"),
    "arch": OptionName("--arch"),
    "band_baseline": OptionName("--band-baseline", separator=","),
    "bands": OptionName("--bands"),
    "baseline": OptionName("--baseline"),
    "boxes": OptionName("--boxes"),
    "budget": OptionName("--budget"),
    "calibrate": OptionName("--calibrate"),
    "cell_sides": OptionName("--side"),
    "channels": OptionName("--channels"),
    "checkpoint": OptionName("--checkpoint"),
    "chunk": OptionName("--chunk"),
    "class_output": OptionName("--class-output"),
    "classifier": OptionName("--classifier"),
    "cpu": OptionName("--cpu"),
    "detector": OptionName("--detector"),
    "device": OptionName("--device"),
    "docker_context": OptionName("--docker"),
    "embed_overlay": OptionName("--embed-overlay"),
    "embed_preprocessing": OptionName("--embed-preprocessing"),
    "explained": OptionName("--explained"),
    "feature_map": OptionName("--feature-map", separator=" --feature-map "),
    "for_provider": OptionName("--for"),
    "gpus": OptionName("--gpus"),
    "gradient": OptionName("--gradient"),
    "gradient_output": OptionName("--gradient-output"),
    "head": OptionName("--head"),
    "images": OptionName("--images"),
    "image_input": OptionName("--image-input"),
    "input_size": OptionName("--input-size"),
    "inputs": OptionName("--input"),
    "instances": OptionName("--instances"),
    "labels": OptionName("--labels"),
    "learning_rate": OptionName("--learning-rate"),
    "least_score": OptionName("--least-score"),
    "log": OptionName("--log"),
    "loss": OptionName("--gradient"),
    "manifest": OptionName("--kserve"),
    "mask_required": OptionName("--mask", words=("optional", "required")),
    "masking": OptionName("--masking"),
    "masks": OptionName("--masks"),
    "masks_per_image": OptionName("--masks"),
    "max_batch": OptionName("--max-batch"),
    "memory": OptionName("--memory"),
    "model_name": OptionName("--name"),
    "model_version": OptionName("--model-version"),
    "n_folds": OptionName("--folds"),
    "n_samples": OptionName("--samples"),
    "of": OptionName("--of"),
    "on_request": OptionName("--on-request"),
    "output": OptionName("--output"),
    "output_kind": OptionName("--output-kind"),
    "overwrite": OptionName("--overwrite"),
    "path": OptionName("-o"),
    "per_class": OptionName("--per-class"),
    "perturbations_per_eval": OptionName("--batch"),
    "plain_branch": OptionName("--plain-branch"),
    "portable": OptionName("--portable"),
    "precision": OptionName("--precision"),
    "preprocessing": OptionName("--preprocess"),
    "provider_options": OptionName("--provider-option"),
    "providers": OptionName("--provider"),
    "queue_delay": OptionName("--queue-delay"),
    "reference": OptionName("--reference"),
    "region": OptionName("--region", separator=","),
    "repository": OptionName("--triton"),
    "resume": OptionName("--resume"),
    "rgb": OptionName("--rgb", separator=","),
    "rule": OptionName("--rule"),
    "samples_input": OptionName("--samples-input"),
    "score": OptionName("--score"),
    "seconds": OptionName("--seconds"),
    "seed": OptionName("--seed"),
    "server_image": OptionName("--image"),
    "stages": OptionName("--stages", separator=","),
    "storage_uri": OptionName("--storage-uri"),
    "target": OptionName("--target", separator=","),
    "sum_with": OptionName("--sum-with"),
    "tensorrt": OptionName("--tensorrt"),
    "tolerance": OptionName("--tolerance"),
    "top_k": OptionName("--top-k"),
    "trust_code": OptionName("--trust-code"),
    "until": OptionName("--until"),
}
"""All options by the parameter's name, which means one thing in all functions; a test compares their signatures."""


@dataclasses.dataclass(frozen=True)
class CommandName:
    """The command line's command for a function.

    Attributes:
        command: command as it is typed behind ``masktool``.
        positional: options that take the positional arguments of the function, in their order; None for one that the
            command takes as an argument.
    """

    command: str
    positional: tuple[str | None, ...]


COMMANDS: Mapping[str, CommandName] = {
    "export": CommandName("export", (None, "-o")),
    "export_explained": CommandName("export", (None, "-o", "--explain")),
    "add_gradients_to": CommandName("export", (None, "-o")),
    "explain": CommandName("explain", ("-m", None)),
    "differentiate": CommandName("gradient", (None, "-o")),
    "calibrate": CommandName("calibrate", (None, "--images", "-o")),
    "package_triton": CommandName("package", (None, "--triton")),
    "train_masker": CommandName("train-masker", (None, "--data", "-o")),
}
"""All commands by the function's name."""


def for_command_line(text: str) -> str:
    """Returns a message for a reader of the command line: options in place of parameters."""
    return text.render(spell) if isinstance(text, Message) else text


def spell(part: Part) -> str:
    """Returns the command line's spelling of a part of a message."""
    match part:
        case Parameter():
            return spell_parameter(part)
        case Arguments():
            return spell_arguments(part)
        case FunctionCall():
            return spell_call(part)
        case TwoWordings():
            return part.command


def spell_parameter(parameter: Parameter) -> str:
    """Returns the option of a parameter, with the value behind it unless the option is a switch."""
    name = OPTIONS[parameter.name]
    if parameter.value is Unsaid.UNSAID:
        return name.option
    if parameter.value is True and name.words is None:
        return name.option
    return f"{name.option} {spell_value(parameter.value, name)}"


def spell_arguments(arguments: Arguments) -> str:
    """Returns several options as they are typed one behind the other."""
    return " ".join(map(spell_parameter, arguments.members))


def spell_value(value: object, name: OptionName) -> str:
    """Returns a value as it is typed, on one line."""
    if isinstance(value, OneOf):
        return value.separator.join(spell_value(each, name) for each in value.values)
    if isinstance(value, tuple):
        return name.separator.join(spell_value(each, name) for each in value)
    if isinstance(value, bool) and name.words is not None:
        return name.words[value]
    return " ".join(str(value).split())


def spell_call(call: FunctionCall) -> str:
    """Returns the command line that does what a call does."""
    name = COMMANDS[call.function]
    words = ["masktool", name.command]
    for value, option in zip(call.positional, name.positional, strict=False):  # a call may give fewer
        if value is not ...:
            words += [*([] if option is None else [option]), str(value)]
    return " ".join([*words, *map(spell_parameter, call.named.members)])
