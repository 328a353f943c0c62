"""Prints, as JSON, the kernels that the ONNX Runtime of this interpreter has; :mod:`collect_kernels` runs it.

* ``listed``: what ``get_all_opkernel_def()`` lists.
* ``placed``: where a session with WebGPU and the CPU places every operator of ONNX, alone in a graph, in each of its
  versions, for each element type of its first type constraint; ``get_all_opkernel_def()`` leaves WebGPU out.

A node that cannot be opened alone, for want of an attribute or of another kernel, is counted as unknown.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import onnx
import onnxruntime
from onnx import TensorProto, helper

OLDEST = 7
"""Opset of the oldest operators that are placed: what ONNX Runtime supports at all."""
TYPES = {
    "float": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "double": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint32": TensorProto.UINT32,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}
NO_KERNEL = ("NOT_IMPLEMENTED", "transformer_memcpy.cc", "/core/providers/cpu/")
"""What an error says where neither has a kernel, or where the CPU's, which was chosen, refuses the node."""
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "AveragePool": {"kernel_shape": [2, 2]},
    "Cast": {"to": TensorProto.FLOAT},
    "Concat": {"axis": 1},
    "Conv": {"kernel_shape": [3, 3]},
    "ConvTranspose": {"kernel_shape": [3, 3]},
    "DepthToSpace": {"blocksize": 2},
    "Einsum": {"equation": "ij,jk->ik"},
    "LRN": {"size": 3},
    "LpPool": {"kernel_shape": [2, 2]},
    "MaxPool": {"kernel_shape": [2, 2]},
    "ReverseSequence": {},
    "SpaceToDepth": {"blocksize": 2},
}
"""The attributes that operators must have, or that tell their kernels apart."""
OLD_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Pad": {"pads": [0, 0, 1, 1, 0, 0, 1, 1]},
    "Slice": {"starts": [0], "ends": [1]},
    "Squeeze": {"axes": [0]},
    "TopK": {"k": 1},
    "Unsqueeze": {"axes": [0]},
    "Upsample": {"scales": [1.0, 1.0, 2.0, 2.0]},
}
"""The same for versions in which these were attributes; later ones take them as inputs."""
BODIES = {
    "If": """single (bool b, TYPE[2] x) => (TYPE[2] y)
        { y = If (b) <then_branch = a () => (TYPE[2] p) { p = Identity (x) },
                      else_branch = c () => (TYPE[2] q) { q = Identity (x) }> }""",
    "Loop": """single (int64 n, bool b, TYPE[2] x) => (TYPE[2] y)
        { y = Loop (n, b, x) <body = a (int64 i, bool c, TYPE[2] v) => (bool d, TYPE[2] w)
                              { d = Identity (c) w = Identity (v) }> }""",
}
"""Graphs of the operators that hold graphs."""
SMALL_SHAPES: dict[str, list[list[int]]] = {
    "Conv": [[1, 4, 8, 8], [4, 4, 3, 3], [4]],
    "ConvTranspose": [[1, 4, 8, 8], [4, 4, 3, 3], [4]],
}


def list_kernels() -> dict[str, list[Any]]:
    """Returns what the package lists for the CPU, by ``domain::op_type``."""
    from onnxruntime.capi import onnxruntime_pybind11_state as binding

    found: dict[str, list[Any]] = {}
    for kernel in binding.get_all_opkernel_def():
        if kernel.provider == "CPUExecutionProvider" and kernel.domain in ("", "com.microsoft"):
            types = {
                name: [each[7:-1] for each in allowed if each.startswith("tensor(")]
                for name, allowed in kernel.type_constraints.items()
            }
            found.setdefault(f"{kernel.domain}::{kernel.op_name}", []).append([*kernel.version_range, types])
    return found


def place_operators() -> dict[str, Any]:
    """Returns the kernels that WebGPU takes single nodes to, and the nodes of which nothing could be found out."""
    on_cpu = list_kernels()
    found: dict[str, list[Any]] = {}
    unknown: list[str] = []
    most = newest_opset()
    for schema in sorted(onnx.defs.get_all_schemas_with_history(), key=lambda each: (each.name, each.since_version)):
        if schema.domain or schema.deprecated or schema.name == "Scan" or schema.since_version > most:
            continue
        newest = onnx.defs.get_schema(schema.name, "").since_version
        if newest != schema.since_version and next_version(schema) <= OLDEST:
            continue
        place_operator(schema, on_cpu.get(f"::{schema.name}", []), found, unknown)
    return {"kernels": found, "unknown": sorted(set(unknown)), "opset": most, "types": list(TYPES)}


def newest_opset() -> int:
    """Returns the newest opset that this ONNX Runtime takes."""
    for opset in range(onnx.defs.onnx_opset_version(), OLDEST, -1):
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
        graph = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])], "one", [value], [onnx.ValueInfoProto(name="y")]
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        with contextlib.suppress(Exception):  # of a class that depends on what it says of the opset
            onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            return opset
    return OLDEST


def next_version(schema: onnx.defs.OpSchema) -> int:
    """Returns the opset that brought the version of an operator behind this one."""
    history = onnx.defs.get_all_schemas_with_history()
    later = [each.since_version for each in history if (each.name, each.domain) == (schema.name, schema.domain)]
    return min((version for version in later if version > schema.since_version), default=schema.since_version)


def place_operator(
    schema: onnx.defs.OpSchema, on_cpu: list[Any], found: dict[str, list[Any]], unknown: list[str]
) -> None:
    """Places one version of an operator for each element type, and adds what was found.

    Where ONNX defines the operator by others and the CPU has no kernel, ONNX Runtime places these instead.
    """
    names = ("has_function", "has_context_dependent_function")  # which onnx's type stubs leave out
    is_function = any(getattr(schema, name) for name in names)
    for types in kinds_of_types(schema):
        written_out = is_function and not any(takes(kernel, schema.since_version, types) for kernel in on_cpu)
        try:
            on_device = is_on_device(schema, types) and not (written_out and is_gone(schema, types))
        except Exception as error:  # each operator has errors of its own, of ONNX Runtime's many classes
            if any(words in str(error) for words in NO_KERNEL):
                continue
            print(schema.name, schema.since_version, types, str(error)[:160].replace("\n", " "), file=sys.stderr)
            unknown.append(f"::{schema.name}-{schema.since_version}")
            continue
        if on_device:
            entry = [schema.since_version, schema.since_version, {name: [each] for name, each in types.items()}]
            found.setdefault(f"::{schema.name}", []).append(entry)


def takes(kernel: list[Any], version: int, types: dict[str, str]) -> bool:
    """Whether a kernel is for an operator of some version with given element types."""
    first, last, allowed = kernel
    return first <= version <= last and all(types[name] in allowed[name] for name in types.keys() & allowed.keys())


def kinds_of_types(schema: onnx.defs.OpSchema) -> Iterator[dict[str, str]]:
    """Yields assignments of element types to an operator's type constraints: each type of the widest one, once."""
    allowed = {each.type_param_str: tensors(each.allowed_type_strs) for each in schema.type_constraints}
    by_input = [each.type_str for each in schema.inputs if each.type_str in allowed]
    if schema.name == "Cast":
        for name in TYPES:
            yield {"T1": name, "T2": "float"}
            yield {"T1": "float", "T2": name}
        return
    if schema.name in BODIES:
        by_input = ["V"]
    widest = max(by_input, key=lambda name: len(allowed[name]), default=None)
    for name in TYPES:
        if widest is None or name not in allowed[widest]:
            continue
        yield {
            each: name
            if name in allowed[each]
            else next((other for other in ("int64", "float", "bool") if other in allowed[each]), name)
            for each in dict.fromkeys(by_input)
        }


def tensors(types: Iterable[str]) -> set[str]:
    """Returns the element types of the tensors among types."""
    return {each[7:-1] for each in types if each.startswith("tensor(")}


def is_on_device(schema: onnx.defs.OpSchema, types: dict[str, str]) -> bool:
    """Whether a session with WebGPU and the CPU places a node of an operator on WebGPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = ["WebGpuExecutionProvider", "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(make_model(schema, types), options, providers=providers)
    if session.get_providers() != providers:
        raise SystemExit(f"WebGPU does not load: only {session.get_providers()}")
    placed = [
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == "CPUExecutionProvider"
        for node in part.get_nodes()
    ]
    return schema.name not in placed


def is_gone(schema: onnx.defs.OpSchema, types: dict[str, str]) -> bool:
    """Whether ONNX Runtime puts other nodes in the place of a node of an operator."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.optimized_model_filepath = f"{folder}/opened.onnx"
        providers = ["WebGpuExecutionProvider", "CPUExecutionProvider"]
        onnxruntime.InferenceSession(make_model(schema, types), options, providers=providers)
        opened = onnx.load(options.optimized_model_filepath)
    return schema.name not in {node.op_type for node in opened.graph.node}


def make_model(schema: onnx.defs.OpSchema, types: dict[str, str]) -> bytes:
    """Returns a model of one node, whose inputs are those of the graph."""
    if schema.name in BODIES:
        opset = f'<ir_version: 8, opset_import: ["" : {max(schema.since_version, OLDEST)}]>'
        text = BODIES[schema.name].replace("TYPE", types["V"])
        return onnx.parser.parse_model(f"{opset} {text}").SerializeToString()
    wanted = [
        each
        for each in schema.inputs
        if each.option != onnx.defs.OpSchema.FormalParameterOption.Optional or (schema.name, each.name) in NEEDED
    ]
    inputs = []
    for index, each in enumerate(wanted):
        element = types.get(each.type_str) or next(iter(tensors([each.type_str])))
        shapes = SMALL_SHAPES.get(schema.name)
        shape = shapes[index] if shapes else None
        inputs.append(helper.make_tensor_value_info(each.name, TYPES[element], shape))
    names = list_inputs(schema, [each.name for each in wanted])
    attributes = dict(ATTRIBUTES.get(schema.name, {}))
    attributes |= {
        name: value for name, value in OLD_ATTRIBUTES.get(schema.name, {}).items() if name in schema.attributes
    }
    if "to" in attributes:
        attributes["to"] = TYPES[types["T2"]]
    required = [each for each in schema.outputs if each.option == onnx.defs.OpSchema.FormalParameterOption.Single]
    results = [f"result_{index}" for index in range(len(required) or 1)]
    node = helper.make_node(schema.name, names, results, **attributes)
    graph = helper.make_graph([node], "single", inputs, [onnx.ValueInfoProto(name=name) for name in results])
    opset = helper.make_opsetid("", max(schema.since_version, OLDEST))
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


NEEDED = {("Resize", "scales"), ("Clip", "min"), ("Clip", "max")}
"""Optional inputs that are given."""


def list_inputs(schema: onnx.defs.OpSchema, given: list[str]) -> list[str]:
    """Returns the names of a node's inputs in their places, empty ones where none is given."""
    places = [each.name if each.name in given else "" for each in schema.inputs]
    while places and not places[-1]:
        places.pop()
    return places


def main() -> None:
    """Prints what was asked for."""
    answer = place_operators() if sys.argv[1] == "placed" else {"kernels": list_kernels()}
    print(json.dumps({"version": onnxruntime.__version__} | answer))


if __name__ == "__main__":
    main()
