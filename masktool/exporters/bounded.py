"""A run of a network that is ended where it takes too long, or where the user ends it.

ONNX Runtime returns to Python only when a run is over: until then Python handles neither Ctrl-C nor SIGTERM. So the
run has a thread of its own, and the thread that waits for it tells it to terminate. ONNX Runtime looks for that between
nodes and between rounds of a Loop; a single node is never interrupted, and such a thread is left behind.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import onnxruntime

from masktool.errors import MasktoolError
from masktool.exporters.runnable import Outputs, RunnableModel
from masktool.limits import LIMITS, advise_limit, limit

GRACE = 10.0
"""Seconds in which a run that was told to terminate should do so."""
MORE = 10
"""Factor by which the limit that a message proposes is larger than the one that was reached."""


class TimeLimitError(MasktoolError):
    """Raised where a run was ended; to try the network on something else would take as long again."""


def run_within_limit(
    runnable: RunnableModel, run: Callable[[RunnableModel], Outputs], images: int, where: object
) -> Outputs:
    """Returns the outputs of a run that is ended once it takes longer than the limit.

    Args:
        runnable: the network to run.
        run: the function that runs the network it is given.
        images: the number of images that the network runs on, each of which may take as long as the limit says.
        where: what the network runs on, for the message.

    Raises:
        TimeLimitError: the run took longer than the limit, and was ended.
    """
    options = onnxruntime.RunOptions()
    results: list[Outputs] = []
    errors: list[BaseException] = []
    ended = threading.Event()

    def work() -> None:
        try:
            results.append(run(dataclasses.replace(runnable, options=options)))
        except BaseException as error:  # raised again where it is waited for
            errors.append(error)
        finally:
            ended.set()

    threading.Thread(target=work, name="masktool-run", daemon=True).start()
    try:
        in_time = ended.wait(limit("seconds") * images)
    finally:
        if not ended.is_set():
            options.terminate = True
            ended.wait(GRACE)
    if not in_time:
        raise too_long(where)
    if errors:
        raise errors[0]
    return results[0]


def too_long(where: object) -> TimeLimitError:
    """Returns the error of a run that took too long."""
    seconds = limit("seconds")
    return TimeLimitError(
        "the network runs without end, or for long",
        where=where,
        expected=f"at most {seconds} {LIMITS['seconds'].what}",
        got="none by then",
        fix=advise_limit("seconds", MORE * seconds),
    )
