"""What a server is fed while it loads a file, so that the first request finds everything ready; tried here first.

A warm-up that fails keeps Triton from loading the model, so each is run in ONNX Runtime before it is written, with two
images where requests may share a run: an output that then has another number of rows forbids that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from masktool.contract import EXPLAIN_INPUT, MASK_INPUT
from masktool.deployment.batch_plan import BatchPlan
from masktool.deployment.file_interface import FileInterface, ServedTensor
from masktool.errors import MasktoolError
from masktool.layouts import SPATIAL_AXES, layouts_of_rank
from masktool.runtime.native_log import runtime_reason
from masktool.runtime.session import MaskedSession

ROWS = 2
"""Images in the trial of a batch: the fewest by which a row for each image differs from one row."""


@dataclasses.dataclass(frozen=True)
class WarmUp:
    """One request that a server makes of itself.

    Attributes:
        name: name, shown in the server's log.
        values: values of the required inputs by name, of one image.
    """

    name: str
    values: Mapping[str, np.ndarray]


def list_warm_ups(session: MaskedSession, interface: FileInterface) -> tuple[WarmUp, ...]:
    """Returns the warm-ups of a file: images of zeros; where it explains on request, with an explanation and without.

    None where an input has an open length of which nothing is known.
    """
    values = {}
    for each in interface.required:
        shape = choose_shape(session, interface, each)
        if shape is None:
            return ()
        values[each.name] = make_value(interface, each, shape)
    if EXPLAIN_INPUT not in values:
        return (WarmUp("zeros", values),)
    asked = values | {EXPLAIN_INPUT: np.ones_like(values[EXPLAIN_INPUT])}
    return WarmUp("answer", values), WarmUp("explanation", asked)


def choose_shape(session: MaskedSession, interface: FileInterface, tensor: ServedTensor) -> tuple[int, ...] | None:
    """Returns the shape of an input for one image; None where a length other than the number of rows is not known."""
    shape = list(tensor.shape)
    if interface.metadata.takes_photograph and tensor.name == interface.metadata.image_input:
        shape[:2] = interface.size or (None, None)
    elif tensor.name in (interface.metadata.image_input, MASK_INPUT) and len(shape) == len(session.layout):
        first, _ = layouts_of_rank(len(shape))
        axes = SPATIAL_AXES[first if tensor.name == MASK_INPUT else session.layout]
        for axis, length in zip(axes, interface.size or [None] * len(axes), strict=True):
            shape[axis] = shape[axis] or length
    if shape and shape[0] is None:
        shape[0] = 1
    return None if None in shape else tuple(length or 1 for length in shape)


def make_value(interface: FileInterface, tensor: ServedTensor, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the value of an input: zeros, or where it is a number of steps, one."""
    value = np.zeros(shape, tensor.dtype)
    steps = (interface.metadata.explanation or {}).get("samples_input") == "required"
    return value + 1 if steps and tensor.name in interface.metadata.explanation["settings"] else value  # type: ignore[index]


def try_warm_ups(
    session: MaskedSession, interface: FileInterface, plan: BatchPlan, warm_ups: tuple[WarmUp, ...]
) -> tuple[BatchPlan, tuple[WarmUp, ...], list[str]]:
    """Runs the warm-ups, and returns the batch and the warm-ups that are left of them, with notes.

    Raises:
        MasktoolError: an output has other axes than the file says.
    """
    kept, notes = [], []
    for warm_up in warm_ups:
        rows = min(plan.max_batch, ROWS) or 1
        try:
            found = run_as_server(session, interface, warm_up, rows if plan.max_batch else 1)
        except MasktoolError as error:
            notes.append(f"no warm-up {warm_up.name!r}: {error.message}")
            continue
        check_axes(interface, found)
        kept.append(warm_up)
        if wrong := [name for name, value in found.items() if plan.max_batch and len(value) != rows]:
            plan = BatchPlan(0, f"of {rows} images, {', '.join(wrong)} has another number of rows")
    if not warm_ups:
        notes.append("no warm-up: the size of an input is open")
    return plan, tuple(kept), notes


def run_as_server(
    session: MaskedSession, interface: FileInterface, warm_up: WarmUp, rows: int
) -> dict[str, np.ndarray]:
    """Returns all outputs of one run, as a server makes it.

    Raises:
        MasktoolError: ONNX Runtime refuses the inputs.
    """
    in_batch = {each.name for each in interface.required if each.in_batch}
    feed = {
        name: np.repeat(value, rows, axis=0) if name in in_batch else value for name, value in warm_up.values.items()
    }
    names = [each.name for each in interface.outputs]
    opened: Any = session.runtime_session()
    try:
        return dict(zip(names, opened.run(names, feed), strict=True))
    except Exception as error:  # ONNX Runtime has one exception class per status code and no common base
        raise MasktoolError(f"ONNX Runtime could not run it: {runtime_reason(error)}") from error


def check_axes(interface: FileInterface, found: Mapping[str, np.ndarray]) -> None:
    """Raises MasktoolError where a result has other axes than the file says of it."""
    for name, declared, got in list_disagreements(interface, found):
        raise MasktoolError(
            "an output has other axes than the file says",
            where=f"{interface.path}, output {name!r}",
            expected=declared,
            got=got,
            fix="export the model again",
        )


def list_disagreements(
    interface: FileInterface, found: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, tuple[int | None, ...], tuple[int, ...]]]:
    """Yields name, declared shape and shape of each result that does not fit what the file says of it."""
    for output in interface.outputs:
        got = found[output.name].shape
        fits = len(got) == len(output.shape) and all(
            length in (None, each) for length, each in zip(output.shape, got, strict=True)
        )
        if not fits:
            yield output.name, output.shape, got
