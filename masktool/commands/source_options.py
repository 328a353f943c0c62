"""Options of the commands that read a model that is not masked yet, and what they choose together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from masktool.commands.size_option import input_size_option
from masktool.contract import FilePrecision, OutputKind
from masktool.errors import MasktoolError
from masktool.files import check_target

if TYPE_CHECKING:
    from masktool.exporters.settings import Preset


class NumberList(click.ParamType):
    """Numbers with commas or spaces between them: ``0.485,0.456,0.406``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Returns the numbers in a text; a value that is a tuple already unchanged."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).replace(",", " ").split())
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.485,0.456,0.406", param, ctx)


arch_option = click.option(
    "--arch",
    metavar="NAME",
    help="Architecture of a state dict: torchvision:NAME, timm:NAME, auto (whichever of these it fits), module:factory "
    "or file.py:factory.",
)
preprocess_option = click.option(
    "--preprocess",
    metavar="NAME|FILE",
    help="How a photograph becomes the input: imagenet, caffe, tf, yolo or a JSON file.",
)
mean_option = click.option(
    "--mean",
    type=NumberList(),
    metavar="A,B,C",
    help="Per channel, in units of the scaled pixels; replaces the preset's.",
)
std_option = click.option("--std", type=NumberList(), metavar="A,B,C", help="Standard deviations that go with --mean.")
labels_option = click.option(
    "--labels", type=click.Path(path_type=Path), metavar="FILE", help="Class names: one per line, or .json."
)
class_output_option = click.option(
    "--class-output",
    metavar="NAME|none",
    help="Which output of MODEL holds one score per class; none says that it has no such output.  [default: the one "
    "that the graph tells]",
)
output_kind_option = click.option(
    "--output-kind",
    type=click.Choice(get_args(OutputKind)),
    help="What the class output holds, where the graph does not tell.",
)
channels_option = click.option(
    "--channels",
    type=click.IntRange(min=1),
    metavar="N",
    help="Channels of the images, of a MODEL of torch's or one that leaves them open.  [default: its hub's, else 3 "
    "where it runs on them, else its first convolution's]",
)
trust_code_option = click.option(
    "--trust-code",
    "--trust-pickle",
    "trust_code",
    is_flag=True,
    help="Read MODEL although that may run code from it, as from a pickled module, TorchScript, or a .pt2 that cannot "
    "be checked; such files are refused otherwise.",
)
image_input_option = click.option(
    "--image-input", metavar="NAME", help="Which input of MODEL is the image, where several may be."
)
precision_option = click.option(
    "--precision",
    type=click.Choice(get_args(FilePrecision)),
    help="What a float32 MODEL computes in: fp16 makes a file of half the size, float32 at its ends, and compares it "
    "with the float32 one. bf16 cannot be measured on a CPU and is refused.  [default: what MODEL computes in]",
)
READING_OPTIONS = (
    arch_option,
    input_size_option,
    channels_option,
    image_input_option,
    preprocess_option,
    class_output_option,
    output_kind_option,
    trust_code_option,
)
"""Options for what a MODEL that is not masked yet does not say of itself, for every command that exports it."""


def read_preset(preprocess: str | None, mean: Sequence[float] | None, std: Sequence[float] | None) -> Preset | None:
    """Returns the preprocessing that the options describe; None where none of them is given."""
    from masktool.exporters.settings import Preset

    return None if preprocess is mean is std is None else Preset(preprocess, mean, std)


def choose_output(model: str, output: Path | None, suffix: str) -> Path:
    """Returns the path to write: ``output``, else the model's name with a suffix, in the current directory.

    Raises:
        MasktoolError: the path is the model itself, or a directory.
    """
    from masktool.exporters.torch_sources.hub_names import names_hub_model

    stem = Path(model.rpartition(":")[2]).name if names_hub_model(model) else Path(model).stem
    target = Path(stem + suffix) if output is None else output
    check_target(target)
    if target.exists() and Path(model).exists() and target.samefile(model):
        raise MasktoolError("the output would overwrite the model", where=target, fix="choose another with -o")
    return target
