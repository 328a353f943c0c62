"""ONNX Runtime's telemetry, which is off unless the user says otherwise."""

from __future__ import annotations

import os

TELEMETRY_SWITCH = "ORT_DISABLE_TELEMETRY"
"""Environment variable that ONNX Runtime reads once, at import; set later, a device identifier is already stored."""


def switch_off_telemetry() -> None:
    """Switches ONNX Runtime's telemetry off for this process, unless its environment variable is set and not empty."""
    if not os.environ.get(TELEMETRY_SWITCH):
        os.environ[TELEMETRY_SWITCH] = "1"
