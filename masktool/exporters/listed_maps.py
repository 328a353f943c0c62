"""The feature maps of a model: what ``--feature-map`` and ``--head`` can name, with shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import onnx_ir as ir
from onnx_ir.passes import common

from masktool.contract import FEATURE_MAP_OUTPUTS, Metadata
from masktool.errors import MasktoolError
from masktool.exporters.canonical import infer_shapes
from masktool.exporters.chosen_boxes import leave_out_lists
from masktool.exporters.feature_maps import list_feature_maps, name_outside, settle_quantised, values_behind
from masktool.exporters.file_metadata import find_class_output
from masktool.exporters.heads import reaches_around
from masktool.exporters.preparation import prepare_graph
from masktool.exporters.settings import OutputSettings
from masktool.exporters.sources import Source
from masktool.exporters.trial import open_source
from masktool.messages import Placeholder, parameter


@dataclasses.dataclass(frozen=True)
class ListedMap:
    """A feature map of a model.

    Attributes:
        name: the name, as ``feature_map`` and ``head`` take it.
        shape: the length of each axis (N, c, h, w): a number, or a name or None for an open one.
        operator: the operator that gives it.
        head: whether a head may begin behind it; None for an exported file, which no head is added to.
        output: the output by which an exported file gives it; None where the file gives it not.
    """

    name: str
    shape: tuple[int | str | None, ...]
    operator: str
    head: bool | None = None
    output: str | None = None


def read_maps_of(source: Source, class_output: str | None = None) -> list[ListedMap]:
    """Returns the feature maps of a model that was read, in the order of the network, exported before or not.

    Args:
        source: the model, which stays as it is.
        class_output: the name of the output that holds one score per class; None finds it where the graph tells.

    Raises:
        MasktoolError: the model has no class output, or it is not known; or it explains itself.
    """
    metadata = Metadata.from_properties(source.model.metadata_props)
    return list(maps_of_source(source, class_output) if metadata is None else maps_of_file(source, metadata))


def maps_of_source(whole: Source, class_output: str | None) -> Iterator[ListedMap]:
    """Yields the feature maps of a model that takes no mask yet."""
    source = leave_out_lists(whole, "layer")
    plain = open_source(source.model, source.image_input, source.path)
    prepared = prepare_graph(source, plain, None)
    name = find_class_output(source, prepared, OutputSettings(class_output), plain.batch).name
    graph = prepared.model.graph
    infer_shapes(prepared.model)
    image, scores = find_ends(prepared.model.graph, source.image_input, name, source.name)
    if prepared.copies > 1:
        return
    for value in list_feature_maps(graph, scores, behind(graph, image)):
        shown, entry = settle_quantised(value)
        yield describe_map(shown, str(shown.name), head=not reaches_around(scores, entry, image))


def maps_of_file(source: Source, metadata: Metadata) -> Iterator[ListedMap]:
    """Yields the feature maps of an exported file, with the outputs by which it gives them."""
    if metadata.explanation is not None:
        raise MasktoolError(
            f"the file explains itself by {metadata.explanation['method']}, and gives no feature maps",
            where=source.name,
            fix=f"list those of the plain model, {metadata.source}",
        )
    model = source.model.clone()
    before = {value.name for node in model.graph for value in node.outputs}  # without what is inside of functions
    common.InlinePass()(model)
    infer_shapes(model)
    image, scores = find_ends(model.graph, metadata.image_input, metadata.class_output, source.name)
    given = dict(zip(metadata.feature_maps, FEATURE_MAP_OUTPUTS, strict=False))
    for value in list_feature_maps(model.graph, scores, behind(model.graph, image)):
        if value.name in before:
            name = str(name_outside(value))
            yield describe_map(value, name, output=given.get(name))


def behind(graph: ir.Graph, image: ir.Value) -> Callable[[ir.Value], bool]:
    """Returns the function that tells whether a value is computed from the image."""
    return values_behind(graph, image).__contains__


def find_ends(graph: ir.Graph, image_input: str, class_output: str | None, where: str) -> tuple[ir.Value, ir.Value]:
    """Returns the image input and the class output of a graph.

    Raises:
        MasktoolError: there is no class output.
    """
    if class_output is None:
        raise MasktoolError(
            "a feature map is what class scores are computed from, and the model has none",
            where=where,
            fix="name the scores with " + parameter("class_output", Placeholder("NAME")),
        )
    image = next(value for value in graph.inputs if value.name == image_input)
    return image, next(value for value in graph.outputs if value.name == class_output)


def describe_map(value: ir.Value, name: str, *, head: bool | None = None, output: str | None = None) -> ListedMap:
    """Returns a feature map as it is listed."""
    producer = value.producer()
    assert value.shape is not None  # a feature map has rank 4
    assert producer is not None  # it is computed
    lengths = (length if isinstance(length, int) else length.value for length in value.shape)
    return ListedMap(name, tuple(lengths), producer.op_type, head, output)
