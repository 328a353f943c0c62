"""Refuses loops that never end, and loops that grow beyond all memory, as far as the graph tells.

Loops of which the graph does not tell are ended by the clock, see :mod:`masktool.exporters.bounded`.

Source: ONNX operator specification, Loop.
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.errors import MasktoolError, reported_as
from masktool.exporters.canonical import canonicalise
from masktool.exporters.declared_shapes import check_sizes
from masktool.exporters.inference import every_node
from masktool.exporters.node_inputs import input_of
from masktool.exporters.one_image import with_batch
from masktool.exporters.onnx_file import fix_size, usual_size_of
from masktool.exporters.rewrites.control_flow import stays_true
from masktool.exporters.rewrites.replacement import read_constant
from masktool.limits import check_limit


def refuse_endless_loops(model: ir.Model, image: ir.Value | None, where: object) -> None:
    """Raises MasktoolError for a Loop whose condition stays true and whose trip count is none, or beyond the limit.

    Args:
        model: a plain model; it stays as it is.
        image: the image input of the model; None where it need not have one, and growth is not looked at.
        where: the file or name of the model, for messages.
    """
    loops = [node for node in every_node(model) if node.op_type == "Loop" and node.domain == ""]
    for node in loops:
        place = f"{where}, Loop {(node.name or node.outputs[0].name)!r}"
        with reported_as("a Loop that cannot be read", where=place, fix="export the network again"):
            endless, trips = stays_true(node, node.attributes["body"].as_graph()), read_constant(input_of(node, 0))
            count = None if trips is None else int(trips.item())
        if endless and input_of(node, 0) is None:
            raise MasktoolError(
                "a Loop that never ends",
                where=place,
                expected="a trip count or a condition that changes",
                got="neither",
            )
        if endless and count is not None:
            check_limit("trips", count, where=place)
    if loops and image is not None:
        refuse_growth(model, image, where)


def refuse_growth(model: ir.Model, image: ir.Value, where: object) -> None:
    """Raises MasktoolError where a Loop, written out for one image, computes a tensor beyond the limit."""
    assert image.name is not None
    fixed = with_batch(model, image.name, 1)
    own = next(value for value in fixed.graph.inputs if value.name == image.name)
    fix_size(own, usual_size_of(own))
    try:
        fixed = canonicalise(fixed)
    except MasktoolError:  # the usual size need not be one that the network takes; else the same is met further on
        return
    check_sizes(fixed, where)
