"""The head of a network: the layers behind a feature map, as a source of its own whose image is that map.

1. The feature map is a place through which all that the scores know of the image passes; a map that the image reaches
   the scores around, such as one inside a residual block, is none.
2. Between DequantizeLinear and what reads it, a map has been quantised already. The head then begins in front of the
   QuantizeLinear, so that it computes on the same integers: quantising such numbers again changes none.
3. The head is exported like any other source, with a mask at the feature map, and stands beside the file of the whole
   network, which gives the feature map as an output. Both are run together and compared with the whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from masktool.contract import FEATURE_MAP, MASK_INPUT, Metadata
from masktool.errors import MasktoolError, reported_as
from masktool.exported_files import LAST
from masktool.exporters.canonical import infer_shapes
from masktool.exporters.class_candidates import NOTHING_SAID
from masktool.exporters.differences import relative_difference
from masktool.exporters.feature_maps import (
    choose_by_name,
    list_feature_maps,
    settle_quantised,
    values_behind,
    values_into,
)
from masktool.exporters.names import NEW_PREFIX, OWN_NAMES, is_own
from masktool.exporters.onnx_file import KNOWN_LAYOUT
from masktool.exporters.parity import DEFECT
from masktool.exporters.probes import feed_of
from masktool.exporters.runnable import RunnableModel, inputs_of
from masktool.exporters.settings import ExportSettings, OutputSettings
from masktool.exporters.sources import Source
from masktool.exporters.storage import open_session, weights_path
from masktool.messages import SIZE, Placeholder, parameter

if TYPE_CHECKING:
    from masktool.exporters.masked import MaskedNetwork

SUFFIX = ".head.onnx"
MEASURED_WITH_HEAD = 3
"""Images whose scores a head's are compared with: both files were measured before."""
HEAD_BASELINE = "mean"
"""What stands in for missing places where the mask changes its input alone: 0, as published."""


@dataclasses.dataclass(frozen=True)
class Head:
    """The layers behind a feature map, before they are exported.

    Attributes:
        source: the layers, whose image input is the feature map.
        feature_map: the name of the feature map in the whole network, canonical or masked.
        settings: the settings of their export.
        export: the function that exports a source to a path.
    """

    source: Source
    feature_map: str
    settings: ExportSettings
    export: Callable[[Source, Path, ExportSettings], object]

    def write(self, path: Path) -> None:
        """Writes the layers to a path, measured like any export.

        Raises:
            MasktoolError: they cannot be exported, or are above 2 GiB.
        """
        self.export(self.source, path, self.settings)
        if weights_path(path).exists():
            raise MasktoolError(
                "the head is above 2 GiB, and stands beside another file",
                where=path.name,
                fix="name a later feature map with " + parameter("head", Placeholder("NAME")),
            )


def head_path(path: Path) -> Path:
    """Returns the path of the head that stands beside a file."""
    return path.with_name(path.name.removesuffix(".onnx") + SUFFIX)


def find_head(
    network: MaskedNetwork, settings: ExportSettings, export: Callable[[Source, Path, ExportSettings], object]
) -> Head | None:
    """Returns the head that an export asks for; None where it asks for none.

    Args:
        network: the network with and without a mask.
        settings: the settings of the network's export.
        export: the function that exports a source to a path.

    Raises:
        MasktoolError: the network has no such feature map, none at all, or no class output.
    """
    if settings.head is None:
        return None
    source, metadata = network.source, network.metadata
    if metadata.class_output is None:
        raise MasktoolError(
            "a head gives class scores, and the model has none",
            where=source.name,
            fix="leave out "
            + parameter("head")
            + ", or the method that needs one, or name the scores with "
            + parameter("class_output", Placeholder("NAME")),
        )
    plain = network.plain.clone()
    infer_shapes(plain)
    chosen, entry = choose_map(plain.graph, metadata, settings.head, source.name)
    check_fixed(chosen, metadata, source.name)
    layers = Source(
        cut_behind(plain, entry, metadata.class_output),
        source.name,
        metadata.source_sha256,
        None,
        None,
        NOTHING_SAID,
        None,
        (),
        str(entry.name),
        behind=str(chosen.name),
    )
    said = OutputSettings(metadata.class_output, metadata.output_kind, metadata.labels)
    baseline = None if settings.baseline is None else HEAD_BASELINE
    of_head = ExportSettings(said, settings.masking, baseline, settings.mask_required, rule=settings.rule)
    return Head(layers, str(chosen.name), of_head, export)


def choose_map(graph: ir.Graph, metadata: Metadata, name: str, where: str) -> tuple[ir.Value, ir.Value]:
    """Returns the feature map in front of a head, and the value that the head begins with.

    Raises:
        MasktoolError: there is no such map, or the scores depend on the image around it.
    """
    image = next(value for value in graph.inputs if value.name == metadata.image_input)
    scores = next(value for value in graph.outputs if value.name == metadata.class_output)
    behind_image = values_behind(graph, image)
    maps = list_feature_maps(graph, scores, behind_image.__contains__)
    if name != LAST:
        wanted = NEW_PREFIX + name if is_own(name, OWN_NAMES) else name
        chosen, entry = settle_quantised(choose_by_name(maps, wanted))
        if reaches_around(scores, entry, image):
            whole = [str(each.name) for each, begins in entries(maps) if not reaches_around(scores, begins, image)]
            raise MasktoolError(
                "the scores depend on the image around the feature map too, so that a mask there would hide a part",
                where=name,
                expected="a feature map that everything passes through",
                got=None if whole else "none of the network's is one",
                fix="such as " + ", ".join(whole[-5:]) if whole else None,
            )
        return chosen, entry
    for chosen, entry in entries(reversed(maps)):
        if not reaches_around(scores, entry, image):
            return chosen, entry
    raise without_maps(bool(maps), metadata, where)


def without_maps(any_map: bool, metadata: Metadata, where: str) -> MasktoolError:
    """Returns the error for a network without a feature map that a head may begin behind."""
    reason = "the scores depend on the image around each of its feature maps" if any_map else "the network has none"
    copied = f"every map is of {metadata.copies} copies of the image, which fill its fixed batch"
    return MasktoolError(
        "a head begins behind a feature map (N, c, h, w) that all the scores know of the image passes through",
        where=where,
        got=copied if metadata.copies > 1 else reason,
        fix="leave " + parameter("head") + " out: occlusion, rise and lime need none",
    )


def entries(maps: Iterator[ir.Value] | list[ir.Value]) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Yields feature maps, each with the value that a head behind it begins with."""
    return map(settle_quantised, maps)


def check_fixed(chosen: ir.Value, metadata: Metadata, where: str) -> None:
    """Raises MasktoolError where a feature map's size is open, or it is of several copies of the image."""
    assert chosen.shape is not None  # a feature map has rank 4
    if metadata.copies > 1:
        raise without_maps(True, metadata, where)
    if not all(isinstance(length, int) for length in chosen.shape[1:]):
        raise MasktoolError(
            "a head needs a feature map of a fixed size",
            where=chosen.name,
            got=chosen.shape,
            fix="fix the image's with " + parameter("input_size", SIZE),
        )


def reaches_around(scores: ir.Value, entry: ir.Value, image: ir.Value) -> bool:
    """Tells whether scores depend on the image by a way that leads around a value."""
    found, left = {scores}, [scores]
    while left:
        value = left.pop()
        if value is image:
            return True
        producer = value.producer()
        if value is not entry and producer is not None:
            new = values_into(producer) - found
            found |= new
            left += new
    return False


def cut_behind(model: ir.Model, entry: ir.Value, class_output: str) -> ir.Model:
    """Returns the part of a graph between a value, which becomes the image input, and the class output, in place."""
    graph = model.graph
    scores = next(value for value in graph.outputs if value.name == class_output)
    graph.outputs.clear()
    graph.outputs.append(scores)
    image = ir.Value(name=f"{entry.name}/entry", shape=entry.shape, type=entry.type)
    image.meta[KNOWN_LAYOUT] = True
    ir.convenience.replace_all_uses_with(entry, image)
    common.RemoveUnusedNodesPass()(model)
    others = [value for value in graph.inputs if value.uses()]
    graph.inputs.clear()
    graph.inputs.extend([image, *others])
    image.name = entry.name
    model.metadata_props.clear()
    return model


def find_kept_head(source: Source, metadata: Metadata, feature_maps: Sequence[str] = ()) -> Path | None:
    """Returns the head that stays one of a file which gets gradients with respect to feature maps; None for none.

    A head begins behind the first feature map: where that is another, or the head is not there, none stays.

    Args:
        source: the exported file.
        metadata: its metadata.
        feature_maps: the names of the feature maps; none for those of the file.
    """
    first = feature_maps[0] if feature_maps else metadata.feature_map
    if metadata.head is None or source.path is None or first != metadata.feature_map:
        return None
    head = source.path.parent / metadata.head
    return head if head.is_file() else None


def measure_head(path: Path, head: Path, metadata: Metadata, images: np.ndarray) -> float:
    """Returns how far a head's scores for a file's feature maps are from that file's own, relative to max |score|.

    Args:
        path: the path of the file.
        head: the path of its head.
        metadata: the metadata of the file.
        images: the images (N, ...) to run.

    Raises:
        MasktoolError: one of the files does not run.
    """
    assert metadata.class_output is not None
    names = [metadata.class_output, FEATURE_MAP]
    with reported_as("the head that was written does not run", where=head.name, fix=DEFECT):
        whole = open_file(path)
        layers = open_file(head)
        expected, found = [], []
        for image in images:
            scores, features = run_outputs(whole, names, image[None])
            expected.append(scores.reshape(1, -1))
            found.append(run_outputs(layers, names[:1], features.astype(layers.image_type))[0].reshape(1, -1))
    return relative_difference([np.concatenate(found)], [np.concatenate(expected)])


def open_file(path: Path) -> RunnableModel:
    """Opens an exported file, and draws values for its other inputs, in every file the same for one name and shape."""
    session = open_session(str(path))
    metadata = Metadata.from_properties(session.get_modelmeta().custom_metadata_map)
    assert metadata is not None  # masktool wrote it
    return RunnableModel.of(lambda: session, metadata.image_input)


def run_outputs(runnable: RunnableModel, names: list[str], images: np.ndarray) -> list[np.ndarray]:
    """Returns outputs of an exported file for images under a mask of ones."""
    shape = next(node.shape for node in inputs_of(runnable.session) if node.name == MASK_INPUT)
    feed = {runnable.image_input: images, MASK_INPUT: np.ones((1, 1, *shape[2:]), np.float32)}
    return [np.asarray(each) for each in runnable.session.run(names, feed | feed_of(runnable.others, 1))]
