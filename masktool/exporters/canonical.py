"""The canonical form of a plain graph, on which mask rules are written.

1. Functions are inlined, experimental operators of old converters rewritten, and the opset is lifted to at least 18.
2. Constants are initializers and no inputs, identities and dropouts are gone.
3. Shapes are inferred, and what depends on constants alone is folded (Shape → Gather → Concat chains in front of
   Reshape). Operators without a mask rule that ONNX defines by a function are written out as that function. An If or
   a Loop whose course is known by then is written out. Pools lose a window behind the image.
4. Quantised operators become float ones between DequantizeLinear and QuantizeLinear; operators that ONNX Runtime fused
   are taken apart.
5. What picks every so-many-th place along some axes becomes one Slice.
6. ``auto_pad`` becomes explicit pads, and a Pad of zeros in front of a convolution or an average pool becomes its pads.

Batch normalisation is left alone: ONNX Runtime folds it, and folding it here would change the last bit of the result.
"""

from __future__ import annotations

import math

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from masktool.errors import MasktoolError, reported_as
from masktool.exporters.declared_shapes import completed
from masktool.exporters.inference import infer_types_and_shapes
from masktool.exporters.names import free_inside
from masktool.exporters.open_lengths import name_open_lengths
from masktool.exporters.opset import has_one_form, lift_opset, opset_of, shorten_domain
from masktool.exporters.rewrites.ceil_mode import settle_ceil_mode
from masktool.exporters.rewrites.control_flow import inline_control_flow
from masktool.exporters.rewrites.experimental import rewrite_experimental
from masktool.exporters.rewrites.fused import rewrite_fused
from masktool.exporters.rewrites.identities import remove_identities
from masktool.exporters.rewrites.quantized import rewrite_quantized
from masktool.exporters.rewrites.schema_functions import inline_schema_functions
from masktool.exporters.rewrites.sequences import split_into_parts
from masktool.exporters.rewrites.shape_arithmetic import fold_shape_arithmetic
from masktool.exporters.rewrites.strided_slices import rewrite_strided_slices

__all__ = ["canonicalise", "opset_of"]

REPORT = "if ONNX Runtime runs the file, this is a defect of masktool: please report the network"
KEEPS_SHAPE = ("GroupNormalization",)
"""Operators whose result has its input's shape, and for which onnx infers nothing."""
LARGEST_FOLDED = 262_144
"""Most numbers in a result that is folded, as onnxscript keeps them; larger results are computed at run time."""
ENLARGES = frozenset(
    {"ConstantOfShape", "Expand", "EyeLike", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample", "MatMul", "Einsum"}
)
"""Operators whose result may be much larger than all they read."""


def canonicalise(model: ir.Model) -> ir.Model:
    """Returns a canonical copy of a model; the model itself stays as it is.

    Raises:
        MasktoolError: the opset cannot be lifted.
    """
    with reported_as("the graph cannot be brought into the form that mask rules are written for", fix=REPORT):
        return canonical_copy(model)


def canonical_copy(model: ir.Model) -> ir.Model:
    """Returns a copy of a model that went through the steps of the canonical form."""
    model = model.clone()
    shorten_domain(model)
    inline_functions(model)
    common.RemoveInitializersFromInputsPass()(model)
    rewrite_experimental(model.graph, opset_of(model))
    model = lift_opset(model)
    common.NameFixPass()(model)  # every node has a name of its own from here on, by which messages call it
    name_batches(model.graph)
    fold_constants(model)
    if (inlined := inline_schema_functions(model)) is not model:
        model = inlined
        fold_constants(model)
    while inline_control_flow(model.graph):
        fold_constants(model)
    remove_dropouts(model.graph)
    if any([rewrite_quantized(model.graph), rewrite_fused(model.graph)]):
        fold_constants(model)
    remove_identities(model.graph)
    rewrite_strided_slices(model.graph)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    infer_outputs_anew(model)
    make_pads_explicit(model.graph)
    fuse_pads(model.graph)
    free_inside(model)
    common.NameFixPass()(model)
    if not len(model.graph):
        raise MasktoolError(
            "a graph that computes nothing",
            where=model.graph.name,
            expected="outputs that depend on the image",
            got=", ".join(str(value.name) for value in model.graph.outputs) or "no output",
            fix="export the network again",
        )
    return model


def inline_functions(model: ir.Model) -> None:
    """Replaces the calls of a model's functions by their bodies, in place.

    Raises:
        MasktoolError: a function's opset is not the model's and gives its operators another form, or a function calls
            itself.
    """
    for function in model.functions.values():
        own = opset_of(model)
        other = function.opset_imports.get("", function.opset_imports.get("ai.onnx", own))
        operators = {node.op_type for node in function.all_nodes() if node.domain == ""}
        if changed := sorted(name for name in operators if not has_one_form(name, own, other)):
            raise MasktoolError(
                "a function in another opset than the model, which ONNX allows only for operators of one form in both",
                where=f"{function.domain}::{function.name}",
                expected=f"opset {own}",
                got=f"{other}, in which {', '.join(changed)} had another form",
                fix="export the network with one opset",
            )
        function.opset_imports.pop("ai.onnx", None)
        function.opset_imports[""] = own
    with reported_as("the model's functions cannot be written out"):
        common.InlinePass()(model)


def fold_constants(model: ir.Model) -> None:
    """Infers shapes, and folds what depends on constants and fixed lengths alone into initializers, in place."""
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    infer_shapes(model)
    while settle_ceil_mode(model.graph):
        infer_shapes(model)
    while fold_shape_arithmetic(model.graph):
        infer_shapes(model)
    if split_into_parts(model.graph):
        infer_shapes(model)
    with reported_as("what depends on constants alone cannot be computed"):
        optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=may_fold)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def infer_shapes(model: ir.Model) -> None:
    """Infers shapes and types, data propagation included, in place.

    Not in strict mode: a node that inference does not know leaves its own outputs unknown, not those of the whole
    graph. Names of open axes are forgotten first: they are to follow from those of the inputs, so that one length has
    one name.
    """
    for node in model.graph:
        for value in node.outputs:
            if node.op_type in KEEPS_SHAPE:
                value.shape = None
            elif value.shape is not None and any(not isinstance(size, int) for size in value.shape):
                value.shape = ir.Shape([size if isinstance(size, int) else None for size in value.shape])
    infer_types_and_shapes(model, check_type=True)
    while keep_shapes(model.graph):
        infer_types_and_shapes(model, check_type=True)
    name_open_lengths(model.graph)


def infer_outputs_anew(model: ir.Model) -> None:
    """Infers a model's shapes, in place, those of its outputs as if the file declared none.

    When a file is read, inference says nothing behind operators that it does not know; the canonical form has standard
    ones in their place.
    """
    declared = {value: value.shape for value in model.graph.outputs if value.producer() and value.shape is not None}
    for value in declared:
        value.shape = None
    infer_shapes(model)
    for value, shape in declared.items():
        value.shape = shape if value.shape is None else completed(value.shape, shape)


def keep_shapes(graph: ir.Graph) -> bool:
    """Gives results of operators that keep the shape their input's, where onnx infers none; returns whether any did."""
    found = False
    for node in graph:
        source, output = node.inputs[0] if node.inputs else None, node.outputs[0]
        if node.op_type in KEEPS_SHAPE and source is not None and source.shape is not None and output.shape is None:
            output.shape, output.type, found = source.shape, source.type, True
    return found


def may_fold(node: ir.Node) -> bool | None:
    """Tells whether onnxscript's folder may fold a node; None leaves that to the folder.

    A result that is large, or may be, is not folded: the folder computes it before it looks at its size. An integer
    ConstantOfShape, part of the arithmetic on shapes, is folded, which the folder leaves alone by itself.
    """
    if any(may_be_large(node, output.shape) for output in node.outputs):
        return False
    value = node.attributes.get_tensor("value")
    is_shape = node.op_type == "ConstantOfShape" and value is not None and value.dtype == ir.DataType.INT64
    return True if is_shape else None


def may_be_large(node: ir.Node, shape: ir.Shape | None) -> bool:
    """Tells whether a node's result is too large to be folded or, where its shape is unknown, may be."""
    if shape is None or not all(isinstance(length, int) for length in shape):
        return node.op_type in ENLARGES
    return math.prod(length for length in shape if isinstance(length, int)) > LARGEST_FOLDED


def name_batches(graph: ir.Graph) -> None:
    """Gives every open batch a name of its own, so that shape inference can follow it through the graph.

    A file may call height and width by the same name as the batch, although they differ in all that it is fed.
    """
    for value in graph.inputs:
        if value.shape is None or not len(value.shape) or isinstance(batch := value.shape[0], int):
            continue
        if batch.value is None:
            value.shape = ir.Shape([f"{value.name}_batch", *value.shape[1:]])
        else:
            value.shape = ir.Shape([batch, *[f"{batch.value}_long" if n == batch else n for n in value.shape[1:]]])


def remove_dropouts(graph: ir.Graph) -> None:
    """Bypasses Dropout nodes, which do nothing at inference."""
    for node in tuple(graph):
        if node.op_type == "Dropout" and node.domain == "":
            source, output = node.inputs[0], node.outputs[0]
            identity = ir.node("Identity", [source], name=node.name)
            identity.outputs[0].shape, identity.outputs[0].type = output.shape, output.type
            identity.outputs[0].name = output.name
            graph.insert_before(node, identity)
            output.replace_all_uses_with(identity.outputs[0], replace_graph_outputs=True)
            graph.remove(node, safe=True)


def make_pads_explicit(graph: ir.Graph) -> None:
    """Replaces ``auto_pad`` by the pads it stands for, wherever height and width are fixed."""
    for node in graph:
        mode = node.attributes.get_string("auto_pad")
        if mode is None or node.op_type == "ConvTranspose":
            continue
        sizes = explicit_pads(node, mode)
        if sizes is not None:
            del node.attributes["auto_pad"]
            node.attributes["pads"] = ir.AttrInt64s("pads", sizes)


def explicit_pads(node: ir.Node, mode: str) -> list[int] | None:
    """Returns a window operator's pads in ONNX's order (all begins, then all ends); None where a size is unknown.

    Source: ONNX operator specification, Conv, ``auto_pad``: SAME pads so that output = ceil(input / stride).
    """
    value, kernel = node.inputs[0], kernel_shape(node)
    if value is None or value.shape is None or kernel is None:
        return None
    spatial = value.shape[2:]
    if mode in ("NOTSET", "VALID"):
        given = node.attributes.get_ints("pads") if mode == "NOTSET" else None
        return list(given or [0] * (2 * len(kernel)))
    if not all(isinstance(size, int) for size in spatial):
        return None
    strides = node.attributes.get_ints("strides") or [1] * len(kernel)
    dilations = node.attributes.get_ints("dilations") or [1] * len(kernel)
    begins, ends = [], []
    for size, k, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
        assert isinstance(size, int)
        total = max((-(-size // stride) - 1) * stride + dilation * (k - 1) + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return begins + ends


def kernel_shape(node: ir.Node) -> list[int] | None:
    """Returns the kernel's lengths of a window operator, from its attribute or its weight; None where unknown."""
    given = node.attributes.get_ints("kernel_shape")
    if given is not None:
        return list(given)
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is None or weight.shape is None or not all(isinstance(size, int) for size in weight.shape[2:]):
        return None
    return [int(size) for size in weight.shape[2:]]


def fuse_pads(graph: ir.Graph) -> None:
    """Turns a Pad of zeros over height and width into the pads of the convolution or average pool behind it."""
    for node in tuple(graph):
        source = node.inputs[0] if node.inputs else None
        pad = source.producer() if source is not None else None
        if pad is None or pad.op_type != "Pad" or "auto_pad" in node.attributes:
            continue
        if node.op_type not in ("Conv", "AveragePool") or source is None or is_shared(source):
            continue
        if node.op_type == "AveragePool" and not counts_padding(node):
            continue
        extra = zero_pads(pad)
        if extra is not None:
            given = node.attributes.get_ints("pads") or [0] * len(extra)
            pads = [old + new for old, new in zip(given, extra, strict=True)]
            node.attributes["pads"] = ir.AttrInt64s("pads", pads)
            if node.op_type == "AveragePool":
                node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
            node.replace_input_with(0, pad.inputs[0])
            graph.remove(pad, safe=True)


def is_shared(value: ir.Value) -> bool:
    """Tells whether a value is read more than once, or is an output of the graph."""
    return len(value.uses()) > 1 or value.is_graph_output()


def counts_padding(node: ir.Node) -> bool:
    """Tells whether zeros that a Pad puts around an average pool's input can become its own, counted padding."""
    no_pads = not any(node.attributes.get_ints("pads") or [])
    return (no_pads or node.attributes.get_int("count_include_pad", 0) == 1) and not node.attributes.get_int(
        "ceil_mode", 0
    )


def zero_pads(pad: ir.Node) -> list[int] | None:
    """Returns [top, left, bottom, right] of a Pad that adds zeros around height and width alone; None for any other.

    Of a map of another rank they are all beginnings, then all ends, likewise.
    """
    mode = pad.attributes.get_string("mode", "constant")
    constants = [None if value is None else ir.convenience.get_const_tensor(value) for value in pad.inputs[1:]]
    if mode != "constant" or not constants or constants[0] is None:
        return None
    if any(value is not None and tensor is None for value, tensor in zip(pad.inputs[1:], constants, strict=True)):
        return None
    pads = constants[0].numpy().tolist()
    if len(constants) > 1 and constants[1] is not None and constants[1].numpy().any():
        return None
    axes = list(range(len(pads) // 2)) if len(constants) < 3 or constants[2] is None else constants[2].numpy().tolist()
    if pad.inputs[0] is None or pad.inputs[0].shape is None or len(pad.inputs[0].shape) < 3 or min(pads) < 0:
        return None
    rank = len(pad.inputs[0].shape)
    by_axis = {axis % rank: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    if any(any(amount) for axis, amount in by_axis.items() if axis < 2):
        return None
    begins, ends = zip(*(by_axis.get(axis, (0, 0)) for axis in range(2, rank)), strict=True)
    return [*begins, *ends]
