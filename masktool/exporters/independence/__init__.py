"""Proves from a graph, without sampling, that an image's outputs do not depend on the images beside it.

This is an abstract interpretation. One walk over the canonical graph gives every value a state (:mod:`.states`), by one
rule per family of operators; a new operator is a function under ``@batch_rule("OpType")`` in one of this package's
files. A node that its rule cannot vouch for is named, and nothing is assumed of an operator without a rule.

The walk is over the plain graph. What masktool adds works image by image by construction: windows, means over places
and masks, which lie on the images' own axis.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

import onnx_ir as ir

from masktool.exporters.independence.states import PACKAGE, BatchGraph, Count, Lost, Obstacle, Rows
from masktool.registry import import_files

__all__ = ["Independence", "Obstacle", "follow_inputs", "judge_independence", "prove_independence"]

FINDINGS_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Independence:
    """Whether a graph's outputs for an image depend on that image alone, for any batch.

    Attributes:
        verdict: ``proved``: every output has one row per image, which depends on that image alone; ``mixing``: nodes
            are known that mix images, or outputs that have no row per image; ``unproved``: neither is known.
        findings: the nodes and outputs that a verdict other than ``proved`` rests on, those that mix images first.
    """

    verdict: Literal["proved", "mixing", "unproved"]
    findings: tuple[Obstacle, ...] = ()

    def describe(self) -> str:
        """Returns the findings on one line."""
        shown = [str(finding) for finding in self.findings[:FINDINGS_SHOWN]]
        more = len(self.findings) - len(shown)
        return " | ".join(shown) + (f" | and {more} more" if more else "")


def prove_independence(model: ir.Model, image_input: str) -> Independence:
    """Follows the batch from the image input to every output, and returns whether the images are kept apart.

    Args:
        model: the canonical model, with a symbolic batch.
        image_input: the name of the image input, whose axis 0 is the batch.
    """
    image = next(value for value in model.graph.inputs if value.name == image_input)
    assert image.shape is not None
    batch = image.shape[0]
    assert not isinstance(batch, int)
    graph = follow_inputs(model, image, str(batch.value))
    graph.follow(model.graph)
    return judge_independence(graph, model.graph.outputs)


def follow_inputs(model: ir.Model, image: ir.Value, batch: str) -> BatchGraph:
    """Returns a graph with the states of its inputs.

    Args:
        model: the canonical model.
        image: the image input; its axis 0 is symbolic or has a fixed length.
        batch: the symbol for the number of images. Other inputs have one row per image on the axis whose length is the
            batch's; of fixed lengths only that of the first axis counts, and a length of 1 serves all images.
    """
    assert image.shape is not None
    graph = BatchGraph(image, batch)
    for value in model.graph.inputs:
        found = [] if value is image else axes_of_images(value, image.shape[0])
        if found:
            graph.set_state(value, Rows(found[0]) if len(found) == 1 else Count(True))
    return graph


def axes_of_images(value: ir.Value, batch: int | ir.SymbolicDim) -> list[int]:
    """Returns the axes of an input, other than the image input, on which the images lie."""
    lengths = () if value.shape is None else tuple(value.shape)
    if isinstance(batch, int):
        return [0] if lengths[:1] == (batch,) != (1,) else []
    return [axis for axis, length in enumerate(lengths) if length == batch]


def judge_independence(graph: BatchGraph, outputs: Iterable[ir.Value]) -> Independence:
    """Returns the verdict on a graph, with its findings, once the batch was followed through all nodes."""
    findings = [*graph.findings, *(found for value in outputs if (found := judge_output(graph, value)))]
    findings.sort(key=lambda finding: finding.kind)
    if not findings:
        return Independence("proved")
    return Independence("mixing" if findings[0].kind == "mixes" else "unproved", tuple(findings))


def judge_output(graph: BatchGraph, value: ir.Value) -> Obstacle | None:
    """Returns why an output does not have one row per image; None where it has, or a node before it was named."""
    state = graph.state(value)
    if isinstance(state, Lost) or state == Rows(0):
        return None
    if isinstance(state, Rows) and state.axis == 0 and state.pure:
        return None
    reason = "has no row per image"
    if isinstance(state, Rows):
        reason = f"has the images on axis {state.axis}" if state.pure else "has several rows per image"
    return Obstacle("mixes", "output", str(value.name), reason)


import_files(PACKAGE)  # now: what fails there must not pass for a graph that contradicts its operators
