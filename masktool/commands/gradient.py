"""``masktool gradient``: adds the gradient of a number of any output to any ONNX network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from masktool.commands import options
from masktool.commands.derivative_words import describe_derivative_of
from masktool.commands.explain_options import parse_inputs
from masktool.commands.source_options import choose_output
from masktool.printable import describe_bytes

if TYPE_CHECKING:
    from masktool.exporters.derivatives.write import Derivative

SUFFIX = ".gradient.onnx"


@click.command("gradient")
@click.argument("model")
@click.option(
    "--of",
    multiple=True,
    required=True,
    metavar="INPUT",
    help="Float input that the gradient is with respect to, of any rank; may be repeated.",
)
@click.option("--output", required=True, metavar="NAME", help="Float output of which a number is differentiated.")
@click.option(
    "--target",
    metavar="I,J|top|sum|weights",
    help="Which number of each row of the batch: indices into all axes of the output but the batch, the largest, the "
    "sum, or the sum weighed by a further input, NAME_weights in the output's shape (a vector-Jacobian product).  "
    "[default: the one number that a row holds]",
)
@click.option(
    "--input",
    "inputs",
    metavar="NAME=VALUE|FILE.npy",
    multiple=True,
    help="What is fed where the gradient is compared with central differences; may be repeated.  [default: random "
    "numbers, and 0 for integers]",
)
@click.option(
    "-o", "path", type=click.Path(path_type=Path), metavar="FILE", help="File to write.  [default: MODEL's name"
    f"{SUFFIX}]"
)  # fmt: skip
@options.json_option
def command(
    model: str,
    of: tuple[str, ...],
    output: str,
    target: str | None,
    inputs: tuple[str, ...],
    path: Path | None,
    as_json: bool,
) -> None:
    """Add the gradient of a number of any output to any ONNX network.

    MODEL is an .onnx file of any network: it needs no image, no mask and no class scores. The file that is written
    gives, besides MODEL's own outputs, gradient_INPUT in the input's shape and the numbers that are differentiated, in
    plain ONNX operators. It is compared with central differences before it appears; a wrong gradient is not written.
    """
    from rich.text import Text

    from masktool.exporters.derivatives.write import differentiate

    chosen, values = choose_output(model, path, SUFFIX), parse_inputs(inputs)
    with options.console().status(Text(f"differentiating {model} and measuring")):  # on terminals only
        written = differentiate(model, chosen, of=of, output=output, target=target, inputs=values)
    for line in describe_gradient(written):
        options.say(line)
    if as_json:
        click.echo(json.dumps(document_gradient(written), indent=2))
    else:
        options.print_path(chosen)


def describe_gradient(written: Derivative) -> Iterator[str]:
    """Yields what was written and how it was measured, a line each."""
    for label, text in describe_derivative_of(dataclasses.asdict(written)):
        yield f"{label}: {text}"
    yield from ("note: " + note for note in written.notes)
    yield f"wrote {written.path} ({describe_bytes(written.n_bytes)})"


def document_gradient(written: Derivative) -> dict[str, Any]:
    """Returns what was written as a JSON document."""
    return {**dataclasses.asdict(written), "path": str(written.path)}
