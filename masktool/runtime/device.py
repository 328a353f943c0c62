"""Runs graphs whose inputs and outputs stay on the device: what goes in is copied once, buffers are used again.

ONNX Runtime calls this io binding. Memory on a device is asked for through a session alone, since for some providers
(WebGPU's among them) Python can get it in no other way: a first run leaves its outputs there, later runs of as many
rows write into the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from masktool.errors import MasktoolError
from masktool.execution_providers.provider import HOST
from masktool.runtime.importing import import_onnxruntime
from masktool.runtime.native_log import runtime_reason


class BindingError(MasktoolError):
    """A graph that is bound to a device cannot be run there."""


class DeviceArray(NamedTuple):
    """An output that stayed on the device; it holds its values until the graph that gave it runs again.

    Attributes:
        value: value of ONNX Runtime's.
        length: length of its first axis.
    """

    value: Any
    length: int


@contextlib.contextmanager
def binding_errors(device: str) -> Iterator[None]:
    """Raises whatever ONNX Runtime raises within the block as a BindingError that names the device."""
    try:
        yield
    except Exception as error:  # ONNX Runtime has one exception class per status code and no common base
        raise BindingError(
            "ONNX Runtime could not run a model bound to a device",
            where=device,
            got=runtime_reason(error),
            fix="try a smaller batch",
        ) from error


Bindable = np.ndarray | DeviceArray


class DeviceGraph:
    """A graph that is run many times, with inputs and outputs bound to a device.

    Args:
        session: session of ONNX Runtime.
        device: ONNX Runtime's name of the device.
        fetched: names of the outputs that are copied to the host in every run.
        kept: names of the outputs that stay on the device; their first axis is that of the rows of a run.
        number: number of the device among several of its kind.
    """

    def __init__(
        self, session: Any, device: str, fetched: Sequence[str] = (), kept: Sequence[str] = (), number: int = 0
    ) -> None:
        self._session, self._device, self._number = session, device, number
        self._fetched, self._kept = tuple(fetched), tuple(kept)
        with binding_errors(self._device):
            self._binding = session.io_binding()
        self._rows = 0
        self._inputs: dict[str, Any] = {}
        self._buffers: dict[str, Any] = {}

    def bind(self, values: Mapping[str, Bindable]) -> None:
        """Binds inputs by name until they are bound anew; arrays are copied to the device now."""
        with binding_errors(self._device):
            for name, value in values.items():
                bound = value.value if isinstance(value, DeviceArray) else self._on_host(value)
                self._binding.bind_ortvalue_input(name, bound)
                self._inputs[name] = bound  # a binding does not keep an array's memory

    def run(self, rows: int) -> tuple[dict[str, np.ndarray], dict[str, DeviceArray]]:
        """Runs the graph on what is bound.

        Args:
            rows: length of the first axis of the outputs that stay on the device.

        Returns:
            The outputs that are copied to the host, and those that stay on the device, by name.

        Raises:
            BindingError: the graph cannot be run there.
        """
        with binding_errors(self._device):
            self._bind_outputs(rows)
            self._session.run_with_iobinding(self._binding)
            found = dict(zip([*self._fetched, *self._kept], self._binding.get_outputs(), strict=True))
            on_host = {name: found[name].numpy() for name in self._fetched}
        self._rows, self._buffers = rows, {name: found[name] for name in self._kept}
        return on_host, {name: DeviceArray(value, rows) for name, value in self._buffers.items()}

    @staticmethod
    def _on_host(array: np.ndarray) -> Any:
        """Returns an array as a value of ONNX Runtime's; ``bind_cpu_input`` knows no inputs that have a default."""
        return import_onnxruntime().OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))

    def _bind_outputs(self, rows: int) -> None:
        """Binds outputs: to the memory of the run before where that had as many rows, else to what is given anew."""
        self._binding.clear_binding_outputs()
        for name in self._fetched:
            self._binding.bind_output(name, HOST)
        for name in self._kept:
            if rows == self._rows:
                self._binding.bind_ortvalue_output(name, self._buffers[name])
            else:
                self._binding.bind_output(name, self._device, self._number)
