"""Every type of masktool's that stands in a public signature is public itself."""

import ast
import importlib
from pathlib import Path

import pytest

import masktool

PACKAGE = Path(masktool.__file__).parent
DUNDER = "__"
INTERNAL = {"Source", "Model", "OnnxLike", "Message", "SessionFile", "OpensModels", "Recipe"} | {
    *("SettledOutput", "SettledPart"),
    *("Subject", "NamedImage", "PreparedImage", "Box"),
    *("Detections", "Detector", "Found", "Mark", "RegionPlaces"),
}
"""In the signature of export: what the command hands on that has read a model, and an alias of libraries' types, which
exists for type checkers alone; the kind of text in errors, which is a str to whoever reads it; what a session is
pickled as; the bases of MaskedSession and of targets that are made of one output, whose members the site lists as those
classes' own; an image as it was read, and as a target that looks something up sees it; and what detections and regions
hand on to their pictures."""


def module_of(name):
    """Returns the syntax tree of the module that defines a public name, and the name of that module."""
    module = masktool._MODULE_OF_NAME[name]
    return module, tree_of(module)


def tree_of(module):
    """Returns the syntax tree of a module of masktool's."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    return ast.parse(source.read_text(encoding="utf-8"))


def definition(tree, name):
    """Returns the statement that defines a name in a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            return definition(tree_of(node.module), name)  # from a package's __init__
    raise AssertionError(f"{name} is not defined where masktool says")


def annotations(node):
    """Yields what stands for types in a definition: of parameters, results, public fields and methods, or an alias."""
    if isinstance(node, ast.FunctionDef):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        yield from (each.annotation for each in every if each is not None and each.annotation is not None)
        yield from [node.returns] if node.returns is not None else []
    elif isinstance(node, ast.ClassDef):
        yield from node.bases
        for inner in node.body:
            if isinstance(inner, ast.FunctionDef) and (inner.name[0] != "_" or inner.name.startswith(DUNDER)):
                yield from annotations(inner)
            elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name) and inner.target.id[0] != "_":
                yield inner.annotation
    else:
        yield node.value


def names_in(expression):
    """Yields the names in a type, those in strings too, but not the strings of ``Literal``."""
    if isinstance(expression, ast.Subscript) and ast.unparse(expression.value) == "Literal":
        return
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        expression = ast.parse(expression.value, mode="eval").body
    if isinstance(expression, ast.Name):
        yield expression.id
    for child in ast.iter_child_nodes(expression):
        yield from names_in(child)


def own_names(module, tree):
    """Returns the names in a module that are masktool's: those that it defines, and those that it imports from it."""
    found = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "masktool"
        for alias in node.names
    }
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = (module, node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id: (module, target.id) for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("name", masktool.__all__)
def test_the_types_in_a_public_signature_are_public(name):
    module, tree = module_of(name)
    own, missing = own_names(module, tree), set()
    for annotation in annotations(definition(tree, name)):
        for each in names_in(annotation):
            if each not in own or each in INTERNAL:
                continue
            home, original = own[each]
            found = getattr(importlib.import_module(home), original)
            if original not in masktool.__all__ or getattr(masktool, original) is not found:
                missing.add(f"{home}.{original}")
    assert not missing


def test_everything_public_can_be_had_and_is_listed():
    assert set(masktool._MODULE_OF_NAME) - {"__version__"} == set(masktool.__all__)
    assert sorted(set(masktool.__all__)) == sorted(masktool.__all__)
    for name in masktool.__all__:
        assert getattr(masktool, name) is not None


def test_the_collector_sees_parameters_results_fields_and_aliases():
    tree = ast.parse(
        "from masktool.a import A, B as C\n"
        "def f(x: A, *y: 'list[C]', **z: Literal['A']) -> int: ...\n"
        "class K(Base):\n    x: A\n    _y: B\n    def m(self) -> C: ...\n    def _n(self) -> D: ...\n"
        "Alias = A | None\n"
    )
    function = [set(names_in(each)) for each in annotations(definition(tree, "f"))]
    assert function == [{"A"}, {"list", "C"}, set(), {"int"}]
    assert [set(names_in(each)) for each in annotations(definition(tree, "K"))] == [{"Base"}, {"A"}, {"C"}]
    assert [set(names_in(each)) for each in annotations(definition(tree, "Alias"))] == [{"A"}]
    assert own_names("masktool.b", tree)["C"] == ("masktool.a", "B")
