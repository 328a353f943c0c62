"""From the canonical graph to the masked graph: one walk over the nodes, one rule per operator.

A value that does not depend on the image is not touched. Each node that reads a masked value is handed to the rule of
its operator, which emits what it needs around the node and says which mask the outputs carry. All nodes that have no
rule, or that their rule refuses, are collected and reported together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from masktool.contract import BATCH_AXIS, FUNCTION_DOMAIN, MASK_INPUT, RULE_PROPERTY, Layout, Masking, SamplerRule
from masktool.errors import MasktoolError, UnsupportedNode, UnsupportedOperatorError, reported_as
from masktool.exporters.defaults import read_once
from masktool.exporters.opset import opset_of
from masktool.exporters.refusals import reason_without_rule, unsupported
from masktool.exporters.requantize import find_quantised_nodes, requantize
from masktool.exporters.subgraphs import nodes_inside
from masktool.layouts import IN_WORDS, SPATIAL_AXES
from masktool.messages import SIZE, parameter
from masktool.ops.builder import CHOOSABLE, INTEGER_TYPES, dtype_of
from masktool.ops.errors import RuleError
from masktool.ops.functions import fill_functions
from masktool.ops.graph import MASK_RULES, Masked, MaskedGraph, MaskRule

FUNCTION_DOMAIN_VERSION = 1
REPORT = "nothing was written; this is a defect of masktool: please report the network"


def mask_model(
    model: ir.Model,
    image_input: str,
    layout: Layout,
    *,
    mask_required: bool,
    masking: Masking = "layer",
    rule: SamplerRule | None = None,
) -> None:
    """Adds the input ``mask`` and carries it through every node, in place.

    Args:
        model: the canonical graph, with a symbolic batch.
        image_input: name of the image input.
        layout: the layout of the image input.
        mask_required: makes ``mask`` an ordinary input instead of one with a default of ones.
        masking: ``layer`` or ``partial``.
        rule: rule of samplers narrower than their stride; None takes the published one.

    Raises:
        UnsupportedOperatorError: nodes have no rule, or their rule refuses them; the model is then unusable.
        MasktoolError: the model already has an input ``mask``.
    """
    image = next(value for value in model.graph.inputs if value.name == image_input)
    graph = MaskedGraph(model.graph, masking, rule)
    nodes = tuple(model.graph)
    quantised = find_quantised_nodes(model.graph)
    mask = add_mask_input(model.graph, image, layout, mask_required=mask_required)
    add_input_guard(graph, image, mask, SPATIAL_AXES[layout], before=nodes[0])
    if refused := apply_rules(graph, nodes):
        raise UnsupportedOperatorError(refused)
    requantize(model.graph, quantised)
    for output in dict.fromkeys(model.graph.outputs):  # a value may be returned twice
        zero_output(graph, output)
    for function in fill_functions(opset_of(model)):
        model.functions[function.identifier()] = function
    model.opset_imports[FUNCTION_DOMAIN] = FUNCTION_DOMAIN_VERSION
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedFunctionsPass()(model)
    common.NameFixPass()(model)
    rename_batch(model.graph, image)


def add_mask_input(graph: ir.Graph, image: ir.Value, layout: Layout, *, mask_required: bool) -> ir.Value:
    """Adds the input (M, 1, ...) float32 of the image's places and, unless it is required, its default of ones.

    M is 1 where the image's batch is. Returns what stands for the mask in the graph.
    """
    if any(value.name == MASK_INPUT for value in (*graph.inputs, *graph.initializers.values())):
        raise MasktoolError(
            f"the model already has an input or weight named {MASK_INPUT!r}", fix="export the plain model"
        )
    if any(output is image for output in graph.outputs):
        raise MasktoolError(
            "an output is the image input itself, and would show what is missing",
            where=f"output {image.name!r}",
            fix="leave that output out of the model",
        )
    assert image.shape is not None
    sides = [image.shape[axis] for axis in SPATIAL_AXES[layout]]
    masks = image.shape[0] if isinstance(image.shape[0], int) else "mask_batch"
    mask = ir.Value(name=MASK_INPUT, shape=ir.Shape([masks, 1, *sides]), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(mask)
    if not mask_required:
        lengths = [side for side in sides if isinstance(side, int)]
        if len(lengths) != len(sides):
            raise MasktoolError(
                f"an optional mask needs a fixed {IN_WORDS[len(sides)]}",
                where=f"input {image.name!r}",
                got=image.shape,
                fix="give " + parameter("input_size", SIZE) + ", or " + parameter("mask_required", True),
            )
        mask.const_value = ir.tensor(np.ones((1, 1, *lengths), np.float32), name=MASK_INPUT)
        graph.register_initializer(mask)
    return read_once(graph, mask)


def add_input_guard(
    graph: MaskedGraph, image: ir.Value, mask: ir.Value, axes: tuple[int, ...], *, before: ir.Node
) -> None:
    """Sets the image to 0 where the mask is 0: a Where, since 0 · NaN is NaN.

    For an image of integers, a Cast or a zero point behind it says what a 0 means.
    """
    users = tuple(image.uses())
    graph.node = before
    zeroed = dtype_of(image) not in INTEGER_TYPES
    rank, moves = 2 + len(axes), {0: 0, **{2 + index: axis for index, axis in enumerate(axes)}}
    state = Masked(graph.moved_mask(mask, moves, rank, rank), axes, zeroed)
    graph.set_state(image, state)
    guarded = graph.replaced(image, empty=0)
    guarded.name = f"{image.name}_masked"
    for user, index in users:
        user.replace_input_with(index, guarded)
    graph.set_state(guarded, state)
    if image.shape is not None and not isinstance(image.shape[0], int):
        graph.set_state(guarded, state.replace(mask=graph.long_as_images(guarded)))
    graph.set_state(image, None)


def apply_rules(graph: MaskedGraph, nodes: Sequence[ir.Node]) -> list[UnsupportedNode]:
    """Runs the rule of every node that reads a masked value; returns the nodes that cannot be treated.

    Raises:
        MasktoolError: a rule failed, or would go beyond a limit.
    """
    refused: dict[UnsupportedNode, None] = {}
    for node in nodes:
        try:
            reason = apply_mask_rule(graph, node)
        except MasktoolError:
            if refused:  # states behind a refused node are guessed, and rules may trip over them
                break
            raise
        if reason is not None:
            refused[reason] = None
    return list(refused)


def apply_mask_rule(graph: MaskedGraph, node: ir.Node) -> UnsupportedNode | None:
    """Runs the rule of a node that reads a masked value; returns why it cannot be treated, if so."""
    captured = [value for inner in nodes_inside(node) for value in inner.inputs]
    states = [state for value in (*node.inputs, *captured) if (state := graph.state(value)) is not None]
    if not states:
        return None
    rule = MASK_RULES.rule_of(node)
    graph.node = node
    try:
        if captured:
            raise RuleError(f"its subgraphs depend on the image; {reason_without_rule(node)}")
        if rule is None:
            raise RuleError(reason_without_rule(node))
        run_rule(rule, graph, node)
    except RuleError as error:
        continue_behind(graph, node, states[0])
        return unsupported(error.node or node, str(error))
    node.metadata_props[RULE_PROPERTY] = rule.__name__
    return None


def run_rule(rule: MaskRule, graph: MaskedGraph, node: ir.Node) -> None:
    """Runs a rule; whatever it raises but RuleError becomes a MasktoolError that names the node."""
    refusal: RuleError | None = None
    with reported_as(f"the mask rule for {node.op_type} failed", where=f"node {node.name!r}", fix=REPORT):
        try:
            rule(graph, node)
        except RuleError as error:
            refusal = error
    if refusal is not None:
        raise refusal


def continue_behind(graph: MaskedGraph, node: ir.Node, state: Masked) -> None:
    """Guesses the state behind a refused node, only to find further refusals: the export has failed already."""
    for output in node.outputs:
        rank = 0 if output.shape is None else len(output.shape)
        looks_like_a_map = state.mask.shape is None or rank == len(state.mask.shape)
        places = tuple(range(2, rank))
        graph.set_state(output, Masked(state.mask, places) if places and looks_like_a_map else None)


def zero_output(graph: MaskedGraph, output: ir.Value) -> None:
    """Makes the graph return an output that still is a map with 0 where its mask is 0; other readers see no change.

    So the nodes behind the output stay as ONNX Runtime fuses them, and a mask of ones changes nothing.
    """
    state = graph.state(output)
    if state is not None and not state.zeroed:
        graph.node = next(reversed(graph.graph))
        kept, dtype = graph.kept(output), dtype_of(output)
        if dtype == ir.DataType.BOOL:
            graph.return_instead(output, "And", kept, output)
        elif dtype in CHOOSABLE:  # integers, all of which ONNX Runtime multiplies
            graph.return_instead(output, "Mul", output, graph.as_type(kept, dtype))
        else:
            graph.return_instead(output, "Where", kept, output, graph.constant(0, dtype))


def rename_batch(graph: ir.Graph, image: ir.Value) -> None:
    """Names the batch of all values behind the input guard: its length is the larger of the image's and the mask's.

    ONNX Runtime has to see that both sides of a residual addition share the batch, or it does not fuse the addition
    into the convolution. Where no rule knows the shape, none is stated.
    """
    assert image.shape is not None
    image_batch = image.shape[0]
    if isinstance(image_batch, int):  # one image: every length is fixed
        return
    for node in graph:
        for value in node.outputs:
            if value.shape is None:
                value.type = None
            elif len(value.shape) and value.shape[0] == image_batch:
                value.shape = ir.Shape([BATCH_AXIS, *value.shape[1:]])
