"""How operators that compute place by place do so within frames.

* Activations, arithmetic, joins along the channels: within the union of the frames of their inputs.
* A product or quotient whose factor or dividend is 0 wherever nothing is missing changes nowhere else: within the
  frame of that. So a fill, which adds only where a mask says that something is missing, does not enlarge frames.
* A value of at least c outside a frame, cut to at most c, changes within that frame alone: the known places of a fill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import onnx_ir as ir

from masktool.embedding.incremental.frames import union
from masktool.embedding.incremental.patches import (
    CHANNELS_FIRST,
    CHANNELS_LAST,
    TO_FIRST,
    TO_LAST,
    Patch,
)
from masktool.embedding.incremental.rewriting import (
    LOCAL_RULES,
    MAP_RANK,
    NotLocalError,
    Rewriting,
    Rule,
    lengths,
    map_size,
)

PLACE_BY_PLACE = (
    "Abs", "Add", "And", "Cast", "Ceil", "Celu", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater",
    "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean",
    "Min", "Mish", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign",
    "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where",
)  # fmt: skip
CHANNELS_AT_PLACES = ("BatchNormalization", "LRN")
"""Operators that compute place by place where channels come first."""
NEVER_NEGATIVE = ("Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softplus", "Sqrt")
NO_LESS_THAN_INPUTS: dict[str, tuple[int | None, int | None]] = {
    **dict.fromkeys(("Cast", "Expand", "Identity", "LeakyRelu", "MaxPool"), (0, 1)),
    **dict.fromkeys(("Add", "Clip", "Concat", "Conv", "ConvTranspose", "Mul"), (0, None)),
    "Where": (1, None),
}
"""Operators that give nothing negative where their inputs, from one to before another, hold nothing negative."""


AnyRule = TypeVar("AnyRule", bound=Rule)


def local_rule(*op_types: str) -> Callable[[AnyRule], AnyRule]:
    """Registers a rule for operators."""

    def register(rule: AnyRule) -> AnyRule:
        LOCAL_RULES.update(dict.fromkeys(op_types, rule))
        return rule

    return register


def compute_in(
    rewriting: Rewriting, node: ir.Node, patches: Sequence[ir.Value], *, nothing_else: bool = False
) -> Patch:
    """Computes a node place by place, in the union of the frames of some of its inputs.

    Args:
        rewriting: the rewriting.
        node: the node.
        patches: the inputs.
        nothing_else: whether the result changes there alone, whatever changes in other inputs.
    """
    first = rewriting.patch_of(patches[0])
    size, axes = map_size(node.outputs[0], first.axes), first.axes
    frame = union([rewriting.patch_of(value).frame for value in patches])
    if frame is None:
        raise NotLocalError
    inputs = [
        None if value is None else rewriting.aligned(value, frame, axes, size, nothing_else=nothing_else)
        for value in node.inputs
    ]
    return Patch(rewriting.finish(node, inputs, frame), frame, axes)


def patched_inputs(rewriting: Rewriting, node: ir.Node) -> list[ir.Value]:
    """Returns the inputs of a node that are patches."""
    return [value for value in node.inputs if value is not None and isinstance(rewriting.states.get(value), Patch)]


@local_rule(*PLACE_BY_PLACE)
def compute_place_by_place(rewriting: Rewriting, node: ir.Node) -> Patch:
    """Computes a node in the union of its inputs' frames."""
    patches = patched_inputs(rewriting, node)
    if not patches:
        raise NotLocalError
    return compute_in(rewriting, node, patches)


@local_rule("Mul")
def multiply_patches(rewriting: Rewriting, node: ir.Node) -> Patch:
    """Multiplies in the frame of a factor that is 0 where nothing is missing; without one, place by place."""
    zeros = [value for value in patched_inputs(rewriting, node) if rewriting.known.get(value.name or "") == 0]
    if zeros:
        return compute_in(rewriting, node, zeros[:1], nothing_else=True)
    return compute_place_by_place(rewriting, node)


@local_rule("Div")
def divide_patches(rewriting: Rewriting, node: ir.Node) -> Patch:
    """Divides in the frame of a dividend that is 0 where nothing is missing; without one, place by place."""
    dividend = node.inputs[0]
    if dividend in patched_inputs(rewriting, node) and rewriting.known.get(str(dividend.name)) == 0:
        return compute_in(rewriting, node, [dividend], nothing_else=True)
    return compute_place_by_place(rewriting, node)


@local_rule("Clip")
def cut_at_bound(rewriting: Rewriting, node: ir.Node) -> Patch:
    """Cuts in the frame outside which everything reaches the upper bound; without one, place by place."""
    highest = node.inputs[2] if len(node.inputs) > 2 else None
    bound = None if highest is None else ir.convenience.get_const_tensor(highest)
    value = node.inputs[0]
    source = None if value is None else value.producer()
    if bound is None or source is None or source.op_type != "Add" or value is None:
        return compute_place_by_place(rewriting, node)
    for large, other in (source.inputs, source.inputs[::-1]):
        if large is None or not isinstance(rewriting.states.get(large), Patch):
            continue
        reaches = rewriting.known.get(large.name or "", -math.inf) >= float(bound.numpy())
        if reaches and never_negative(other, rewriting):
            patch, frame = rewriting.patch_of(value), rewriting.patch_of(large).frame
            kept = rewriting.patches.in_frame(patch, frame, lengths(value)[1])
            if kept.known is None:
                inputs = [kept.values, *(None if each is None else rewriting.base(each) for each in node.inputs[1:])]
                return Patch(rewriting.finish(node, inputs, frame), frame, patch.axes)
    return compute_place_by_place(rewriting, node)


def never_negative(value: ir.Value | None, rewriting: Rewriting) -> bool:
    """Whether a value that is computed from the mask is nowhere negative, whatever is missing."""
    if value is None:
        return False
    tensor, node = ir.convenience.get_const_tensor(value), value.producer()
    if tensor is not None and not value.is_graph_input():
        return bool((tensor.numpy() >= 0).all())
    if node is None:
        return isinstance(rewriting.states.get(value), Patch)  # the mask
    if node.op_type in NEVER_NEGATIVE:
        return True
    if node.op_type not in NO_LESS_THAN_INPUTS:
        return False
    read = node.inputs[slice(*NO_LESS_THAN_INPUTS[node.op_type])]
    return all(never_negative(each, rewriting) for each in read if each is not None)


@local_rule(*CHANNELS_AT_PLACES)
def compute_across_channels(rewriting: Rewriting, node: ir.Node) -> Patch:
    """Computes a node whose parameters are of the channels, which come first."""
    value = node.inputs[0]
    patch = rewriting.patch_of(value)
    if patch.axes != CHANNELS_FIRST or any(each in rewriting.states for each in node.inputs[1:]):
        raise NotLocalError
    inputs = [patch.value, *(None if each is None else rewriting.base(each) for each in node.inputs[1:])]
    return Patch(rewriting.finish(node, inputs, patch.frame), patch.frame, patch.axes)


@local_rule("Concat")
def join_patches(rewriting: Rewriting, node: ir.Node) -> Patch:
    """Joins maps along the channels."""
    patches = patched_inputs(rewriting, node)
    if not patches:
        raise NotLocalError
    axes, axis = rewriting.patch_of(patches[0]).axes, node.attributes.get_int("axis", 0)
    along = axis if axis < 0 else axis - MAP_RANK
    if along in (*axes, -MAP_RANK) or any(
        len(lengths(value)) != MAP_RANK for value in node.inputs if value is not None
    ):
        raise NotLocalError
    return compute_in(rewriting, node, patches)


@local_rule("Transpose")
def move_channels(rewriting: Rewriting, node: ir.Node) -> Patch:
    """Moves the channels to the front or the end."""
    patch = rewriting.patch_of(node.inputs[0])
    moves, order = {CHANNELS_FIRST: TO_LAST, CHANNELS_LAST: TO_FIRST}, node.attributes.get_ints("perm", ())
    if tuple(order) != moves[patch.axes]:
        raise NotLocalError
    after = CHANNELS_LAST if patch.axes == CHANNELS_FIRST else CHANNELS_FIRST
    return Patch(rewriting.finish(node, [patch.value], patch.frame), patch.frame, after)


@local_rule("Expand")
def repeat_patch(rewriting: Rewriting, node: ir.Node) -> Patch:
    """Passes on what is repeated for images: a patch has a row for each window."""
    patch = rewriting.patch_of(node.inputs[0])
    before, after = (lengths(value) for value in (node.inputs[0], node.outputs[0]) if value is not None)
    if before[1:] != after[1:]:
        raise NotLocalError
    return patch


@local_rule("Shape")
def shape_of_whole(rewriting: Rewriting, node: ir.Node) -> ir.Value:
    """Tells the shape of the whole map: as many rows as windows, the other lengths as known."""
    value, emit = node.inputs[0], rewriting.patches
    if value is None:
        raise NotLocalError
    rewriting.patch_of(value)
    rows, *others = [emit.length_of(emit.corners, 0), *(emit.ints(length) for length in lengths(value)[1:])]
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", MAP_RANK)
    asked = [rows, *others][start:end]
    if not asked:
        raise NotLocalError
    return emit.emit("Concat", *asked, axis=0) if len(asked) > 1 else asked[0]
