"""What an ONNX file holds, masked or not: :func:`describe`. Weights beside the file are counted, not read."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masktool.contract import RULE_PROPERTY, Metadata
from masktool.data_files import check_readable
from masktool.errors import MasktoolError
from masktool.exporters.derivatives.recorded import read_derivative
from masktool.exporters.result import NodeRule, name_operator
from masktool.identity import named_files

if TYPE_CHECKING:
    import onnx

__all__ = ["ModelDescription", "TensorDescription", "describe"]


@dataclasses.dataclass(frozen=True)
class TensorDescription:
    """An input or output of a model.

    Attributes:
        name: the name of the input or output.
        dtype: NumPy's name of the element type; None where that is not known.
        shape: the length of each axis: a number, a name for an open axis, None for an unknown one; None in place of
            the shape where nothing is known of it.
    """

    name: str
    dtype: str | None
    shape: tuple[int | str | None, ...] | None


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """What an ONNX file holds.

    Attributes:
        path: the path of the file.
        n_bytes: the size in bytes of the file and of the files beside it that hold its weights.
        ir_version: the version of the ONNX format.
        opsets: the opset version by domain; ONNX's own domain is ``ai.onnx``.
        inputs: the inputs in the graph's order, without weights.
        optional_inputs: the names of the inputs that may be left out, such as ``mask``.
        outputs: the outputs in the graph's order.
        metadata: what a file that masktool exported says about itself; None for any other file.
        operators: the number of nodes by operator, the most frequent first, the bodies of control flow included.
        functions: the number of nodes in each function of the file, by ``domain::name``.
        rules: every node with the mask rule that was applied to it; None in place of the rule where there was none.
        derivative: what a file that ``masktool gradient`` wrote says of its gradients, JSON values by name; None for
            any other file.
    """

    path: Path
    n_bytes: int
    ir_version: int
    opsets: Mapping[str, int]
    inputs: tuple[TensorDescription, ...]
    optional_inputs: frozenset[str]
    outputs: tuple[TensorDescription, ...]
    metadata: Metadata | None
    operators: Mapping[str, int]
    functions: Mapping[str, int]
    rules: tuple[NodeRule, ...]
    derivative: Mapping[str, Any] | None = None

    @property
    def masked(self) -> bool:
        """Whether masktool exported the file and it takes a mask."""
        return self.metadata is not None and self.metadata.takes_mask


def describe(path: str | os.PathLike[str]) -> ModelDescription:
    """Returns what an ONNX file holds: inputs, outputs, operators, and what masktool wrote about it.

    Args:
        path: the path of the file; files of weights beside it need not be there.

    Raises:
        MasktoolError: the file is missing, empty or not an ONNX model, or its metadata are damaged or of a newer
            schema.
    """
    path = Path(path)
    model = read_graph(path)
    graph = model.graph
    properties = {entry.key: entry.value for entry in model.metadata_props}
    metadata = Metadata.from_properties(properties)
    weights = {tensor.name for tensor in graph.initializer}
    optional = frozenset(weights) if metadata else frozenset()
    rules = list_rules(graph)
    return ModelDescription(
        path=path,
        n_bytes=count_bytes(path),
        ir_version=model.ir_version,
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        inputs=tuple(describe_tensor(value) for value in graph.input if value.name not in weights - optional),
        optional_inputs=optional & {value.name for value in graph.input},
        outputs=tuple(map(describe_tensor, graph.output)),
        metadata=metadata,
        operators=count_operators(rules),
        functions={f"{function.domain}::{function.name}": len(function.node) for function in model.functions},
        rules=rules,
        derivative=read_derivative(properties),
    )


def read_graph(path: Path) -> onnx.ModelProto:
    """Reads an ONNX file without the weights beside it.

    Raises:
        MasktoolError: the file is missing, empty or not an ONNX model.
    """
    check_readable(path, "an ONNX model")
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors have no common base across its implementations
        raise MasktoolError(
            "not an ONNX model", where=path, got=error, fix="the file may be damaged, truncated or of another kind"
        ) from error
    if not model.graph.node and not model.graph.output:
        raise MasktoolError("not an ONNX model", where=path, expected="a graph", got="none")
    return model


def describe_tensor(value: onnx.ValueInfoProto) -> TensorDescription:
    """Returns name, element type and shape of an input or output."""
    tensor = value.type.tensor_type
    axes = tuple(axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None for axis in tensor.shape.dim)
    return TensorDescription(value.name, name_dtype(tensor.elem_type), axes if tensor.HasField("shape") else None)


def name_dtype(elem_type: int) -> str | None:
    """Returns NumPy's name of an element type; None for one that onnx does not know, and for none."""
    import onnx

    if not elem_type or elem_type not in onnx.TensorProto.DataType.values():
        return None
    return onnx.helper.tensor_dtype_to_np_dtype(elem_type).name


def count_bytes(path: Path) -> int:
    """Returns the size of a model's file and of the files beside it that hold its weights."""
    n_bytes = path.stat().st_size
    for file in named_files(path):
        with contextlib.suppress(OSError):  # a name may be too long for any file
            n_bytes += file.stat().st_size if file.is_file() else 0
    return n_bytes


def walk_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yields every node of a graph, those in the bodies of control flow too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from walk_nodes(body)


def list_rules(graph: onnx.GraphProto) -> tuple[NodeRule, ...]:
    """Returns every node of a graph with the mask rule that was applied to it."""
    return tuple(
        NodeRule(
            node.name,
            name_operator(node.domain, node.op_type),
            next((entry.value for entry in node.metadata_props if entry.key == RULE_PROPERTY), None),
        )
        for node in walk_nodes(graph)
    )


def count_operators(nodes: Iterable[NodeRule]) -> dict[str, int]:
    """Returns how many nodes there are of each operator, the most frequent first."""
    counts = collections.Counter(node.op_type for node in nodes)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
