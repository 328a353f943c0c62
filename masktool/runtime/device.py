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
        self._rows = 0
        self._inputs: dict[str, Any] = {}
        self._start()

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
            if self._rows not in (0, rows):
                self._start()
            for name in self._fetched:
                self._binding.bind_output(name, HOST)
            self._session.run_with_iobinding(self._binding)
            found = dict(zip([*self._kept, *self._fetched], self._binding.get_outputs(), strict=True))
            on_host = {name: found[name].numpy() for name in self._fetched}
        self._rows = rows
        return on_host, {name: DeviceArray(found[name], rows) for name in self._kept}

    @staticmethod
    def _on_host(array: np.ndarray) -> Any:
        """Returns an array as a value of ONNX Runtime's; ``bind_cpu_input`` knows no inputs that have a default."""
        return import_onnxruntime().OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))

    def _start(self) -> None:
        """Makes a new binding with the inputs that are bound: its next run takes new memory for the outputs.

        Later runs write into that again. Clearing the outputs of one binding instead would free what ONNX Runtime 1.25
        gave of them to Python, and end the process.
        """
        with binding_errors(self._device):
            self._binding = self._session.io_binding()
            for name, value in self._inputs.items():
                self._binding.bind_ortvalue_input(name, value)
            for name in self._kept:
                self._binding.bind_output(name, self._device, self._number)
