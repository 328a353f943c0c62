"""Mutation testing of the operators' rules: is a fault in them noticed?

One small change is made to a rule's source, and the tests of the rules run on it, the contract tests first and then
random networks. A change that none of them notices is a survivor: a test that is missing, or a change that means
nothing. ``mutmut`` was weighed: it wraps every function in a trampoline, under which rules register by another name,
and copies the whole project for each run; what is needed here is a hundred lines.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[1]
RULES = PROJECT / "masktool" / "ops"
TESTS = (
    "tests/ops/test_mask_rules.py",
    "tests/ops/test_gradient_rules.py",
    "tests/ops/test_gradients_against_torch.py",
    "tests/test_partial.py",
)
NETWORKS = 30
"""Random networks that a mutant which the tests let pass is tried on."""
PATIENCE = 300.0
"""Seconds after which a mutant that is still running counts as noticed: it loops."""
COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
COMPARISONS |= {ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv}
UNTESTED_CALLS = frozenset({"add_samples", "RuleError", "Sample"})
"""Samples are tests themselves, and the words of a refusal are no behaviour."""


@dataclasses.dataclass(frozen=True)
class SourceMutant:
    """One change of one file.

    Attributes:
        path: of the file.
        line: that is changed.
        before: the expression or statement as it stands.
        after: what it becomes.
        source: of the whole file, changed.
    """

    path: Path
    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(PROJECT)}:{self.line}: {self.before}  ->  {self.after}"


def list_mutants(path: Path) -> list[SourceMutant]:
    """Returns every mutant of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [mutant for node in rule_code(tree) for mutant in mutate_node(path, tree, node)]


def rule_code(tree: ast.Module) -> Iterator[ast.AST]:
    """Yields the nodes of functions, but for annotations, docstrings, samples and the words of errors."""
    waiting: list[ast.AST] = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef):
            waiting += [each for each in node.body if not is_text(each)]
        elif not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in UNTESTED_CALLS):
            parts = ast.iter_child_nodes(node)
            skipped = getattr(node, "annotation", None)
            waiting += [each for each in parts if each is not skipped and not is_text(each) and not is_strict(each)]


def is_text(node: ast.AST) -> bool:
    """Tells whether a statement is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def is_strict(node: ast.AST) -> bool:
    """Tells whether a node is ``strict=True``, which changes nothing where lengths are the same."""
    return isinstance(node, ast.keyword) and node.arg == "strict"


def mutate_node(path: Path, tree: ast.Module, node: ast.AST) -> Iterator[SourceMutant]:
    """Yields the file with one node changed, for every change that there is for it."""
    for change in CHANGES:
        changed = change(copy.deepcopy(node))
        if changed is None:
            continue
        source = ast.unparse(replaced(tree, node, changed))
        yield SourceMutant(path, getattr(node, "lineno", 0), line_of_source(node), line_of_source(changed), source)


def replaced(tree: ast.Module, old: ast.AST, new: ast.AST) -> ast.Module:
    """Returns a copy of a tree with one node in the place of another."""

    class Replacer(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return new if node is old else self.generic_visit(node)

    memo = {id(old): old}  # the copy keeps the node itself, by which it is found
    changed = Replacer().visit(copy.deepcopy(tree, memo))
    assert isinstance(changed, ast.Module)  # its root is no node that is changed
    return ast.fix_missing_locations(changed)


def line_of_source(node: ast.AST) -> str:
    """Returns a node as source, shortened to a line."""
    return ast.unparse(node).splitlines()[0][:90]


def change_comparison(node: ast.AST) -> ast.AST | None:
    """Turns < into <=, == into != and so on."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        node.ops[0] = COMPARISONS[type(node.ops[0])]()
        return node
    return None


def change_arithmetic(node: ast.AST) -> ast.AST | None:
    """Turns + into - and so on; texts that are joined are left alone."""
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        node.op = ARITHMETIC[type(node.op)]()
        return node
    return None


def change_logic(node: ast.AST) -> ast.AST | None:
    """Turns and into or, and the other way round."""
    if isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return node
    return None


def drop_not(node: ast.AST) -> ast.AST | None:
    """Drops a not, or a minus."""
    return node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub) else None


def negate_condition(node: ast.AST) -> ast.AST | None:
    """Takes the other branch."""
    if isinstance(node, ast.If | ast.IfExp):
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return node
    return None


def change_number(node: ast.AST) -> ast.AST | None:
    """Adds 1 to a number, or turns a truth value round."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, bool | int | float):
        return None
    return ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)


def change_operator(node: ast.AST) -> ast.AST | None:
    """Emits another ONNX operator than a rule names."""
    swapped = {"Mul": "Add", "Add": "Sub", "Min": "Max", "Max": "Min", "Sub": "Add", "Div": "Mul", "Where": "Where"}
    swapped |= {
        "ReduceSum": "ReduceMean",
        "ReduceMean": "ReduceSum",
        "ReduceMax": "ReduceMin",
        "MaxPool": "AveragePool",
    }
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and swapped.get(node.value, node.value) != node.value
    ):
        return ast.Constant(swapped[node.value])
    return None


def drop_statement(node: ast.AST) -> ast.AST | None:
    """Leaves out a call that is made for its effect."""
    return ast.Pass() if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None


CHANGES: tuple[Callable[[ast.AST], ast.AST | None], ...] = (
    *(change_comparison, change_arithmetic, change_logic, drop_not),
    *(negate_condition, change_number, change_operator, drop_statement),
)


class MutantLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from changed source; its cached byte code is that of the unchanged one, and is passed by."""

    def __init__(self, name: str, mutant: SourceMutant) -> None:
        super().__init__(name, str(mutant.path))
        self.mutant = mutant

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - importlib's signature
        """Returns the changed code."""
        code: CodeType = compile(self.mutant.source, str(self.mutant.path), "exec")
        return code


class MutantFinder(importlib.abc.MetaPathFinder):
    """Finds the changed module, and leaves all others to Python."""

    def __init__(self, mutant: SourceMutant) -> None:
        self.mutant = mutant
        self.name = ".".join(mutant.path.relative_to(PROJECT).with_suffix("").parts)

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        """Finds that one module."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_loader(fullname, MutantLoader(fullname, self.mutant))


class OwnTestsFirst:
    """A pytest plugin that runs the tests which name an operator of the changed module before all others."""

    def __init__(self, mutant: SourceMutant) -> None:
        texts = {node.value for node in ast.walk(ast.parse(mutant.source)) if isinstance(node, ast.Constant)}
        self.operators = {text for text in texts if isinstance(text, str) and text.isalnum() and text[0].isupper()}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Puts them first."""
        items.sort(key=lambda item: self.operators.isdisjoint(re.findall(r"\w+", item.name)))


def is_noticed(mutant: SourceMutant) -> bool:
    """Tells whether the tests or the random networks notice a mutant, in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=try_mutant, args=(mutant,))
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode != 0


def try_mutant(mutant: SourceMutant) -> None:
    """Runs in the child: ends it with 0 where nothing was noticed."""
    assert not any(name.startswith("masktool.ops") for name in sys.modules)  # the parent must not have imported it
    sys.meta_path.insert(0, MutantFinder(mutant))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.chdir(PROJECT)
    if pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *TESTS], [OwnTestsFirst(mutant)]) != 0:
        os._exit(1)
    os._exit(0 if all(network_is_right(seed) for seed in range(NETWORKS)) else 1)


def network_is_right(seed: int) -> bool:
    """Tells whether a random network, with its gradients, is exact or refused as it is with the unchanged rules."""
    from fuzz.networks.drawing import draw_network, prune
    from fuzz.networks.judge import judge_network

    return judge_network(prune(draw_network(seed)), gradient=seed % 2 == 0).verdict == "exact"


def sample_mutants(count: int, seed: int) -> list[SourceMutant]:
    """Returns a random sample of all mutants of all rules; all of them where they are fewer."""
    every = [mutant for path in sorted(RULES.glob("*.py")) for mutant in list_mutants(path)]
    chosen = np.random.default_rng(seed).permutation(len(every))[:count]
    return [every[index] for index in sorted(chosen)]
