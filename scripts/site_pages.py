"""What the documentation site says that the code knows: options of methods and commands, the names that a program uses.

A page asks for a passage by a line ``<!-- generated: method lime -->``; ``docs/conf.py`` puts Markdown in its place
when the site is built. So these passages are always those of the code that the site is built from.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

import masktool
from masktool.cli import SUMMARIES
from masktool.cli import masktool as command_line
from masktool.execution_providers import PROVIDERS, ExecutionProvider
from masktool.execution_providers.provider import ProviderOption
from masktool.explainers.method import METHODS, Method
from masktool.interface.provider_checks import SYSTEMS
from masktool.interface.rows import COLUMNS

DOCS = Path(__file__).resolve().parents[1] / "docs"
FIGURES = DOCS / "methods" / "figures.json"
"""What ``scripts/draw_pages.py`` measured while it drew the methods' pictures."""
PLACE = re.compile(r"^<!-- generated: (\w+) ?(.*?) -->$", re.MULTILINE)
LINK = re.compile(r"(?<![<(\[])https?://[^\s,;)>]*[^\s,;)>.:]")
ROLE = re.compile(r":\w+:(?=`)")
"""Sphinx's mark before a name in a docstring, which is plain text in Markdown."""
REMARKS_IN_HELP = re.compile(r"\s*\[(default: .*?|required|[\d.<=x>]+)(?:; ([\d.<=x>]+))?\]", re.DOTALL)
"""What stands in brackets behind a help text: the default, that it is required, or the range of a number ``x``."""
PRINTED_AS_TYPED = "\b"
"""Click's mark for a paragraph whose lines stay as they are."""


def fill_in(text: str) -> str:
    """Returns a page with every passage that it asks for."""
    return PLACE.sub(lambda found: PASSAGES[found[1]](found[2]), text)


def describe_method(name: str) -> str:
    """Returns formula, source, options and cost of a method."""
    method = METHODS.find(name)
    return "\n\n".join(
        (
            describe_formula(method),
            "## Options",
            "\n\n".join(describe_option(method, field) for field in dataclasses.fields(method)) or "It has none.",
            "## Cost",
            describe_cost(method),
        )
    )


def describe_formula(method: type[Method]) -> str:
    """Returns what stands at the top of the method's file, which is nearly Markdown as it is."""
    text = inspect.cleandoc(inspect.getmodule(method).__doc__ or "")
    return ROLE.sub("", LINK.sub(r"<\g<0>>", text.replace("::\n", ":\n")))


def describe_option(method: type[Method], field: dataclasses.Field[Any]) -> str:
    """Returns one option as an entry of a list of definitions."""
    meanings = {name: text for cls in reversed(method.__mro__) for name, text in list_attributes(cls)}
    return f"`{field.name}` = `{field.default}`\n: {capitalised(meanings[field.name])}"


def list_attributes(cls: type) -> Iterator[tuple[str, str]]:
    """Yields name and meaning of what the section "Attributes" of a class's docstring names."""
    _, found, section = inspect.cleandoc(cls.__dict__.get("__doc__") or "").partition("\nAttributes:\n")
    if found:
        for entry in re.split(r"\n(?=\S)", textwrap.dedent(section.split("\n\n")[0])):
            name, _, meaning = entry.partition(": ")
            yield name, ROLE.sub("", " ".join(meaning.split()))


def capitalised(text: str) -> str:
    """Returns a text that begins with a capital, unless it begins with code."""
    return text[:1].upper() + text[1:]


def describe_cost(method: type[Method]) -> str:
    """Returns what a method needs of the file, how its number of passes is set, and what the sample took."""
    needs = (
        "gradients, which `explain` adds in its cache where a file lacks them" if method.needs_gradient else "scores"
    )
    outputs = "".join(f" and the output `{name}`, which `{command}` makes" for name, command in method.outputs.items())
    if method.needs_head:
        outputs += " with the layers behind it in a file beside; `explain` makes both in its cache from a plain model"
    if method.needs_feature_map:
        outputs += (
            " and a feature map, which files with gradients or a head give, and those that were exported with "
            "`--feature-map`; from any other model `explain` makes such a file in its cache"
        )
    lines = [f"* Needs of the file: {needs}{outputs}."]
    if method.samples_option:
        default = {field.name: field.default for field in dataclasses.fields(method)}[method.samples_option]
        until = f"until the map is stable, at most {method.most_samples}," if default is None else default
        lines.append(f"* `--samples N` (in Python `n_samples`) sets `{method.samples_option}`, {until} unless given.")
    if method.in_one_batch:
        lines.append("* Several photographs share one batch.")
    figures = read_figures().get(method.name)
    if figures:
        lines.append(f"* On the picture below, with the options as they are: {count_passes(figures)}.")
    return "\n".join(lines)


def count_passes(figures: Mapping[str, int]) -> str:
    """Returns how often the model ran, in words."""
    passes = figures["forward_passes"]
    return f"{passes:,} pass{'' if passes == 1 else 'es'} of the model"


def read_figures() -> dict[str, dict[str, int]]:
    """Returns what was measured while the methods' pictures were drawn, by method."""
    found: dict[str, dict[str, int]] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def list_methods(_: str = "") -> str:
    """Returns a table of all methods, and what puts their pages into the menu."""
    rows = [
        f"| [{method.title}]({name}.md) | {first_sentence(method)} | "
        f"{'gradients' if method.needs_gradient else list_needs(method)} |"
        for name, method in METHODS.items()
    ]
    table = "\n".join(["| method | what it does | needs |", "|---|---|---|", *rows])
    return f"{table}\n\n{make_toctree(METHODS)}"


def list_needs(method: type[Method]) -> str:
    """Returns what a method without gradients reads of a file."""
    return ", ".join([*method.outputs, *(["feature_map"] if method.needs_feature_map else [])]) or "scores"


def first_sentence(method: type[Method]) -> str:
    """Returns what the first line of a method's file says behind its name."""
    summary = inspect.cleandoc(inspect.getmodule(method).__doc__ or "").split("\n\n")[0]
    return capitalised(" ".join(summary.partition(": ")[2].split())).replace("|", "\\|")


def describe_commands(_: str = "") -> str:
    """Returns what is typed before a command, and a list of links to the commands' pages."""
    context = open_context()
    options = [each for each in command_line.get_params(context) if isinstance(each, click.Option)]
    links = [f"[masktool {name}]({name}.md)\n: {literally(summary)}" for name, summary in SUMMARIES.items()]
    return "\n\n".join(
        [
            *links,
            "Before the command's name may stand:",
            *(write_option(each, context) for each in options),
            make_toctree(SUMMARIES),
        ]
    )


def open_context() -> click.Context:
    """Returns what the whole command line is described in, with ``-h`` beside ``--help`` as when it runs."""
    return click.Context(command_line, info_name="masktool", **command_line.context_settings)


def make_toctree(pages: Iterable[str]) -> str:
    """Returns what puts pages of the same folder below this one in the site's menu."""
    return "\n".join(("```{toctree}", ":hidden:", "", *pages, "```"))


def describe_command(name: str) -> str:
    """Returns usage, meaning and options of a command, and below it those of its subcommands."""
    whole = open_context()
    command = command_line.get_command(whole, name)
    if command is None:
        raise LookupError(f"a page describes masktool {name}, which is no command")
    return "\n\n".join(write_command(command, click.Context(command, whole, info_name=name), heading="##"))


def write_command(command: click.Command, context: click.Context, heading: str) -> Iterator[str]:
    """Yields the passages of a command's page."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```text\n{usage}\n```"
    yield from write_help(command.help or "")
    yield from (write_option(each, context) for each in command.get_params(context) if isinstance(each, click.Option))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            assert subcommand is not None
            yield f"{heading} {context.command_path} {name}"
            yield from write_command(subcommand, click.Context(subcommand, context, info_name=name), heading + "#")


def write_help(text: str) -> Iterator[str]:
    """Yields a command's paragraphs."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith(PRINTED_AS_TYPED):
            yield f"```text\n{paragraph.removeprefix(PRINTED_AS_TYPED).strip()}\n```"
        else:
            yield literally(paragraph)


def write_option(option: click.Option, context: click.Context) -> str:
    """Returns one option as an entry of a list of definitions."""
    record = option.get_help_record(context)
    assert record is not None
    names, help_text = record
    remarks = [remark for found in REMARKS_IN_HELP.findall(help_text) for remark in found if remark]
    sentences = [literally(REMARKS_IN_HELP.sub("", help_text).strip()), *map(say_remark, remarks)]
    return f"`{' '.join(names.split())}`\n: {' '.join(sentences)}"


def say_remark(remark: str) -> str:
    """Returns what stands in brackets behind a help text as a sentence."""
    if remark.startswith("default: "):
        return f"Default: {literally(remark.removeprefix('default: '))}."
    if least := re.fullmatch(r"x>=(\S+)", remark):
        return f"At least {least[1]}."
    if bounds := re.fullmatch(r"(\S+)<=x<=(\S+)", remark):
        return f"From {bounds[1]} to {bounds[2]}."
    return f"{capitalised(literally(remark))}."


def literally(text: str) -> str:
    """Returns a text of the command line as Markdown that shows the same, code in backticks apart."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*<>|\[\]])", r"\\\1", part) for part in parts)


def list_names(_: str = "") -> str:
    """Returns what asks autodoc for every public name: functions, then types, then errors."""
    found = {name: getattr(masktool, name) for name in masktool.__all__}
    functions = [name for name, value in found.items() if inspect.isroutine(value)]
    errors = [name for name, value in found.items() if inspect.isclass(value) and issubclass(value, Exception)]
    types = [name for name in found if name not in (*functions, *errors)]
    sections = {"Functions": functions, "Types": types, "Errors": errors}
    return "\n\n".join(f"## {title}\n\n" + "\n\n".join(map(ask_for_name, names)) for title, names in sections.items())


def ask_for_name(name: str) -> str:
    """Returns the block that documents one public name from its docstring."""
    value = getattr(masktool, name)
    if not inspect.isclass(value):
        kind, options = ("autofunction", "") if inspect.isroutine(value) else ("autodata", "")
    elif issubclass(value, Exception):
        kind, options = "autoexception", ""
    else:
        from_masktool = any(base.__module__.startswith("masktool.") for base in value.__mro__[1:])
        kind, options = "autoclass", "\n   :members:" + "\n   :inherited-members:" * from_masktool
    return f"### {name}\n\n```{{eval-rst}}\n.. {kind}:: masktool.{name}{options}\n```"


def list_providers(_: str = "") -> str:
    """Returns a table of the execution providers, those that ``auto`` takes first."""
    rows = [
        f"| `{provider.name}` | {provider.devices} | {describe_package(provider)} | {provider.by_name_only or ''} |"
        for provider in PROVIDERS
    ]
    head = "| `--provider` | computes on | package | why not by `auto` |"
    return "\n".join([head, "|---|---|---|---|", *rows])


def describe_package(provider: ExecutionProvider) -> str:
    """Returns what brings a provider: a build of ONNX Runtime or a plugin, for which systems, and what is wanted."""
    kind = "plugin" if provider.plugin else "build"
    systems = ", ".join(SYSTEMS[each] for each in provider.systems)
    besides = f"; {provider.besides}" if provider.besides else ""
    return f"{kind} `{provider.package}` ({systems}){besides}"


def list_provider_options(_: str = "") -> str:
    """Returns every provider's options, as lists of definitions under headings."""
    return "\n\n".join(
        "\n\n".join([f"## {provider.title}", *(describe_provider_option(provider, each) for each in provider.options)])
        for provider in PROVIDERS
        if provider.options
    )


def describe_provider_option(provider: ExecutionProvider, option: ProviderOption) -> str:
    """Returns one option of a provider as an entry of a list of definitions."""
    values = {"switch": "0|1", "number": "N", "text": "TEXT", "choice": "|".join(option.choices)}[option.kind]
    sentences = [option.meaning]
    if option.default:
        sentences.append(f"Default: {option.default}.")
    if (own := dict(provider.defaults).get(option.name)) is not None:
        sentences.append(f"masktool sets {own}.")
    if provider.plugin_options is not None and option.name not in provider.plugin_options:
        sentences.append("The plugin ignores it.")
    if option.captures:
        sentences.append("masktool [refuses it](gpu.md).")
    return f"`{option.name}={values}`\n: {' '.join(sentences)}"


def list_columns(_: str) -> str:
    """Returns a table of the columns that a row of explanations has."""
    kinds = {column.name: column.kind.replace("[", "list of ").rstrip("]") for column in COLUMNS}
    rows = [f"| `{column.name}` | {kinds[column.name]} | {column.meaning} |" for column in COLUMNS]
    return "\n".join(("| column | type | what it holds |", "|---|---|---|", *rows))


PASSAGES: Mapping[str, Callable[[str], str]] = {
    "method": describe_method,
    "methods": list_methods,
    "command": describe_command,
    "commands": describe_commands,
    "names": list_names,
    "providers": list_providers,
    "provider_options": list_provider_options,
    "columns": list_columns,
}
"""By the word that a page asks with."""
