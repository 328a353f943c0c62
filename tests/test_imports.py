"""Imports point one way, as DESIGN.md's table says, and nothing heavy is loaded before it is used."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "masktool"
DESIGN = Path(__file__).parents[1] / "DESIGN.md"
FOUNDATION = "foundation"
PACKAGES = {
    "torch": {"torch", "torchvision", "timm", "safetensors"},
    "ONNX": {"onnx", "onnx_ir", "onnxscript"},
    "ONNX Runtime": {"onnxruntime"},
    "numpy": {"numpy"},
    "rich": {"rich"},
}
"""What DESIGN.md's tables call packages of others."""
TORCH, ONNX = PACKAGES["torch"], PACKAGES["ONNX"]


def read_tables():
    """Reads DESIGN.md: which parts of masktool each part may import, and which packages of others it never does."""
    rows = re.findall(r"^\| `([\w]+)(?:\.py|/)` \|(.*)\|$", DESIGN.read_text(encoding="utf-8"), re.M)
    cells = {name: [cell.strip() for cell in rest.split("|")] for name, rest in rows}
    foundation = {name for name, (_, _, *never) in cells.items() if not never}
    allowed, never = {}, {}
    for name, (_, imports, *packages) in cells.items():
        parts = {part.strip("`").removesuffix(".py").removesuffix("/") for part in imports.split(", ") if part}
        allowed[name] = {name} | (parts - {FOUNDATION}) | (foundation if FOUNDATION in parts else set())
        never[name] = set().union(*(PACKAGES[each] for each in "".join(packages).split(", ") if each))
    return allowed, never


MAY_IMPORT, NEVER_IMPORT = read_tables()
"""``__init__`` is left out: it names everything, and loads nothing."""
WITHOUT_TORCH = {"__init__.py", "settings.py"}
"""What a command line needs of ``maskers`` before anything is trained."""


class Import(NamedTuple):
    """One import: the module, and whether it runs when the file is imported."""

    module: str
    line: int
    at_import: bool


class ImportCollector(ast.NodeVisitor):
    """Collects the imports of a file; those under ``if TYPE_CHECKING`` never run, but still point somewhere."""

    def __init__(self, package):
        self.package, self.found, self.typing_only, self.depth = package, [], [], 0

    def visit_FunctionDef(self, node):
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    def visit_AsyncFunctionDef(self, node):
        self.visit_FunctionDef(node)

    def visit_If(self, node):
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            inner = ImportCollector(self.package)
            for statement in node.body:
                inner.visit(statement)
            self.typing_only += inner.found
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def visit_Import(self, node):
        self.found += [Import(alias.name, node.lineno, self.depth == 0) for alias in node.names]

    def visit_ImportFrom(self, node):
        base = ".".join(self.package[: len(self.package) - node.level + 1]) if node.level else ""
        module = ".".join(filter(None, (base, node.module)))
        names = [f"{module}.{alias.name}" for alias in node.names] if module == "masktool" else [module]
        self.found += [Import(name, node.lineno, self.depth == 0) for name in names]


def collect(path):
    collector = ImportCollector(("masktool", *path.relative_to(PACKAGE).parts[:-1]))
    collector.visit(ast.parse(path.read_text(encoding="utf-8")))
    return collector


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_the_tables_are_of_the_parts_that_there_are():
    assert set(MAY_IMPORT) == {part_of(path) for path in FILES}
    assert all(parts <= set(MAY_IMPORT) for parts in MAY_IMPORT.values())
    assert {"onnxruntime", "torch"} <= NEVER_IMPORT["ops"]
    assert "interface" not in MAY_IMPORT["exporters"]


def test_the_tables_have_no_circle():
    done, ahead = set(), set(MAY_IMPORT)
    while ready := {part for part in ahead if MAY_IMPORT[part] - {part} <= done}:
        done, ahead = done | ready, ahead - ready
    assert not ahead


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    part, collector = part_of(path), collect(path)
    allowed, wrong = MAY_IMPORT[part], []
    for found in collector.found + collector.typing_only:
        root, _, rest = found.module.partition(".")
        if root == "masktool" and rest and rest.split(".")[0] not in allowed | {"__version__"}:
            wrong.append(f"line {found.line}: {found.module}")
    for found in collector.found:
        if found.module.split(".")[0] in NEVER_IMPORT.get(part, ()):
            wrong.append(f"line {found.line}: {found.module}")
    assert not wrong


@pytest.mark.parametrize(
    "part",
    ["contract", "errors", "exported_files", "files", "identity", "messages", "option_checks", "progress", "registry"],
)
def test_the_foundation_needs_the_standard_library_alone(part):
    roots = {found.module.split(".")[0] for found in collect(PACKAGE / f"{part}.py").found}
    assert roots <= {*sys.stdlib_module_names, "masktool"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_is_imported_by_maskers_and_inside_the_functions_of_its_exporters_alone(path):
    found = [found for found in collect(path).found if found.module.split(".")[0] in TORCH]
    if path.parent == PACKAGE / "exporters" / "torch_sources":
        found = [one for one in found if one.at_import]
    elif part_of(path) == "maskers" and path.name not in WITHOUT_TORCH:
        found = []
    assert not found


def test_the_collector_sees_what_it_should():
    collector = ImportCollector(("masktool", "runtime"))
    collector.visit(
        ast.parse(
            "import torch\n"
            "from . import session\n"
            "from ..ops.conv import mask_conv\n"
            "from masktool import load\n"
            "def run():\n    from torch import nn\n"
            "if TYPE_CHECKING:\n    import onnx\nelse:\n    import timm\n"
        )
    )
    assert collector.found == [
        Import("torch", 1, True),
        Import("masktool.runtime", 2, True),
        Import("masktool.ops.conv", 3, True),
        Import("masktool.load", 4, True),
        Import("torch", 6, False),
        Import("timm", 10, True),
    ]
    assert collector.typing_only == [Import("onnx", 8, True)]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import masktool", TORCH | ONNX | {"onnxruntime", "numpy", "PIL", "skimage", "rich"}),
        ("import masktool.cli", TORCH | ONNX | {"onnxruntime", "numpy", "PIL", "skimage", "rich"}),
        ("import masktool.runtime", TORCH | ONNX | {"onnxruntime", "skimage"}),
        ("import masktool.datasets", TORCH | ONNX | {"onnxruntime", "skimage"}),
        ("import masktool.explainers", TORCH | ONNX | {"onnxruntime"}),
        ("import masktool.commands.explain", TORCH | ONNX | {"onnxruntime", "rich", "scipy", "skimage"}),
        ("from masktool import MaskedSession, load, explain", TORCH | ONNX | {"onnxruntime"}),
        ("import masktool.exporters", TORCH),
        ("import masktool.maskers", TORCH | ONNX | {"onnxruntime"}),
        ("import masktool.maskers.settings", TORCH | ONNX | {"onnxruntime", "numpy"}),
    ],
)
def test_what_an_import_loads(statement, absent):
    code = f"import sys; {statement}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "masktool" in loaded
    assert not absent & set(loaded)


def test_training_without_torch_says_what_to_install():
    """A bare ModuleNotFoundError before; all else that ``masktool`` exports needs no torch."""
    code = """
import sys
sys.modules["torch"] = None
import masktool
for name in sorted(set(masktool.__all__) - {"train_masker"}):
    getattr(masktool, name)
try:
    masktool.train_masker
except masktool.MasktoolError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "torch is not installed, which masktool.train_masker needs; pip install 'masktool[torch]'\n"
