"""Tables of benchmarks take their place in the pages that have one for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pages import put_table

ROOT = Path(__file__).parents[1]


def test_a_table_takes_its_place_in_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter\n")
    for _ in range(2):
        put_table(page, "a", "| new |\n")
    assert page.read_text() == "before\n<!-- a: begin -->\n\n| new |\n\n<!-- a: end -->\nafter\n"
    with pytest.raises(SystemExit, match="there is no <!-- b: begin -->"):
        put_table(page, "b", "| new |")


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("README.md", "benchmarks.masked_forward"),
        *(("docs/performance.md", f"benchmarks.{name}") for name in ("gpu", "masked_forward")),
        *(("docs/performance.md", f"benchmarks.peers.{stage}") for stage in ("equal", "default", "quality")),
    ],
)
def test_the_page_has_a_place_for_the_table(page, name):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert 0 <= text.index(f"<!-- {name}: begin -->") < text.index(f"<!-- {name}: end -->")
