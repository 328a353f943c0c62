"""Options that several commands share, and functions that write messages, progress and results."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from masktool.contract import BASELINES, DEFAULT_BASELINE, Masking, SamplerRule
from masktool.execution_providers import AUTO, NAMES
from masktool.option_names import for_command_line
from masktool.printable import printable
from masktool.progress import Advance
from masktool.sampler_rules import DEFAULT_RULE
from masktool.streams import silence_stdout

if TYPE_CHECKING:
    from rich.console import Console

PATIENCE_SECONDS = 1.0
"""Seconds after which work begins to show progress."""
LINE_SECONDS = 5.0
"""Seconds between two progress lines where stderr is not a terminal."""
REFRESH_SECONDS = 0.1
"""Seconds between two drawings of the bar on a terminal."""


def read_auto(minimum: int, *words: str) -> Callable[[click.Context, click.Parameter, str], int | str | None]:
    """Returns the callback of an option: ``auto``, read as None, one of some words, or a number from ``minimum``."""

    def read(context: click.Context, parameter: click.Parameter, value: str) -> int | str | None:
        if value in words:
            return value
        number: int | None = None if value == "auto" else click.IntRange(min=minimum)(value, parameter, context)
        return number

    return read


Decorator = Callable[[Any], Any]


def in_order(options: Sequence[Decorator]) -> Decorator:
    """Returns a decorator that adds options to a command, in the order of its help."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def read_assignments(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Returns the values by name of an option that is given as NAME=VALUE, any number of times."""
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"expected NAME=VALUE, got {value!r}", context, parameter)
        found[name.strip()] = text
    return found


provider_option = click.option(
    "--provider",
    type=click.Choice(NAMES),
    default=AUTO,
    show_default=True,
    help="Where to run; auto takes the first of CUDA, MIGraphX, WebGPU and DirectML that really loads, else the CPU. "
    "One that is named must load. rocm is migraphx.",
)
provider_options_option = click.option(
    "--provider-option",
    "provider_options",
    metavar="NAME=VALUE",
    multiple=True,
    callback=read_assignments,
    help="Option of the provider by ONNX Runtime's name, such as use_tf32=1; may be repeated.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Threads within one operator.  [default: ONNX Runtime's choice]",
)
batch_option = click.option(
    "--batch",
    callback=read_auto(1),
    default="auto",
    show_default=True,
    metavar="auto|N",
    help="Masked images per forward call; auto bounds memory by the input's size.",
)
measured_batch_option = click.option(
    "--batch",
    callback=read_auto(1, "fastest"),
    default="auto",
    show_default=True,
    metavar="auto|fastest|N",
    help="Masked images per forward call; auto bounds memory by the input's size; fastest measures for a few seconds, "
    "and says the number.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="All random choices come from it."
)
assignments_option = click.option(
    "--set",
    "assignments",
    metavar="OPTION=VALUE",
    multiple=True,
    help="Any other option of a method, such as p=0.3; none stands for None.",
)
samples_option = click.option(
    "--samples",
    type=int,
    metavar="N",
    help="How many masks for LIME, RISE, KernelSHAP and HSIC, points for Sobol, noisy images for SmoothGrad (50); left "
    "out, masks are drawn until the map is stable. Methods that draw none take it as their steps, but not beside "
    "those: --set n_steps=N sets those of integrated gradients (50).",
)
masking_option = click.option(
    "--masking",
    type=click.Choice(get_args(Masking)),
    help="How the mask acts: through every layer with a fill from neighbours (layer) or with convolutions renormalised "
    "by what they see (partial), or on the input alone (fill).  [default: layer]",
)
rule_option = click.option(
    "--rule",
    type=click.Choice(get_args(SamplerRule)),
    help="What keeps an output of a sampler narrower than its stride, such as a 1 x 1 convolution of stride 2, under "
    "layer masking: any place of the square that a step passes over (cell), or only what it looks at (published).  "
    f"[default: {DEFAULT_RULE}]",
)
baseline_option = click.option(
    "--baseline",
    metavar="NAME|R,G,B",
    help=f"What fill puts in place of missing pixels: {', '.join(BASELINES)}, or a colour in 0..255; image-mean and "
    f"blur are those of the kept pixels.  [default: {DEFAULT_BASELINE}]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, for programs.")


@functools.cache
def console() -> Console:
    """Returns rich's console on stderr, for messages; results go to stdout.

    Every call returns the same console: one that shows a bar must know of every line that is printed meanwhile.
    """
    from rich.console import Console

    class Messages(Console):
        """A console that falls silent when stderr is closed; rich's own would end the process."""

        def on_broken_pipe(self) -> None:
            """Stops writing messages, while the command goes on."""
            self.quiet = True

    return Messages(stderr=True, soft_wrap=True, highlight=False)


def say(message: str) -> None:
    """Writes a message for the user on stderr, as one line, with control characters from files made harmless."""
    console().print(printable(for_command_line(message)), markup=False, emoji=False)


def print_line(text: str) -> None:
    """Writes a line of text for people, not for programs, on stdout."""
    click.echo(printable(for_command_line(text), keep="\t"))


def print_path(path: Path) -> None:
    """Writes the path of a file that was written on stdout: byte for byte for programs, printable on a terminal.

    A stream that a program has put in place of stdout may take text only.
    """
    for_programs = os.fsencode(path) if hasattr(sys.stdout, "buffer") else os.fspath(path)
    print_beside_files(printable(path) if sys.stdout.isatty() else for_programs)


def print_beside_files(text: str | bytes) -> None:
    """Writes on stdout the contents or paths of written files; where stdout is closed, the command goes on."""
    try:
        click.echo(text)
    except BrokenPipeError:
        silence_stdout()


@contextlib.contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Advance]:
    """Shows progress on stderr once the work has taken a second: a bar on a terminal, else a line every few seconds.

    Args:
        description: the description of the work.
        total: the number of steps; None where it is unknown.

    Yields:
        A function to call with the number of steps that were done since the last call, and perhaps a note.
    """
    screen, description = console(), printable(description)
    show, stop = show_bar(screen, description, total) if screen.is_terminal else show_lines(screen, description, total)
    started, done = time.monotonic(), 0

    def advance(count: int, note: str = "", /) -> None:
        nonlocal done
        done += count
        if time.monotonic() - started >= PATIENCE_SECONDS:
            show(done, printable(note))

    try:
        yield advance
    finally:
        stop()


Drawing = tuple[Callable[[int, str], None], Callable[[], None]]


def show_bar(screen: Console, description: str, total: int | None) -> Drawing:
    """Returns functions that show a bar with a note below, started when first shown, and that remove the bar."""
    from rich.console import RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class NotedProgress(Progress):
        note = ""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield from super().get_renderables()
            if self.note:
                yield Text(self.note, no_wrap=False, overflow="fold")  # the console itself wraps nothing

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = NotedProgress(*columns, console=screen, transient=True, refresh_per_second=1 / REFRESH_SECONDS)
    task = bar.add_task(description, total=total)

    def show(done: int, note: str) -> None:
        bar.start()
        bar.note = note
        bar.update(task, completed=done)

    return show, bar.stop


def show_lines(screen: Console, description: str, total: int | None) -> Drawing:
    """Returns a function that prints a plain line every few seconds, and one that does nothing at the end."""
    shown = -LINE_SECONDS

    def show(done: int, note: str) -> None:
        nonlocal shown
        if time.monotonic() - shown >= LINE_SECONDS:
            shown = time.monotonic()
            line = f"{description}: {done}" + (f" of {total}" if total else "")
            screen.print(f"{line}, {note}" if note else line, markup=False)

    return show, lambda: None
