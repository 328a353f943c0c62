"""What native code writes on file descriptor 2, and the reason for a failure in it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

from masktool.errors import first_line

SOURCE_PLACE = re.compile(r"^/\S+\.(?:cc|h):\d+ (?:.* was false\. |.*?\)(?: const)? (?=[A-Z\[]))")
"""Where in its sources ONNX Runtime found a fault, with the function and the condition, in front of its message."""

_REDIRECTING = threading.RLock()


@contextlib.contextmanager
def native_stderr() -> Iterator[io.StringIO]:
    """Yields a buffer that holds, once the block has ended, what native code wrote on file descriptor 2.

    Without a usable descriptor (a windowed application) nothing is collected. One thread at a time: of two that
    overlapped, the one that ended last would put back the other's sink for good.
    """
    with _REDIRECTING:
        yield from collect_stderr()


def collect_stderr() -> Iterator[io.StringIO]:
    """Does what :func:`native_stderr` does, for one thread at a time."""
    text = io.StringIO()
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, AttributeError):
        yield text
        return
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield text
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            sink.seek(0)
            text.write(sink.read().decode(errors="replace"))


def read_reason(log: str) -> str:
    """Returns the reason for a failure from ONNX Runtime's log: the loader's message, else the first error."""
    if found := re.search(r"with error: (.+)", log):
        return found[1].strip()
    if found := re.search(r"\[E:onnxruntime:[^\]]*\] *(.+)", log):
        return without_source_place(found[1].removesuffix("\x1b[m").strip())
    return ""


def runtime_reason(error: BaseException) -> str:
    """Returns the first line of an error's text, without the status and the path that ONNX Runtime puts in front."""
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", first_line(error))
    return without_source_place(re.sub(r"^Load model from .* failed: ?", "", line))


def without_source_place(text: str) -> str:
    """Returns a message without the place in ONNX Runtime's sources in front of it."""
    return SOURCE_PLACE.sub("", text)
