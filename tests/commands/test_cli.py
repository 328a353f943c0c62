"""The frame of the command line: lazy, one line per error, the right exit codes."""

import importlib
import io
import os
import subprocess
import sys
import time

import click
import pytest

import masktool
from masktool.cli import SUMMARIES, run
from masktool.commands import options
from masktool.errors import MasktoolError
from masktool.lazy import LazyGroup

HELP_SECONDS = 0.4


@pytest.fixture
def failing(monkeypatch):
    """``masktool info`` raises whatever is put in here."""
    box = []

    @click.command()
    def command():
        raise box[0]

    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: command)
    return box


def start(*arguments, **settings):
    return subprocess.run([sys.executable, "-m", "masktool", *arguments], capture_output=True, text=True, **settings)


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"masktool, version {masktool.__version__}\n"


def test_help_lists_every_command(capsys):
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    for name, summary in SUMMARIES.items():
        assert f"  {name}  " in text
        assert summary in " ".join(text.split())
    assert run([]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("name", SUMMARIES)
def test_summaries_are_the_commands_own(name):
    command = importlib.import_module(f"masktool.commands.{name.replace('-', '_')}").command
    assert command.help.strip().splitlines()[0] == SUMMARIES[name]


def test_help_is_quick_and_imports_no_command():
    code = "import sys; from masktool.cli import run; run(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    for module in ("numpy", "onnx", "onnxruntime", "torch", "rich", "PIL", "masktool.commands"):
        assert f"'{module}'" not in loaded
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        assert start("--help").returncode == 0
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < HELP_SECONDS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "error: No such command 'nope'"),
        (["--nope"], "error: No such option"),
        (["info"], "error: Missing argument 'MODEL'"),
        (["info", "a", "b"], "error: Got unexpected extra argument"),
        (["info", "--nope"], "error: No such option"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"masktool: {message}")
    assert err.count("\n") == 1
    assert err.rstrip().endswith("--help`")


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert run(["info", str(tmp_path / "none.onnx")]) == 2
    assert capsys.readouterr().err == f"masktool: error: file not found ({tmp_path / 'none.onnx'})\n"


def test_debug_adds_the_traceback(failing, capsys):
    failing.append(MasktoolError("wrong", fix="right it"))
    assert run(["info"]) == 2
    assert capsys.readouterr().err == "masktool: error: wrong; right it\n"
    assert run(["--debug", "info"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("masktool: error: wrong; right it\n")


def test_the_unexpected_is_one_line_and_exit_code_1(failing, capsys):
    failing.append(ZeroDivisionError("division\nby zero"))
    assert run(["info"]) == 1
    expected = (
        "masktool: unexpected ZeroDivisionError: division by zero; run `masktool --debug ...` for the traceback\n"
    )
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interruption(failing, capsys, error):
    failing.append(error)
    assert run(["info"]) == 130
    assert capsys.readouterr().err.strip() == "masktool: interrupted"


@pytest.mark.parametrize("arguments", [["--help"], ["info", "--help"], ["--version"]])
def test_a_reader_that_goes_away_gets_no_traceback(arguments):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "masktool", *arguments]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


def test_exit_code_of_the_process():
    assert start("nope").returncode == 2
    assert start("--version").returncode == 0


def parse(option, *arguments):
    seen = {}

    @click.command()
    @option
    def command(**values):
        seen.update(values)

    command.main(list(arguments), standalone_mode=False)
    return seen


@pytest.mark.parametrize(
    ("option", "arguments", "expected"),
    [
        (options.provider_option, [], {"provider": "auto"}),
        (options.provider_option, ["--provider", "cuda"], {"provider": "cuda"}),
        (options.threads_option, [], {"threads": None}),
        (options.threads_option, ["--threads", "3"], {"threads": 3}),
        (options.batch_option, [], {"batch": None}),
        (options.batch_option, ["--batch", "auto"], {"batch": None}),
        (options.batch_option, ["--batch", "16"], {"batch": 16}),
        (options.seed_option, [], {"seed": 0}),
        (options.json_option, ["--json"], {"as_json": True}),
    ],
)
def test_shared_options(option, arguments, expected):
    assert parse(option, *arguments) == expected


@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        (options.provider_option, ["--provider", "gpu"]),
        (options.threads_option, ["--threads", "0"]),
        (options.batch_option, ["--batch", "0"]),
        (options.batch_option, ["--batch", "many"]),
        (options.seed_option, ["--seed", "-1"]),
    ],
)
def test_shared_options_refuse(option, arguments):
    with pytest.raises(click.BadParameter):
        parse(option, *arguments)


class Clock:
    """Stands still until it is told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(options.time, "monotonic", clock)
    return clock


def test_progress_is_silent_for_a_second(clock, capsys):
    with options.progress("RISE", 100) as advance:
        clock.now += 0.9
        advance(50)
    assert capsys.readouterr() == ("", "")


def test_progress_without_a_terminal_is_a_line_now_and_then(clock, capsys):
    with options.progress("RISE", 100) as advance:
        for _ in range(10):
            clock.now += 1.5
            advance(10)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["RISE: 10 of 100", "RISE: 50 of 100", "RISE: 90 of 100"]


def test_progress_on_a_terminal_is_a_bar_that_goes_away(clock, monkeypatch):
    from rich.console import Console

    stream = io.StringIO()
    screen = Console(file=stream, force_terminal=True, width=80, soft_wrap=True)
    monkeypatch.setattr(options, "console", lambda: screen)
    note = " ".join(f"term{number}" for number in range(20))
    with options.progress("RISE [x]", 100) as advance:
        advance(10)
        assert stream.getvalue() == ""
        clock.now += 2
        advance(40, note)
    text = stream.getvalue()
    assert "RISE [x]" in text
    assert "50/100" in text
    assert all(term in text for term in note.split())
    assert text.endswith(("\x1b[2K", "\x1b[?25h", "\r"))
