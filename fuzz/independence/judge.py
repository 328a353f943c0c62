"""Holds what is said of a graph's batch to what ONNX Runtime gives every image alone and beside others."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import onnx
import onnx_ir

from fuzz.independence.drawing import draw_graph, draw_images, open_plainly
from fuzz.independence.rules import RULES
from masktool.errors import MasktoolError, describe_exception
from masktool.exporters.batch import lift_batch
from masktool.exporters.canonical import canonicalise
from masktool.exporters.independence import Independence

TRIED_BATCHES = (1, 2, 3, 5)
TOLERANCE = 1e-4
"""Relative to the largest number of an output: float32, through products that sum in another order."""
MEASURED = re.compile(r"in a batch of|for any batch")
"""What :mod:`masktool.exporters.batch` says where its own measurement contradicts its proof."""
Outputs = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What became of one graph.

    Attributes:
        verdict: of the proof; ``refused`` where the graph was not taken.
        independent: what was measured: every output has the rows that its images give alone; None where nothing was.
        fault: what is wrong with the verdict; empty where nothing is.
        reason: the findings, or the refusal.
    """

    verdict: Literal["proved", "mixing", "unproved", "refused"]
    independent: bool | None
    fault: str = ""
    reason: str = ""


def judge_seed(seed: int) -> Judgement:
    """Draws the graph of a seed and judges it."""
    return judge_graph(draw_graph(seed, RULES), seed)


def judge_graph(proto: onnx.ModelProto, seed: int) -> Judgement:
    """Proves what can be proved of a graph and measures it.

    Args:
        proto: with one input ``x``, its batch open or fixed.
        seed: of the images.
    """
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    try:
        model = canonicalise(onnx_ir.from_proto(proto))
        found = lift_batch(model, "x")
    except MasktoolError as error:
        return Judgement("refused", None, "", str(error))
    except Exception as error:  # this is what is looked for
        return Judgement("refused", None, f"raises {describe_exception(error)}")
    sides = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim[1:]]
    images = draw_images(np.random.default_rng(seed + 1), max(TRIED_BATCHES), sides)
    alone = [run_alone(open_plainly(proto), image, batch) for image in images]
    if found.verdict == "proved":
        difference = find_difference(onnx_ir.to_proto(model), images, alone)
        return Judgement("proved", not difference, difference and f"proved, and {difference}")
    difference = find_difference(proto, images, alone) if not batch else "a fixed batch that was not opened"
    fault = "" if not measured(found) else f"its proof and its own measurement disagree: {found.describe()}"
    return Judgement(found.verdict, None if batch else not difference, fault, found.describe())


def measured(found: Independence) -> bool:
    """Whether a graph was found to mix by running it alone."""
    return len(found.findings) == 1 and MEASURED.search(found.findings[0].reason) is not None


def run_alone(session: object, image: np.ndarray, batch: int) -> Outputs:
    """Returns the row that each output has for an image among copies of itself, as many as a fixed batch has places."""
    run: Callable[..., Sequence[np.ndarray]] = session.run  # type: ignore[attr-defined]
    return [np.asarray(each)[:1] for each in run(None, {"x": np.repeat(image[None], batch or 1, axis=0)})]


def find_difference(proto: onnx.ModelProto, images: np.ndarray, alone: Sequence[Outputs]) -> str:
    """Returns what images give beside others that they do not give alone; an empty text if nothing."""
    session = open_plainly(proto)
    for count in TRIED_BATCHES:
        try:
            together = session.run(None, {"x": images[:count]})
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            return f"a batch of {count} does not run: {describe_exception(error)[:200]}"
        for index, found in enumerate(together):
            rows = np.concatenate([outputs[index] for outputs in alone[:count]])
            if found.shape != rows.shape:
                return f"output {index} is {found.shape} in a batch of {count}, expected {rows.shape}"
            gap = np.abs(found.astype(np.float64) - rows.astype(np.float64)).max(initial=0.0)
            if not gap <= TOLERANCE * max(1.0, float(np.abs(rows.astype(np.float64)).max(initial=0.0))):
                return f"output {index} differs by {gap:.1e} in a batch of {count}"
    return ""
