"""Which models run beside a session's own, on its device or on the CPU."""

from __future__ import annotations

from pathlib import Path

from masktool.explainers.explaining import GraphsBeside
from masktool.explainers.incremental import IncrementalGraphs, WindowGraphs, Windows
from masktool.runtime.session import MaskedSession


def graphs_for(session: MaskedSession) -> GraphsBeside:
    """Returns the writers of models that run beside a session's own; only those for a device are read at once."""
    if session.device is None:
        return WindowGraphs(write_windows)
    from masktool.embedding.device_graphs import DEVICE_GRAPHS

    return DEVICE_GRAPHS


def write_windows(path: Path, image: str, output: str, windows: Windows) -> IncrementalGraphs:
    """Returns the models that compute a file's output where windows change it alone."""
    from masktool.embedding.incremental.write import write_incremental

    return write_incremental(path, image, output, windows)
