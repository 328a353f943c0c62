"""docs/train-masker.md lists the command's options as they are, and its example runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from masktool.cli import run
from masktool.commands.train_masker import command

PAGE = (Path(__file__).parents[2] / "docs" / "train-masker.md").read_text(encoding="utf-8")
QUICK = ["--epochs", "1", "--per-class", "4"]


def find_blocks(language: str) -> list[str]:
    """Returns the page's blocks of code in a language."""
    blocks = re.findall(rf"^```{language}(?: exit-2)?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [block.replace("\\\n", " ") for block in blocks]


def describe_option(option: click.Option) -> str:
    """Returns an option as a row of the page's table."""
    names = "/".join(f"`{name}`" for name in option.opts + option.secondary_opts)
    help_text, _, told = (option.help or "").partition("  [default: ")
    default = told.removesuffix("]")
    if not default and option.show_default:
        default = str(option.default) if not isinstance(option.default, bool) else "yes" if option.default else "no"
    choices = f" ({', '.join(option.type.choices)})" if isinstance(option.type, click.Choice) else ""
    return f"| {names}{choices} | {default} | {help_text.replace('|', chr(92) + '|')} |"


def test_every_option_stands_there_as_it_is():
    expected = [describe_option(option) for option in command.params if isinstance(option, click.Option)]
    listed = PAGE.partition("## All options")[2].partition("\n## ")[0].splitlines()
    assert [line for line in listed if line.startswith("| `-")] == expected


def test_the_commands_are_possible():
    lines = [shlex.split(line) for block in find_blocks("sh") for line in block.splitlines()]
    assert len(lines) >= 3
    for program, name, *arguments in lines:
        assert program == "masktool"
        if name == command.name:
            command.make_context(name, arguments)  # raises where an option is unknown


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    exec(find_blocks("python")[0], {})
    train, explain = (shlex.split(line)[1:] for line in find_blocks("sh")[0].splitlines())
    assert run([*train, *QUICK]) == 0
    said = capsys.readouterr().err
    shown = find_blocks("")[0].splitlines()
    assert {line for line in shown if line.startswith(("classifier", "note", "stages", "next"))} <= set(
        said.splitlines()
    )
    assert run([*explain[:-2], "--method", "masker"]) == 0
    assert (tmp_path / "sample.masker.png").exists()

    listing = shlex.split(find_blocks("sh")[1])[1:]
    assert run(listing) == 2
    assert "blocks.1 32 x 32 x 32" in capsys.readouterr().err
