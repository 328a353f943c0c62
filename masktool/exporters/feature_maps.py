"""Finding a feature map: a value of shape (N, c, h, w) inside a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from masktool.errors import MasktoolError
from masktool.exported_files import LAST
from masktool.exporters.score_paths import LINEAR
from masktool.exporters.subgraphs import nodes_inside

CHANNELS_FIRST = frozenset(
    {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "BatchNormalization", "InstanceNormalization", "LRN"}
)
"""Operators whose output is (N, c, h, w) by their definition."""
MOVES_AXES = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Gather", "Einsum", "MatMul", "Expand"}
)
"""Operators behind which the layout has to be shown anew."""
MASKTOOL_PREFIX = "masktool/"
"""What the names of values that masktool added begin with."""


def find_feature_maps(
    graph: ir.Graph, scores: ir.Value, names: Sequence[str], depends: Callable[[ir.Value], bool]
) -> list[ir.Value]:
    """Returns the feature maps of given names, in their order, or the last one where none is named.

    The last map in front of scores that have places themselves, such as a segmentation's, holds little but these. Of
    such the deepest is taken: the last one of those with the fewest places, in front of the layer that gives scores.

    Source: Kira Vinogradova, Alexandr Dibrov and Gene Myers, "Towards Interpretable Semantic Segmentation via
    Gradient-weighted Class Activation Mapping", AAAI 2020, section 3, https://arxiv.org/abs/2002.11434.

    Args:
        graph: the graph, with shapes inferred.
        scores: the scores, which depend on every feature map.
        names: the names of the feature maps, or ``last``; none takes the last one of more than one pixel, where there
            is one.
        depends: the function that tells whether a value depends on the image.

    Raises:
        MasktoolError: no feature map has one of the names; the message names the last ones.
    """
    maps = list_feature_maps(graph, scores, depends)
    last = deepest_map(maps, scores, depends) if is_feature_map(scores) else maps[-1:]
    named = (last[0] if last and name == LAST else choose_by_name(maps, name) for name in names)
    return list(dict.fromkeys(named)) or last


def deepest_map(maps: Sequence[ir.Value], scores: ir.Value, depends: Callable[[ir.Value], bool]) -> list[ir.Value]:
    """Returns the last map of those with the fewest places in front of the layer that gives scores; none without any.

    Where the number of places is open, it is the last map in front of that layer; where there is none, the last of all.

    Args:
        maps: the feature maps, in the graph's order.
        scores: the scores, which have places themselves.
        depends: the function that tells whether a value depends on the image.
    """
    read = values_read_by_layer(scores, depends)
    before = set[ir.Value]().union(*map(values_before, read))
    found = [value for value in maps if value in before]
    places = [count_map_places(value) for value in found]
    if None not in places:
        fewest = min((number for number in places if number is not None), default=0)
        found = [value for value, number in zip(found, places, strict=True) if number == fewest]
    return found[-1:] or list(maps[-1:])


def values_read_by_layer(scores: ir.Value, depends: Callable[[ir.Value], bool]) -> list[ir.Value]:
    """Returns what the layer reads that gives scores: a linear one, or one that joins two branches.

    What lies behind it, such as a Resize, a Softmax or masktool's own nodes, has one input that depends on the image.
    """
    value = scores
    while (node := value.producer()) is not None:
        read = [each for each in node.inputs if each is not None and depends(each)]
        if len(read) != 1 or node.op_type in LINEAR:
            return read
        value = read[0]
    return []


def count_map_places(value: ir.Value) -> int | None:
    """Returns the number of places of a feature map; None where a length is open."""
    assert value.shape is not None
    height, width = value.shape[2:]
    return height * width if isinstance(height, int) and isinstance(width, int) else None


def list_feature_maps(graph: ir.Graph, scores: ir.Value, depends: Callable[[ir.Value], bool]) -> list[ir.Value]:
    """Returns the feature maps that depend on the image, and that the scores depend on, in the graph's order."""
    before_scores = values_before(scores)
    return [
        value
        for value in channels_first_values(graph)
        if value in before_scores and depends(value) and is_feature_map(value)
    ]


def choose_by_name(maps: Sequence[ir.Value], name: str) -> ir.Value:
    """Returns the feature map of a name.

    Raises:
        MasktoolError: no feature map has that name; the message names the last ones.
    """
    chosen = [value for value in maps if value.name == name] or [v for v in maps if name_outside(v) == name]
    if not chosen:
        last = ", ".join(str(name_outside(value)) for value in maps[-5:])
        expected = "a value (N, c, h, w) that depends on the image, and on which the scores depend"
        such = f", such as {last}" if last else "; there is none"
        raise MasktoolError("no such feature map", where=name, expected=expected + such)
    return chosen[0]


def settle_quantised(value: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Returns the feature map that a network with integers inside gives, and the value that its head begins with.

    A map in front of a QuantizeLinear, or behind its DequantizeLinear, is given behind it and begins in front.
    """
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear" and producer.inputs[0] is not None:
        before = producer.inputs[0].producer()
        if before is not None and before.op_type == "QuantizeLinear" and before.inputs[0] is not None:
            return value, before.inputs[0]
    users = value.consumers()
    if len(users) == 1 and users[0].op_type == "QuantizeLinear" and not value.is_graph_output():
        behind = [user for user in users[0].outputs[0].consumers() if user.op_type == "DequantizeLinear"]
        if behind and is_feature_map(behind[0].outputs[0]):
            return behind[0].outputs[0], value
    return value, value


def values_behind(graph: ir.Graph, value: ir.Value) -> set[ir.Value]:
    """Returns a value and everything in a sorted graph that is computed from it."""
    found = {value}
    for node in graph:
        if not found.isdisjoint(values_into(node)):
            found.update(node.outputs)
    return found


def values_into(node: ir.Node) -> set[ir.Value]:
    """Returns the values that a node reads, by its subgraphs too."""
    return {value for each in (node, *nodes_inside(node)) for value in each.inputs if value is not None}


def values_before(value: ir.Value) -> set[ir.Value]:
    """Returns a value and everything that it is computed from."""
    found, left = {value}, [value]
    while left:
        producer = left.pop().producer()
        new = {source for source in producer.inputs if source is not None} - found if producer is not None else set()
        found |= new
        left += new
    return found


def name_outside(value: ir.Value) -> str | None:
    """Returns the name of the output that gives a value with 0 under the mask; without one, the value's own name."""
    for user, _ in value.uses():
        result = user.outputs[0]
        added = (user.name or "").startswith(MASKTOOL_PREFIX) and user.op_type == "Where"
        if added and result.is_graph_output() and not (result.name or "").startswith(MASKTOOL_PREFIX):
            return result.name
    return value.name


def channels_first_values(graph: ir.Graph) -> list[ir.Value]:
    """Returns the values of the network itself that are known to be (N, c, h, w), in the graph's order."""
    known: dict[ir.Value, None] = {}
    for node in graph:
        inherits = node.op_type not in MOVES_AXES and any(value in known for value in node.inputs if value is not None)
        if node.op_type in CHANNELS_FIRST or inherits:
            known.update(dict.fromkeys(node.outputs))
    return [value for value in known if not (value.name or "").startswith(MASKTOOL_PREFIX)]


def is_feature_map(value: ir.Value) -> bool:
    """Whether a value is floating point and has more than one place and channel."""
    shape = value.shape
    if shape is None or len(shape) != 4 or value.dtype is None or not value.dtype.is_floating_point():
        return False
    return shape[1] != 1 and not (shape[2] == 1 and shape[3] == 1)
