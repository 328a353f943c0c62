"""One text, two spellings: parameters for a program, options for a command line, from one table that cannot drift."""

import ast
import inspect
import json
import pickle
import re
from pathlib import Path

import click
import pytest

import masktool
from masktool.cli import masktool as command_line
from masktool.cli import run
from masktool.datasets import read_dataset
from masktool.demo import model_path, sample_path
from masktool.errors import MasktoolError, UnsupportedNode, UnsupportedOperatorError
from masktool.explainers.stopping import STOPPING_ARGUMENTS
from masktool.exporters.presets import PRESETS
from masktool.interface.parts.missingness import MissingnessOptions
from masktool.maskers.settings import TrainingSettings
from masktool.messages import (
    PREPROCESSINGS,
    Message,
    OneOf,
    Placeholder,
    call,
    differently,
    join,
    parameter,
    parameters,
)
from masktool.option_names import COMMANDS, OPTIONS, for_command_line

PACKAGE = Path(__file__).parents[1] / "masktool"
H, W = Placeholder("H"), Placeholder("W")
SPELLINGS = {
    "alone": (parameter("arch"), "arch", "--arch"),
    "placeholders": (parameter("input_size", (H, W)), "input_size=(H, W)", "--input-size H W"),
    "numbers": (parameter("input_size", (224, 192)), "input_size=(224, 192)", "--input-size 224 192"),
    "one of a tuple": (parameter("target", (3,)), "target=(3,)", "--target 3"),
    "commas": (parameter("target", (Placeholder("I"), Placeholder("J"))), "target=(I, J)", "--target I,J"),
    "a text": (parameter("masking", "fill"), 'masking="fill"', "--masking fill"),
    "a path": (parameter("labels", Path("a/b.txt")), 'labels="a/b.txt"', "--labels a/b.txt"),
    "a quote": (parameter("labels", 'a"b'), "labels='a\"b'", '--labels a"b'),
    "two lines": (parameter("labels", "a\nb"), r"labels='a\nb'", "--labels a b"),
    "a switch": (parameter("trust_code", True), "trust_code=True", "--trust-code"),
    "words": (parameter("mask_required", True), "mask_required=True", "--mask required"),
    "other words": (parameter("mask_required", False), "mask_required=False", "--mask optional"),
    "one of": (
        parameter("preprocessing", PREPROCESSINGS),
        'preprocessing="imagenet"|"caffe"|"tf"|"yolo"|"FILE.json"',
        "--preprocess imagenet|caffe|tf|yolo|FILE.json",
    ),
    "or": (
        parameter("class_output", OneOf(("a", "b"), " or ")),
        'class_output="a" or "b"',
        "--class-output a or b",
    ),
    "a call": (
        call("export", "m.onnx", "NEW.onnx", gradient="logit"),
        'masktool.export("m.onnx", "NEW.onnx", gradient="logit")',
        "masktool export m.onnx -o NEW.onnx --gradient logit",
    ),
    "a default of the command": (
        call("export", Path("m.onnx"), ...),
        'masktool.export("m.onnx", ...)',
        "masktool export m.onnx",
    ),
    "together": (
        parameters(image_input="x", input_size=(H, W)),
        'image_input="x", input_size=(H, W)',
        "--image-input x --input-size H W",
    ),
    "other wordings": (differently(python="call it", command="type it"), "call it", "type it"),
}


@pytest.mark.parametrize(("message", "python", "typed"), SPELLINGS.values(), ids=SPELLINGS)
def test_a_part_is_spelled_in_two_ways(message, python, typed):
    whole = "do " + message + " now"
    assert whole == f"do {message} now" == f"do {python} now"
    assert for_command_line(whole) == f"do {typed} now"


def test_a_plain_text_is_the_same_for_both():
    assert for_command_line("masking is a word") == "masking is a word"


def test_joined_messages_keep_their_parts():
    joined = join(", ", ["a", parameter("arch"), "b"])
    assert joined == "a, arch, b"
    assert for_command_line(joined) == "a, --arch, b"
    assert join(", ", []) == ""


def error():
    return MasktoolError(
        "no such\nfile",
        where=parameter("labels", "x"),
        expected=Path("y"),
        got=3,
        fix="give  " + parameter("input_size", (H, W)),
    )


def test_an_error_tells_its_pieces():
    found = error()
    assert (found.what, found.where, found.expected, found.got) == ("no such file", 'labels="x"', "y", "3")
    assert found.fix == "give input_size=(H, W)"
    assert str(found) == 'no such file (labels="x"): expected y, got 3; give input_size=(H, W)'
    assert for_command_line(found.message) == "no such file (--labels x): expected y, got 3; give --input-size H W"


def test_an_error_without_pieces_is_its_first_sentence():
    found = MasktoolError("no such file")
    assert (found.where, found.expected, found.got, found.fix) == (None,) * 4
    assert str(found) == found.what == "no such file"


@pytest.mark.parametrize(
    "found", [error(), UnsupportedOperatorError([UnsupportedNode("n", "Sign", 13, "why")], fix=parameter("masking"))]
)
def test_advice_and_another_process_keep_the_parts(found):
    more = found.advised("or " + parameter("masking", "fill"))
    assert str(more) == f'{found}; or masking="fill"'
    assert more.fix == f'{found.fix}; or masking="fill"'
    again = pickle.loads(pickle.dumps(more))
    assert type(again) is type(found)
    assert (str(again), vars(again)) == (str(more), vars(more))
    assert for_command_line(again.message).endswith("; or --masking fill")
    assert "fill" not in str(found)


def commands():
    """Returns the options of every command, by its name."""
    found = {}

    def walk(command, name):
        if isinstance(command, click.Group):
            context = click.Context(command)
            for each in command.list_commands(context):
                walk(command.get_command(context, each), f"{name} {each}".strip())
        found[name] = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}

    walk(command_line, "")
    return found


PLACES = [
    (masktool.export, "export"),
    (masktool.add_gradients_to, "export"),
    (masktool.export_explained, "export"),
    (masktool.explain, "explain"),
    (masktool.load, "explain"),
    (masktool.check_export, "export"),
    (masktool.calibrate, "calibrate"),
    (masktool.differentiate, "gradient"),
    (masktool.package_triton, "package"),
    (masktool.package_docker, "package"),
    (masktool.package_kserve, "package"),
    (masktool.train_masker, "train-masker"),
    (TrainingSettings, "train-masker"),
    (read_dataset, "evaluate missingness"),
    (MissingnessOptions, "evaluate missingness"),
]
"""Functions, and the commands that do what they do."""
APART = {
    "load": {
        "gradient",
        "gradient_output",
        "feature_map",
        "head",
    },  # which explain asks for where its methods need them
    "read_dataset": set(),
}
"""Parameters that have a name in common with another thing."""


@pytest.mark.parametrize(("function", "command"), PLACES, ids=lambda each: getattr(each, "__name__", each))
def test_a_command_has_the_option_of_every_parameter_in_the_table(function, command):
    names = set(inspect.signature(function).parameters) - APART.get(function.__name__, set())
    wanted = {OPTIONS[name].option for name in names & set(OPTIONS)}
    assert wanted
    assert wanted <= commands()[command]


def test_the_table_holds_parameters_and_options_that_there_are():
    signatures = {name for function, _ in PLACES for name in inspect.signature(function).parameters}
    options = set().union(*commands().values())
    assert set(OPTIONS) <= signatures
    assert {name.option for name in OPTIONS.values()} <= options


@pytest.mark.parametrize("function", COMMANDS)
def test_a_function_and_its_command_take_the_same_positions(function):
    positions = [
        each.name
        for each in inspect.signature(getattr(masktool, function)).parameters.values()
        if each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    name = COMMANDS[function]
    assert len(name.positional) <= len(positions)
    assert {option for option in name.positional if option is not None} <= commands()[name.command]


RUNS_COMMANDS = [PACKAGE / "interface" / "bench" / f"{name}.py" for name in ("memory", "processes")]
"""Modules of the library that run masktool's own commands."""
LIBRARY = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.parts[len(PACKAGE.parts)] not in ("commands", "cli.py", "option_names.py", "__main__.py")
    and path not in RUNS_COMMANDS
)
OPTION = re.compile(r"(?<![\w-])(?:--[a-z][\w-]*|-[a-z](?![\w-]))")
"""An option, such as ``--input-size`` or ``-o``; not a hyphen within a word."""
COMMAND = re.compile(rf"masktool (?:{'|'.join(name.command for name in COMMANDS.values())}) |in Python")
"""A command that a function does too, with what it is given; or both forms by hand."""
OTHERS = ("pip install", "pip uninstall", " --upgrade ", " --force-reinstall --no-deps ", "python -m tf2onnx")
"""Commands of other programs, and what is put together to one of pip."""


MAKERS = {"parameter", "parameters", "call", "differently", "join"}
"""Functions that make a message."""


class Literals(ast.NodeVisitor):
    """Collects the string literals of a file that are no docstrings, and the parts of messages."""

    def __init__(self):
        self.texts, self.parameters, self.wordings, self.formatted = [], [], [], []

    def visit_Expr(self, node):
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_Constant(self, node):
        if isinstance(node.value, str):
            self.texts.append((node.lineno, node.value))

    def visit_JoinedStr(self, node):
        inside = [each for value in node.values for each in ast.walk(value) if isinstance(each, ast.Call)]
        names = {each.func.id for each in inside if isinstance(each.func, ast.Name)}
        self.formatted += [node.lineno for name in names if name in MAKERS]
        self.generic_visit(node)

    def visit_Call(self, node):
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name == "parameter" and isinstance(node.args[0], ast.Constant):
            self.parameters.append((node.lineno, node.args[0].value))
        elif name in ("call", "parameters"):
            self.parameters += [(node.lineno, each.arg) for each in node.keywords]
        if name == "differently":
            (command,) = (each.value for each in node.keywords if each.arg == "command")
            self.wordings.append((node.lineno, ast.unparse(command)))
            node.keywords = [each for each in node.keywords if each.arg != "command"]
        self.generic_visit(node)


def literals(path):
    found = Literals()
    found.visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_names_parameters(path):
    found = literals(path)
    assert not [text for _, text in found.texts if OPTION.search(text) and not any(each in text for each in OTHERS)]
    assert not [text for _, text in found.texts if COMMAND.search(text)], "call() has a Python form too"
    assert not [each for each in found.parameters if each[1] not in OPTIONS]
    assert not found.formatted, "an f-string makes plain text of a message: put it together with +"


def test_wordings_for_the_command_line_name_options_that_there_are():
    options = set().union(*commands().values())
    wordings = [wording for path in LIBRARY for _, wording in literals(path).wordings]
    assert wordings
    assert not {option for each in wordings for option in OPTION.findall(each)} - options


def test_when_to_stop_is_said_by_options():
    assert set(STOPPING_ARGUMENTS) <= set(OPTIONS)


def test_the_collector_sees_what_it_should():
    found = Literals()
    found.visit(
        ast.parse(
            '"""--a docstring"""\nx = "add --arch"\ny = parameter("arch")\nz = f"say {parameter(\'labels\')}"\n'
            'w = differently(python="-p", command="--only here")\nv = call("export", gradient="logit")'
        )
    )
    assert [text for _, text in found.texts if OPTION.search(text)] == ["add --arch", "-p"]
    assert [name for _, name in found.parameters] == ["arch", "labels", "gradient"]
    assert found.formatted == [4]
    assert [wording for _, wording in found.wordings] == ["'--only here'"]


def test_the_command_line_reports_its_own_options(tmp_path, capsys):
    assert run(["--limit", "pixels=0", "doctor"]) == 2
    capsys.readouterr()
    (tmp_path / "file").write_text("")
    assert run(["export", "model.onnx", "-o", str(tmp_path / "file" / "x.onnx")]) == 2
    assert capsys.readouterr().err.rstrip().endswith("choose another output with -o")


def test_the_examples_of_preprocessing_are_the_presets():
    assert {*PRESETS, "FILE.json"} == set(PREPROCESSINGS.values)


def test_messages_are_texts():
    assert isinstance(parameter("arch"), str)
    assert Message("a", parameter("arch")).parts == ("a", *parameter("arch").parts)


def test_problems_of_an_evaluation_name_options_where_they_are_printed_and_written(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(sample_path().read_bytes())
    (tmp_path / "labels.csv").write_text("a.png,0\nb.png,0\n")
    (tmp_path / "boxes.json").write_text(json.dumps({"a.png": [[10, 10, 60, 60]]}))
    given = ["--labels", str(tmp_path / "labels.csv"), "--boxes", str(tmp_path / "boxes.json"), "--method", "gradient"]
    assert run(["evaluate", "localisation", str(model_path()), str(folder), *given, "-o", str(tmp_path / "out")]) == 0
    said = "no object (b.png); name its box in --boxes or its pixels in --masks"
    assert f"b.png: {said}" in capsys.readouterr().err
    written = json.loads((tmp_path / "out" / "localisation.json").read_text())
    assert {"where": "b.png", "what": said} in written["problems"]
