"""One file of Parquet for all photographs of a run, written group of rows by group, so that it may be of any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from masktool.files import atomic_path
from masktool.interface.folders.work import MAP
from masktool.interface.rows import Row, arrow_schema, arrow_table

TABLE = "results.parquet"
MOST_ROWS = 128
MOST_NUMBERS = 4_000_000
"""Rows, and numbers of their maps, of which a group is full: 16 MB of maps in memory at a time."""
COMPRESSION = "zstd"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as Parquet; the same rows give the same bytes with the same version of pyarrow.

    Raises:
        MasktoolError: the file cannot be written, or pyarrow is not installed.
    """
    schema = arrow_schema()
    import pyarrow.parquet as parquet

    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as stream,
        parquet.ParquetWriter(stream, schema, compression=COMPRESSION) as writer,
    ):
        for group in group_rows(rows):
            writer.write_table(arrow_table(group), row_group_size=MOST_ROWS)


def group_rows(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yields rows in groups that are full by what they hold alone."""
    group: list[Row] = []
    numbers = 0
    for row in rows:
        group.append(row)
        numbers += 0 if row[MAP] is None else len(row[MAP])
        if len(group) >= MOST_ROWS or numbers >= MOST_NUMBERS:
            yield group
            group, numbers = [], 0
    if group:
        yield group
