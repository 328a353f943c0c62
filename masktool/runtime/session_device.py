"""The model of a session, and small ones beside it, with inputs and outputs bound to the session's device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from masktool.execution_providers.provider import HOST
from masktool.runtime.device import DeviceArray, DeviceGraph, binding_errors
from masktool.runtime.providers import open_beside
from masktool.runtime.session import MaskedSession


def bind_model(session: MaskedSession, fetched: Sequence[str], kept: Sequence[str] = ()) -> DeviceGraph:
    """Returns the model of a session, bound to its device; :func:`run_bound` runs it.

    Args:
        session: the session.
        fetched: names of the outputs that are copied to the host in every run.
        kept: names of the outputs that stay on the device.
    """
    return DeviceGraph(session.runtime_session(), session.device or HOST, fetched, kept, number_of_device(session))


def run_bound(
    session: MaskedSession, model: DeviceGraph, results: int
) -> tuple[dict[str, np.ndarray], dict[str, DeviceArray]]:
    """Runs a session's model on what was bound to it; counts the results, and checks their number.

    Returns:
        The outputs that are copied to the host, and those that stay on the device, by name.
    """
    session.runtime_session()
    with session.counter.timing(results):
        found = model.run(results)
    session.check_rows(list(found[0]), list(found[0].values()), results)
    return found


def open_on_device(
    session: MaskedSession, graph: bytes, fetched: Sequence[str] = (), kept: Sequence[str] = ()
) -> DeviceGraph:
    """Opens a small ONNX model bound to a session's device; outputs as for :func:`bind_model`."""
    device = session.device or HOST
    with binding_errors(device):
        opened = open_beside(graph, device, session.provider_options, session.threads)
    return DeviceGraph(opened, device, fetched, kept, number_of_device(session))


def number_of_device(session: MaskedSession) -> int:
    """Returns which of several devices a session runs on."""
    return int(session.provider_options.get("device_id", 0))
