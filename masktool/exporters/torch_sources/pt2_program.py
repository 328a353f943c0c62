"""Checks that a ``torch.export`` archive's program is a graph of known operators and nothing that runs as Python.

The forms follow torch's own schema (``torch/_export/serde/schema.py``). Three of its fields reach Python's ``eval`` or
``exec`` when torch reads them: lengths (sympy), guards, and every name (torch writes a graph as Python code).
"""

from __future__ import annotations

import json
from typing import Any

from masktool.exporters.torch_sources.pt2_grammar import (
    UnknownFormError,
    condition,
    flag,
    guard,
    identifier,
    integer,
    integer_expression,
    module_path,
    number,
    optional,
    record,
    sequence,
    shown_form,
    table,
    text,
    tree,
    variant,
)
from masktool.exporters.torch_sources.pt2_operators import operator

DEVICE = record({"type": text(r"cpu|cuda|meta|mps")}, {"index": optional(integer(0, 63))})
HINT = optional(variant({"as_int": integer(), "as_bool": flag}))
SIZE = variant({"as_expr": record({"expr_str": integer_expression}, {"hint": HINT}), "as_int": integer()})
FIXED_SIZE = variant({"as_int": integer(0)})
ENUMERATION = integer(0, 99)
"""The form of torch's element types, layouts and orders in memory, by number; torch refuses those that it lacks."""
STRIDED = 7
"""torch's number of the layout that is no sparse one."""


def tensor_form(size: Any) -> Any:
    """Returns the form of a tensor's description: what is known of it besides its values."""
    return record(
        {
            "dtype": ENUMERATION,
            "sizes": sequence(size),
            "requires_grad": flag,
            "device": DEVICE,
            "strides": sequence(size),
            "storage_offset": size,
            "layout": integer(STRIDED, STRIDED),
        }
    )


TENSOR = record({"name": identifier})
OPTIONAL_TENSOR = variant({"as_tensor": TENSOR, "as_none": flag})
LENGTH = variant({"as_name": identifier, "as_int": integer()})
TRUTH = variant({"as_name": identifier, "as_bool": flag})
REAL = variant({"as_name": identifier, "as_float": number})
ARGUMENT = variant(
    {
        "as_none": flag,
        "as_tensor": TENSOR,
        "as_tensors": sequence(TENSOR),
        "as_int": integer(),
        "as_ints": sequence(integer()),
        "as_float": number,
        "as_floats": sequence(number),
        "as_string": text(r"[ -~]*"),
        "as_sym_int": LENGTH,
        "as_sym_ints": sequence(LENGTH),
        "as_sym_bool": TRUTH,
        "as_sym_float": REAL,
        "as_scalar_type": ENUMERATION,
        "as_memory_format": ENUMERATION,
        "as_layout": ENUMERATION,
        "as_device": DEVICE,
        "as_bool": flag,
        "as_bools": sequence(flag),
        "as_optional_tensor": OPTIONAL_TENSOR,
        "as_optional_tensors": sequence(OPTIONAL_TENSOR),
    }
)
"""Not among them: subgraphs, operators as values, objects of TorchScript, and mappings."""
PART_OF_STACK = text(r"(?:[\w.@'\[\]<>-]*,){2}[\w.<>-]*")
"""One module that a node stood in: torch's key, its path, its class."""


def module_stack(value: Any, place: str) -> str:
    """The form of the modules that a node stood in, from the outermost; torch unflattens a program by them."""
    if not isinstance(value, str):
        raise UnknownFormError(f"{place} is {shown_form(value)}")
    return ";".join(PART_OF_STACK(part, place) for part in value.split(";"))


METADATA = record(
    {}, {"nn_module_stack": module_stack}, ("custom", "from_node", "source_fn_stack", "stack_trace", "torch_fn")
)
"""What else torch notes of a node tells people where it comes from."""
INPUT = record({"name": text(r"\w*"), "arg": ARGUMENT}, {"kind": optional(integer(0, 2))})
NODE = record(
    {"target": operator, "inputs": sequence(INPUT), "outputs": sequence(ARGUMENT), "metadata": METADATA},
    {"is_hop_single_tensor_return": optional(flag), "name": optional(identifier)},
)
NOTHING = table(identifier, variant({}))
"""An empty mapping."""
GRAPH = record(
    {
        "inputs": sequence(variant({"as_tensor": TENSOR})),
        "outputs": sequence(ARGUMENT),
        "nodes": sequence(NODE),
        "tensor_values": table(identifier, tensor_form(SIZE)),
        "sym_int_values": table(identifier, SIZE),
        "sym_bool_values": table(
            identifier, variant({"as_expr": record({"expr_str": condition}, {"hint": HINT}), "as_bool": flag})
        ),
    },
    {"is_single_tensor_return": flag, "custom_obj_values": NOTHING, "sym_float_values": NOTHING},
)
IN_SPEC = variant(
    {
        "user_input": record({"arg": variant({"as_tensor": TENSOR})}),
        "parameter": record({"arg": TENSOR, "parameter_name": module_path}),
        "buffer": record({"arg": TENSOR, "buffer_name": module_path, "persistent": flag}),
        "tensor_constant": record({"arg": TENSOR, "tensor_constant_name": module_path}),
    }
)
OUT_SPEC = variant(
    {
        "user_output": record({"arg": ARGUMENT}),
        "buffer_mutation": record({"arg": TENSOR, "buffer_name": module_path}),
    }
)
KEY = text(r"[\w. -]*")
"""The form of a key of a mapping that a network gives."""
SIGNATURE = record(
    {
        "inputs": sequence(ARGUMENT),
        "outputs": sequence(ARGUMENT),
        "in_spec": tree(identifier),
        "out_spec": tree(KEY),
    },
    {"forward_arg_names": optional(sequence(identifier))},
)
MODULE = record(
    {
        "graph": GRAPH,
        "signature": record({"input_specs": sequence(IN_SPEC), "output_specs": sequence(OUT_SPEC)}),
        "module_call_graph": sequence(record({"fqn": module_path}, {"signature": optional(SIGNATURE)})),
    },
    dropped=("metadata", "treespec_namedtuple_fields"),
)
BOUND = optional(integer())
PROGRAM = record(
    {
        "graph_module": MODULE,
        "opset_version": table(text(r"\w+"), integer(0, 10**6)),
        "range_constraints": table(text(r"[su]\d{1,6}"), record({"min_val": BOUND, "max_val": BOUND})),
        "schema_version": record({"major": integer(0, 10**6), "minor": integer(0, 10**6)}),
    },
    {"verifiers": sequence(text(r"[A-Z_]+")), "torch_version": text(r"[\w.+<=]+"), "guards_code": sequence(guard)},
)
ONE_IMAGE: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
"""Where a program takes one tensor and nothing else, the nesting of what it takes is ((image,), {})."""


def check_program(value: Any, place: str) -> dict[str, Any]:
    """Returns a copy of a program that holds only what was checked.

    Raises:
        UnknownFormError: something in the program has none of the forms in this file.
    """
    program: dict[str, Any] = PROGRAM(value, place)
    if program.get("guards_code") and image_sizes(program) is None:
        raise UnknownFormError(f"{place} has conditions on inputs that are not one image")
    return program


def image_sizes(program: dict[str, Any]) -> list[int] | None:
    """Returns the sizes of the image that a program was exported with; None where it takes something else."""
    module = program["graph_module"]
    names = [each["user_input"]["arg"] for each in module["signature"]["input_specs"] if "user_input" in each]
    calls = [each["signature"] for each in module["module_call_graph"] if each["fqn"] == ""]
    if len(names) != 1 or len(calls) != 1 or calls[0] is None:
        return None
    _, spec = json.loads(calls[0]["in_spec"])
    inner = [each["children_spec"] for each in spec["children_spec"]]
    tensor = module["graph"]["tensor_values"].get(names[0]["as_tensor"]["name"])
    if inner != [[ONE_IMAGE], []] or tensor is None:
        return None
    sizes = [fixed_size(each) for each in tensor["sizes"]]
    return None if None in sizes else sizes  # type: ignore[return-value]


def fixed_size(size: dict[str, Any]) -> int | None:
    """Returns a fixed size, or the size that an open one had at export; None where torch did not note it."""
    if "as_int" in size:
        return int(size["as_int"])
    hint = size["as_expr"].get("hint") or {}
    return hint.get("as_int")
