"""Tables of benchmarks in pages of the site: each stands between two marks, ``<!-- NAME: begin -->`` and its end."""

from __future__ import annotations

from pathlib import Path


def put_table(page: Path, name: str, table: str) -> None:
    """Puts a table between the marks of a page.

    Args:
        page: the page, a Markdown file.
        name: the name in the marks, that of the benchmark.
        table: the table, or other Markdown.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise SystemExit(f"{page}: there is no {begin} with an {end} behind it")
    page.write_text(f"{before}{begin}\n\n{table.strip()}\n\n{end}{after}", encoding="utf-8")
