"""Declared limits: each has a default, an error that names it, and a way to raise it."""

import pytest

from masktool.cli import read_limits, run
from masktool.errors import MasktoolError, describe_exception, reported_as
from masktool.limits import LIMITS, check_limit, limit, limits
from masktool.option_names import for_command_line


@pytest.mark.parametrize("name", LIMITS)
def test_a_number_beyond_a_limit_is_an_error_that_names_the_option(name):
    check_limit(name, LIMITS[name].default)
    number = LIMITS[name].default + 1
    with pytest.raises(MasktoolError, match=rf"limits\({name.replace('-', '_')}={number}\)") as caught:
        check_limit(name, number, where="somewhere")
    assert f"masktool --limit {name}={number} ..." in for_command_line(caught.value.message)


def test_limits_are_raised_within_a_block_alone():
    with limits(fill_rounds=5000), limits(pixels=7):
        assert (limit("fill-rounds"), limit("pixels")) == (5000, 7)
        check_limit("fill-rounds", 5000)
    assert limit("fill-rounds") == LIMITS["fill-rounds"].default


@pytest.mark.parametrize("text", ["pixels", "pixels=", "pixels=1e9", "pixels=-1", "pixels=²", "pixels=" + "9" * 30])
def test_texts_that_are_no_limits_are_refused(text):
    with pytest.raises(MasktoolError, match="not a limit"):
        read_limits((text,))


def test_the_command_line_knows_no_other_limits(capsys):
    assert run(["--limit", "patience=3", "info", "x"]) == 2
    assert "no such limit (patience)" in capsys.readouterr().err
    assert run(["--limit", "pixels=0", "info", "x"]) == 2
    assert "a limit that nothing meets" in capsys.readouterr().err
    assert limit("pixels") == LIMITS["pixels"].default


def test_a_stage_names_itself_and_keeps_the_cause():
    said = pytest.raises(MasktoolError, match=r"^reading fails \(a file\): KeyError: 'x'; try another$")
    with said as caught, reported_as("reading fails", where="a file", fix="try another"):
        raise KeyError("x")
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(MasktoolError, match="reading fails: not enough memory"), reported_as("reading fails"):
        raise MemoryError
    with pytest.raises(MasktoolError, match=r"^own words$"), reported_as("reading fails"):
        raise MasktoolError("own words")
    with pytest.raises(KeyboardInterrupt), reported_as("reading fails"):
        raise KeyboardInterrupt


def test_an_exception_without_words_is_described_by_its_type():
    assert describe_exception(ValueError("\n first\nsecond")) == "ValueError: first"
    assert describe_exception(RuntimeError()) == "RuntimeError"
