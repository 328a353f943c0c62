"""Outputs that NonMaxSuppression chose are left out before a mask is carried through a detector.

A list of chosen boxes has no place for a pixel, and another length under every mask. What it was chosen from, boxes and
scores, can be masked and explained. Filling the input needs no rules and keeps the list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from masktool.contract import Masking
from masktool.exporters.sources import Source
from masktool.messages import parameter

CHOOSING = "NonMaxSuppression"
CHOSEN_FROM = 2
"""Inputs of NonMaxSuppression that hold what it chooses from: boxes, scores."""


def leave_out_lists(source: Source, masking: Masking) -> Source:
    """Returns a source without the outputs that come of NonMaxSuppression; the source itself where there are none.

    Where no other output is left, the boxes and scores that were chosen from take their place.

    Args:
        source: the source with all its outputs; it stays as it is.
        masking: the masking mode; ``fill`` keeps all outputs.
    """
    names = [value.name for value in source.model.graph.outputs]
    if masking == "fill" or source.exported_before or not chosen_outputs(source.model.graph):
        return source
    model = source.model.clone()
    graph = model.graph
    chosen = chosen_outputs(graph)
    kept = [value for value in graph.outputs if value not in chosen]
    added = [] if kept else chosen_from(graph)
    if not kept and not added:
        return source
    graph.outputs[:] = [*kept, *added]
    common.RemoveUnusedNodesPass()(model)
    left_out = ", ".join(repr(name) for name in names if name not in {value.name for value in kept})
    now = ", ".join(repr(value.name) for value in graph.outputs)
    note = (
        f"left out: {left_out}, which {CHOOSING} chose: a list of boxes has no place for a pixel; "
        f"the outputs are {now}; " + parameter("masking", "fill") + " keeps all"
    )
    places = None if added else [names.index(value.name) for value in kept]
    reference = None if places is None else only(source.reference, places)
    return dataclasses.replace(source, model=model, reference=reference, notes=(*source.notes, note))


def only(
    run: Callable[[np.ndarray], list[np.ndarray]] | None, places: list[int]
) -> Callable[[np.ndarray], list[np.ndarray]] | None:
    """Returns a function that gives the results of another at some places alone; None for None."""
    if run is None:
        return None

    def run_some(images: np.ndarray) -> list[np.ndarray]:
        found = run(images)
        return [found[place] for place in places]

    return run_some


def chosen_outputs(graph: ir.Graph) -> list[ir.Value]:
    """Returns the outputs that are computed from what NonMaxSuppression gives."""
    chosen: set[ir.Value] = set()
    for node in graph:
        if node.op_type == CHOOSING or any(value in chosen for value in node.inputs if value is not None):
            chosen.update(node.outputs)
    return [value for value in graph.outputs if value in chosen]


def chosen_from(graph: ir.Graph) -> list[ir.Value]:
    """Returns the boxes and scores that NonMaxSuppression chooses from, where a node computes them."""
    found = [value for node in graph if node.op_type == CHOOSING for value in node.inputs[:CHOSEN_FROM]]
    return list(dict.fromkeys(value for value in found if value is not None and value.producer() is not None))
