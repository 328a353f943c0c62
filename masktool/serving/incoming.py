"""The body of a request as it comes in, laid where the numbers in it can be used as they are."""

from __future__ import annotations

import numpy as np

BODY = "masktool.body"
"""Key of ASGI's scope under which the body stands, so that nothing behind the guard copies it once more."""
ALIGNMENT = 64
"""Bytes that the numbers behind the JSON begin at a multiple of, as numpy's own arrays do."""


class IncomingBody:
    """The bytes of a body, as far as they have come.

    Args:
        announced: bytes that the client has announced; None where it sends chunks.
        head: bytes of JSON in front of the numbers; 0 where there are none.
    """

    def __init__(self, announced: int | None, head: int) -> None:
        self.size = 0
        self.grown = bytearray()
        self.room: memoryview | None = None
        if announced is not None:  # not in memory before it is written to
            room = np.empty(announced + ALIGNMENT, np.uint8)
            start = -(room.ctypes.data + head) % ALIGNMENT
            self.room = room.data[start : start + announced]

    def add(self, chunk: bytes) -> None:
        """Takes the next bytes."""
        if self.room is None:
            self.grown += chunk
        else:
            self.room[self.size : self.size + len(chunk)] = chunk
        self.size += len(chunk)

    @property
    def content(self) -> memoryview:
        """All bytes that have come."""
        return memoryview(self.grown) if self.room is None else self.room[: self.size]
