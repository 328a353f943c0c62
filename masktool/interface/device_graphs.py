"""Which models run beside a session's own on its device."""

from __future__ import annotations

from masktool.explainers.on_device import DeviceGraphs
from masktool.runtime.session import MaskedSession


def graphs_for(session: MaskedSession) -> DeviceGraphs | None:
    """Returns the writers of models that run beside a session's own; None where it has no device for them."""
    if session.device is None:
        return None
    from masktool.embedding.device_graphs import DEVICE_GRAPHS

    return DEVICE_GRAPHS
