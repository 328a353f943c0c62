"""Makes a finished graph one that other runtimes take as it is: OpenVINO, tract, ONNX Runtime in JavaScript.

1. Functions are inlined, and no operators but ONNX's own are left.
2. Every input must be fed. ONNX Runtime in JavaScript ignores the value of an input that has a default, or refuses it;
   OpenVINO makes a constant of the default.
3. Every length is fixed: one image, one mask, and of whatever else has a row per image one row. What depends on
   lengths alone is folded.
4. The beta of a HardSigmoid is another number than 0: OpenVINO reads 0 as "not given", which means 0.5.
5. A remainder of whole numbers is taken after the quotient times the divisor was subtracted: OpenVINO computes it in
   float32, which is wrong beyond 2^24.
6. Nothing is declared of the values inside a graph, but at the borders of loops and branches: every runtime infers
   types and shapes by itself, and tract refuses a declaration that differs from its own.
7. The opset and the version of the file's format are no later than the graph needs.
"""

from __future__ import annotations

import dataclasses

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from masktool.contract import Metadata
from masktool.errors import MasktoolError, reported_as
from masktool.exporters.inference import every_node, infer_types_and_shapes
from masktool.exporters.opset import lower_opset
from masktool.exporters.parity import DEFECT
from masktool.exporters.result import ONNX_DOMAINS, name_operator
from masktool.messages import SIZE, parameter
from masktool.ops.builder import TINY_BETA
from masktool.printable import list_some

LARGEST_FOLDED = 1024
"""Most numbers in a constant that is folded: those of shapes and of indices. Folding weights would enlarge the file."""
LESSENED = "/of_less"
"""Ending of the name of a Mod whose dividend is small already."""
NAMED = 5
"""Operators, or inputs, that a message names at most."""


def make_portable(model: ir.Model, metadata: Metadata) -> Metadata:
    """Makes a finished model portable, in place; a second call changes nothing.

    Args:
        model: the model, with everything that it is to hold.
        metadata: its metadata.

    Returns:
        The metadata of the portable model.

    Raises:
        MasktoolError: the model leaves a length open besides the images', or holds operators that are not ONNX's own.
    """
    with reported_as("the graph cannot be written for other runtimes", where=model.graph.name, fix=DEFECT):
        common.InlinePass()(model)
        require_inputs(model.graph)
    refuse_open_lengths(model.graph)
    refuse_other_domains(model)
    with reported_as("the graph cannot be written for other runtimes", where=model.graph.name, fix=DEFECT):
        fix_lengths(model)
        state_betas(model)
        lessen_dividends(model)
        remove_unused(model)
        common.DeduplicateInitializersPass()(model)
        common.RemoveUnusedOpsetsPass()(model)
        forget_declarations(model)
        lower_opset(model)
    return dataclasses.replace(metadata, portable=True, batching="one")


def require_inputs(graph: ir.Graph) -> None:
    """Makes every input of a graph one that must be fed."""
    for value in graph.inputs:
        graph.initializers.pop(str(value.name), None)
        value.const_value = None


def refuse_open_lengths(graph: ir.Graph) -> None:
    """Raises MasktoolError where an input leaves a length open besides that of its first axis."""
    found = [value for value in graph.inputs if value.shape is None or not is_fixed(value.shape[1:])]
    if found:
        raise MasktoolError(
            "a portable file is for inputs of one size, and the model leaves lengths open",
            where=list_some([f"input {value.name!r} {value.shape}" for value in found], NAMED),
            fix="fix the image's height and width with " + parameter("input_size", SIZE),
        )


def is_fixed(lengths: ir.Shape | tuple[int | ir.SymbolicDim, ...]) -> bool:
    """Tells whether all lengths are numbers."""
    return all(isinstance(length, int) for length in lengths)


def refuse_other_domains(model: ir.Model) -> None:
    """Raises MasktoolError where operators are not ONNX's own."""
    found = {name_operator(node.domain, node.op_type) for node in every_node(model) if node.domain not in ONNX_DOMAINS}
    if found:
        raise MasktoolError(
            "a portable file holds ONNX's own operators alone, and the model has others",
            where=list_some(sorted(found), NAMED),
            fix="leave " + parameter("portable") + " out",
        )


def fix_lengths(model: ir.Model) -> None:
    """Fixes the length of every first axis that is open to 1, and folds what depends on lengths alone, in place."""
    for value in model.graph.inputs:
        if value.shape is not None and not is_fixed(value.shape):
            value.shape = ir.Shape([1, *value.shape[1:]])
    forget_open_lengths(model)
    infer_types_and_shapes(model, check_type=True)
    optimizer.fold_constants(
        model,
        onnx_shape_inference=True,
        input_size_limit=LARGEST_FOLDED,
        output_size_limit=LARGEST_FOLDED,
        should_fold=fold_unless_empty,
    )
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    infer_types_and_shapes(model, check_type=True)


def fold_unless_empty(node: ir.Node) -> bool | None:
    """Tells that results without elements are not folded: OpenVINO takes an empty constant for a single number."""
    return False if any(value.shape is not None and 0 in value.shape for value in node.outputs) else None


def forget_open_lengths(model: ir.Model) -> None:
    """Removes shapes with open lengths from all values but inputs, in place: they follow from the inputs'."""
    for graph in model.graphs():
        for value in (*graph.outputs, *(value for node in graph for value in node.outputs)):
            if value.shape is not None and not is_fixed(value.shape):
                value.shape = None


def remove_unused(model: ir.Model) -> None:
    """Removes functions, nodes and weights that nothing reads, in place, in loops and branches too."""
    common.RemoveUnusedFunctionsPass()(model)
    common.RemoveUnusedNodesPass()(model)
    for graph in model.graphs():
        for name, value in tuple(graph.initializers.items()):
            if not (value.uses() or value.is_graph_output()):
                del graph.initializers[name]


def state_betas(model: ir.Model) -> None:
    """Gives every HardSigmoid whose beta is 0 one that is not, in place."""
    for node in every_node(model):
        if node.op_type == "HardSigmoid" and node.attributes.get_float("beta", 0.5) == 0:
            node.attributes["beta"] = ir.AttrFloat32("beta", TINY_BETA)


def lessen_dividends(model: ir.Model) -> None:
    """Gives every Mod of whole numbers a dividend that is less than twice its divisor, in place.

    a mod b = (a - (a / b) b) mod b, also where a quotient of large numbers is one too large or too small.
    """
    for graph in model.graphs():
        for node in tuple(graph):
            dividend, name = node.inputs[0] if node.inputs else None, str(node.name)
            if node.op_type != "Mod" or node.domain or dividend is None or name.endswith(LESSENED):
                continue
            if dividend.dtype not in (ir.DataType.INT32, ir.DataType.INT64):
                continue
            values = [dividend, node.inputs[1]]
            quotient = ir.node("Div", values, name=f"{name}/quotient")
            multiple = ir.node("Mul", [quotient.outputs[0], values[1]], name=f"{name}/multiple")
            rest = ir.node("Sub", [dividend, multiple.outputs[0]], name=f"{name}/rest")
            for new in (quotient, multiple, rest):
                new.outputs[0].name, new.outputs[0].type = f"{new.name}:0", dividend.type
            graph.insert_before(node, (quotient, multiple, rest))
            node.replace_input_with(0, rest.outputs[0])
            node.name = name + LESSENED


def forget_declarations(model: ir.Model) -> None:
    """Removes what is declared of all values that are no inputs or outputs of a graph, in place."""
    for graph in model.graphs():
        ends = {*graph.inputs, *graph.outputs}
        for value in (*graph.initializers.values(), *(value for node in graph for value in node.outputs)):
            value.metadata_props.clear()
            if value not in ends:
                value.type = value.shape = None
