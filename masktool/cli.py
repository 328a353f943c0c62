"""The command line: runs the subcommand that is named, and turns every error into one line and an exit code.

Exit codes: 0; 2 for bad use or bad input; 1 for an unexpected error, or for a ``doctor`` that found something broken;
130 when interrupted, 143 when terminated, 129 when the terminal went away.

When whoever reads stdout goes away (``| head``), a command whose result is what it prints ends with 141, as other tools
do; one that writes files goes on, for the printed paths are an aid, and ends with 0. Either command ends with 0 where
stdout was closed from the start (``>&-``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from masktool import __version__
from masktool.errors import MasktoolError
from masktool.lazy import LazyGroup
from masktool.limits import DIGITS, LIMITS, limits
from masktool.option_names import for_command_line
from masktool.printable import printable
from masktool.streams import open_closed_streams, silence_stdout, unheard

SUMMARIES = {
    "export": "Turn a trained CNN into an ONNX model that takes a mask, or that explains itself.",
    "explain": "Show which parts of photographs a model relied on.",
    "gradient": "Add the gradient of a number of any output to any ONNX network.",
    "calibrate": "Correct a file's class scores where something is missing.",
    "serve": "Serve predictions and explanations over HTTP.",
    "train-masker": "Train a model that explains a CNN in one forward pass.",
    "evaluate": "Measure how far explanations, and the masking, can be trusted.",
    "package": "Write what serving systems read of a model.",
    "cache": "List or remove the exports that are kept.",
    "info": "Show what an ONNX file holds: inputs, metadata, parity, mask rules.",
    "doctor": "Show versions and providers, and how to mend what is broken.",
    "bench": "Measure what masks, gradients and explanations by a model cost here.",
    "demo": "Explain a sample picture with the built-in model.",
}
"""The commands' summaries, kept here so that ``masktool --help`` imports no command; a test compares them with the
commands' own."""
BAD_INPUT = 2
UNEXPECTED = 1
INTERRUPTED = 130
SIGNALLED = 128
"""Base of the exit code of a process that a signal ended, to which shells add the signal's number."""
COMPLETION = "_MASKTOOL_COMPLETE"
SIGPIPE = 13
"""Number of the signal SIGPIPE, which Windows lacks."""
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass
class Settings:
    """The values of the options before the subcommand."""

    debug: bool = False


@click.group(
    cls=LazyGroup,
    package="masktool.commands",
    summaries=SUMMARIES,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="masktool")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--limit",
    "assignments",
    metavar="NAME=N",
    multiple=True,
    help=f"Take larger inputs than usual; NAME is one of {', '.join(LIMITS)}.",
)
@click.pass_context
def masktool(context: click.Context, debug: bool, assignments: tuple[str, ...]) -> None:
    """Turn a trained CNN into an ONNX model that takes a mask, and explain its predictions with it."""
    context.ensure_object(Settings).debug = debug
    context.with_resource(limits(**read_limits(assignments)))
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def read_limits(assignments: tuple[str, ...]) -> dict[str, int]:
    """Returns limits by name from texts such as ``pixels=200000000``.

    Raises:
        MasktoolError: a text has another form.
    """
    found = {}
    for assignment in assignments:
        name, equals, number = assignment.partition("=")
        if not equals or not number.isascii() or not number.isdigit() or len(number) > DIGITS:
            raise MasktoolError(
                "not a limit", where=f"--limit {assignment}", expected="NAME=N, such as pixels=200000000"
            )
        found[name] = int(number)
    return found


class Terminated(BaseException):
    """A signal asks the process to end; like KeyboardInterrupt, it passes every ``except Exception``."""

    def __init__(self, number: int) -> None:
        self.number = number


def main() -> NoReturn:
    """Runs the command line of this process and ends it."""
    open_closed_streams()
    raise_on_termination()
    sys.exit(run(sys.argv[1:]))


def raise_on_termination() -> None:
    """Turns the signals that end a process at once into an exception, so that half-written files are removed.

    A signal that is ignored, as under ``nohup``, stays ignored.
    """

    def terminate(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signature of signal handlers
        signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the cleaning
        raise Terminated(number)

    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, terminate)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns the exit code."""
    settings = Settings()
    try:
        code = invoke(arguments, settings)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        silence_stdout()
        return SIGNALLED + SIGPIPE
    except (click.Abort, KeyboardInterrupt):
        return report("interrupted", INTERRUPTED, settings)
    except Terminated as error:
        return report("terminated", SIGNALLED + error.number, settings)
    except click.ClickException as error:
        return report(describe_misuse(error), BAD_INPUT, settings)
    except MasktoolError as error:
        return report(f"error: {for_command_line(error.message)}", BAD_INPUT, settings)
    except OSError as error:
        if error.errno not in FULL:
            return report_unexpected(error, settings)
        silence_stdout()
        where = f" ({error.filename})" if error.filename else ""
        return report(f"error: cannot write{where}: {error.strerror}", BAD_INPUT, settings)
    except Exception as error:
        return report_unexpected(error, settings)


def report_unexpected(error: Exception, settings: Settings) -> int:
    """Reports an unexpected error in one line, and returns the exit code."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return report(f"unexpected {text}; run `masktool --debug ...` for the traceback", UNEXPECTED, settings)


def invoke(arguments: Sequence[str], settings: Settings) -> int:
    """Runs one command line and returns the exit code; errors are left to the caller.

    ``click``'s own ``main`` would take a closed stdout for an error of the program, and the end of a file for an
    interruption.
    """
    if COMPLETION in os.environ:  # the shell completes a command line, and nothing is run
        masktool.main(list(arguments), prog_name="masktool")
    try:
        with unheard(), masktool.make_context("masktool", list(arguments), obj=settings) as context:
            code = masktool.invoke(context)
    except click.exceptions.Exit as ending:
        code = ending.exit_code
    return code if isinstance(code, int) else 0


def report(line: str, code: int, settings: Settings) -> int:
    """Writes one line on stderr, after the traceback where ``--debug`` was given, and returns the exit code."""
    if settings.debug:
        traceback.print_exc()
    with contextlib.suppress(BrokenPipeError):
        click.echo(f"masktool: {printable(line)}", err=True)
    return code


def describe_misuse(error: click.ClickException) -> str:
    """Returns click's message as one line that names the help to read."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "masktool"
    return f"error: {' '.join(error.format_message().split()).rstrip('.')}; see `{path} --help`"
