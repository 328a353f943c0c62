"""Cuts off what stands behind a network and is no part of it: classical machine learning, maps, sequences, texts.

Services that train classifiers put a ZipMap behind the softmax, which makes a dictionary of the scores, and a lookup of
the best class's name beside it. What the first such node reads becomes the output; the names of the classes, which the
nodes hold, become the labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx

from masktool.errors import MasktoolError, reported_as
from masktool.exporters.forked import try_in_child
from masktool.exporters.inference import CARRIED, MAKE_NO_TENSORS
from masktool.exporters.onnx_checks import names_read, subgraphs_of
from masktool.limits import check_limit

CLASSICAL = "ai.onnx.ml"
CHOICES = frozenset({"ArgMax", "ArgMin", "Cast", "Identity", "Reshape", "Squeeze", "TopK", "Unsqueeze"})
"""Operators between the scores and a lookup by the index of the best."""
PICKS = frozenset({"ArgMax", "ArgMin", "ReduceMax", "ReduceMin", "TopK"})
"""Operators that read scores and give the best, or its index."""
COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not"})
"""Operators that tell from a score which text is chosen."""
OFFSETS = frozenset({"Add", "Sub"})
"""Operators that move an index, where names begin with that of no class."""


NO_TENSORS = frozenset({"ArrayFeatureExtractor", "CastMap", "DictVectorizer", "LabelEncoder", "ZipMap"})
"""Operators of classical machine learning that read or give names, maps and texts; all others compute with numbers."""
MOVES = frozenset({"Cast", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
PREPARING = MOVES | {"Add", "Div", "Mul", "Resize", "Scaler", "Sub"}
"""Operators that make numbers of pixels; a graph of these alone is no network."""


class Tail(NamedTuple):
    """What the nodes that were cut off behind a network tell of it.

    Attributes:
        labels: one name per class; None where the nodes held none.
        notes: notes for the user, one sentence each.
    """

    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


class Graph:
    """The nodes and inputs of a graph by the names of its values.

    Args:
        graph: the graph as it was read.
        is_network: whether operators of classical machine learning that compute with numbers belong to the network.
    """

    def __init__(self, graph: onnx.GraphProto, *, is_network: bool = False) -> None:
        self.graph = graph
        self.producers = {name: node for node in graph.node for name in node.output}
        weights = {tensor.name for tensor in graph.initializer}
        self.inputs = {value.name for value in graph.input} - weights
        self.depends = set(self.inputs)
        """Names of the inputs and of all values computed from them."""
        self.classical = set(find_texts(graph))
        """Names of texts, of outputs of nodes that belong to no network, and of all values computed from these."""
        stated = {value.name for value in (*graph.input, *graph.value_info, *graph.output) if is_container(value)}
        self.sequences = stated & self.inputs
        """Names of values that are sequences or optional values."""
        for node in graph.node:
            if self.depends & set(names_read(node)):
                self.depends.update(node.output)
            is_classical = node.domain == CLASSICAL and (not is_network or node.op_type in NO_TENSORS)
            if is_classical or not self.classical & set(node.input) <= self.sequences:
                self.classical.update(node.output)
                continue
            sequences = sequences_given(node, self.sequences) | (stated & set(node.output))
            self.classical |= sequences
            self.sequences |= sequences
            if node.domain == CLASSICAL and any(each.name == "classlabels_strings" for each in node.attribute):
                self.classical.add(node.output[0])  # the name of the best class

    def entries(self, output: str) -> list[str]:
        """Returns the values of the network that the first nodes behind it, on the way to an output, read."""
        found: dict[str, None] = {}
        waiting, seen = [output], {output}
        while waiting:
            node = self.producers.get(waiting.pop())
            for name in () if node is None else values_read(node):
                if name in self.classical and name not in seen:
                    seen.add(name)
                    waiting.append(name)
                elif name in self.depends and name not in self.classical:
                    found[self.scores_before(name)] = None
        return list(found)

    def only_prepares(self, names: Iterable[str]) -> bool:
        """Whether all nodes in front of some values only make numbers of pixels."""
        waiting = list(names)
        seen = set(waiting)
        while waiting:
            node = self.producers.get(waiting.pop())
            if node is None:
                continue
            if node.op_type not in PREPARING and self.depends & set(node.output):
                return False
            waiting += [name for name in node.input if name not in seen]
            seen.update(node.input)
        return True

    def scores_before(self, name: str) -> str:
        """Returns the scores of which the largest was chosen, or which were compared; else the value itself."""
        scores, node = name, self.producers.get(name)
        while node is not None and node.op_type in CHOICES | PICKS | COMPARISONS | OFFSETS:
            source = next((each for each in node.input if each in self.depends), node.input[0])
            if node.op_type in PICKS:
                return source
            if node.op_type in COMPARISONS:
                scores = source
            node = self.producers.get(source)
        return scores

    def lookups_by_best(self) -> Iterator[str]:
        """Yields what Gather nodes look up by the index of the largest score, unchanged."""
        for node in self.graph.node:
            if node.op_type == "Gather":
                index = self.producers.get(node.input[1])
                while index is not None and index.op_type in CHOICES - PICKS:
                    index = self.producers.get(index.input[0])
                if index is not None and index.op_type in CHOICES & PICKS:
                    yield node.output[0]


def find_texts(graph: onnx.GraphProto) -> dict[str, Sequence[bytes]]:
    """Returns a graph's values that it says are text, by name, each with its texts where it is constant.

    No network computes with text: it stands behind one, where a class gets its name.
    """
    found: dict[str, Sequence[bytes]] = {}
    for value in graph.output:
        if value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
            found[value.name] = ()
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.STRING:
                found[node.output[0]] = ()
            if node.op_type == "Constant" and attribute.t.data_type == onnx.TensorProto.STRING:
                found[node.output[0]] = list(attribute.t.string_data)
            if node.op_type == "Constant" and attribute.name in ("value_string", "value_strings"):
                found[node.output[0]] = list(attribute.strings) or [attribute.s]
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.STRING:
            found[tensor.name] = list(tensor.string_data)
    return found


def is_container(value: onnx.ValueInfoProto) -> bool:
    """Whether a value is declared to be a sequence or an optional value."""
    return value.type.WhichOneof("value") in ("sequence_type", "optional_type")


def sequences_given(node: onnx.NodeProto, known: set[str]) -> set[str]:
    """Returns a node's outputs that are sequences or optional values; they are no tail where tensors come of them.

    Args:
        node: a node of the standard domain, or of a domain whose operators give tensors alone.
        known: names of the sequences and optional values in front of the node.
    """
    if node.op_type in MAKE_NO_TENSORS:
        return set(node.output)
    if node.op_type == "Identity":
        return set(node.output) if node.input[0] in known else set()
    if node.op_type == "Loop":
        return {name for name, start in zip(node.output, node.input[CARRIED:], strict=False) if start in known}
    if node.op_type == "If":
        found = set()
        for branch in subgraphs_of(node):
            inner = set(known)
            for each in branch.node:
                inner |= sequences_given(each, inner)
            found |= {name for name, end in zip(node.output, branch.output, strict=False) if end.name in inner}
        return found
    return set()


def cut_tail(model: onnx.ModelProto) -> Tail:
    """Cuts off, in place, what stands behind the network and is no part of it, unless the network would go too.

    Where nothing stands before it but the preparation of pixels, classical machine learning is the network, and only
    what gives no numbers is cut off.
    """
    graph, cut, entries = find_entries(model.graph)
    if cut and graph.only_prepares(name for found in entries.values() for name in found):
        graph, cut, entries = find_entries(model.graph, is_network=True)
    if not cut or any(set(found) & graph.inputs for found in entries.values()):
        refuse_sequences(model.graph, graph.sequences)
        return Tail()
    with reported_as("ONNX's shape inference refuses the graph"):
        types = infer_types(model)
    names = [name for value in model.graph.output for name in entries.get(value.name, [value.name])]
    former = {value.name: value for value in model.graph.output}
    kept = [former.get(name) or types.get(name) or onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names)]
    outputs = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
    for value in outputs:
        if not value.type.WhichOneof("value"):
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    texts, lookups = find_texts(model.graph), set(graph.lookups_by_best())
    removed = remove_unread(model.graph)
    labels = find_cut_labels(removed, texts, lookups, outputs)
    remove_texts(model.graph)
    return Tail(labels, (describe_cut(removed, [value.name for value in outputs], labels),))


def refuse_sequences(graph: onnx.GraphProto, sequences: set[str]) -> None:
    """Raises MasktoolError for an output that cannot be cut off: a sequence of the graph's inputs as they come."""
    for value in graph.output:
        if value.name in sequences:
            raise MasktoolError(
                "an output that is a sequence or an optional value, and holds an input as it comes",
                where=f"output {value.name!r}",
                expected="tensors that the network computes",
                fix="export the network with tensors alone as outputs",
            )


def values_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yields the names of the values that a node computes with, without the trip count of a Loop."""
    steering = set(node.input[:CARRIED]) if node.op_type == "Loop" else set()
    yield from (name for name in names_read(node) if name not in steering)


def infer_types(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Returns the types of values by name; none where inference would end the process: its node is refused later."""

    def infer() -> dict[str, onnx.ValueInfoProto]:
        return {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}

    ending = try_in_child(lambda: str(len(infer())))
    return infer() if ending.signal is None else {}


def find_entries(proto: onnx.GraphProto, *, is_network: bool = False) -> tuple[Graph, list[str], dict[str, list[str]]]:
    """Returns a graph, its outputs that are to be cut off, and the values that each of them is computed from."""
    graph = Graph(proto, is_network=is_network)
    cut = [value.name for value in proto.output if value.name in graph.classical]
    return graph, cut, {name: graph.entries(name) for name in cut}


def remove_unread(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Removes nodes that no output needs, in place, and returns them."""
    needed = {value.name for value in graph.output}
    kept, removed = [], []
    for node in reversed(list(graph.node)):
        if needed & set(node.output):
            needed.update(names_read(node))
            kept.append(node)
        else:
            removed.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    gone = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(removed)]
    del graph.node[:]
    graph.node.extend(nodes)
    return gone


def remove_texts(graph: onnx.GraphProto) -> None:
    """Removes texts, which only nodes that were cut off read, in place."""
    kept = [tensor for tensor in graph.initializer if tensor.data_type != onnx.TensorProto.STRING]
    if len(kept) < len(graph.initializer):
        copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(copies)


def find_cut_labels(
    removed: Iterable[onnx.NodeProto],
    texts: Mapping[str, Sequence[bytes]],
    lookups: set[str],
    outputs: Iterable[onnx.ValueInfoProto],
) -> tuple[str, ...] | None:
    """Returns the names of the classes that removed nodes hold, if they are as many as an output has columns.

    Args:
        removed: the nodes that were cut off.
        texts: the texts of values by name, see :func:`find_texts`.
        lookups: names of the values that were looked up, see :meth:`Graph.lookups_by_best`.
        outputs: the outputs of the network.
    """
    columns = {dim.dim_value for value in outputs for dim in value.type.tensor_type.shape.dim[1:2]}
    for node in sorted(removed, key=lambda node: node.op_type != "ZipMap"):
        attributes = {attribute.name: attribute for attribute in node.attribute}
        found: Iterable[bytes | int] = ()
        if node.op_type == "ZipMap":
            found = next((a.strings or a.ints for name, a in attributes.items() if name.startswith("classlabels")), ())
        elif node.op_type == "ArrayFeatureExtractor" or lookups & set(node.output):
            found = texts.get(node.input[0], ())
        elif node.op_type == "LabelEncoder" and {"keys_int64s", "values_strings"} <= set(attributes):
            pairs = dict(zip(attributes["keys_int64s"].ints, attributes["values_strings"].strings, strict=False))
            found = [pairs[key] for key in sorted(pairs)] if sorted(pairs) == list(range(len(pairs))) else ()
        labels = tuple(label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label) for label in found)
        if labels and (len(labels) in columns or columns in ({0}, set())):
            check_limit("text", sum(map(len, labels)), where=f"labels in {node.op_type}")
            return labels
    return None


def describe_cut(removed: Iterable[onnx.NodeProto], outputs: Iterable[str], labels: tuple[str, ...] | None) -> str:
    """Returns what the user should know about the nodes that were cut off."""
    operators = ", ".join(dict.fromkeys(node.op_type for node in removed))
    taken = "" if labels is None else f"; {len(labels)} names of classes are taken as labels"
    return f"cut off behind the network: {operators}, no part of it; outputs are now {', '.join(outputs)}{taken}"
