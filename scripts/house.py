"""Figures of how masktool's house is laid: arrows between rooms, circles, names that stand twice, long files.

Run as ``python scripts/house.py [CHECKOUT ...]``: prints a table with a column for each checkout, this one by default.
The tests hold what must stay at 0.
"""

from __future__ import annotations

import ast
import collections
import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parents[1]
LONG_FILE = 300
LONG_FUNCTION = 40
WIDE_LINE = 120
FOUNDATION = "foundation"
ROOMS = (
    "commands",
    "datasets",
    "demo",
    "embedding",
    "evaluation",
    "explainers",
    "exporters",
    "interface",
    "maskers",
    "ops",
    "runtime",
)
"""Folders of the package; a file beside them belongs to the foundation, unless it stands above them."""
ABOVE = "__main__", "cli", "lazy", "option_names", "ray"

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """One source file: its dotted name, its text and its syntax tree."""

    name: str
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The part of the package that the module belongs to; files that every part may use are one."""
        part = self.name.split(".")[1] if "." in self.name else ""
        return FOUNDATION if part and part == self.name.rpartition(".")[2] and part not in (*ROOMS, *ABOVE) else part


@functools.cache
def read_modules(checkout: Path = HERE) -> dict[str, Module]:
    """Returns every module of the package by its dotted name."""
    modules = {}
    for path in sorted((checkout / "masktool").rglob("*.py")):
        name = ".".join(path.relative_to(checkout).with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text(encoding="utf-8")
        modules[name] = Module(name, text, ast.parse(text))
    return modules


def imports_of(module: Module, known: Iterable[str]) -> set[str]:
    """Returns the modules of the package that a module imports, anywhere in it, for types alone too."""
    known, found = set(known), set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found |= {inner if inner in known else node.module} & known
    return found - {module.name}


def arrows_between_rooms(modules: Mapping[str, Module]) -> set[tuple[str, str]]:
    """Returns which part of the package imports which other one."""
    pairs = (
        (modules[name].room, modules[other].room) for name in modules for other in imports_of(modules[name], modules)
    )
    return {(one, other) for one, other in pairs if one and other and one != other}


def circles(modules: Mapping[str, Module]) -> list[list[str]]:
    """Returns the sets of modules that import one another in a circle (strongly connected components), sorted."""
    arrows = {name: imports_of(module, modules) for name, module in modules.items()}
    reached = {name: reach(name, arrows) for name in arrows}
    found = {tuple(sorted({name, *(other for other in reached[name] if name in reached[other])})) for name in arrows}
    return sorted(list(circle) for circle in found if len(circle) > 1)


def reach(start: str, arrows: Mapping[str, set[str]]) -> set[str]:
    """Returns every module that one leads to."""
    found: set[str] = set()
    ahead = [start]
    while ahead:
        for other in arrows[ahead.pop()] - found:
            found.add(other)
            ahead.append(other)
    return found


def recurring_classes(modules: Mapping[str, Module]) -> dict[str, list[str]]:
    """Returns the public classes whose name stands in several modules, with these modules."""
    return recurring(
        (node.name, module.name)
        for module in modules.values()
        for node in module.tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )


def recurring_functions(modules: Mapping[str, Module]) -> dict[str, list[str]]:
    """Returns the public functions whose name stands in several modules; a command's own function is called so."""
    return recurring(
        (node.name, module.name)
        for module in modules.values()
        for node in module.tree.body
        if isinstance(node, Function) and not node.name.startswith("_") and node.name != "command"
    )


def recurring(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Returns the names that stand in several modules, with these, sorted."""
    places = collections.defaultdict(list)
    for name, place in pairs:
        places[name].append(place)
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def long_files(modules: Mapping[str, Module]) -> list[str]:
    """Returns the modules with more lines than a file should have."""
    return [module.name for module in modules.values() if len(module.text.splitlines()) > LONG_FILE]


def long_functions(modules: Mapping[str, Module]) -> list[str]:
    """Returns the functions with more lines of code than one should have; a docstring is none."""
    return [
        f"{module.name}.{node.name}"
        for module in modules.values()
        for node in ast.walk(module.tree)
        if isinstance(node, Function) and lines_of_code(node) > LONG_FUNCTION
    ]


def lines_of_code(function: Function) -> int:
    """Returns the lines of a function without its decorators and docstring."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    hidden = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - hidden


def public_names(modules: Mapping[str, Module]) -> list[str]:
    """Returns what ``masktool`` exports."""
    for node in modules["masktool"].tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(ast.literal_eval(element)) for element in node.value.elts]  # type: ignore[attr-defined]
    return []


def wide_lines(checkout: Path) -> list[str]:
    """Returns the lines of the project's Markdown that are too wide, less tables, which cannot be wrapped."""
    paths = [*sorted(checkout.glob("*.md")), *sorted((checkout / "docs").rglob("*.md"))]
    return [
        f"{path.relative_to(checkout)}:{number}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > WIDE_LINE and not line.lstrip().startswith("|")
    ]


def measure(checkout: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields each figure's name with what it counts."""
    modules = read_modules(checkout)
    yield "arrows between rooms", [f"{one} -> {other}" for one, other in sorted(arrows_between_rooms(modules))]
    found = circles(modules)
    yield "circles of modules", [" <-> ".join(circle) for circle in found]
    yield "modules in circles", [name for circle in found for name in circle]
    yield "public names exported", public_names(modules)
    yield "recurring class names", list(recurring_classes(modules))
    yield "recurring function names", list(recurring_functions(modules))
    yield f"files over {LONG_FILE} lines", long_files(modules)
    yield f"functions over {LONG_FUNCTION} lines", long_functions(modules)
    yield f"Markdown lines over {WIDE_LINE} characters", wide_lines(checkout)


def main() -> None:
    """Prints the table, and with ``--names`` what each figure counts in the last checkout."""
    checkouts = [Path(argument) for argument in sys.argv[1:] if argument != "--names"] or [HERE]
    columns = [dict(measure(checkout)) for checkout in checkouts]
    for figure in columns[-1]:
        print(f"{figure:38}", *(f"{len(column[figure]):6}" for column in columns))
        if "--names" in sys.argv:
            print(*(f"    {name}" for name in columns[-1][figure]), sep="\n")


if __name__ == "__main__":
    main()
