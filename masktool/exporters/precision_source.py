"""A source in another precision: what was read computes in float16 from here on, as if the user's file did."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx_ir

from masktool.contract import FilePrecision, Metadata, Preprocessing
from masktool.errors import MasktoolError
from masktool.exporters.canonical import canonicalise
from masktool.exporters.onnx_file import find_image_input, layout_of
from masktool.exporters.plain_branch import masked_alone
from masktool.exporters.precision import HALF, narrow
from masktool.exporters.precision_ranges import measure_largest
from masktool.exporters.sources import Source
from masktool.exporters.tolerance import HALF_TOLERANCE, is_quantised, types_inside
from masktool.exporters.trial import TriedNetwork, open_source, try_batches
from masktool.messages import parameter
from masktool.printable import list_some

MEASURED_IMAGES = 2
"""Images on which a network's largest numbers are measured."""
NAMED = 3
"""Nodes that a note names at most."""
OF_INTEGERS = frozenset({"ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger"})
"""Operators of quantised networks, besides those that ONNX Runtime fuses."""


def refuse_precision(source: Source, precision: FilePrecision) -> None:
    """Raises MasktoolError for a source that cannot be brought to a precision, or has it already."""
    where = parameter("precision", precision)
    if precision == "bf16":
        raise MasktoolError(
            "every export is measured on ONNX Runtime's CPU provider, which has no bfloat16 convolution",
            where=where,
            fix="take " + parameter("precision", "fp16"),
        )
    if is_of_integers(source.model):
        raise MasktoolError(
            "the network is quantised: it holds integers of fewer bits",
            where=where,
            got=source.name,
            fix="leave that out, or export the float32 network that it was made from",
        )
    if found := sorted(each.name.lower() for each in HALF_TOLERANCE if each in types_inside_source(source)):
        raise MasktoolError(
            f"the network computes in {found[0]} already", where=where, got=source.name, fix="leave that out"
        )


def computes_in(path: Path, metadata: Metadata) -> str:
    """Returns what an exported file computes in, in fewer bits than float32: ``fp16`` or ``int8``.

    Raises:
        MasktoolError: the file computes in float32.
    """
    model = masked_alone(onnx_ir.load(path), path)
    if is_of_integers(model):
        return "int8"
    stored = any(value.dtype in HALF_TOLERANCE for value in model.graph.initializers.values())
    if metadata.precision == "fp16" or stored:
        return "fp16"
    raise MasktoolError(
        "the file computes in float32, and is compared with its source alone",
        where=path,
        fix="leave out " + parameter("against"),
    )


def is_of_integers(model: onnx_ir.Model) -> bool:
    """Tells whether a network, masked or not, is quantised."""
    return is_quantised(model) or any(node.op_type in OF_INTEGERS for node in model.graph)


def types_inside_source(source: Source) -> set[object]:
    """Returns the element types of what a source computes from the image."""
    return set(types_inside(source.model, source.image_input))


def narrow_source(source: Source, trial: TriedNetwork) -> Source:
    """Returns a source that computes in float16 where float16 holds what it computes; the source stays as it is.

    Inputs and outputs keep their types and names. The torch module behind the source is no reference any more: what is
    measured against it would be the rounding.

    Args:
        source: the source, which computes in float32.
        trial: the source, and the images that it was tried on: its numbers are measured on them.

    Raises:
        MasktoolError: nothing in the network can compute in float16.
    """
    model = canonicalise(source.model)
    largest = measure_largest(model, source.image_input, trial.probes[0].images[:MEASURED_IMAGES])
    kept = narrow(model, largest)
    if HALF not in types_inside(model, source.image_input):
        raise MasktoolError(
            "nothing in the network can compute in float16",
            where=source.name,
            expected="a convolution or a product of matrices in float32",
            got="; ".join(describe_kept(kept)) or "none",
            fix="leave out " + parameter("precision", "fp16"),
        )
    notes = (*source.notes, *(f"in float32 stay {line}" for line in describe_kept(kept)))
    return dataclasses.replace(source, model=model, reference=None, notes=notes, path=None)


def narrow_again(source: Source, preprocessing: Preprocessing | None, recorded: object) -> Source:
    """Returns a source as it was narrowed for a file that is being checked.

    Args:
        source: the source, which computes in float32.
        preprocessing: the steps from a photograph to the input, as the file records them.
        recorded: the name of the domain of images that the export was measured on.
    """
    plain = open_source(source.model, source.image_input, source.path)
    layout = layout_of(find_image_input(source.model, source.image_input))
    trial, _ = try_batches(plain, source.model, layout, preprocessing, recorded)
    return narrow_source(source, trial)


def describe_kept(kept: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yields, for each reason, how many nodes stay in float32 for it, with the names of the first ones."""
    for reason, nodes in kept.items():
        yield f"{len(nodes)} node{'s' if len(nodes) > 1 else ''} with {reason} ({list_some(nodes, NAMED)})"
