"""docs/operators.md says what the registry says."""

from list_operators import PAGE, render_page


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_page(), "run python scripts/list_operators.py"
