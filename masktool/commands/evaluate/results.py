"""How an evaluation is shown: tables on stdout, problems on stderr."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from masktool.commands import options
from masktool.datasets.dataset import Problem
from masktool.evaluation.bootstrap import Interval
from masktool.evaluation.findings import Cell, Evaluation, Table
from masktool.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

PROBLEMS_SHOWN = 10
UNBOUNDED = 10_000
"""Columns of the console where stdout is no terminal: nothing is wrapped or cut."""


def print_tables(evaluation: Evaluation) -> None:
    """Prints the tables and notes on stdout, at their full width where stdout is no terminal."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=UNBOUNDED)
    with console.capture() as capture:  # rich ends the process where nobody reads
        for table in evaluation.findings.tables:
            print_table(console, table, evaluation.n_images)
        for note in evaluation.findings.notes:
            console.print(printable(f"Note: {note}"))
    options.print_beside_files(capture.get().removesuffix("\n"))


def print_table(console: Console, table: Table, n_images: int) -> None:
    """Prints one table under its caption; columns of numbers are aligned right."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, heading in enumerate(table.columns):
        grid.add_column(Text(printable(heading)), justify="right" if table.is_numeric(position) else "left")
    for row in table.rows:
        grid.add_row(*(Text(printable(show_cell(cell, n_images))) for cell in row))
    console.print(printable(f"{table.name}: {table.caption}"), style="bold")
    console.print(grid)


def show_cell(cell: Cell, n_images: int) -> str:
    """Returns a cell as text; a figure that is not defined for every image says for how many it is."""
    if cell is None:
        return ""
    if isinstance(cell, Interval) and 0 < cell.n != n_images:
        return f"{cell} (n={cell.n})"
    if isinstance(cell, float):
        return "undefined" if math.isnan(cell) else f"{cell:.3f}"
    return str(cell)


def print_problems(problems: Sequence[Problem]) -> None:
    """Writes the number of problems, and the first of them one by one, on stderr."""
    if not problems:
        return
    ordered = sorted(problems, key=lambda problem: (problem.where, problem.what))
    options.say(f"{len(ordered)} problem{'s' if len(ordered) > 1 else ''} with the data:")
    for problem in ordered[:PROBLEMS_SHOWN]:
        options.say(f"  {problem.where}: {problem.what}")
    if len(ordered) > PROBLEMS_SHOWN:
        options.say(f"  and {len(ordered) - PROBLEMS_SHOWN} more")
