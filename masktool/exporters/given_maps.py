"""Feature maps as outputs of a file without gradients: activations, in one pass, whatever the operators.

1. Feature maps are chosen in the plain graph: the same ones, and the same last one, with a mask and without.
2. What has been quantised is given as the numbers that the network goes on with.
3. The masked graph gives them as the outputs :data:`masktool.contract.FEATURE_MAP_OUTPUTS`. Under a mask the numbers of
   missing places are arbitrary there, as they are inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common

from masktool.contract import FEATURE_MAP_OUTPUTS, Metadata
from masktool.errors import MasktoolError
from masktool.exporters.canonical import infer_shapes
from masktool.exporters.feature_maps import MASKTOOL_PREFIX, find_feature_maps, settle_quantised, values_behind
from masktool.exporters.names import NEW_PREFIX, OWN_NAMES, is_own
from masktool.exporters.parity import DEFECT
from masktool.messages import Placeholder, parameter

if TYPE_CHECKING:
    from masktool.exporters.heads import Head
    from masktool.exporters.masked import MaskedNetwork


def settle_feature_maps(network: MaskedNetwork, head: Head | None, in_front: str | None) -> Metadata:
    """Returns a network's metadata with the names of the feature maps that its file gives, that before a head first.

    Where there are gradients, other names stay as the user gave them: they are looked up in the graph with gradients.

    Args:
        network: the network, whose metadata hold the names that the user gave.
        head: the layers behind a feature map; None where none are exported.
        in_front: what the user calls the feature map in front of the head.

    Raises:
        MasktoolError: there is no such feature map, or no class output, or an output has the name of one.
    """
    metadata = network.metadata
    others = [name for name in metadata.feature_maps if name != in_front]
    if head is not None or not metadata.has_gradients:
        refuse_taken(network.plain, metadata.source, len(others) + (head is not None))
    if others and not metadata.has_gradients:
        others = find_in_plain(network, others)
    first = [] if head is None else [head.feature_map]
    return metadata.with_feature_maps(tuple(dict.fromkeys([*first, *others])))


def refuse_taken(model: ir.Model, where: str, count: int) -> None:
    """Raises MasktoolError where the network has an output of a name that one of its feature maps gets."""
    own = FEATURE_MAP_OUTPUTS[:count]
    if taken := [str(value.name) for value in model.graph.outputs if value.name in own]:
        raise MasktoolError(
            "the model has an output of the name that a feature map gets",
            where=where,
            got=", ".join(taken),
            fix="rename it in the source",
        )


def find_in_plain(network: MaskedNetwork, names: Sequence[str]) -> list[str]:
    """Returns the names that feature maps have in the plain graph.

    Raises:
        MasktoolError: there is no such feature map, or no class output.
    """
    metadata, where = network.metadata, network.source.name
    if metadata.class_output is None:
        raise without_class_scores(where)
    plain = network.plain.clone()
    infer_shapes(plain)
    image = next(value for value in plain.graph.inputs if value.name == metadata.image_input)
    scores = next(value for value in plain.graph.outputs if value.name == metadata.class_output)
    wanted = [NEW_PREFIX + name if is_own(name, OWN_NAMES) else name for name in names]
    maps = find_feature_maps(plain.graph, scores, wanted, values_behind(plain.graph, image).__contains__)
    if metadata.copies > 1:
        raise MasktoolError(
            "a feature map is of one image",
            where=where,
            got=f"maps of {metadata.copies} copies of the image, which fill the network's fixed batch",
            fix="leave " + parameter("feature_map") + " out",
        )
    return [str(settle_quantised(value)[0].name) for value in maps]


def find_in_masked(model: ir.Model, metadata: Metadata, names: Sequence[str], where: str) -> tuple[str, ...]:
    """Returns the names that feature maps have in an exported graph, which stays as it is.

    Args:
        model: the graph, without feature maps as outputs.
        metadata: its metadata.
        names: the names of the feature maps, or ``last``.
        where: what the graph was read from.

    Raises:
        MasktoolError: there is no such feature map, or no class output, or an output has the name of one.
    """
    if metadata.class_output is None:
        raise without_class_scores(where)
    refuse_taken(model, where, len(names))
    own = {value.name for node in model.graph for value in node.outputs}
    plain = model.clone()
    common.InlinePass()(plain)  # what is inside of functions is no feature map, but shapes go through it
    infer_shapes(plain)
    image = next(value for value in plain.graph.inputs if value.name == metadata.image_input)
    scores = next(value for value in plain.graph.outputs if value.name == metadata.class_output)
    behind = values_behind(plain.graph, image)
    found = find_feature_maps(plain.graph, scores, names, lambda value: value in behind and value.name in own)
    return tuple(str(value.name) for value in found)


def without_class_scores(where: str) -> MasktoolError:
    """Returns the error for a model without class scores, which feature maps are defined by."""
    return MasktoolError(
        "a feature map is what class scores are computed from, and the model has none",
        where=where,
        fix="leave out "
        + parameter("feature_map")
        + ", or the method that reads one, or name the scores with "
        + parameter("class_output", Placeholder("NAME")),
    )


def give_feature_maps(model: ir.Model, names: Sequence[str]) -> None:
    """Makes feature maps outputs of a masked graph, in place.

    Raises:
        MasktoolError: the masked graph has no value of one of the names.
    """
    found = {value.name: value for node in model.graph for value in node.outputs}
    for output, name in zip(FEATURE_MAP_OUTPUTS, names, strict=False):
        if name not in found:
            raise MasktoolError("the masked graph lost the feature map", where=name, fix=DEFECT)
        if found[name].type is None:  # a portable graph is written without what was inferred
            infer_shapes(model)
        add_identity(model.graph, found[name], output)


def add_identity(graph: ir.Graph, value: ir.Value, name: str) -> None:
    """Makes a value an output of the graph under a name."""
    node = ir.node("Identity", [value], name=MASKTOOL_PREFIX + name)
    (result,) = node.outputs
    result.name, result.type, result.shape = name, value.type, value.shape
    graph.append(node)
    graph.outputs.append(result)


def leave_out_feature_maps(model: ir.Model) -> None:
    """Takes the feature maps that an export without gradients has added from a graph's outputs, in place."""
    for value in tuple(model.graph.outputs):
        producer = value.producer()
        if (
            value.name in FEATURE_MAP_OUTPUTS
            and producer is not None
            and producer.name == MASKTOOL_PREFIX + str(value.name)
        ):
            model.graph.outputs.remove(value)
            model.graph.remove(producer, safe=True)
