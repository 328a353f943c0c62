"""What an ONNX graph has to be before anything else looks at it.

Libraries behind this door trust what they are given: they loop over a cycle for ever, allocate what a shape declares,
read what a path names, and end the whole process where two counts disagree. So every graph of a model, subgraphs and
functions included, is looked over first, in one pass over its names.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx

from masktool.errors import MasktoolError
from masktool.exporters.onnx_nodes import STANDARD, Nodes, check_nodes, describe_node
from masktool.exporters.onnx_scales import check_scales
from masktool.external_weights import find_beside
from masktool.layouts import RANKS
from masktool.limits import check_limit

DAMAGED = "copy or export the file again"
VALUE_FIELDS = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
"""The fields of a TensorProto for its numbers, exactly one of which holds them."""
LATEST_OPSET = 2**31 - 1
"""ONNX's libraries read the version of an operator set into 32 bits."""
DEEPEST = 64
"""Levels of subgraphs within subgraphs; protobuf itself reads no more than about 30 from a file."""
BITS: dict[int, int] = {
    number: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number)).itemsize * 8
    for number in onnx.TensorProto.DataType.values()
    if number not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
}
BITS |= {
    getattr(onnx.TensorProto, name): bits
    for bits, names in ((4, ("INT4", "UINT4", "FLOAT4E2M1")), (2, ("INT2", "UINT2")))
    for name in names
    if hasattr(onnx.TensorProto, name)
}
"""Bits that one element takes in ``raw_data``."""


def check_proto(model: onnx.ModelProto, where: object) -> None:
    """Raises MasktoolError where a model cannot be given to ONNX's own libraries.

    Args:
        model: the model as it was read; its nodes are put into the order in which they compute, in place.
        where: file or name, for messages.
    """
    graphs = list(graphs_of(model, where))
    check_limit("nodes", sum(len(graph.node) for graph in graphs), where=where)
    refuse_twice("an operator set that is imported twice", (each.domain for each in model.opset_import), where)
    check_opsets(model, where)
    functions = (f"{each.domain}::{each.name}::{each.overload}" for each in model.functions)
    refuse_twice("a function that is given twice", functions, where)
    for graph in graphs:
        if isinstance(graph, onnx.GraphProto):
            check_own_names("an input", [value.name for value in graph.input], where)
            check_own_names("a weight", list(weight_names(graph)), where)
        check_names(graph, where)
        imports = graph.opset_import if isinstance(graph, onnx.FunctionProto) else model.opset_import
        opset = next((each.version for each in imports if each.domain in STANDARD), None)
        check_nodes(graph, opset, where)
        for tensor in tensors_of(graph):
            check_tensor(tensor, where)
        check_scales(graph, where)
    for function in model.functions:
        sort_nodes(function, set(function.input), where)
    sort_nodes(model.graph, set(), where)
    check_input_lengths(model.graph, where)


def check_opsets(model: onnx.ModelProto, where: object) -> None:
    """Raises MasktoolError for a version of an operator set that no reader can hold, or that ONNX never had."""
    for each in (*model.opset_import, *(each for function in model.functions for each in function.opset_import)):
        first = 1 if each.domain in STANDARD else 0
        if not first <= each.version <= LATEST_OPSET:
            raise MasktoolError(
                "a version that no operator set has",
                where=f"{where}, domain {each.domain or STANDARD[1]!r}",
                expected=f"{first} to {LATEST_OPSET}",
                got=each.version,
                fix=DAMAGED,
            )


def graphs_of(model: onnx.ModelProto, where: object = None) -> Iterator[Nodes]:
    """Yields the graph of a model, its functions, and all subgraphs.

    Raises:
        MasktoolError: subgraphs lie too deep within each other.
    """
    waiting: list[tuple[Nodes, int]] = [(model.graph, 0), *((function, 0) for function in model.functions)]
    while waiting:
        graph, depth = waiting.pop()
        yield graph
        inner = [subgraph for node in graph.node for subgraph in subgraphs_of(node)]
        if inner and depth == DEEPEST:
            raise MasktoolError("subgraphs within subgraphs", where=where, expected=f"at most {DEEPEST} levels")
        waiting += [(subgraph, depth + 1) for subgraph in inner]


def subgraphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yields the subgraphs of a node (If, Loop, Scan)."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def tensors_of(graph: Nodes) -> Iterator[onnx.TensorProto]:
    """Yields the weights of a graph and the tensors among its nodes' attributes, not those of subgraphs."""
    if isinstance(graph, onnx.GraphProto):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            yield from attribute.tensors


def check_names(graph: Nodes, where: object) -> None:
    """Raises MasktoolError where a name is no text: protobuf gives damaged text as bytes."""
    for node in graph.node:
        texts: Iterable[object] = (
            *(node.op_type, node.domain, node.name, *node.input, *node.output),
            *(attribute.name for attribute in node.attribute),
        )
        if any(not isinstance(text, str) for text in texts):
            raise MasktoolError(
                "a name that is no text", where=f"{where}, {describe_node(node)}", expected="UTF-8", fix=DAMAGED
            )


def refuse_twice(what: str, names: Iterable[str], where: object) -> None:
    """Raises MasktoolError where a name occurs twice: readers differ in which of the two they take."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise MasktoolError(what, where=where, got=repr(name), fix="export the network again")
        seen.add(name)


def check_own_names(what: str, names: Sequence[str], where: object) -> None:
    """Raises MasktoolError where an input or a weight has no name, or shares it: onnx_ir leaves such a weight out."""
    if "" in names:
        raise MasktoolError(f"{what} without a name", where=where, fix="export the network again")
    refuse_twice(f"{what} that is given twice", names, where)


def weight_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yields the names of a graph's weights, sparse ones included."""
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)


def check_tensor(tensor: onnx.TensorProto, where: object) -> None:
    """Raises MasktoolError where a tensor's numbers are not as many as its shape says, or stand there twice."""
    place = f"{where}, tensor {tensor.name!r}"
    if not isinstance(tensor.name, str):
        raise MasktoolError("a name that is no text", where=place, expected="UTF-8", fix=DAMAGED)
    if tensor.data_type not in BITS and tensor.data_type != onnx.TensorProto.STRING:
        raise MasktoolError("an element type that ONNX does not know", where=place, got=tensor.data_type, fix=DAMAGED)
    if min(tensor.dims, default=1) < 0:
        raise MasktoolError("a weight of negative length", where=place, got=tuple(tensor.dims), fix=DAMAGED)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return
    filled = [field for field in VALUE_FIELDS if len(getattr(tensor, field))]
    count = math.prod(tensor.dims)
    if len(filled) > 1:
        raise MasktoolError("a tensor with two sets of numbers", where=place, got=" and ".join(filled), fix=DAMAGED)
    if filled == ["raw_data"]:
        expected, got = (count * BITS.get(tensor.data_type, 8) + 7) // 8, len(tensor.raw_data)
    else:
        expected, got = stored_entries(tensor.data_type, count), len(getattr(tensor, filled[0])) if filled else 0
    if expected != got:
        unit = "bytes" if filled == ["raw_data"] else "numbers"
        raise MasktoolError(
            "a tensor whose numbers do not fill its shape",
            where=place,
            expected=f"{expected} {unit} for {tuple(tensor.dims)}",
            got=got,
            fix=DAMAGED,
        )


def stored_entries(data_type: int, count: int) -> int:
    """Returns how many entries the typed field of a tensor of ``count`` elements has."""
    if data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        return 2 * count
    bits = BITS.get(data_type, 8)
    return -(-count * bits // 8) if bits < 8 else count


def sort_nodes(graph: Nodes, outer: set[str], where: object) -> None:
    """Checks that every value is given once; puts nodes, in place, into an order that gives values before their use.

    Args:
        graph: a graph or a function; its subgraphs are sorted too.
        outer: names that a subgraph may read besides its own.
        where: file or name, for messages.

    Raises:
        MasktoolError: a value is given twice or nowhere, or nodes wait for each other.
    """
    known = set(outer)
    if isinstance(graph, onnx.GraphProto):
        known |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        known |= {sparse.values.name for sparse in graph.sparse_initializer}
    producers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in producers or (name in known and name not in outer):
                raise MasktoolError("a value that is given twice", where=f"{where}, {describe_node(node)}", got=name)
            producers[name] = index
    order = find_order(graph, known, producers, where)
    if order != list(range(len(order))):
        nodes = [onnx.NodeProto.FromString(graph.node[index].SerializeToString()) for index in order]
        del graph.node[:]
        graph.node.extend(nodes)
    results = graph.output if isinstance(graph, onnx.FunctionProto) else [value.name for value in graph.output]
    available = known | set(producers)
    if missing := [name for name in results if name not in available]:
        raise MasktoolError("an output that nothing gives", where=where, got=missing[0], fix=DAMAGED)
    for node in graph.node:
        for subgraph in subgraphs_of(node):
            sort_nodes(subgraph, available, where)


def find_order(graph: Nodes, known: set[str], producers: dict[str, int], where: object) -> list[int]:
    """Returns the nodes' indices in an order in which every value is given before it is read: theirs, if it is such.

    Raises:
        MasktoolError: a value is given nowhere, or nodes wait for each other.
    """
    needs = []
    for node in graph.node:
        reads = [name for name in names_read(node) if name not in known]
        if unknown := [name for name in reads if name not in producers]:
            raise MasktoolError(
                "a value that nothing gives", where=f"{where}, {describe_node(node)}", got=unknown[0], fix=DAMAGED
            )
        needs.append({producers[name] for name in reads})
    readers: list[list[int]] = [[] for _ in needs]
    for index, before in enumerate(needs):
        for earlier in before:
            readers[earlier].append(index)
    if all(not before or max(before) < index for index, before in enumerate(needs)):
        return list(range(len(needs)))
    waiting = [len(before) for before in needs]
    ready, order = [index for index, count in enumerate(waiting) if count == 0], []
    while ready:  # a heap: nodes keep their order as far as they can, on which ONNX Runtime's optimisers may depend
        order.append(heapq.heappop(ready))
        for reader in readers[order[-1]]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(needs):
        stuck = graph.node[next(index for index, count in enumerate(waiting) if count)]
        raise MasktoolError(
            "nodes that wait for each other: the graph has a cycle", where=f"{where}, {describe_node(stuck)}"
        )
    return order


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yields the names that a node reads: its inputs, and what its subgraphs take from the graph around them."""
    yield from filter(None, node.input)
    for subgraph in subgraphs_of(node):
        own = {value.name for value in subgraph.input} | {tensor.name for tensor in subgraph.initializer}
        own |= {sparse.values.name for sparse in subgraph.sparse_initializer}
        own |= {name for inner in subgraph.node for name in inner.output}
        yield from (name for inner in subgraph.node for name in names_read(inner) if name not in own)
        yield from (value.name for value in subgraph.output if value.name not in own)


def check_input_lengths(graph: onnx.GraphProto, where: object) -> None:
    """Raises MasktoolError where one image, or one row of another input, holds more numbers than the limit.

    What a file of a few hundred bytes declares is allocated many times over: as images, masks and activations.
    """
    weights = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name in weights or not value.type.HasField("tensor_type"):
            continue
        sides = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        sides = sides[1:] if len(sides) in RANKS else sides
        check_limit("values", math.prod(side for side in sides if side > 0), where=f"{where}, input {value.name!r}")


def check_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Checks the paths of weights beside the model, and puts the real, absolute ones in their place.

    Raises:
        MasktoolError: weights are missing, short, or stand in another place.
    """
    for graph in graphs_of(model):
        for tensor in tensors_of(graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                check_external_tensor(tensor, path)


def check_external_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    """Checks the path of one tensor that stands outside the graph; see :func:`check_external_data`."""
    place = f"{path}, tensor {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    data = find_beside(path, entries.get("location", ""))
    check_extent(tensor, entries, data, place)
    next(entry for entry in tensor.external_data if entry.key == "location").value = str(data)


def check_extent(tensor: onnx.TensorProto, entries: dict[str, str], data: Path, place: str) -> None:
    """Raises MasktoolError where a tensor lies beyond the end of its file, or is longer or shorter than its shape."""
    numbers = {key: entries.get(key, "0") for key in ("offset", "length")}
    if wrong := [f"{key} {text}" for key, text in numbers.items() if not (text.isascii() and text.isdigit())]:
        raise MasktoolError("external data with a place that is no number", where=place, got=", ".join(wrong))
    offset, needed = int(numbers["offset"]), (math.prod(tensor.dims) * BITS.get(tensor.data_type, 8) + 7) // 8
    length = int(numbers["length"]) if "length" in entries else needed
    if length != needed:
        raise MasktoolError(
            "external data of another length than their shape",
            where=place,
            expected=f"{needed} bytes for {tuple(tensor.dims)}",
            got=length,
            fix=DAMAGED,
        )
    if data.stat().st_size < offset + needed:
        raise MasktoolError(
            "truncated external data",
            where=data,
            expected=f"at least {offset + needed} bytes",
            got=data.stat().st_size,
            fix="copy the file again",
        )
