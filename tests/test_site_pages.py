"""The site has a page for every command and every method, and says of them what the code says."""

import dataclasses
import re

import click
import pytest
from site_pages import DOCS, PLACE, capitalised, describe_command, fill_in, list_names, literally, write_option

import masktool
from masktool.cli import SUMMARIES
from masktool.explainers.method import METHODS

PAGES = sorted(path for path in DOCS.rglob("*.md"))


def pages_in(folder):
    return {path.stem for path in (DOCS / folder).glob("*.md")} - {"index"}


def test_every_command_has_its_page():
    assert pages_in("commands") == set(SUMMARIES)
    for name in SUMMARIES:
        assert f"<!-- generated: command {name} -->" in (DOCS / "commands" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_commands_page_has_every_option_of_it_and_its_subcommands(name):
    page = describe_command(name)

    def check(command):
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                for spelling in parameter.opts:
                    assert re.search(rf"^`.*{spelling}\b.*`$", page, re.MULTILINE), spelling
        for each in getattr(command, "summaries", {}):
            check(command.get_command(click.Context(command), each))

    check(masktool.cli.masktool.get_command(click.Context(masktool.cli.masktool), name))


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_page_has_no_marks_of_sphinx(name):
    assert not re.search(r":\w+:`", fill_in(f"<!-- generated: method {name} -->"))


@pytest.mark.parametrize(
    ("attributes", "sentences"),
    [
        ({"type": click.IntRange(min=0), "default": 0, "show_default": True}, "What. Default: 0. At least 0."),
        ({"type": click.FloatRange(0, 1), "help": "What.  [default: 0; or 1]"}, "What. Default: 0; or 1. From 0 to 1."),
        ({"required": True}, "What. Required."),
        ({}, "What."),
    ],
)
def test_what_stands_in_brackets_becomes_sentences(attributes, sentences):
    option = click.Option(["--number"], **{"help": "What.", "metavar": "N"} | attributes)
    assert write_option(option, click.Context(click.Command("any"))) == f"`--number N`\n: {sentences}"


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_commands_page_says_what_its_help_is_called(name):
    assert "`-h, --help`" in describe_command(name)


def test_a_command_that_is_none_is_said():
    with pytest.raises(LookupError, match="masktool fly"):
        describe_command("fly")


def test_every_method_has_its_page():
    assert pages_in("methods") == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_page_is_whole(name):
    page = (DOCS / "methods" / f"{name}.md").read_text(encoding="utf-8")
    filled = fill_in(page)
    assert f"<!-- generated: method {name} -->" in page
    assert page.startswith(f"# {METHODS[name].title}\n")
    for field in dataclasses.fields(METHODS[name]):
        assert f"`{field.name}` = `{field.default}`" in filled
    assert re.search(r"Source: .*?<https://\S+>", filled, re.DOTALL)  # the formula's
    assert "\n    " in filled  # the formula


def test_every_public_name_is_on_the_page():
    asked = re.findall(r"auto\w+:: masktool\.(\w+)", list_names())
    assert sorted(asked) == sorted(masktool.__all__)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_no_place_is_left_open(path):
    assert PLACE.sub("", text := path.read_text(encoding="utf-8")).count("<!-- generated") == 0
    assert "<!-- generated" not in fill_in(text)


def test_texts_of_the_command_line_are_shown_as_they_are():
    assert literally("`a*b` and *.jpg, [default] <x> a|b") == r"`a*b` and \*.jpg, \[default\] \<x\> a\|b"
    assert capitalised("`fill` blends") == "`fill` blends"
