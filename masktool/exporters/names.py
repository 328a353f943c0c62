"""Names that masktool gives in every file are freed of whatever a network calls so itself.

1. An input of the network that is called as an input or output of masktool's gets another name.
2. An output keeps its own, unless it clashes: with the input ``mask`` in every file, with the inputs and outputs that
   gradients add in a file with gradients.
3. Values inside, whose names no caller sees, get another name, and so do names that begin with masktool's own prefix.

New names are recorded, so that the old ones still find outputs. What this frees, and only that, masktool may add.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx_ir as ir

from masktool.contract import BATCH_AXIS, GRADIENT_OUTPUTS, LOSS_INPUT, MASK_INPUT, TARGET_INPUT
from masktool.messages import parameter

OWN_NAMES = frozenset({MASK_INPUT, TARGET_INPUT, LOSS_INPUT}) | GRADIENT_OUTPUTS
OWN_PREFIX = "masktool"
"""Of the names of all nodes, values and constants that masktool emits."""
OWN_LENGTHS = frozenset({BATCH_AXIS, "mask_batch"})
"""Names of open axes; two lengths of one name are taken for equal by runtimes."""
NEW_PREFIX = "model_"


def free_ends(model: ir.Model) -> dict[str, str]:
    """Renames inputs and outputs that clash in every file, in place; returns new names by old."""
    for value in model.graph.inputs:
        free_lengths(value)
    clashing = [value for value in model.graph.inputs if is_own(value.name, OWN_NAMES)]
    clashing += [value for value in model.graph.outputs if is_own(value.name, {MASK_INPUT})]
    return rename_values(model.graph, clashing)


def free_gradient_names(model: ir.Model) -> dict[str, str]:
    """Renames outputs that clash with what gradients add, in place; returns new names by old."""
    return rename_values(model.graph, [value for value in model.graph.outputs if is_own(value.name, OWN_NAMES)])


def free_inside(model: ir.Model) -> None:
    """Renames nodes and values inside the graph that are called as something of masktool's, in place."""
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
    """Tells whether a name is one of masktool's: among those given, or with its prefix."""
    return name is not None and (name in names or name.startswith(OWN_PREFIX))


def every_value(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yields the inputs and weights of a graph, and the results of its nodes."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def free_lengths(value: ir.Value) -> None:
    """Renames open axes of an input that are called as one of masktool's."""
    if value.shape is not None:
        names = [length if isinstance(length, int) else length.value for length in value.shape]
        value.shape = ir.Shape([NEW_PREFIX + str(name) if name in OWN_LENGTHS else name for name in names])


def rename_values(graph: ir.Graph, values: Iterable[ir.Value]) -> dict[str, str]:
    """Gives values names that nothing in the graph has, in place; returns new names by old."""
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


def note_renamed(outputs: Iterable[ir.Value], renamed: Mapping[str, str]) -> Iterator[str]:
    """Yields what the user should know of new names of inputs and outputs."""
    names = {value.name for value in outputs}
    for old, new in renamed.items():
        if not names & {old, new}:
            called = f"the model's input {old!r} is called {new!r} in the file, and by "
            yield called + parameter("inputs") + f": {old!r} is masktool's own"
        else:
            called = f"the model's output {old!r} is called {new!r} in the file; "
            yield called + parameter("output") + " takes both names"
