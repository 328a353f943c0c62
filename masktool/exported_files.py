"""The metadata of an exported file, read without ONNX or ONNX Runtime: weights are passed over, not read.

Source: field numbers from onnx.proto; the encoding as in :mod:`masktool.external_weights`.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from masktool.contract import METADATA_PREFIX, MOST_FEATURE_MAPS, Metadata
from masktool.errors import MasktoolError
from masktool.external_weights import KEY, VALUE, fields
from masktool.messages import call, parameter

MASKED_MARK = f"{METADATA_PREFIX}schema_version".encode()
"""Bytes that every masked file holds: protocol buffers hold strings as they are, so that no parsing is needed."""
LAST = "last"
"""In place of a feature map's name: the last one; of a head's, the last one behind which a head may begin."""
METADATA_PROPS = 14
"""Number of the field of an ONNX model that holds metadata: a key and its value."""


def name_feature_maps(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Returns the names of feature maps, of which a user gave one, several or none.

    Raises:
        MasktoolError: something given is no name, a name stands twice, or there are too many.
    """
    one = given is None or isinstance(given, str) or not isinstance(given, Sequence)
    names: tuple[Any, ...] = () if given is None else (given,) if one else tuple(given)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise MasktoolError(
            "not feature maps", where=parameter("feature_map"), expected="names, each of them once", got=repr(given)
        )
    if len(names) > MOST_FEATURE_MAPS:
        raise MasktoolError(
            "too many feature maps",
            where=parameter("feature_map"),
            expected=f"at most {MOST_FEATURE_MAPS}",
            got=len(names),
        )
    return names


def is_masked(path: Path) -> bool:
    """Tells whether a file is one that ``masktool export`` wrote."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(MASKED_MARK) >= 0


def metadata_of(path: Path) -> Metadata | None:
    """Returns the metadata of a file; None for one that ``masktool export`` did not write.

    Raises:
        MasktoolError: the file is no ONNX model, or its metadata are damaged or of a newer schema.
    """
    if not is_masked(path):
        return None
    properties = {}
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            for field, start, end in fields(content, 0, len(content)):
                if field == METADATA_PROPS:
                    entry = {part: content[first:last] for part, first, last in fields(content, start, end)}
                    properties[entry.get(KEY, b"").decode()] = entry.get(VALUE, b"").decode()
        except (IndexError, ValueError) as error:
            raise MasktoolError(
                "not an ONNX model", where=path, got=error, fix="the file may be damaged, truncated or of another kind"
            ) from error
    return Metadata.from_properties(properties)


def count_file_bytes(path: Path) -> int:
    """Returns the size of an exported file in bytes, with the weights beside it."""
    beside = path.with_name(path.name + ".data")
    return sum(each.stat().st_size for each in (path, beside) if each.exists())


def find_head_file(path: Path, metadata: Metadata) -> Path:
    """Returns the path of the file beside an exported one that holds its head.

    Raises:
        MasktoolError: the file has no head, or it is missing or of another export.
    """
    again = call("export", metadata.source, "NEW.onnx", head=metadata.feature_map if metadata.head else LAST)
    if metadata.head is None:
        raise MasktoolError("the file was exported without a head", where=path, fix="export it with one: " + again)
    head = path.parent / metadata.head
    if head.name != metadata.head or not head.is_file():
        raise MasktoolError(
            "the file's head is missing",
            where=path,
            expected=f"{metadata.head} beside it",
            fix="put it there, or export both again: " + again,
        )
    found = metadata_of(head)
    of_file = (metadata.feature_map, metadata.source_sha256, metadata.masking, metadata.rule)
    if found is None or (found.behind, found.source_sha256, found.masking, found.rule) != of_file:
        raise MasktoolError(
            "the head beside the file is of another export", where=head, fix="export both again: " + again
        )
    return head
