"""Refuses models in which a value has a length below 0, before ONNX's libraries meet it and end the process.

A window larger than what it slides over, or pads and scales that take away more than there is, have a result whose
length ONNX's shape inference gives as negative. A Slice of such a value ends the whole process there (onnx up to 1.23,
which is in ONNX Runtime too).

1. Where the graph holds a Slice, its shapes are inferred in a child process first, which may die of it.
2. Where numbers that decide lengths are computed, the child computes them too: ONNX Runtime does when it opens a file.
3. Where the child died, children that infer the first nodes alone find the node, and the value in front of it.
"""

from __future__ import annotations

import json

import onnx_ir as ir

from masktool.errors import MasktoolError
from masktool.exporters.canonical import canonicalise
from masktool.exporters.declared_shapes import infer_anew
from masktool.exporters.forked import try_in_child
from masktool.exporters.inference import every_node
from masktool.exporters.onnx_file import open_size_of
from masktool.layouts import show_size
from masktool.messages import parameter

ABORTING = frozenset({"Slice"})
"""Operators at which shape inference is known to end the process. Split is looked at in :mod:`.onnx_nodes`."""
SIZED_BY_INPUT = frozenset({"ConstantOfShape", "Expand", "Pad", "Resize", "Tile", "Upsample"})
"""Operators that read from an input how long their result is."""
SHRINKING = frozenset(
    {
        *("AveragePool", "Conv", "ConvInteger", "ConvTranspose", "LpPool", "MaxPool", "Pad", "QLinearAveragePool"),
        *("QLinearConv",),
    }
)
"""Operators that take the same number of places from every input, so that a larger one is long enough."""
NAMED = 3
"""Nodes that a message names at most."""


def refuse_negative_lengths(model: ir.Model, image: ir.Value | None, where: object) -> None:
    """Infers a model's shapes anew, in place; MasktoolError where one has a length below 0, or where inference aborts.

    Args:
        model: the model, with the lengths of its inputs as they will be.
        image: the image input of the model; None where it need not have one.
        where: the file or name of the model, for messages.
    """
    foresee_abort(model, image, where)
    infer_anew(model)
    if (value := first_negative(model)) is not None:
        raise too_short(value, lengths_of(value), image, where)


def foresee_abort(model: ir.Model, image: ir.Value | None, where: object) -> None:
    """Raises MasktoolError where ONNX's libraries would end the process.

    The arguments are those of :func:`refuse_negative_lengths`.
    """
    if suspects := [node for node in every_node(model) if node.op_type in ABORTING]:
        ending = try_in_child(lambda: rehearse(model))
        if ending.signal is not None:
            raise explain_death(model, image, where, suspects, ending.signal)


def rehearse(model: ir.Model) -> str:
    """Infers a model's shapes and computes its constants, in a child, as ONNX's libraries will; returns no text."""
    infer_anew(model)
    if any(is_computed(node) for node in every_node(model)):
        canonicalise(model)
    return ""


def is_computed(node: ir.Node) -> bool:
    """Tells whether lengths of a node's result, the batch apart, are unknown as they follow from computed numbers."""
    if node.op_type not in SIZED_BY_INPUT or all(is_given(value) for value in node.inputs[1:]):
        return False
    shape = node.outputs[0].shape
    return shape is None or not all(isinstance(length, int) for length in shape[1:])


def is_given(value: ir.Value | None) -> bool:
    """Tells whether a value is left out, an input, a weight or a constant, and not computed."""
    producer = None if value is None else value.producer()
    return producer is None or producer.op_type == "Constant"


def first_negative(model: ir.Model) -> ir.Value | None:
    """Returns the first value with a length below 0; None where there is none."""
    values = (value for node in model.graph for value in node.outputs)
    return next((each for each in values if any(isinstance(n, int) and n < 0 for n in lengths_of(each))), None)


def lengths_of(value: ir.Value) -> list[int | str]:
    """Returns a value's lengths, names or question marks for open ones; an empty list where its rank is unknown."""
    return [length if isinstance(length, int) else length.value or "?" for length in value.shape or ()]


def explain_death(
    model: ir.Model, image: ir.Value | None, where: object, suspects: list[ir.Node], died: str
) -> MasktoolError:
    """Returns the error of a model of whose inference a child died, naming the nodes to blame."""
    count = count_survived(model)
    nodes = list(model.graph)
    if count == len(nodes):
        names = ", ".join(type_and_name(node) for node in suspects[:NAMED])
        return MasktoolError(
            "ONNX's libraries end the process once constants are computed, as they do at a Slice of a value that has a"
            " length below 0",
            where=f"{where}, {names}" + (" and others" if len(suspects) > NAMED else ""),
            got=died,
            fix="look at what computes scales, pads and sizes in front of it",
        )
    said = try_in_child(lambda: infer_first(model, count)).said
    if not said:
        return MasktoolError(
            "ONNX's shape inference ends the process at this node",
            where=f"{where}, {type_and_name(nodes[count])}",
            got=died,
            fix="export the network again",
        )
    name, shape = json.loads(said)
    value = next(value for node in nodes for value in node.outputs if value.name == name)
    return too_short(value, shape, image, where)


def count_survived(model: ir.Model) -> int:
    """Returns the number of first nodes whose shapes can be inferred before the process ends."""
    survived, died = 0, len(model.graph) + 1
    while died - survived > 1:
        middle = (survived + died) // 2
        if try_in_child(lambda count=middle: infer_first(model, count)).signal is None:  # type: ignore[misc]
            survived = middle
        else:
            died = middle
    return survived


def infer_first(model: ir.Model, count: int) -> str:
    """Infers the first nodes alone and returns the first value with a length below 0, name and shape as JSON.

    It is run in a child. The text is empty where there is no such value.
    """
    model.graph.outputs.clear()
    model.graph.remove(list(model.graph)[count:])
    infer_anew(model)
    value = first_negative(model)
    return "" if value is None else json.dumps([value.name, lengths_of(value)])


def too_short(value: ir.Value, lengths: list[int | str], image: ir.Value | None, where: object) -> MasktoolError:
    """Returns the error of a value with a length below 0, which asks for larger images where these would help."""
    node = value.producer()
    assert node is not None  # inputs have no such lengths, see open_lengths
    size = () if image is None else open_size_of(image)
    small = bool(size) and node.op_type in SHRINKING and None not in size and follows(value, image)
    larger = "it needs larger images: give a larger " + parameter("input_size") + " where the file leaves the size open"
    return MasktoolError(
        f"an image of {show_size(size)} is too small for this node" if small else "a value with a length below 0",
        where=f"{where}, {type_and_name(node)}",
        expected="lengths of 0 or more",
        got=f"({', '.join(map(str, lengths))})",
        fix=larger if small else "export the network again",
    )


def follows(value: ir.Value, image: ir.Value | None) -> bool:
    """Tells whether a value is computed from the image."""
    waiting, seen = [value], {value}
    while waiting:
        each = waiting.pop()
        if each is image:
            return True
        producer = each.producer()
        sources = () if producer is None else tuple(each for each in producer.inputs if each is not None)
        waiting += [source for source in sources if source not in seen]
        seen.update(sources)
    return False


def type_and_name(node: ir.Node) -> str:
    """Returns a node's operator and name, or the name of its first result where the node has none."""
    return f"{node.op_type} {(node.name or node.outputs[0].name)!r}"
