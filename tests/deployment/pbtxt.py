"""A reader of protocol buffers' text format that knows nothing of the writer: messages as lists of fields."""

import re

TOKEN = re.compile(r'\s*("(?:[^"\\\n]|\\.)*"|[\[\]{}:,]|[^\s\[\]{}:,"]+)')
ESCAPE = re.compile(rb"\\([0-7]{3}|.)")


class Message(list):
    """The fields of a message, as pairs."""

    def all(self, name):
        return [value for key, value in self if key == name]

    def one(self, name, default=None):
        found = self.all(name)
        assert len(found) <= 1, name
        return found[0] if found else default


def read_pbtxt(text):
    """Returns the message that a text holds."""
    tokens = TOKEN.findall(text)
    assert TOKEN.sub("", text).strip() == ""
    message, rest = read_message([*tokens, "}"])
    assert rest == []
    return message


def read_message(tokens):
    message = Message()
    while tokens[0] != "}":
        name, *tokens = tokens
        if tokens[0] == "{":
            value, tokens = read_message(tokens[1:])
        else:
            assert tokens[0] == ":", tokens[:5]
            value, tokens = read_value(tokens[1:])
        message.append((name, value))
    return message, tokens[1:]


def read_value(tokens):
    if tokens[0] != "[":
        return read_scalar(tokens[0]), tokens[1:]
    end = tokens.index("]")
    return [read_scalar(each) for each in tokens[1:end] if each != ","], tokens[end + 1 :]


def read_scalar(token):
    if token.startswith('"'):
        replaced = ESCAPE.sub(lambda found: read_escape(found[1]), token[1:-1].encode())
        return replaced.decode()
    if re.fullmatch(r"-?\d+", token):
        return int(token)
    return {"true": True, "false": False}.get(token, token)


def read_escape(escape):
    if len(escape) == 3:
        return bytes([int(escape, 8)])
    return {b"n": b"\n", b"r": b"\r", b"t": b"\t"}.get(escape, escape)
