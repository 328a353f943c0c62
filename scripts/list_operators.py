"""Writes docs/operators.md: every operator with a mask rule or a gradient rule, from the registries.

python scripts/list_operators.py
"""

from __future__ import annotations

import inspect
from pathlib import Path

from masktool.ops.gradients import GRADIENT_RULES
from masktool.ops.graph import MASK_RULES
from masktool.ops.slopes import SLOPES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operators.md"
BAR = "\\|"
"""A bar within a cell; a bare one ends it, in code too."""
INTRODUCTION = """# Operators

Written by `scripts/list_operators.py` from the registries; a test keeps it current. A node that does not depend on the
image needs no rule. A node that does and has none stops the export, which lists every such node. The formulas stand at
the top of each file.

| operator | what its mask rule does | what its gradient rule does | file |
|---|---|---|---|
"""


def render_page() -> str:
    """Returns the page."""
    return INTRODUCTION + "".join(map(render_row, sorted(MASK_RULES.keys() | GRADIENT_RULES.keys())))


def render_row(op_type: str) -> str:
    """Returns what the rules of one operator do, and where they stand."""
    mask, gradient = MASK_RULES.get(op_type), GRADIENT_RULES.get(op_type)
    backwards = summary(gradient)
    if op_type in SLOPES:
        backwards = f"{backwards.removesuffix('.')}, {summary(SLOPES[op_type])}"
    known = mask or gradient
    assert known is not None
    file = known.__module__.replace(".", "/")
    cells = (op_type, summary(mask), backwards, f"`{file}.py`")
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |\n"


def summary(rule: object) -> str:
    """Returns the first line of a rule's docstring; nothing for none."""
    return "" if rule is None else (inspect.getdoc(rule) or "").splitlines()[0]


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render_page(), encoding="utf-8")
