"""``masktool cache``: lists and removes the exports that are kept."""

from __future__ import annotations

import json

import click

from masktool.commands.options import json_option, print_line, say
from masktool.exporters.cache import cache_directory
from masktool.interface.cache_entries import (
    CacheEntry,
    clear_cache,
    list_cache,
    read_limit,
    total_bytes,
)
from masktool.printable import describe_bytes


@click.group("cache", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List or remove the exports that are kept.

    `explain` and `evaluate` export a model that is not masked yet into the cache. When one is made, those that were
    used least recently go until the cache is within $MASKTOOL_CACHE_LIMIT (such as 20 GB, or none; 10 GB by default).
    """


@command.command("list")
@json_option
def list_kept(as_json: bool) -> None:
    """List the kept exports: source, size, last use, and whether each is still valid."""
    entries, limit = list_cache(), read_limit()
    if as_json:
        document = {
            "directory": str(cache_directory()),
            "limit": limit,
            "bytes": total_bytes(entries),
            "entries": [document_entry(entry) for entry in entries],
        }
        click.echo(json.dumps(document, indent=2))
        return
    for entry in entries:
        print_line(f"{entry.describe()}: {entry.obstacle or 'valid'}; made from {entry.source or 'what is not known'}")
    held = f"{len(entries)} entries, {describe_bytes(total_bytes(entries))}" if entries else "empty"
    print_line(f"{cache_directory()}: {held}; limit {'none' if limit is None else describe_bytes(limit)}")


@command.command("clear")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def clear(names: tuple[str, ...]) -> None:
    """Remove kept exports: those named as the list names them, all without a name. Prints what was removed."""
    removed = clear_cache(names or None)
    for entry in removed:
        print_line(entry.name)
    say(f"removed {describe_bytes(total_bytes(removed))}" if removed else "nothing to remove")


def document_entry(entry: CacheEntry) -> dict[str, object]:
    """Returns an entry of the cache as a document, ready for JSON."""
    return {
        "name": entry.name,
        "path": str(entry.path),
        "source": entry.source,
        "bytes": entry.n_bytes,
        "last_used": entry.last_used,
        "obstacle": entry.obstacle,
    }
