"""``masktool demo``: explains a sample picture with the model that the package ships, and measures the maps."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masktool import demo
from masktool.commands import options
from masktool.contract import Preprocessing
from masktool.demo.score import expect_random_iou, measure_iou
from masktool.explainers import Explanation
from masktool.explainers.method import METHODS
from masktool.files import atomic_path
from masktool.interface.explain import explain
from masktool.printable import printable
from masktool.runtime.images import read_image
from masktool.runtime.pictures import open_picture
from masktool.runtime.preprocessing import PreparedImage, prepare
from masktool.runtime.session import MaskedSession

SHOWN_METHODS = ("occlusion", "lime", "rise")
SAMPLES = 1000
"""Number of masks: LIME's own default; a quarter of RISE's, whose map is as good on the sample, and sooner done."""
HEADING_WIDTH = 9
DIRECTORY = Path("masktool-demo")


class SamplePicture(NamedTuple):
    """The sample picture, RGB; the object's pixels in it, (H, W) bool; and the label of its class."""

    picture: Image.Image
    object_mask: NDArray[np.bool_]
    label: str


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The top class and its probability, and the true class and its probability, under one mask."""

    shown: str
    predicted: str
    probability: float
    true_class: str
    true_probability: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The figures of one method's explanation of the sample picture."""

    method: str
    iou: float
    random_iou: float
    seconds: float
    forward_passes: int
    picture: str

    def to_json(self) -> dict[str, Any]:
        """Returns the figures that the same seed gives again: all but the time, as JSON values."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "seconds"}


@click.command(name="demo")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=DIRECTORY,
    show_default=True,
    metavar="DIR",
    help="Directory for the pictures.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=2),
    default=SAMPLES,
    show_default=True,
    metavar="N",
    help="Number of masks for LIME and for RISE.",
)
@options.seed_option
@options.provider_option
@options.provider_options_option
@options.threads_option
@options.json_option
def command(
    output: Path,
    samples: int,
    seed: int,
    provider: str,
    provider_options: Mapping[str, str],
    threads: int | None,
    as_json: bool,
) -> None:
    """Explain a sample picture with the built-in model.

    The model tells eight shapes apart. The sample's object is known to the pixel, so every explanation can be
    compared with what the model should have looked at.
    """
    started = time.perf_counter()
    sample = read_sample()
    copy_sample(output)
    opened = MaskedSession(demo.model_path(), providers=provider, threads=threads, provider_options=provider_options)
    with opened as session:
        introduce(session, sample)
        predictions = predict_parts(session, sample)
        if not as_json:
            print_predictions(predictions)
        say_under("\nexplain", f"why {sample.label}? Three methods hide parts of the picture and watch its probability")
        outcomes = [explain_sample(session, sample, method, output, samples, seed) for method in SHOWN_METHODS]
        report = describe_run(session, sample, predictions, outcomes, time.perf_counter() - started)
    if as_json:
        click.echo(json.dumps(report))
    else:
        print_outcomes(outcomes)
    say_next_steps(output)


def read_sample() -> SamplePicture:
    """Reads the sample picture that the package ships."""
    with open_picture(demo.sample_mask_path()) as mask:
        return SamplePicture(read_image(demo.sample_path()), np.asarray(mask).astype(np.bool_), demo.sample_label())


def copy_sample(directory: Path) -> None:
    """Copies the sample picture into the directory, which shows at once whether the directory can be written."""
    with atomic_path(directory / demo.sample_path().name) as temporary:
        shutil.copyfile(demo.sample_path(), temporary)


def predict_parts(session: MaskedSession, sample: SamplePicture) -> list[Prediction]:
    """Returns predictions for the whole picture, for the object alone, and for all but the object."""
    assert session.metadata.preprocessing is not None  # the built-in model's is known
    prepared = prepare(sample.picture, session.metadata.preprocessing)
    kept = find_object(sample.object_mask, session.metadata.preprocessing).astype(np.float32)[None]
    whole = session.scores(prepared.array)
    masked = session.scores(prepared.array, np.stack([kept, 1 - kept]))
    shown = ("the whole picture", "the object alone", "all but the object")
    return [describe_scores(session, *each, sample.label) for each in zip(shown, [*whole, *masked], strict=True)]


def find_object(object_mask: NDArray[np.bool_], preprocessing: Preprocessing) -> NDArray[np.bool_]:
    """Returns the pixels (H, W) of the model's input that show any part of the object.

    The mask goes through the picture's own resize, so that hiding these pixels leaves no seam of the object behind.
    """
    as_they_are = dataclasses.replace(preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    prepared: PreparedImage = prepare(Image.fromarray(object_mask).convert("RGB"), as_they_are)
    return prepared.array[0, 0] > 0


def describe_scores(session: MaskedSession, shown: str, scores: NDArray[np.float32], label: str) -> Prediction:
    """Returns the top class and the true class, with their probabilities, of one row of probabilities (K,)."""
    labels = session.metadata.labels or ()
    top = int(scores.argmax())
    return Prediction(shown, labels[top], float(scores[top]), label, float(scores[labels.index(label)]))


def explain_sample(
    session: MaskedSession, sample: SamplePicture, method: str, directory: Path, samples: int, seed: int
) -> Outcome:
    """Explains the sample's class by one method, writes the picture, and compares the map with the object."""
    n_samples = samples if METHODS[method].samples_option else None
    explanation: Explanation = explain(
        session, sample.picture, method, target=sample.label, n_samples=n_samples, seed=seed, progress=options.progress
    )
    (picture,) = explanation.save(directory, ["png"], f"{demo.sample_path().stem}.{method}")
    seen = np.isfinite(explanation.attributions)
    return Outcome(
        method=method,
        iou=measure_iou(explanation.attributions, sample.object_mask),
        random_iou=expect_random_iou(float(sample.object_mask[seen].mean())),
        seconds=explanation.seconds,
        forward_passes=explanation.forward_passes,
        picture=str(picture),
    )


def describe_run(
    session: MaskedSession,
    sample: SamplePicture,
    predictions: list[Prediction],
    outcomes: list[Outcome],
    seconds: float,
) -> dict[str, Any]:
    """Returns the whole run as JSON values."""
    return {
        "model": demo.model_path().name,
        "masking": session.metadata.masking,
        "rule": session.metadata.rule,
        "providers": session.providers,
        "sample": {"label": sample.label, "height": sample.picture.height, "width": sample.picture.width},
        "predictions": [dataclasses.asdict(each) for each in predictions],
        "explanations": [each.to_json() for each in outcomes],
        "timing": {"seconds": seconds} | {each.method: {"seconds": each.seconds} for each in outcomes},
    }


def introduce(session: MaskedSession, sample: SamplePicture) -> None:
    """Says on stderr which model explains which picture."""
    labels = session.metadata.labels or ()
    _, _, height, width = session.input_shape
    say_under("model", f"{demo.model_path().name}, a small CNN that tells {len(labels)} shapes apart:")
    say_under("", ", ".join(labels))
    say_under("", f"{width} x {height} pixels, {session.metadata.masking} masking, {session.announcement}")
    share = f"{sample.object_mask.mean():.1%}"
    size = f"{sample.picture.width} x {sample.picture.height}"
    say_under("picture", f"{demo.sample_path().name}, {size} pixels: a {sample.label} that covers {share} of it")


def print_predictions(predictions: list[Prediction]) -> None:
    """Prints one line per mask on stdout."""
    true_class = predictions[0].true_class
    say_under("\npredict", "with nothing masked, with all but the object masked, with the object masked")
    click.echo(f"{'the model sees':<18}  {'predicts':<8}  {'probability':>11}  probability of {true_class}")
    for each in predictions:
        click.echo(f"{each.shown:<18}  {each.predicted:<8}  {each.probability:>11.3f}  {each.true_probability:.3f}")


def print_outcomes(outcomes: list[Outcome]) -> None:
    """Prints one line per method on stdout."""
    click.echo(f"{'method':<10}  {'IoU':>4}  {'seconds':>7}  {'passes':>6}  picture")
    for each in outcomes:
        click.echo(
            f"{each.method:<10}  {each.iou:>4.2f}  {each.seconds:>7.1f}  {each.forward_passes:>6}  {each.picture}"
        )
    click.echo(f"{'random map':<10}  {outcomes[0].random_iou:>4.2f}")


def say_next_steps(directory: Path) -> None:
    """Says on stderr how to read the figures, and what to do next."""
    say_under("IoU", "overlap over union of the object and the map, cut to the same area; 1 = exactly the object")
    say_under("passes", "how often the model ran")
    say_under("picture", "left the photograph, right what counted; hatched is what the model's square input leaves out")
    say_under("\nnext", f"masktool explain {shlex.quote(str(directory / demo.sample_path().name))} --method rise")
    say_under("", "masktool export MODEL -o model.onnx")
    say_under("", "masktool explain PHOTOGRAPH -m model.onnx")


def say_under(heading: str, text: str) -> None:
    """Writes a line for the user on stderr, under a heading or below the line before."""
    from rich.text import Text

    indent = HEADING_WIDTH + heading.count("\n")
    options.console().print(Text.assemble((heading.ljust(indent), "bold"), printable(text)))
