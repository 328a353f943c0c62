"""Writes docs/operators.md: every operator with a mask rule or a gradient rule, from the registries.

python scripts/list_operators.py
"""

from __future__ import annotations

import inspect
from pathlib import Path

from masktool.ops.gradients import GRADIENT_RULES
from masktool.ops.graph import MASK_RULES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operators.md"
INTRODUCTION = """# Operators

Written by `scripts/list_operators.py` from the registries; a test keeps it current. A node that does not depend on the
image needs no rule. A node that does and has none stops the export, which lists every such node. The formulas stand at
the top of each file.

| operator | what its mask rule does | what its gradient rule does | file |
|---|---|---|---|
"""


def render_page() -> str:
    """Returns the page."""
    rows = []
    for op_type in sorted(MASK_RULES.keys() | GRADIENT_RULES.keys()):
        known = [rule for rules in (MASK_RULES, GRADIENT_RULES) if (rule := rules.get(op_type)) is not None]
        file = f"`{known[0].__module__.replace('.', '/')}.py`"
        rows.append(
            f"| {op_type} | {summary(MASK_RULES.get(op_type))} | {summary(GRADIENT_RULES.get(op_type))} | {file} |\n"
        )
    return INTRODUCTION + "".join(rows)


def summary(rule: object) -> str:
    """Returns the first line of a rule's docstring; nothing for none."""
    return "" if rule is None else (inspect.getdoc(rule) or "").splitlines()[0]


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render_page(), encoding="utf-8")
