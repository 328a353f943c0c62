"""``masktool export --check``: measures an exported file again and says whether it is within its limits."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from masktool.commands.options import console, print_line, say
from masktool.option_names import for_command_line

if TYPE_CHECKING:
    from masktool.exporters.check import ExportCheck
    from masktool.exporters.parity import Verdict
    from masktool.exporters.sources import Source

FAILED = 1
DIGEST_SHOWN = 12
"""Hexadecimal digits of a SHA-256 in the table; JSON holds all of them."""
COLUMNS = ("figure", "value", "limit", "verdict", "what it compares")
VERDICTS = {True: "ok", False: "FAILED", None: "-"}


def run_check(path: Path, source: Source | None, against: Source | None = None, *, as_json: bool) -> int:
    """Measures an exported file, prints its figures, and returns the exit code: 1 where one is beyond its limit."""
    from masktool.interface.check import check_export

    screen = console()
    with screen.status("measuring"):  # on terminals only
        check = check_export(path, source, against=against)
    if as_json:
        click.echo(json.dumps(document_check(path, check), indent=2))
    else:
        for row in align([COLUMNS, *(describe_verdict(verdict) for verdict in check.verdicts)]):
            print_line(row)
    if source is None and against is None:
        hint = (
            f"compared with itself; `masktool export --check {path} SOURCE` compares with {check.metadata.source} too"
        )
        say(hint)
    if check.cause is not None:
        say(check.cause)
    failed = ", ".join(verdict.figure for verdict in check.failed)
    say(f"{path}: " + (f"failed: {failed}" if failed else "every figure is within its limit"))
    return FAILED if failed else 0


def describe_verdict(verdict: Verdict) -> tuple[str, ...]:
    """Returns a verdict on one figure as the cells of a table row."""
    return (
        verdict.figure,
        write_figure(verdict.value),
        write_figure(verdict.limit),
        VERDICTS[verdict.passed],
        verdict.meaning,
    )


def write_figure(value: float | str | None) -> str:
    """Returns a figure, a digest or None as the text of a table cell."""
    if value is None:
        return "-"
    return value[:DIGEST_SHOWN] if isinstance(value, str) else f"{value:.3g}"


def align(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields rows of cells as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def document_check(path: Path, check: ExportCheck) -> dict[str, Any]:
    """Returns the figures as a document, ready for JSON; null stands for a figure that could not be compared."""
    return {
        "path": str(path),
        "passed": not check.failed,
        "source": check.source,
        "cause": None if check.cause is None else for_command_line(check.cause),
        "figures": [dataclasses.asdict(verdict) | {"value": finite(verdict.value)} for verdict in check.verdicts],
        "recorded": dict(check.metadata.parity),
    }


def finite(value: float | str) -> float | str | None:
    """Returns a value unchanged, but None for NaN and infinity, which JSON cannot hold."""
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
