"""``--input-size`` takes a height and a width in two words, as ever, and a size of any number of axes in one."""

from __future__ import annotations

from collections.abc import Iterator

import click
import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from masktool.cli import masktool as command_line
from masktool.cli import run
from masktool.commands.size_option import InputSize, InputSizeOption, input_size_option
from masktool.lazy import LazyGroup

SIGNALS = """<ir_version: 10, opset_import: ["": 18]>
signals (float[N,2,L] x) => (float[N,3] scores) {
    a = Conv<pads=[2,2], strides=[2]>(x, w) b = Relu(a) c = GlobalAveragePool(b) d = Flatten(c) scores = Gemm(d, v)
}"""


@pytest.fixture
def signals(tmp_path, monkeypatch):
    """A network of signals of any length, in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(SIGNALS)
    for name, shape in {"w": (4, 2, 5), "v": (4, 3)}.items():
        value = random.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.save(model, "signals.onnx")
    np.save("signal.npy", random.standard_normal((2, 40)).astype(np.float32))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        ("--input-size 224 192 m.onnx", "--input-size 224x192 m.onnx"),
        ("m.onnx --input-size=224 192 7", "m.onnx --input-size=224x192 7"),
        ("--input-size 1000 m.onnx", "--input-size 1000 m.onnx"),
        ("--input-size 1000 --batch 8", "--input-size 1000 --batch 8"),
        ("--input-size 16x112x112 7", "--input-size 16x112x112 7"),
        ("--input-size 8 8 -o x --input-size 9 9", "--input-size 8x8 -o x --input-size 9x9"),
        ("--input-size 0 9", "--input-size 0x9"),
        ("--input-size", "--input-size"),
        ("--input-size=", "--input-size="),
        ("--batch 8 8", "--batch 8 8"),
        ("-- --input-size 8 8", "-- --input-size 8 8"),
    ],
)
def test_a_height_and_a_width_become_one_word(words, joined):
    @click.command()
    @input_size_option
    def command(input_size):
        pass

    (option,) = command.params
    assert isinstance(option, InputSizeOption)
    assert option.join_words(words.split(" ")) == joined.split(" ")


@pytest.mark.parametrize(
    ("word", "size"), [("1000", (1000,)), ("224X192", (224, 192)), ("16x112x112", (16, 112, 112)), ((8, 9), (8, 9))]
)
def test_a_word_is_a_size(word, size):
    assert InputSize().convert(word, None, None) == size


@pytest.mark.parametrize("word", ["", "x", "8x", "8.5", "8,9", "1x2x3x4", "0x9", "-3", "\u0661\u0662", "many"])
def test_what_is_no_size_is_refused(word):
    with pytest.raises(click.BadParameter, match=r"is no size|is not in the range"):
        InputSize().convert(word, None, None)


def list_commands(group: LazyGroup, context: click.Context) -> Iterator[tuple[LazyGroup, str, click.Command]]:
    """Yields all subcommands with the groups that they are in."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, LazyGroup):
            yield from list_commands(command, context)
        yield group, name, command


def test_every_command_with_the_option_gets_it_as_one_word():
    context = click.Context(command_line)
    taking = 0
    for group, name, command in list_commands(command_line, context):
        if any("--input-size" in option.opts for option in command.params):
            _, _, words = group.resolve_command(context, [name, "--input-size", "8", "9"])
            assert words == ["--input-size", "8x9"], name
            taking += 1
    assert taking > 10


def test_a_signal_of_any_length_is_fixed(signals):
    words = ["signals.onnx", "--output-kind", "logits", "-o", "fixed.onnx"]
    assert run(["export", "--input-size", "40", *words]) == 0
    exported = onnx.load(signals / "fixed.onnx")
    assert [each.dim_value for each in exported.graph.input[0].type.tensor_type.shape.dim][1:] == [2, 40]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "export signals.onnx --input-size 8 8",
            "(--input-size): expected length of input 'x' float (N, 2, L), got 8 x 8",
        ),
        ("export signals.onnx --input-size 8.5", "'8.5' is no size: expected H W, or one word: L, HxW or DxHxW"),
        ("export signals.onnx --input-size 3 8 8", "unexpected extra argument (8)"),
        ("export signals.onnx --input-size", "requires an argument"),
        ("explain signal.npy -m signals.onnx --output-kind logits --input-size 1x2x3x4", "'1x2x3x4' is no size"),
    ],
)
def test_a_wrong_size_is_one_line(signals, words, message, capsys):
    assert run(words.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
