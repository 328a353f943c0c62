"""Forms of JSON values: a form takes a value and its place, and gives a copy of the parts it knows; it refuses others.

A value that went through a form was rebuilt from what was checked. Nothing of the original is left in it, so that no
later reader can find more in it than the check did.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from masktool.printable import cut_text

Form = Callable[[Any, str], Any]

INTEGER_LIMIT = 2**63
"""torch keeps lengths and integers in 64 bits."""
TEXT_LENGTH = 500
"""Most characters of a name; torch's own are paths of modules."""
EXPRESSION_LENGTH = 4000
"""Most characters of an expression of a length: sympy's effort grows faster than the text."""
EXPRESSION_DEPTH = 40
LARGEST_POWER = 8
SYMBOL = re.compile(r"[su]\d{1,6}", re.ASCII)
"""torch's names of open lengths; it counts up to the number of one of the second kind."""
INTEGER_FUNCTIONS = frozenset({"Add", "CeilDiv", "CleanDiv", "FloorDiv", "Max", "Min", "Mod", "Mul", "PythonMod"})
POWERS = frozenset({"Pow", "PowByNatural"})
CONDITIONS = frozenset(
    {"And", "Equality", "GreaterThan", "LessThan", "Not", "Or", "StrictGreaterThan", "StrictLessThan", "Unequality"}
)
ASSUMPTIONS = frozenset({"integer", "nonnegative", "positive"})
"""What torch says of an open length."""
GUARD_FUNCTIONS = frozenset({"max", "min"})
GUARD_OPERATORS = (ast.Add, ast.FloorDiv, ast.Mod, ast.Mult, ast.Sub)
GUARD_COMPARISONS = (ast.Eq, ast.Gt, ast.GtE, ast.Lt, ast.LtE, ast.NotEq)
CONTAINERS = frozenset({"builtins.dict", "builtins.list", "builtins.tuple", "collections.OrderedDict"})
TREE_DEPTH = 8
SHOWN = 80
"""Most characters of a value in a message."""


class UnknownFormError(Exception):
    """Raised for a value of none of the forms that are known to hold no code; the text says which value, and where."""


def shown_form(value: object) -> str:
    """Returns a value as a message shows it."""
    return cut_text(repr(value), SHOWN)


def record(
    required: Mapping[str, Form], optional: Mapping[str, Form] | None = None, dropped: Iterable[str] = ()
) -> Form:
    """Returns the form of a mapping with fixed keys; those in ``dropped`` are left out of the copy."""
    known, left_out = {**required, **(optional or {})}, frozenset(dropped)

    def check(value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise UnknownFormError(f"{place} is {shown_form(value)}")
        if missing := [key for key in required if key not in value]:
            raise UnknownFormError(f"{place} lacks {missing[0]}")
        if unknown := [key for key in value if key not in known and key not in left_out]:
            raise UnknownFormError(f"{place} holds {shown_form(unknown[0])}")
        return {key: form(value[key], f"{place}.{key}") for key, form in known.items() if key in value}

    return check


def variant(forms: Mapping[str, Form]) -> Form:
    """Returns the form of a mapping with one key, which says what the value is."""

    def check(value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) != 1:
            raise UnknownFormError(f"{place} is {shown_form(value)}")
        ((key, inner),) = value.items()
        if key not in forms:
            raise UnknownFormError(f"{place} holds {shown_form(key)}")
        return {key: forms[key](inner, f"{place}.{key}")}

    return check


def sequence(form: Form) -> Form:
    """Returns the form of a list of values of one form."""

    def check(value: Any, place: str) -> list[Any]:
        if not isinstance(value, list):
            raise UnknownFormError(f"{place} is {shown_form(value)}")
        return [form(each, place) for each in value]

    return check


def table(key: Form, form: Form) -> Form:
    """Returns the form of a mapping with any keys of one form and values of another."""

    def check(value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise UnknownFormError(f"{place} is {shown_form(value)}")
        return {key(name, f"{place}, a key"): form(each, f"{place}.{name}") for name, each in value.items()}

    return check


def optional(form: Form) -> Form:
    """Returns the form of a value that may be null."""
    return lambda value, place: None if value is None else form(value, place)


def text(pattern: str) -> Form:
    """Returns the form of a text that matches a pattern as a whole."""
    compiled = re.compile(pattern, re.ASCII)

    def check(value: Any, place: str) -> str:
        if not isinstance(value, str) or len(value) > TEXT_LENGTH or compiled.fullmatch(value) is None:
            raise UnknownFormError(f"{place} is {shown_form(value)}")
        return value

    return check


def integer(lowest: int = -INTEGER_LIMIT, highest: int = INTEGER_LIMIT) -> Form:
    """Returns the form of a whole number, bounds included."""

    def check(value: Any, place: str) -> int:
        if type(value) is not int or not lowest <= value <= highest:
            raise UnknownFormError(f"{place} is {shown_form(value)}")
        return value

    return check


def flag(value: Any, place: str) -> bool:
    """The form of a boolean: true or false."""
    if type(value) is not bool:
        raise UnknownFormError(f"{place} is {shown_form(value)}")
    return value


def number(value: Any, place: str) -> float | str:
    """The form of a number, of which torch writes infinities and NaN as texts."""
    if type(value) in (int, float) or value in ("Infinity", "-Infinity", "NaN"):
        return value
    raise UnknownFormError(f"{place} is {shown_form(value)}")


def identifier(value: Any, place: str) -> str:
    """The form of a name that torch writes into the Python code that it makes of a graph."""
    name: str = text(r"[A-Za-z_]\w*")(value, place)
    if keyword.iskeyword(name):
        raise UnknownFormError(f"{place} is {shown_form(name)}")
    return name


def module_path(value: Any, place: str) -> str:
    """The form of the path of a module or a weight, whose parts torch looks up as attributes."""
    path: str = text(r"(?:[\w@-]+(?:\.[\w@-]+)*)?")(value, place)
    if any(part.startswith("__") for part in path.split(".")):
        raise UnknownFormError(f"{place} is {shown_form(path)}")
    return path


def integer_expression(value: Any, place: str) -> str:
    """The form of an open length, ``Mul(Integer(2), Symbol('s0', integer=True))``: integer arithmetic alone."""
    return rebuild_expression(value, place, INTEGER_FUNCTIONS)


def condition(value: Any, place: str) -> str:
    """The form of a condition on open lengths."""
    return rebuild_expression(value, place, INTEGER_FUNCTIONS | CONDITIONS)


def parse_expression(value: Any, place: str) -> ast.expr:
    """Returns the parsed form of a text that would be run as Python."""
    if not isinstance(value, str) or len(value) > EXPRESSION_LENGTH or not value.isascii():
        raise UnknownFormError(f"{place} is {shown_form(value)}")
    try:
        return ast.parse(value, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnknownFormError(f"{place} is {shown_form(value)}") from error


def rebuild_expression(value: Any, place: str, functions: frozenset[str]) -> str:
    """Returns an expression written anew from its parsed form, for sympy evaluates the text as Python."""
    parsed = parse_expression(value, place)
    if not is_arithmetic(parsed, functions, EXPRESSION_DEPTH):
        raise UnknownFormError(f"{place} is more than integer arithmetic: {shown_form(value)}")
    return ast.unparse(parsed)


def is_arithmetic(node: ast.expr, functions: frozenset[str], depth: int) -> bool:
    """Tells whether an expression is made of integers, open lengths and the given functions of them."""
    if depth == 0:
        return False
    if is_integer(node):
        return True
    if isinstance(node, ast.Name):
        return SYMBOL.fullmatch(node.id) is not None
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    name, arguments = node.func.id, node.args
    if name == "Symbol":
        return is_symbol(node)
    if node.keywords:
        return False
    if name == "Integer":
        return len(arguments) == 1 and is_integer(arguments[0])
    if name in POWERS:
        base, *powers = arguments or [node]
        return len(powers) == 1 and is_small_power(powers[0]) and is_arithmetic(base, functions, depth - 1)
    return name in functions and all(is_arithmetic(each, functions, depth - 1) for each in arguments)


def is_integer(node: ast.expr) -> bool:
    """Tells whether an expression is a whole number of 64 bits, a minus before it included."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value <= INTEGER_LIMIT


def is_small_power(node: ast.expr) -> bool:
    """Tells whether an expression is an exponent small enough to be computed."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Integer":
        (node,) = node.args if len(node.args) == 1 and not node.keywords else (node,)
    return isinstance(node, ast.Constant) and type(node.value) is int and 0 <= node.value <= LARGEST_POWER


def guard(value: Any, place: str) -> str:
    """The form of a condition on the image's shape, ``L['x'].size()[2] // 2 != 1``, which torch runs as Python."""
    parsed = parse_expression(value, place)
    if not is_guard(parsed, EXPRESSION_DEPTH):
        raise UnknownFormError(f"{place} is more than a condition on lengths: {shown_form(value)}")
    return ast.unparse(parsed)


def is_guard(node: ast.expr, depth: int) -> bool:
    """Tells whether an expression compares integers and lengths of the input."""
    if depth == 0:
        return False
    if is_integer(node) or is_length(node):
        return True
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Pow):
            return is_small_power(node.right) and is_guard(node.left, depth - 1)
        parts, known = [node.left, node.right], isinstance(node.op, GUARD_OPERATORS)
    elif isinstance(node, ast.Compare):
        parts, known = [node.left, *node.comparators], all(isinstance(each, GUARD_COMPARISONS) for each in node.ops)
    elif isinstance(node, ast.BoolOp):
        parts, known = node.values, True
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        parts, known = node.args, node.func.id in GUARD_FUNCTIONS and not node.keywords
    elif isinstance(node, ast.UnaryOp):
        parts, known = [node.operand], isinstance(node.op, ast.Not | ast.USub)
    else:
        return False
    return known and all(is_guard(part, depth - 1) for part in parts)


def is_length(node: ast.expr) -> bool:
    """Tells whether an expression is ``L['x'].size()[2]``, or ``L['args'][0].size()[2]``."""
    match node:
        case ast.Subscript(
            value=ast.Call(func=ast.Attribute(value=tensor, attr="size"), args=[], keywords=[]),
            slice=ast.Constant(value=axis),
        ) if type(axis) is int:
            while isinstance(tensor, ast.Subscript):
                key = tensor.slice.value if isinstance(tensor.slice, ast.Constant) else None
                if not (type(key) is int or (isinstance(key, str) and key.isidentifier() and key.isascii())):
                    return False
                tensor = tensor.value
            return isinstance(tensor, ast.Name) and tensor.id == "L"
    return False


def is_symbol(node: ast.Call) -> bool:
    """Tells whether a call is ``Symbol('s0', integer=True, ...)``."""
    named = len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    if not named or SYMBOL.fullmatch(node.args[0].value) is None:  # type: ignore[attr-defined]
        return False
    return all(
        each.arg in ASSUMPTIONS and isinstance(each.value, ast.Constant) and each.value.value is True
        for each in node.keywords
    )


def tree(key: Form) -> Form:
    """Returns the form of a nesting of tuples, lists and mappings, which torch keeps as JSON within JSON."""

    def check(value: Any, place: str) -> str:
        try:
            parsed = json.loads(value) if isinstance(value, str) else None
        except (ValueError, RecursionError) as error:
            raise UnknownFormError(f"{place} is {shown_form(value)}") from error
        if not isinstance(parsed, list) or len(parsed) != 2 or parsed[0] != 1 or parsed[0] is True:
            raise UnknownFormError(f"{place} is {shown_form(value)}")
        return json.dumps([1, check_branch(parsed[1], place, key, TREE_DEPTH)])

    return check


def check_branch(value: Any, place: str, key: Form, depth: int) -> dict[str, Any]:
    """Returns a copy of one level of a nesting; its context, which may name classes to import, holds keys alone."""
    if depth == 0 or not isinstance(value, dict) or set(value) != {"type", "context", "children_spec"}:
        raise UnknownFormError(f"{place} is {shown_form(value)}")
    kind, children = value["type"], value["children_spec"]
    if not isinstance(children, list) or not (kind is None or kind in CONTAINERS):
        raise UnknownFormError(f"{place} is {shown_form(value)}")
    context = None if kind is None and value["context"] is None else check_context(value["context"], place, key)
    branches = [check_branch(child, place, key, depth - 1) for child in children]
    return {"type": kind, "context": context, "children_spec": branches}


def check_context(value: Any, place: str, key: Form) -> str:
    """Returns a copy of the keys of a mapping, or of nothing."""
    try:
        keys = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise UnknownFormError(f"{place} is {shown_form(value)}") from error
    if keys is None and isinstance(value, str):
        return "null"
    if not isinstance(keys, list) or not isinstance(value, str):
        raise UnknownFormError(f"{place} is {shown_form(value)}")
    return json.dumps([key(each, place) for each in keys])
