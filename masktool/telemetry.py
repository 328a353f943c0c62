"""ONNX Runtime's telemetry, which is off unless the user says otherwise."""

from __future__ import annotations

import os

TELEMETRY_SWITCH = "ORT_DISABLE_TELEMETRY"
"""ONNX Runtime reads it once, when it is imported: off later still leaves a device identifier in the user's cache."""


def switch_off_telemetry() -> None:
    """Switches it off for this process, unless the variable has a value; ONNX Runtime takes an empty one for none."""
    if not os.environ.get(TELEMETRY_SWITCH):
        os.environ[TELEMETRY_SWITCH] = "1"
