"""Which nodes of a graph a provider of ONNX Runtime has no kernel for, so that they fall back to the CPU.

The answers come from ``kernels.json``, which ``scripts/collect_kernels.py`` writes from ONNX Runtime's and TensorRT's
own tables and packages. They are what tables say, not a run: ONNX Runtime decides when it opens a file, and may fuse
nodes, or keep small ones on the CPU. Not counted are nodes that it computes once, of constants alone, and nodes on
lengths and on the numbers of a loop's rounds, which every provider leaves to the CPU and which cost nothing.

Where a kernel is told by its version, that is the opset in which ONNX last changed the operator: a kernel without an
end (``12+`` in the tables) takes nodes of that very version alone.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import onnx
import onnx.inliner
import onnx_ir as ir
from onnx_ir.passes import common

from masktool.exporters.description import read_graph
from masktool.exporters.inference import infer_types_and_shapes
from masktool.exporters.opset import opset_of
from masktool.exporters.result import ONNX_DOMAINS, name_operator
from masktool.exporters.rewrites.schema_functions import state_defaults

FACTS = Path(__file__).with_name("kernels.json")
LENGTHS = frozenset({"Shape", "Size"})
"""Operators that read the lengths of a value, not its numbers."""
ENLARGING = frozenset({"ConstantOfShape", "Expand", "EyeLike", "OneHot", "Range", "Tile"})
"""Operators that make of a few numbers as many as a map has."""
RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomUniform"})
"""Operators that give other numbers in every run, so that nothing can be computed once."""
SECOND_OUTPUT: Mapping[str, str] = {
    "tensorrt": "its output of indices is not supported",
    "webgpu": "its output of indices is an error at run time (seen in 1.27 and 1.30)",
}
"""What providers say to a MaxPool that gives indices."""
REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
CONSTANT_INPUTS: Mapping[str, Mapping[str, Sequence[int]]] = {
    "coreml": {"Conv": [2], "ConvTranspose": [1, 2], "Gemm": [1], "Slice": [1, 2, 3, 4], "Split": [1]},
    "tensorrt": {
        **{name: [1] for name in REDUCTIONS},
        "CumSum": [1],
        "Pad": [3],
        "Slice": [3],
        "Squeeze": [1],
        "Unsqueeze": [1],
    },
}
"""Inputs that must be constants, by provider and operator, as the notes of the tables have it."""


class KernelAnswer(NamedTuple):
    """What the tables say of a node.

    Attributes:
        where: where it runs; ``unknown`` where the tables do not tell.
        reason: why not on the device; empty where it does.
    """

    where: Literal["device", "cpu", "unknown"]
    reason: str = ""


ON_DEVICE = KernelAnswer("device")


@dataclasses.dataclass(frozen=True)
class NodePlacement:
    """A node that does not run on the device for sure.

    Attributes:
        name: the node's name; that of its first output where it has none.
        operator: the operator, with its domain where that is not ONNX's own.
        answer: what the tables say of it.
    """

    name: str
    operator: str
    answer: KernelAnswer


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a provider's tables have the nodes of a graph run.

    Attributes:
        provider: the provider, one of ``DEVICE_PROVIDERS``.
        source: where its tables come from, and of which versions they are.
        on_device: the number of nodes that it has a kernel for.
        others: the nodes that fall back to the CPU, or of which the tables do not tell.
        on_lengths: the number of nodes that compute lengths alone.
        on_constants: the number of nodes that are computed once.
    """

    provider: str
    source: str
    on_device: int
    others: tuple[NodePlacement, ...]
    on_lengths: int
    on_constants: int


@functools.cache
def kernel_facts() -> Mapping[str, Any]:
    """Returns the document ``kernels.json``."""
    document: Mapping[str, Any] = json.loads(FACTS.read_text(encoding="utf-8"))
    return document


def facts_of(provider: str) -> Mapping[str, Any]:
    """Returns what is known of one provider, ``cpu`` included."""
    facts: Mapping[str, Any] = kernel_facts()["providers"][provider]
    return facts


def describe_source(provider: str) -> str:
    """Returns where a provider's tables come from, with their version and day."""
    facts = facts_of(provider)
    commit = f", commit {facts['commit'][:12]} of {facts['date']}" if "commit" in facts else ""
    return f"{facts['source']}, version {facts['version']}{commit}; collected {kernel_facts()['collected']}"


def place_file(path: Path, provider: str) -> Placement:
    """Returns where a provider's tables have the nodes of an ONNX file run; files of weights need not be there.

    Raises:
        MasktoolError: the file is missing, empty or not an ONNX model.
    """
    return place_nodes(ir.from_proto(read_graph(path)), provider)


def place_nodes(model: ir.Model, provider: str) -> Placement:
    """Returns where a provider's tables have the nodes of a model run, functions written out.

    Args:
        model: the model, whose functions are inlined and whose types are inferred, in place.
        provider: one of ``DEVICE_PROVIDERS``.
    """
    model = write_out_functions(model)
    kinds = NodeKinds(model.graph)
    answers = [(node, answer_for(node, opset_of(model), provider, kinds.constants)) for node in kinds.computed]
    others = tuple(
        NodePlacement(node_label(node), name_operator(node.domain, node.op_type), found)
        for node, found in answers
        if found.where != "device"
    )
    return Placement(
        provider, describe_source(provider), len(answers) - len(others), others, kinds.on_lengths, kinds.on_constants
    )


def node_label(node: ir.Node) -> str:
    """Returns a node's name, or that of its first output."""
    return node.name or next((value.name for value in node.outputs if value.name), "(unnamed)")


def write_out_functions(model: ir.Model) -> ir.Model:
    """Returns a model without functions of its own, and without those of ONNX that the CPU has no kernel for.

    ONNX Runtime writes these out before it asks the providers.
    """
    for function in model.functions.values():
        for node in function:
            node.name = node.name or f"{function.name}/{node.op_type}"
    common.InlinePass()(model)
    infer_types_and_shapes(model, check_type=False)
    opset = opset_of(model)
    for node in tuple(model.graph.all_nodes()):
        write_out_cast(node)
    found = {node.op_type for node in model.graph.all_nodes() if is_written_out(node, opset)}
    if not found:
        return model
    for node in model.graph.all_nodes():
        if node.op_type in found:
            state_defaults(node, opset)
    try:
        proto = onnx.inliner.inline_selected_functions(
            ir.to_proto(model), [("", name) for name in sorted(found)], inline_schema_functions=True
        )
    except RuntimeError:  # it knows too few types inside loops and branches; these nodes are then said to be unknown
        return model
    written = ir.from_proto(proto)
    infer_types_and_shapes(written, check_type=False)
    return written


def write_out_cast(node: ir.Node) -> None:
    """Makes a CastLike the Cast that ONNX defines it by, in place, where the type that it takes is known."""
    if node.op_type == "CastLike" and node.inputs[1] is not None and node.inputs[1].dtype is not None:
        node.op_type, node.attributes["to"] = "Cast", ir.AttrInt64("to", node.inputs[1].dtype.value)
        node.resize_inputs(1)


def is_written_out(node: ir.Node, opset: int) -> bool:
    """Whether ONNX defines an operator by others, and ONNX Runtime has no kernel of its own for it on the CPU."""
    schema = schema_of(node, opset)
    if schema is None or node.domain not in ONNX_DOMAINS or f"::{node.op_type}" in facts_of("cpu")["kernels"]:
        return False
    return any(getattr(schema, name) for name in ("has_function", "has_context_dependent_function"))


def schema_of(node: ir.Node, opset: int) -> onnx.defs.OpSchema | None:
    """Returns ONNX's definition of a node's operator; None for one that is not ONNX's."""
    try:
        return onnx.defs.get_schema(
            node.op_type, node.version or opset, "" if node.domain in ONNX_DOMAINS else node.domain
        )
    except onnx.defs.SchemaError:
        return None


class NodeKinds:
    """Sorts the nodes of a graph, loops and branches included, by what they compute from.

    Attributes:
        constants: the values that are the same in every run.
        computed: the nodes that are computed in every run, from more than lengths.
        on_lengths: the number of nodes that compute lengths alone.
        on_constants: the number of nodes that compute constants.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.constants: set[ir.Value] = set()
        self.computed: list[ir.Node] = []
        self.on_lengths = self.on_constants = 0
        self._lengths: set[ir.Value] = set()
        self._sort(graph)

    def _sort(self, graph: ir.Graph) -> None:
        inputs = set(graph.inputs)
        self.constants.update(value for value in graph.initializers.values() if value not in inputs)
        for node in graph:
            bodies = [each.as_graph() for each in node.attributes.values() if each.type == ir.AttributeType.GRAPH]
            if bodies:
                self.computed.append(node)
            else:
                self._sort_node(node)
            for body in bodies:
                if node.op_type == "Loop":  # the number of the round and the condition stay with who runs the loop
                    self._lengths.update(body.inputs[:2])
                self._sort(body)

    def _sort_node(self, node: ir.Node) -> None:
        varying = [value for value in node.inputs if value is not None and value not in self.constants]
        if not varying and node.op_type not in RANDOM:
            self.constants.update(node.outputs)
            self.on_constants += 1
        elif node.op_type in LENGTHS or (self._lengths.issuperset(varying) and node.op_type not in ENLARGING | RANDOM):
            self._lengths.update(node.outputs)
            self.on_lengths += 1
        else:
            self.computed.append(node)


def answer_for(node: ir.Node, opset: int, provider: str, constants: Iterable[ir.Value] = ()) -> KernelAnswer:
    """Returns what a provider's tables say of a node.

    Args:
        node: the node, with the types of its values.
        opset: the opset of the graph.
        provider: a provider, ``cpu`` included.
        constants: the values that are the same in every run.
    """
    facts = facts_of(provider)
    if is_written_out(node, opset):
        return KernelAnswer("unknown", "ONNX Runtime writes it out in other operators")
    if node.op_type == "MaxPool" and len(node.outputs) > 1 and provider in SECOND_OUTPUT:
        return KernelAnswer("cpu", SECOND_OUTPUT[provider])
    if "kernels" in facts:
        return answer_by_kernels(node, opset, facts)
    found = answer_by_list(node, opset, facts)
    if found.where == "device":
        fixed = set(constants)
        for index in CONSTANT_INPUTS.get(provider, {}).get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is not None and value not in fixed:
                return KernelAnswer("cpu", f"its input {index} must be a constant")
    return found


def answer_by_kernels(node: ir.Node, opset: int, facts: Mapping[str, Any]) -> KernelAnswer:
    """Returns what a table of kernels, with their versions and types, says of a node."""
    schema = schema_of(node, opset)
    since = 1 if schema is None else schema.since_version
    operator = f"{'' if node.domain in ONNX_DOMAINS else node.domain}::{node.op_type}"
    if since > facts.get("opset", since):
        return KernelAnswer("unknown", f"its version {since} came after the tables")
    if f"{operator}-{since}" in facts.get("unknown", ()):
        return KernelAnswer("unknown", "it could not be tried alone")
    by_version = {version: kernels for version, *kernels in facts["kernels"].get(operator, ())}
    if not by_version:
        return KernelAnswer("cpu", "no kernel")
    if since not in by_version:
        known = ", ".join(map(str, by_version))
        return KernelAnswer("cpu", f"no kernel for its version {since}, which opset {opset} has; there are for {known}")
    if schema is None:
        return ON_DEVICE
    types = types_by_constraint(node, schema)
    misfits = [misfit for kernel in by_version[since] if (misfit := find_misfit(types, kernel))]
    if len(misfits) < len(by_version[since]):
        return ON_DEVICE
    name, allowed = misfits[0]
    untried = "types" in facts and types[name] not in facts["types"]
    return KernelAnswer("unknown" if untried else "cpu", f"no kernel for {types[name]}; there is for {allowed}")


def find_misfit(types: Mapping[str, str], kernel: Mapping[str, str]) -> tuple[str, str] | None:
    """Returns the first type constraint that keeps a kernel from taking a node, with the types that it takes."""
    for name, allowed in kernel.items():
        if name in types and types[name] not in allowed.split():
            return name, allowed
    return None


def types_by_constraint(node: ir.Node, schema: onnx.defs.OpSchema) -> dict[str, str]:
    """Returns the element types of a node by the names of its type constraints, as far as they are known."""
    found: dict[str, str] = {}
    for parameters, values in ((schema.inputs, node.inputs), (schema.outputs, node.outputs)):
        for index, value in enumerate(values):
            if value is not None and value.dtype is not None and parameters:
                found.setdefault(parameters[min(index, len(parameters) - 1)].type_str, name_type(value.dtype))
    return found


def name_type(dtype: ir.DataType) -> str:
    """Returns ONNX Runtime's name of an element type."""
    return dtype.name.lower()


def answer_by_list(node: ir.Node, opset: int, facts: Mapping[str, Any]) -> KernelAnswer:
    """Returns what a page of supported operators says of a node: TensorRT's, which tells types, or CoreML's."""
    operators = facts["operators"]
    name = f"{'' if node.domain in ONNX_DOMAINS else node.domain}::{node.op_type}"
    least, most = facts.get("opsets", (opset, opset))
    if not least <= opset <= most:
        return KernelAnswer("unknown", f"the table is for opsets {least} to {most}, not for {opset}")
    if name not in operators:
        listed = "opsets" not in facts  # TensorRT's page says so of each; CoreML's names what is supported
        return KernelAnswer("cpu", "not supported") if listed else KernelAnswer("unknown", "not on the page")
    if operators[name] is None:
        return KernelAnswer("cpu", "not supported")
    types = operators[name][0].split() if "opsets" in facts else []
    main = main_type(node)
    if types and main is not None and main not in types and main != "double":  # which it computes in float32
        return KernelAnswer("cpu", f"not supported for {main}")
    return ON_DEVICE


def main_type(node: ir.Node) -> str | None:
    """Returns the element type that an operator computes in: mostly its first input's."""
    index = 1 if node.op_type == "Where" else 0
    values = node.outputs if node.op_type == "ConstantOfShape" else node.inputs[index:]
    value = values[0] if values else None
    return None if value is None or value.dtype is None else name_type(value.dtype)


def group_by_operator(nodes: Iterable[NodePlacement]) -> Iterator[tuple[str, KernelAnswer, list[str]]]:
    """Yields operators with what the tables say and the names of the nodes, the most frequent first."""
    groups: dict[tuple[str, KernelAnswer], list[str]] = {}
    for node in nodes:
        groups.setdefault((node.operator, node.answer), []).append(node.name)
    for (operator, found), names in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        yield operator, found, names
