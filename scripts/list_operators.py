"""Writes docs/operators.md: every operator with a mask rule, from the registry.

python scripts/list_operators.py
"""

from __future__ import annotations

import inspect
from pathlib import Path

from masktool.ops.registry import registered_operators

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operators.md"
INTRODUCTION = """# Operators with a mask rule

Written by `scripts/list_operators.py` from the registry; a test keeps it current. A node that does not depend on the
image needs no rule. A node that does and has none stops the export, which lists every such node. The formulas stand at
the top of each file.

| operator | what its rule does | file |
|---|---|---|
"""


def render_page() -> str:
    """Returns the page."""
    rows = []
    for op_type, (rule, _) in registered_operators().items():
        summary = (inspect.getdoc(rule) or "").splitlines()[0]
        rows.append(f"| {op_type} | {summary} | `{rule.__module__.replace('.', '/')}.py` |\n")
    return INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render_page(), encoding="utf-8")
