"""What the subcommands of ``masktool evaluate`` share: options, the study that these describe, output and exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from masktool.commands import options
from masktool.commands.evaluate.results import print_problems, print_tables
from masktool.commands.source_options import READING_OPTIONS
from masktool.contract import OutputKind, Size
from masktool.datasets.dataset import Problem
from masktool.evaluation.findings import Evaluation
from masktool.evaluation.part import Part
from masktool.evaluation.results import encode_evaluation, journal_path, write_evaluation
from masktool.evaluation.running import run_part
from masktool.extras import require_extra
from masktool.interface.folders.workers import share_threads
from masktool.interface.options import ExportOptions
from masktool.interface.part_options import PartOptions
from masktool.interface.study import Study
from masktool.lazy import typed_arguments
from masktool.option_names import for_command_line
from masktool.writable import check_writable

BAD_INPUT = 2
DIRECTORY = Path("masktool-evaluation")


@dataclasses.dataclass
class EvaluationRequest:
    """The values of the options that all subcommands share.

    Attributes:
        model: the path of the model, or its hub name.
        folder: the folder of the images.
        labels: the file with the images' classes; None takes the names of the folder's subfolders.
        boxes: the file or folder with the objects' boxes; None where there are none.
        masks: the folder with the objects' pixels; None where there are none.
        segments_folder: the folder with label maps of the images' parts; None where there are none.
        limit: the largest number of images to use, evenly spread over the names; None uses all.
        arch: the architecture of a model that is a state dict, as for :func:`masktool.export`.
        input_size: (height, width) of the image input in pixels, where the model does not fix them.
        image_input: the name of the input that is the image, for a model that is not masked yet.
        preprocess: the name or file of the preprocessing, for a model that is not masked yet.
        class_output: the name of the output with the class scores, for a model that is not masked yet.
        output_kind: what the class output holds, for a model that is not masked yet.
        channels: the number of the images' channels, where the model leaves it open.
        trust_code: whether the model may be read although reading may run code from its file.
        seed: the seed of every random choice.
        directory: the directory that everything is written into.
        strict: whether the exit code is 2 where some of the data could not be used.
        as_json: whether stdout gets a JSON document instead of tables.
        provider: the execution provider: ``auto``, or a name such as ``cuda``.
        provider_options: options of the provider by ONNX Runtime's names.
        threads: the number of threads that one node may use; None leaves it to ONNX Runtime.
        batch: the number of masked images per forward pass; None leaves it to the session.
        command_line: the command line as the user typed it.
    """

    model: str
    folder: Path
    labels: Path | None
    boxes: Path | None
    masks: Path | None
    segments_folder: Path | None
    limit: int | None
    arch: str | None
    input_size: Size | None
    image_input: str | None
    preprocess: str | None
    class_output: str | None
    output_kind: OutputKind | None
    channels: int | None
    trust_code: bool
    seed: int
    directory: Path
    strict: bool
    as_json: bool
    provider: str
    provider_options: Mapping[str, str]
    threads: int | None
    batch: int | None
    command_line: str = ""

    def study(self, stack: contextlib.ExitStack) -> Study:
        """Returns the study of the model and images that the options name; ``stack`` closes its sessions."""
        export: ExportOptions = {
            "arch": self.arch,
            "input_size": self.input_size,
            "image_input": self.image_input,
            "preprocessing": self.preprocess,
            "class_output": self.class_output,
            "output_kind": self.output_kind,
            "channels": self.channels,
            "trust_code": self.trust_code,
        }
        return Study(
            model=self.model,
            folder=self.folder,
            stack=stack,
            export=export,
            labels=self.labels,
            boxes=self.boxes,
            masks=self.masks,
            segments_folder=self.segments_folder,
            limit=self.limit,
            seed=self.seed,
            batch=self.batch,
            directory=self.directory,
            providers=self.provider,
            provider_options=self.provider_options,
            threads=self.threads,
            say=options.say,
        )


SHARED_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("model", metavar="MODEL"),
    click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path)),
    click.option(
        "--labels",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Classes of the images, by index or name: CSV or JSON.  [default: the names of FOLDER's subfolders]",
    ),
    click.option(
        "--boxes",
        type=click.Path(path_type=Path),
        metavar="FILE|DIR",
        help="Boxes of the objects: JSON, COCO JSON, or Pascal VOC XML, one file or a directory of them.",
    ),
    click.option(
        "--masks",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Pixels of the objects: an image or .npy file per image, of the same name, not 0 where the object is.",
    ),
    click.option(
        "--segments-folder",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Label maps of the images' parts: an image or .npy file per image, of the same name.",
    ),
    click.option(
        "--limit", type=click.IntRange(min=1), metavar="N", help="Use only N images, evenly spread over the names."
    ),
    *READING_OPTIONS,
    options.seed_option,
    click.option(
        "-o",
        "--directory",
        type=click.Path(path_type=Path),
        default=DIRECTORY,
        show_default=True,
        metavar="DIR",
        help="Directory for figures and charts. An interrupted measurement goes on where it was.",
    ),
    click.option("--strict", is_flag=True, help="Exit code 2 when some of the data could not be used."),
    options.json_option,
    options.provider_option,
    options.provider_options_option,
    options.batch_option,
    options.threads_option,
)
"""The shared options, in the order of the help."""
INTERNAL = {"command_line"}
"""Fields of a request that are no options."""


def evaluation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that adds MODEL, FOLDER and the shared options to a command, which gets them as its ``request``.

    Options above it are listed before the shared ones, those below it behind them.
    """

    @click.pass_context
    @functools.wraps(function)
    def wrapped(context: click.Context, **values: Any) -> Any:
        fields = [field.name for field in dataclasses.fields(EvaluationRequest) if field.name not in INTERNAL]
        request = EvaluationRequest(
            **{name: values.pop(name) for name in fields}, command_line=shlex.join(typed_arguments(context))
        )
        with require_extra("drawing charts"):  # before anything was measured
            import matplotlib  # noqa: F401
        check_writable(request.directory)
        return function(request, **values)

    decorated: Callable[..., Any] = options.in_order(SHARED_OPTIONS)(wrapped)
    return decorated


def measure_part(request: EvaluationRequest, part_options: PartOptions, jobs: int = 1) -> int:
    """Builds a part from its options, runs it, prints and writes the findings, and returns the exit code.

    Of several processes each has its share of the threads, unless a number was given.
    """
    if jobs > 1:
        request = dataclasses.replace(request, threads=share_threads(jobs, request.threads))
    with contextlib.ExitStack() as stack:
        study = request.study(stack)
        return finish_evaluation(request, study, part_options.build(study), jobs)


def finish_evaluation(request: EvaluationRequest, study: Study, part: Part, jobs: int = 1) -> int:
    """Runs a part of an evaluation, prints and writes the findings, and returns the exit code.

    The journal ``PART.jsonl`` in the directory holds what was measured until the results are written.

    Raises:
        MasktoolError: no image could be measured, or the directory cannot be written.
    """
    journal = journal_path(request.directory, part.name)
    evaluation = run_part(part, study.dataset(), journal, options.progress, options.say, jobs)
    evaluation = dataclasses.replace(spelled(evaluation), command=request.command_line)
    written = write_evaluation(evaluation, request.directory)
    if request.as_json:
        options.print_beside_files(encode_evaluation(evaluation).removesuffix("\n"))
    else:
        print_tables(evaluation)
    options.say(f"{evaluation.n_images} images; written: {', '.join(map(str, written))}")
    print_problems(evaluation.problems)
    return BAD_INPUT if request.strict and evaluation.problems else 0


def spelled(evaluation: Evaluation) -> Evaluation:
    """Returns an evaluation whose problems and notes name command-line options in place of Python parameters."""
    findings = dataclasses.replace(evaluation.findings, notes=tuple(map(for_command_line, evaluation.findings.notes)))
    problems = tuple(Problem(each.where, for_command_line(each.what)) for each in evaluation.problems)
    return dataclasses.replace(evaluation, findings=findings, problems=problems)
