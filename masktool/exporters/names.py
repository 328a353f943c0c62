"""Renames inputs, outputs, nodes and values of a network whose names masktool needs for itself.

1. An input of the network that has the name of one of masktool's inputs or outputs gets another name.
2. An output keeps its name, unless it clashes: with the input ``mask`` in every file, with the inputs and outputs that
   gradients add in a file with gradients.
3. Values inside, whose names no caller sees, get another name, and so do names that begin with masktool's own prefix.

New names are recorded, so that the old ones still find outputs. masktool may add the names freed here, and no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx_ir as ir

from masktool.contract import BATCH_AXIS, GRADIENT_OUTPUTS, LOSS_INPUT, MASK_INPUT, TARGET_INPUT, WEIGHTS_INPUT
from masktool.messages import parameter

INPUTS_OF_GRADIENTS = frozenset({TARGET_INPUT, LOSS_INPUT, WEIGHTS_INPUT})
OWN_NAMES = frozenset({MASK_INPUT}) | INPUTS_OF_GRADIENTS | GRADIENT_OUTPUTS
OWN_PREFIX = "masktool"
"""Beginning of the names of all nodes, values and constants that masktool emits."""
OWN_LENGTHS = frozenset({BATCH_AXIS, "mask_batch"})
"""Names of open axes that masktool gives; runtimes take two lengths of one name for equal."""
NEW_PREFIX = "model_"


def free_ends(model: ir.Model) -> dict[str, str]:
    """Renames inputs and outputs that clash with masktool's in every file, in place; returns new names by old ones."""
    for value in model.graph.inputs:
        free_lengths(value)
    clashing = [value for value in model.graph.inputs if is_own(value.name, OWN_NAMES)]
    clashing += [value for value in model.graph.outputs if is_own(value.name, {MASK_INPUT})]
    return rename_values(model.graph, clashing)


def free_gradient_names(model: ir.Model) -> dict[str, str]:
    """Renames outputs that clash with inputs or outputs of gradients, in place; returns new names by old ones."""
    return rename_values(model.graph, [value for value in model.graph.outputs if is_own(value.name, OWN_NAMES)])


def free_inside(model: ir.Model) -> None:
    """Renames nodes and values inside a model's graphs that have one of masktool's own names, in place."""
    for graph in model.graphs():
        ends = {*model.graph.inputs, *model.graph.outputs}
        inside = (value for value in every_value(graph) if value not in ends and is_own(value.name, OWN_NAMES))
        rename_values(model.graph, inside)
        for node in graph:
            if is_own(node.name, ()):
                node.name = NEW_PREFIX + str(node.name)


def rename_as_before(model: ir.Model, names: Mapping[str, str]) -> None:
    """Gives outputs the names that a file made from the model records, in place."""
    for value in model.graph.outputs:
        value.name = names.get(value.name or "", value.name)


def is_own(name: str | None, names: Iterable[str]) -> bool:
    """Tells whether a name is among the given ones, or begins with masktool's prefix."""
    return name is not None and (name in names or name.startswith(OWN_PREFIX))


def every_value(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yields the inputs and weights of a graph, and the results of its nodes."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def free_lengths(value: ir.Value) -> None:
    """Renames open axes of an input that have a name of masktool's own axes, in place."""
    if value.shape is not None:
        names = [length if isinstance(length, int) else length.value for length in value.shape]
        value.shape = ir.Shape([NEW_PREFIX + str(name) if name in OWN_LENGTHS else name for name in names])


def rename_values(graph: ir.Graph, values: Iterable[ir.Value]) -> dict[str, str]:
    """Gives values names that nothing in the graph has, in place; returns new names by old ones."""
    taken: set[str | None] = set()
    renamed: dict[str, str] = {}
    for value in tuple(dict.fromkeys(values)):
        taken = taken or {each.name for part in (graph, *graph.subgraphs()) for each in every_value(part)}
        assert value.name is not None  # as they were found by it
        new = NEW_PREFIX + value.name
        while new in taken:
            new += "_"
        renamed[value.name] = new
        taken.add(new)
        value.name = new
    return renamed


def rename_inside(nodes: Iterable[ir.Node], prefix: str) -> None:
    """Puts a prefix before the names of nodes and of their results, in subgraphs too."""
    for node in nodes:
        node.name = prefix + (node.name or node.op_type)
        for output in node.outputs:
            output.name = prefix + str(output.name)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                rename_graph(attribute.as_graph(), prefix)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for graph in attribute.as_graphs():
                    rename_graph(graph, prefix)


def rename_graph(graph: ir.Graph, prefix: str) -> None:
    """Puts a prefix before every name in a subgraph."""
    for value in graph.inputs:
        value.name = prefix + str(value.name)
    for weight in tuple(graph.initializers.values()):
        graph.initializers.pop(str(weight.name))
        weight.name = prefix + str(weight.name)
        graph.register_initializer(weight)
    rename_inside(tuple(graph), prefix)


def note_renamed(outputs: Iterable[ir.Value], renamed: Mapping[str, str]) -> Iterator[str]:
    """Yields a note for the user on every renamed input or output."""
    names = {value.name for value in outputs}
    for old, new in renamed.items():
        if not names & {old, new}:
            called = f"the model's input {old!r} is called {new!r} in the file, and by "
            yield called + parameter("inputs") + f": {old!r} is masktool's own"
        else:
            called = f"the model's output {old!r} is called {new!r} in the file; "
            yield called + parameter("output") + " takes both names"
