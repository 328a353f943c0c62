"""``masktool info``: what an ONNX file holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from masktool.commands.derivative_words import describe_derivative_of
from masktool.commands.options import in_order, json_option
from masktool.commands.size_option import input_size_option
from masktool.commands.source_options import (
    arch_option,
    channels_option,
    class_output_option,
    image_input_option,
    trust_code_option,
)
from masktool.contract import (
    DEVICE_PROVIDERS,
    EXPLAIN_INPUT,
    MASK_INPUT,
    OVERLAY,
    SALIENCY_MAP,
    TARGET_INPUT,
    WEIGHTS_INPUT,
    Preprocessing,
)
from masktool.errors import MasktoolError
from masktool.printable import describe_bytes, printable

if TYPE_CHECKING:
    from masktool.exporters.description import ModelDescription
    from masktool.exporters.listed_maps import ListedMap
    from masktool.exporters.placement import Placement

SOURCE_OPTIONS = (
    arch_option,
    input_size_option,
    channels_option,
    image_input_option,
    class_output_option,
    trust_code_option,
)
"""Options for what a MODEL does not say of itself where its feature maps are listed."""
REQUIRING = {MASK_INPUT: "--mask required", TARGET_INPUT: "--target required", EXPLAIN_INPUT: "--on-request required"}
"""Options of ``masktool export`` that make an optional input an ordinary one."""
LABELS_SHOWN = 5
"""Number of labels in the text; JSON holds all of them."""
NOT_MASKED = "not masked; `masktool export` makes it so"
DIFFERENTIATED = "with gradients by `masktool gradient`, takes no mask"
COLUMN = 14
"""Width of the first column in characters."""
NAMES_SHOWN = 3
"""Names of nodes of one operator that are shown; JSON holds all of them."""
NOT_A_RUN = "this is what tables say, not a run: ONNX Runtime decides when it opens the file"
CORRECTIONS = {
    "scale": "one scale",
    "diagonal": "a scale and a shift for each class",
    "full": "a matrix and a shift for each class",
}
"""The forms of a correction in words."""


@click.command("info")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--rules", is_flag=True, help="List every node with the mask rule that was applied to it.")
@click.option(
    "--provider",
    "placed_on",
    type=click.Choice(DEVICE_PROVIDERS),
    help="List the nodes that would fall back to the CPU there.",
)
@click.option(
    "--feature-maps",
    is_flag=True,
    help="List the values (N, c, h, w) that `masktool export --feature-map` and `--head` can name, of an exported file "
    "or of a MODEL in any form that export takes; the options below say how to read it for that.",
)
@in_order(SOURCE_OPTIONS)
@json_option
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    rules: bool,
    placed_on: str | None,
    feature_maps: bool,
    as_json: bool,
    **reading: Any,
) -> None:
    """Show what an ONNX file holds: inputs, metadata, parity, mask rules."""
    from masktool.exporters.description import describe

    if feature_maps:
        show_feature_maps(model, reading, as_json=as_json)
        return
    refuse_source_options(context, reading)
    described = describe(model)
    document = document_model(described)
    if rules:
        document["rules"] = [dataclasses.asdict(rule) for rule in described.rules]
    if placed_on is not None:
        from masktool.exporters.placement import place_file

        document["placement"] = document_placement(place_file(model, placed_on))
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo("\n".join(printable(line, keep="\t") for line in write_text(document)))


def refuse_source_options(context: click.Context, parameters: Collection[str]) -> None:
    """Raises MasktoolError where an option was typed that only says how to read a model for its feature maps."""
    for option in context.command.params:
        typed = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if typed and option.name in parameters:
            raise MasktoolError("nothing to read with that option", got=option.opts[-1], fix="add --feature-maps")


def show_feature_maps(model: Path, reading: dict[str, Any], *, as_json: bool) -> None:
    """Prints the feature maps of a model.

    Args:
        model: the model's path, or its name in a hub.
        reading: how to read the model, by the parameters of :data:`SOURCE_OPTIONS`.
        as_json: whether to print a document instead of lines.
    """
    from masktool.exporters.listed_maps import read_maps_of
    from masktool.exporters.settings import SourceSettings
    from masktool.exporters.sources import read_source

    class_output = reading.pop("class_output")
    found = read_maps_of(read_source(str(model), SourceSettings(**reading)), class_output)
    if as_json:
        maps = [dataclasses.asdict(each) for each in found]
        click.echo(json.dumps({"path": str(model), "feature_maps": maps}, indent=2))
        return
    for line in describe_feature_maps(str(model), found):
        click.echo(printable(line, keep="\t"))


def describe_feature_maps(name: str, maps: Sequence[ListedMap]) -> Iterator[str]:
    """Yields the feature maps of a model as lines for people, name, shape and what else is known with tabs between."""
    yield f"{name}: {len(maps)} feature map{'' if len(maps) == 1 else 's'}" + (", the last one last" if maps else "")
    for each in maps:
        shape = ", ".join("?" if length is None else str(length) for length in each.shape)
        notes = [each.operator]
        notes += ["a head may begin behind it"] if each.head else []
        notes += [f"output {each.output}"] if each.output else []
        yield f"{each.name}\t({shape})\t{'; '.join(notes)}"


def document_model(model: ModelDescription) -> dict[str, Any]:
    """Returns what an ONNX file holds as a document, ready for JSON, without the mask rules of its nodes."""
    return {
        "path": str(model.path),
        "bytes": model.n_bytes,
        "masked": model.masked,
        "ir_version": model.ir_version,
        "opsets": dict(model.opsets),
        "inputs": [
            dataclasses.asdict(each) | {"required": each.name not in model.optional_inputs} for each in model.inputs
        ],
        "outputs": [dataclasses.asdict(each) for each in model.outputs],
        "metadata": dataclasses.asdict(model.metadata) if model.metadata else None,
        "derivative": None if model.derivative is None else dict(model.derivative),
        "nodes": dict(model.operators),
        "functions": dict(model.functions),
    }


def document_placement(placement: Placement) -> dict[str, Any]:
    """Returns where a provider's tables have the nodes of a file run, as a document."""
    from masktool.exporters.placement import group_by_operator

    groups: dict[str, list[dict[str, Any]]] = {"cpu": [], "unknown": []}
    for operator, found, names in group_by_operator(placement.others):
        groups[found.where].append({"operator": operator, "count": len(names), "reason": found.reason, "nodes": names})
    return {
        "provider": placement.provider,
        "source": placement.source,
        "on_device": placement.on_device,
        "on_cpu": groups["cpu"],
        "unknown": groups["unknown"],
        "on_lengths": placement.on_lengths,
        "on_constants": placement.on_constants,
    }


def describe_placement(document: dict[str, Any]) -> Iterator[str]:
    """Yields where a provider's tables have the nodes of a file run, a line each."""
    n_device, n_lengths = document["on_device"], document["on_lengths"]
    n_cpu, n_unknown = (sum(group["count"] for group in document[key]) for key in ("on_cpu", "unknown"))
    parts = [
        f"{n_device} {'node has' if n_device == 1 else 'nodes have'} a kernel there",
        f"{n_cpu} {'falls' if n_cpu == 1 else 'fall'} back to the CPU",
    ]
    parts += [f"of {n_unknown} that is not known"] if n_unknown else []
    parts += [f"{n_lengths} on lengths alone not counted"] if n_lengths else []
    yield f"{document['provider']}: {', '.join(parts)}"
    for key, before in (("on_cpu", ""), ("unknown", "not known: ")):
        for group in document[key]:
            shown = ", ".join(group["nodes"][:NAMES_SHOWN]) + (", ..." if group["count"] > NAMES_SHOWN else "")
            yield f"{before}{group['operator']} {group['count']}: {group['reason']} ({shown})"
    yield f"from {document['source']}; {NOT_A_RUN}"


def write_text(document: dict[str, Any]) -> Iterator[str]:
    """Yields a document as lines of text for people."""
    yield write_heading(document)
    for kind in ("inputs", "outputs"):
        for index, value in enumerate(document[kind]):
            yield f"{kind if index == 0 else '':{COLUMN}}{write_value(value, document['metadata'])}"
    for line in warn_of_optional([each["name"] for each in document["inputs"] if not each["required"]]):
        yield f"{'WARNING':{COLUMN}}{line}"
    if document["metadata"]:
        for label, text in describe_metadata(document["metadata"]):
            yield f"{label:{COLUMN}}{text}"
    for label, text in describe_origin_of(document["derivative"]):
        yield f"{label:{COLUMN}}{text}"
    yield f"{'operators':{COLUMN}}{', '.join(f'{name} {count}' for name, count in document['nodes'].items())}"
    for index, (name, count) in enumerate(document["functions"].items()):
        yield f"{'functions' if index == 0 else '':{COLUMN}}{name}, {count} nodes"
    for index, line in enumerate(describe_placement(document["placement"]) if "placement" in document else ()):
        yield f"{'provider' if index == 0 else '':{COLUMN}}{line}"
    for rule in document.get("rules", ()):
        yield f"{rule['name'] or '(unnamed)'}\t{rule['op_type']}\t{rule['rule'] or '-'}"


def describe_origin_of(derivative: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Yields (label, text) of what a file says of its gradients and of the network that they were added to."""
    if derivative is None:
        return
    yield from ((label.replace("measured ", ""), text) for label, text in describe_derivative_of(derivative))
    known = f" (sha256 {derivative['source_sha256']})" if derivative.get("source_sha256") else ""
    yield "added to", f"{derivative['source']}{known}, by masktool {derivative['tool_version']}"


def write_heading(document: dict[str, Any]) -> str:
    """Returns the first line: the file's name, whether the model takes a mask, the file's size."""
    metadata = document["metadata"]
    kind = NOT_MASKED
    if metadata is not None and metadata["explanation"] is not None:
        kind = f"explains itself by {metadata['explanation']['method']}, written by masktool"
    elif metadata is None and document["derivative"] is not None:
        kind = DIFFERENTIATED
    elif metadata is not None:
        kind = f"masked by masktool ({describe_masking(metadata)})"
    opsets = ", ".join(f"{domain} {version}" for domain, version in document["opsets"].items())
    return f"{document['path']}: {kind}; {describe_bytes(document['bytes'])}; opset {opsets}"


def warn_of_optional(names: Collection[str]) -> Iterator[str]:
    """Yields what the user must know of inputs that may be left out, by their names; nothing where there are none."""
    if names:
        found = sorted(names)
        ways = [REQUIRING[name] for name in found if name in REQUIRING]
        yield (
            f"{', '.join(found)} may be left out, and ONNX Runtime in JavaScript knows no such inputs: Node ignores in "
            "silence what it is given for them, and a browser refuses it"
            + (f"; for these, export with {' '.join(ways)}" if ways else "")
        )


def describe_embedding(metadata: dict[str, Any]) -> Iterator[str]:
    """Yields what the metadata of a file that explains itself say of the explanation, a line each."""
    found = metadata["explanation"]
    when = {"always": "in every run", "optional": "unless the input explain is false"}
    what = {
        "top": "the class with the highest score",
        "optional": "the class with the highest score, or in the input target",
    }
    yield (
        f"{found['method']} of {what.get(found['target'], 'the class in the input target (-1: the highest score)')}, "
        f"{when.get(found['on_request'], 'where the input explain is true')}"
    )
    yield f"settings: {describe_json(found['settings'])}; seed {found['seed']}; chunk {found['chunk']}"
    if isinstance(figure := metadata["parity"].get("explanation"), int | float):
        share = f"{figure:.1e}" if figure else "0"
        yield f"the map differs from that of the explainer in Python by {share} of its range"
    if found["embed_preprocessing"]:
        levels = metadata["parity"].get("preprocessing")
        differing = f", whose pixels differ from Pillow's by {levels:.3g} of 255" if levels is not None else ""
        yield f"{metadata['image_input']} is one photograph, RGB of any size, which the file prepares itself{differing}"
    if found["embed_overlay"]:
        picture = "the photograph" if found["embed_preprocessing"] else "what the input shows"
        yield f"{OVERLAY} is a picture: the map over {picture}"


def describe_masking(metadata: dict[str, Any]) -> str:
    """Returns the masking mode and, for fill, the baseline, for layer, the rule."""
    more = {"baseline": metadata["baseline"], "rule": metadata["rule"]}
    return ", ".join([metadata["masking"], *(f"{name} {value}" for name, value in more.items() if value is not None)])


def write_value(value: dict[str, Any], metadata: dict[str, Any] | None) -> str:
    """Returns one input or output as a line."""
    dtype, axes = value["dtype"] or "of unknown type", value["shape"]
    if axes is None:
        shape = " of any shape" if value["dtype"] else ", of any shape"
    else:
        shape = f" ({', '.join('?' if axis is None else str(axis) for axis in axes)})"
    notes = []
    if "required" in value:
        notes.append("required" if value["required"] else "optional")
    if metadata and value["name"] == MASK_INPUT and "required" in value:
        notes.append(metadata["mask_polarity"])
    if metadata and metadata["explanation"] and value["name"] == SALIENCY_MAP and "required" not in value:
        notes.append(f"the map of {metadata['explanation']['method']}")
    if metadata and value["name"] == WEIGHTS_INPUT and metadata["gradient_output"] and "required" in value:
        notes.append(f"weights of {metadata['gradient_output']}")
    if metadata and value["name"] == metadata["class_output"] and "required" not in value:
        notes.append(f"class output, {metadata['output_kind'] or 'of unknown kind'}")
    return f"{value['name']}  {dtype}{shape}" + (f"  {'; '.join(notes)}" if notes else "")


def describe_metadata(metadata: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (label, text) of what the metadata say, beyond inputs and outputs."""
    yield "source", f"{metadata['source']} (sha256 {metadata['source_sha256']})"
    portable = "; portable" if metadata["portable"] else ""
    yield "written by", f"masktool {metadata['tool_version']}, schema {metadata['schema_version']}{portable}"
    yield "preprocessing", describe_preprocessing(metadata["preprocessing"])
    for index, line in enumerate(metadata["output_evidence"] or ()):
        yield "class output" if index == 0 else "", line
    labels = metadata["labels"]
    if labels:
        shown = ", ".join(labels[:LABELS_SHOWN]) + (", ..." if len(labels) > LABELS_SHOWN else "")
        yield "labels", f"{len(labels)}: {shown}"
    else:
        yield "labels", "unknown"
    if metadata["task"] is not None:
        yield "task", f"{metadata['task']}, as the source's metadata say"
    yield "batch", describe_batch(metadata)
    if metadata["gradient_output"] is not None:
        yield "gradients", f"of {metadata['gradient_output']}: the sum of its values times {WEIGHTS_INPUT}"
    if metadata["feature_map"] is not None:
        yield "feature map", ", ".join([metadata["feature_map"], *(metadata["more_feature_maps"] or ())])
    if metadata["head"] is not None:
        yield "head", f"the layers behind it, in {metadata['head']} beside this file"
    if metadata["behind"] is not None:
        yield "part", f"the layers behind the feature map {metadata['behind']!r}, which is the image input"
    if metadata["for_provider"] is not None:
        yield "written for", metadata["for_provider"]
    if metadata["plain_branch"]:
        yield "plain branch", "the plain network runs where the mask is left out, or 1 everywhere"
    for index, line in enumerate(describe_calibration(metadata["calibration"])):
        yield "calibration" if index == 0 else "", line
    if metadata["precision"] is not None:
        yield "precision", f"{metadata['precision']}, with float32 at the ends"
    for index, (name, figure) in enumerate(metadata["parity"].items()):
        words = describe_agreement(figure) if name == "fp32" else json.dumps(figure)
        yield "parity" if index == 0 else "", f"{name}: {words}"
    if metadata["explanation"] is not None:
        for index, line in enumerate(describe_embedding(metadata)):
            yield "explanation" if index == 0 else "", line
    for index, (name, value) in enumerate((metadata["masker"] or {}).items()):
        yield "masker" if index == 0 else "", f"{name}: {describe_json(value)}"


def describe_calibration(found: dict[str, Any] | None) -> Iterator[str]:
    """Yields how the class scores are corrected where something is missing, what on, and what that gains."""
    if found is None:
        return
    penalty = f", penalty {found['penalty']:g}" if found.get("penalty") else ""
    yield (
        f"{CORRECTIONS.get(found['form'], found['form'])} of the {found['space']}{penalty}; fitted on "
        f"{found['n_images']} images behind {found['n_masks']} masks each, seed {found['seed']}"
    )
    for name, title in (("divergence", "KL divergence from the whole image, nats"), ("unchanged", "unchanged")):
        before, after, gain = (found[f"{name}_{each}"] for each in ("before", "after", "gain"))
        yield (
            f"{title}: {before['value']:.3f}, corrected {after['value']:.3f}; gain {gain['value']:.3f} "
            f"[{gain['low']:.3f}, {gain['high']:.3f}] on held-out images"
        )


def describe_agreement(figures: dict[str, Any]) -> str:
    """Returns how far a file agrees with the float32 one: scores, first choices, rank correlation of maps."""
    words = [f"scores differ by {figures['scores']:.1e}"]
    if figures["first_choice"] is not None:
        words.append(f"{figures['first_choice']:.0%} of {figures['images']} images keep their first choice")
    known = [f"{name} {'flat' if found is None else f'{found:.4f}'}" for name, found in figures["maps"].items()]
    return "; ".join([*words, *([f"rank correlation of maps: {', '.join(known)}"] if known else [])])


def describe_batch(metadata: dict[str, Any]) -> str:
    """Returns how many images the file takes at once, and why not more than one."""
    if metadata["explanation"] is not None and metadata["explanation"]["embed_preprocessing"]:
        return "one photograph at a time"
    if metadata["portable"] and metadata["independence"] == "proved":
        return "one image at a time: the file is portable, written for other runtimes too"
    if metadata["batching"] == "one":
        known = "they mix" if metadata["independence"] == "mixing" else "not proved to be kept apart"
        copies = f"; {metadata['copies']} copies fill its fixed batch" if metadata["copies"] > 1 else ""
        return f"one image and one mask at a time{copies}: in a batch, {known}: {metadata['batching_reason']}"
    if metadata["independence"] == "proved":
        return "any number of images, none of which changes another's results (proved)"
    return "any number of images; not recorded whether one may change another's results"


def describe_json(value: object) -> str:
    """Returns a JSON value in words: names before values, figures to six digits, null and empty values as ``none``."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {describe_json(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return " ".join(describe_json(each) for each in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def describe_preprocessing(document: dict[str, Any] | None) -> str:
    """Returns the preprocessing in words."""
    if document is None:
        return "unknown; `masktool explain` needs it for photographs"
    steps = Preprocessing(**document)
    resize = {
        "shortest": f"shorter side to {steps.resize_to} ({steps.interpolation})",
        "exact": f"resize ({steps.interpolation})",
        "letterbox": f"fit into the input ({steps.interpolation})",
        "none": "no resize",
    }[steps.resize]
    size = f"{steps.size[0]} x {steps.size[1]}"
    numbers = [", ".join(f"{number:g}" for number in values) for values in (steps.mean, steps.std)]
    padding = "" if steps.padding is None else f", grey {steps.padding:g} around"
    return (
        f"{resize}, crop {size}{padding}, {steps.channel_order}, times {steps.scale:g}, "
        f"mean {numbers[0]}, std {numbers[1]}, {steps.layout}"
    )
