"""The import of ONNX Runtime, which happens when a session is opened and not before."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from masktool.errors import MasktoolError
from masktool.runtime.native_log import native_stderr


def import_onnxruntime() -> Any:
    """Imports ONNX Runtime, without the warnings about devices that it writes on some machines.

    Raises:
        MasktoolError: ONNX Runtime is missing or broken.
    """
    try:
        with contextlib.nullcontext() if "onnxruntime" in sys.modules else native_stderr():
            import onnxruntime

        _ = onnxruntime.InferenceSession  # absent when two distributions were installed over each other
    except (ImportError, AttributeError) as error:
        raise MasktoolError(
            "ONNX Runtime cannot be imported", got=error, fix="`masktool doctor` tells how to mend it"
        ) from error
    return onnxruntime
