"""docs/operators.md says what the registry says."""

import re

from list_operators import PAGE, render_page


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_page(), "run python scripts/list_operators.py"


def test_every_row_has_four_cells() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
