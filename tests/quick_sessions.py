"""ONNX Runtime's sessions in tests: on one thread, where a test does not say how many.

Tests run in as many processes as there are cores, whose threads would only wait for one another, spinning: a sixth of
the processors' time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnxruntime


def run_sessions_on_one_thread() -> None:
    """Lets every session of this process that is opened from now on, and leaves the number open, have one thread."""
    import onnxruntime  # once masktool is, which turns its telemetry off

    open_session = onnxruntime.InferenceSession.__init__

    def open_on_one_thread(
        self: onnxruntime.InferenceSession, model: Any, sess_options: Any = None, *more: Any, **options: Any
    ) -> None:
        chosen = onnxruntime.SessionOptions() if sess_options is None else sess_options
        if chosen.intra_op_num_threads == 0:
            chosen.intra_op_num_threads = 1
        open_session(self, model, chosen, *more, **options)

    onnxruntime.InferenceSession.__init__ = open_on_one_thread
