"""Options of the commands that read a network as it came, and what they say together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from masktool.contract import DEFAULT_SIZE, OutputKind
from masktool.errors import MasktoolError
from masktool.files import check_target

if TYPE_CHECKING:
    from masktool.contract import Preprocessing
    from masktool.exporters.sources import Source
    from masktool.exporters.torch_sources.modules import LoadedModule


class NumberList(click.ParamType):
    """Numbers with commas or spaces between them: ``0.485,0.456,0.406``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Returns the numbers."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).replace(",", " ").split())
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.485,0.456,0.406", param, ctx)


arch_option = click.option(
    "--arch",
    metavar="NAME",
    help="Architecture of a state dict: torchvision:NAME, timm:NAME, module:factory or file.py:factory.",
)
input_size_option = click.option(
    "--input-size",
    nargs=2,
    type=click.IntRange(min=1),
    metavar="H W",
    help="Height and width of the input in pixels, where MODEL does not fix them.",
)
preprocess_option = click.option(
    "--preprocess", metavar="NAME|FILE", help="How a photograph becomes the input: imagenet, caffe, tf or a JSON file."
)
mean_option = click.option(
    "--mean",
    type=NumberList(),
    metavar="A,B,C",
    help="Per channel, in units of the scaled pixels; replaces the preset's.",
)
std_option = click.option("--std", type=NumberList(), metavar="A,B,C", help="Likewise.")
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


@dataclasses.dataclass(frozen=True)
class ImageOptions:
    """What the user says about preprocessing."""

    preprocess: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def choose_preprocessing(source: Source, options: ImageOptions) -> Any:
    """Returns the preprocessing that the user describes, None where the source's own shall stand."""
    from masktool.exporters.presets import preprocessing_for

    if options == ImageOptions(None, None, None):
        return None
    return preprocessing_for(
        source.model, options.preprocess, options.mean, options.std, image_input=source.image_input
    )


def choose_module_preprocessing(
    loaded: LoadedModule, input_size: tuple[int, int] | None, options: ImageOptions, channels: int | None = None
) -> Preprocessing | None:
    """Returns the preprocessing that the user describes for a torch module, None where its hub's own shall stand.

    Where neither the options nor the module tell the input's size, a preprocessing file's counts.

    Raises:
        MasktoolError: as :func:`masktool.exporters.presets.preprocessing_preset`, or the input's size is unknown.
    """
    from masktool.exporters.presets import PRESETS, preprocessing_preset, size_in_file
    from masktool.exporters.torch_sources.module_export import find_channels

    if options == ImageOptions(None, None, None):
        if channels is not None:
            raise MasktoolError(
                "--channels without a preprocessing for them", where=loaded.name, fix="add --preprocess"
            )
        return None
    size = input_size or loaded.input_size
    if size is None and loaded.known.preprocessing is not None:
        size = loaded.known.preprocessing.size
    if size is None and options.preprocess not in (None, *PRESETS):
        size = size_in_file(options.preprocess) or DEFAULT_SIZE
    if size is None:
        raise MasktoolError("input size unknown", where=loaded.name, fix="add --input-size H W")
    if channels is None:
        channels, _ = find_channels(loaded.known.module, size, loaded.known.channels)
    return preprocessing_preset(options.preprocess, size, options.mean, options.std, channels=channels)


def choose_output(model: str, output: Path | None, suffix: str) -> Path:
    """Returns the file to write: the one asked for, else the model's name with a suffix, in the current directory.

    Raises:
        MasktoolError: that is the model itself, or a directory.
    """
    from masktool.exporters.torch_sources.hub_names import names_hub_model

    stem = Path(model.rpartition(":")[2]).name if names_hub_model(model) else Path(model).stem
    target = Path(stem + suffix) if output is None else output
    check_target(target)
    if target.exists() and Path(model).exists() and target.samefile(model):
        raise MasktoolError("the output would overwrite the model", where=target, fix="choose another with -o")
    return target
