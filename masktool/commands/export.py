"""``masktool export``: turns a trained CNN into an ONNX model that takes a mask."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from masktool.commands.explanation_options import EXPLANATION_OPTIONS, EmbeddedChoice, describe_embedded
from masktool.commands.export_check import run_check
from masktool.commands.info import describe_agreement, describe_batch, describe_calibration, describe_preprocessing
from masktool.commands.options import (
    baseline_option,
    console,
    in_order,
    json_option,
    masking_option,
    print_path,
    rule_option,
    say,
)
from masktool.commands.source_options import (
    READING_OPTIONS,
    choose_output,
    labels_option,
    mean_option,
    precision_option,
    read_preset,
    std_option,
)
from masktool.contract import DEVICE_PROVIDERS, LOSSES, OutputKind, Size
from masktool.errors import MasktoolError
from masktool.option_names import for_command_line
from masktool.printable import describe_bytes

if TYPE_CHECKING:
    from masktool.contract import Metadata
    from masktool.exporters.result import Export

SUFFIX = ".masked.onnx"
EXPLAINED_SUFFIX = ".explained.onnx"
OPTIONS_OF_CHECK = frozenset(
    {"model", "check", "against", "arch", "input_size", "channels", "image_input", "trust_code", "as_json"}
)
"""Parameters that say what to measure, not what to write."""
OPTIONS_OF_GRADIENTS = (OPTIONS_OF_CHECK - {"check"}) | {"output", "gradient", "gradient_output", "feature_map"}
"""Parameters that count where gradients are added to a file that was exported before."""
DIGEST_SHOWN = 12
"""Hexadecimal digits of a SHA-256 in messages; the metadata hold all of them."""


@click.command("export")
@click.argument("model", required=False)
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Export nothing; measure FILE, which was exported before, against MODEL too where that is given. Exit code 1 "
    "when a figure is beyond its limit.",
)
@click.option(
    "--against",
    metavar="MODEL",
    help="With --check: the float32 network that the one in FILE was made from, quantised or in 16 bits; scores, first "
    "choices and maps are compared with its own.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write.  [default: MODEL's name.masked.onnx, with --explain .explained.onnx]",
)
@in_order(READING_OPTIONS)
@masking_option
@rule_option
@baseline_option
@click.option(
    "--mask",
    type=click.Choice(["optional", "required"]),
    help="Whether callers may leave the mask out; required suits runtimes that know no optional inputs.  [default: "
    "optional, or required where MODEL leaves its height or width open]",
)
@mean_option
@std_option
@labels_option
@click.option(
    "--gradient",
    type=click.Choice(LOSSES),
    help="Add gradients to the file: of what of the target's score, or of all scores, unless a caller says otherwise.",
)
@click.option(
    "--gradient-output",
    metavar="NAME",
    help="Add gradients of this output (N, ...), in place of class scores: of the sum of its values, each times its "
    "weight, which is an input of the file.",
)
@click.option(
    "--feature-map",
    multiple=True,
    metavar="NAME",
    help="Which value (N, c, h, w) gradients are of; may be given several times. Without --gradient: give its "
    "activations as an output (last: the last one).  [default: the last, with --gradient]",
)
@click.option(
    "--head",
    metavar="NAME|last",
    help="Write the layers behind this value (N, c, h, w), which take a mask there, beside the file: what recipro-cam "
    "needs.",
)
@click.option(
    "--portable",
    is_flag=True,
    help="Write the file for OpenVINO, tract and ONNX Runtime in JavaScript too: one image at a time, every input "
    "required, no functions.",
)
@click.option(
    "--for",
    "for_provider",
    type=click.Choice(DEVICE_PROVIDERS),
    help="Write gradients for the kernels of this provider: webgpu, tensorrt and directml have none for the indices of "
    "max pooling.",
)
@precision_option
@click.option(
    "--plain-branch",
    is_flag=True,
    help="Hold the plain network beside the masked one: with the mask left out, or 1 everywhere, a run costs what the "
    "plain model costs. Weights of 1 MiB and more then stand in NAME.data beside the file, once for both.",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Photographs, without labels, by which class scores are corrected where something is missing; as `masktool "
    "calibrate` does it by default.",
)
@in_order(EXPLANATION_OPTIONS)
@json_option
@click.pass_context
def command(
    context: click.Context,
    model: str | None,
    check: Path | None,
    against: str | None,
    output: Path | None,
    arch: str | None,
    masking: Any,
    rule: Any,
    baseline: str | None,
    mask: str | None,
    image_input: str | None,
    input_size: Size | None,
    channels: int | None,
    preprocess: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    labels: Path | None,
    class_output: str | None,
    output_kind: Any,
    trust_code: bool,
    gradient: Any,
    gradient_output: str | None,
    feature_map: tuple[str, ...],
    head: str | None,
    portable: bool,
    for_provider: Any,
    precision: Any,
    plain_branch: bool,
    calibrate: Path | None,
    as_json: bool,
    **explaining: Any,
) -> None:
    """Turn a trained CNN into an ONNX model that takes a mask, or that explains itself.

    MODEL is an .onnx, a torch.export .pt2, a state dict or .safetensors with --arch (a file.py:factory is run),
    torchvision:NAME or timm:NAME with its hub weights, or (--trust-code) a TorchScript archive or a pickled module.
    """
    from rich.text import Text

    from masktool.exporters import add_gradients_to
    from masktool.exporters.settings import SourceSettings
    from masktool.exporters.sources import read_source, read_sources
    from masktool.exporters.user_choices import read_labels, source_size
    from masktool.interface.export import export

    preset = read_preset(preprocess, mean, std)
    size = input_size if model is None else source_size(model, input_size, preset)
    reading = SourceSettings(arch, size, channels, image_input, trust_code)
    if check is not None:
        refuse_options(context, OPTIONS_OF_CHECK, "--check writes no file")
        source, other = read_sources((model, against), reading)
        context.exit(run_check(check, source, other, as_json=as_json))
    if against is not None:
        raise MasktoolError("nothing to compare", where="--against", fix="add --check FILE")
    if model is None:
        raise click.MissingParameter(ctx=context, param_hint="'MODEL'", param_type="argument")
    embedded = EmbeddedChoice(**explaining)
    embedded.refuse_others(given_parameters(context))
    target = choose_output(model, output, SUFFIX if embedded.method is None else EXPLAINED_SUFFIX)
    names = read_labels(labels)
    with console().status(Text(f"reading {model}")) as status:  # on terminals only
        source = read_source(model, reading)
        status.update("adding the mask and measuring parity")
        if source.exported_before and (gradient is not None or gradient_output is not None):
            refuse_options(context, OPTIONS_OF_GRADIENTS, "the model was exported before, and has this settled")
            exported = add_gradients_to(
                source, target, loss=gradient, feature_map=feature_map, gradient_output=gradient_output
            )
        else:
            of_export = {
                "masking": masking or "layer",
                "rule": rule,
                "baseline": baseline,
                "preprocessing": preset,
                "labels": names,
                "class_output": class_output,
                "output_kind": output_kind,
                "portable": portable,
                "precision": precision,
                "for_provider": for_provider,
            }
            if embedded.method is not None:
                status.update("embedding the explanation and measuring it")
                exported = embedded.export(source, target, of_export)
            else:
                exported = export(
                    source,
                    target,
                    **of_export,
                    mask_required=None if mask is None else mask == "required",
                    gradient=gradient,
                    gradient_output=gradient_output,
                    feature_map=feature_map,
                    head=head,
                    plain_branch=plain_branch,
                    calibrate=calibrate,
                )
    for line in describe_export(exported):
        say(line)
    if as_json:
        click.echo(json.dumps(document_export(exported), indent=2))
    else:
        print_path(target)


def refuse_options(context: click.Context, allowed: Collection[str], why: str) -> None:
    """Raises MasktoolError with the reason ``why`` where an option was typed whose parameter is not allowed."""
    given = given_parameters(context)
    for parameter in context.command.params:
        if parameter.name in given and parameter.name not in allowed:
            raise MasktoolError(why, got=parameter.opts[-1], fix="leave that out")


def given_parameters(context: click.Context) -> set[str]:
    """Returns the names of the parameters whose options were typed."""
    names = [parameter.name or "" for parameter in context.command.params]
    return {name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}


def describe_export(exported: Export) -> Iterator[str]:
    """Yields what the user should know of an export, a line each."""
    from masktool.explainers.method import METHODS

    metadata, source, rules = exported.metadata, exported.source, exported.rule_counts
    yield f"source: {source.name}, sha256 {metadata.source_sha256[:DIGEST_SHOWN]}, {source.n_nodes} nodes"
    yield from ("note: " + note for note in exported.notes)
    if metadata.explanation is not None and METHODS.find(metadata.explanation["method"]).needs_gradient:
        yield "masked: nothing; the method works on gradients"
    elif metadata.baseline is None:
        yield f"masked: {sum(rules.values())} nodes ({', '.join(f'{rule} {count}' for rule, count in rules.items())})"
    else:
        yield f"masked: the input alone, filled with {describe_baseline(metadata)}"
    if metadata.has_gradients:
        of = f"the {metadata.gradient}" if metadata.gradient else f"output {metadata.gradient_output!r}, weighed"
        yield f"gradients: of {of}; feature map {', '.join(metadata.feature_maps) or 'none'}"
    elif metadata.feature_maps:
        yield f"feature map: {', '.join(metadata.feature_maps)}"
    if metadata.head is not None:
        yield f"head: the layers behind {metadata.feature_map!r}, in {metadata.head}"
    if metadata.plain_branch:
        yield "plain branch: the plain network runs where the mask is left out, or 1 everywhere"
    if metadata.calibration is not None:
        yield from (f"calibration: {line}" for line in describe_calibration(dict(metadata.calibration)))
    yield from describe_parity(metadata.parity)
    if metadata.precision is not None and "fp32" in metadata.parity:
        against = describe_agreement(metadata.parity["fp32"])
        yield f"precision: {metadata.precision}; against the float32 file, {against}"
    yield from describe_embedded(exported)
    yield f"batch: {describe_batch(dataclasses.asdict(metadata))}"
    yield from describe_class_output(metadata)
    if metadata.preprocessing is not None:
        yield f"preprocessing: {describe_preprocessing(dataclasses.asdict(metadata.preprocessing))}"
    yield from (f"missing: {line}" for line in list_missing(metadata))
    if metadata.class_output is None:
        yield f"outputs: {', '.join(source.outputs)}; `masktool explain` asks for --output NAME and --target I,J"
    yield f"wrote {exported.path} ({describe_bytes(exported.n_bytes)})"


def describe_class_output(metadata: Metadata) -> Iterator[str]:
    """Yields which output holds the class scores, and the evidence for that."""
    if metadata.class_output is None:
        yield "output: none holds class scores, as far as is known; --class-output NAME says that one does"
    elif metadata.output_kind is None:
        yield f"output: {metadata.class_output!r} is taken for the class scores; what it holds is not known"
    else:
        yield f"output: {metadata.class_output!r} holds {metadata.output_kind}"
    if metadata.output_evidence:
        yield f"evidence: {'; '.join(metadata.output_evidence)}"


def describe_parity(parity: Mapping[str, Any]) -> Iterator[str]:
    """Yields the parity figures, the images that they were measured on, and notes on figures that need one."""
    from masktool.exporters.domains import DESCRIPTIONS

    numbers = {name: figure for name, figure in parity.items() if isinstance(figure, int | float)}
    yield f"parity: {', '.join(f'{name} {figure:.1e}' if figure else f'{name} 0' for name, figure in numbers.items())}"
    if (probes := parity.get("probes")) in DESCRIPTIONS:
        elsewhere = f", {parity['size']}: at the usual size the source does not run" if "size" in parity else ""
        yield f"measured on: {DESCRIPTIONS[probes]}{elsewhere}"
    if "ones_unfused" in numbers:
        yield (
            "note: ones is with ONNX Runtime's optimisations, ones_unfused without; where they compute on integers, a "
            "number that lies between two steps may be rounded either way"
        )
    if numbers.get("source_spread"):
        yield (
            f"note: the source's own answers differ by {numbers['source_spread']:.1e} with ONNX Runtime's "
            "optimisations, threads and batches; the figures are judged against that"
        )
    if "masked_spread" in numbers:
        yield (
            f"note: the masked model's own answers differ by {numbers['masked_spread']:.1e} with ONNX Runtime's "
            "optimisations and threads; without optimisations it agrees with the source, and the figures are judged "
            "against that"
        )


def describe_baseline(metadata: Metadata) -> str:
    """Returns the baseline as text, with a warning where ``mean`` may not be the data set's mean."""
    preprocessing = metadata.preprocessing
    if metadata.baseline != "mean" or (preprocessing is not None and any(preprocessing.mean)):
        return f"{metadata.baseline}"
    reason = "is unknown" if preprocessing is None else "subtracts no mean"
    return f"mean, which is 0 in the input; the preprocessing {reason}, so that 0 may be another colour"


def list_missing(metadata: Metadata) -> Iterator[str]:
    """Yields what the exported file does not say about itself, each with the option that adds it."""
    if metadata.class_output is None:
        yield "a class output (N, K)"
    elif metadata.output_kind is None:
        kinds = "|".join(get_args(OutputKind))
        yield (
            f"what output {metadata.class_output!r} holds: its values are explained as they are; "
            f"add --output-kind {kinds} or --labels FILE, or --class-output none where they are no class scores"
        )
    if metadata.preprocessing is None:
        yield "preprocessing, which `masktool explain` needs; add --preprocess imagenet|caffe|tf|yolo|FILE.json"
    if metadata.labels is None and metadata.class_output is not None:
        yield "labels; add --labels FILE"


def document_export(exported: Export) -> dict[str, Any]:
    """Returns an export as a document for programs, ready for JSON."""
    return {
        "path": str(exported.path),
        "bytes": exported.n_bytes,
        "metadata": dataclasses.asdict(exported.metadata),
        "rules": exported.rule_counts,
        "notes": [for_command_line(note) for note in exported.notes],
    }
