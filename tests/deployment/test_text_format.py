"""What is written as text format is read as it was."""

import pytest

from masktool.deployment.text_format import Fields, Word, quote_text, write_fields

from .pbtxt import read_pbtxt

TEXTS = ["", "plain", 'a "quote" and a \\', "two\nlines\r\n\ttab", "Öl, 紙 🦊", "\x00\x7f", "\\101", "}{ [name: 1] #"]


@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_a_text_is_read_as_it_was(text):
    assert read_pbtxt(f"name: {quote_text(text)}") == [("name", text)]
    assert quote_text(text).isascii()
    assert "\n" not in quote_text(text)


def test_fields_of_every_kind():
    inner = Fields.of(("shape", []), ("left_out", None), ("name", "x"))
    message = Fields.of(
        ("a", 1), ("b", True), ("c", False), ("d", Word("KIND")), ("e", [-1, 3]), ("f", inner), ("f", inner)
    )
    found = read_pbtxt(write_fields(message))
    expected = [("shape", []), ("name", "x")]
    assert found == [
        ("a", 1),
        ("b", True),
        ("c", False),
        ("d", "KIND"),
        ("e", [-1, 3]),
        ("f", expected),
        ("f", expected),
    ]


def test_a_value_that_is_no_scalar_is_a_mistake():
    with pytest.raises(TypeError, match=r"no scalar: 1\.5"):
        write_fields(Fields.of(("a", 1.5)))
