"""Reads any ONNX graph, with inputs of any number and rank: no image is looked for among them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx_ir as ir

from masktool.contract import Metadata
from masktool.errors import MasktoolError, reported_as
from masktool.exporters.declared_shapes import check_sizes, open_unknown_lengths
from masktool.exporters.endless import refuse_endless_loops
from masktool.exporters.foreseen import refuse_negative_lengths
from masktool.exporters.onnx_checks import check_external_data
from masktool.exporters.onnx_door import open_proto, read_onnx
from masktool.exporters.onnx_file import COMMON_BATCH
from masktool.exporters.rewrites.deprecated import rewrite_deprecated
from masktool.exporters.rewrites.sequences import settle_kept_axes
from masktool.exporters.source_kinds import FileKind, detect_kind
from masktool.exporters.torch_sources.hub_names import names_hub_model
from masktool.identity import digest_model
from masktool.messages import Placeholder, call

OnnxLike: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto | ir.Model"
"""A network in ONNX: the path of a file, or a model in memory."""
TO_ONNX = "write it as ONNX first, with torch.onnx.export"
CONSTANT_INPUTS_SINCE = 4
"""IR version before which every weight had to be an input too, so that such inputs say nothing about callers."""


@dataclasses.dataclass(frozen=True)
class GraphSource:
    """A network as it was read.

    Attributes:
        model: the graph, any opset.
        name: the network's name to the user.
        path: the path of its file; None for a model in memory.
        sha256: the SHA-256 of the file and of those that it names; None for a model in memory.
        notes: notes for the user, one sentence each.
    """

    model: ir.Model
    name: str
    path: Path | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()


def read_any_graph(model: OnnxLike) -> GraphSource:
    """Reads an ONNX model from a file or from memory; the model itself stays as it is.

    Raises:
        MasktoolError: the model is none of ONNX, is damaged, or is one that masktool exported with a mask.
    """
    source = open_any_graph(model)
    refuse_exports(source)
    rewrite_deprecated(source.model)
    open_unknown_lengths(source.model)
    name_nameless_batches(source.model.graph)
    with reported_as("shapes cannot be inferred", where=source.name):
        settle_kept_axes(source.model)
        refuse_negative_lengths(source.model, None, source.name)
        refuse_endless_loops(source.model, None, source.name)
    check_sizes(source.model, source.name)
    return dataclasses.replace(source, notes=(*source.notes, *note_defaults(source.model)))


def open_any_graph(model: OnnxLike) -> GraphSource:
    """Opens an ONNX model without a look at what it computes."""
    if isinstance(model, str | os.PathLike):
        return open_graph_file(model)
    if isinstance(model, ir.Model):
        return GraphSource(model.clone(), model.graph.name or "model")
    if isinstance(model, onnx.ModelProto):
        name, copy = model.graph.name or "model", onnx.ModelProto()
        copy.CopyFrom(model)
        check_external_data(copy, Path(name))
        opened = open_proto(copy, name)
        return GraphSource(opened.model, name, notes=opened.tail.notes)
    raise MasktoolError("not an ONNX model", expected="a path or an ONNX model", got=type(model).__name__, fix=TO_ONNX)


def open_graph_file(model: str | os.PathLike[str]) -> GraphSource:
    """Opens an ``.onnx`` file."""
    if names_hub_model(model):
        raise MasktoolError("a hub's name, and no ONNX model", where=model, fix=TO_ONNX)
    path = Path(model)
    if (kind := detect_kind(path)) is not FileKind.ONNX:
        raise MasktoolError(
            "not an ONNX model", where=path, expected="an .onnx file", got=f"a {kind.value}", fix=TO_ONNX
        )
    digest, opened = digest_model(path), read_onnx(path)
    return GraphSource(opened.model, path.name, path, digest, opened.tail.notes)


def refuse_exports(source: GraphSource) -> None:
    """Raises MasktoolError for what masktool exported: a mask that may be left out would become a constant."""
    recorded = Metadata.from_properties(source.model.metadata_props)
    if recorded is None:
        return
    raise MasktoolError(
        "masktool exported the file before",
        where=source.name,
        expected="a network as it came",
        fix="give the plain network, or add gradients of an output to this file: "
        + call("add_gradients_to", source.name, "NEW.onnx", gradient_output=Placeholder("NAME")),
    )


def name_nameless_batches(graph: ir.Graph) -> None:
    """Gives open first axes without a name that of the other inputs' batch, in place, which they nearly always are."""
    nameless = ir.SymbolicDim(None)
    shapes = {value: value.shape for value in graph.inputs if value.shape is not None and len(value.shape)}
    names = (shape[0].value for shape in shapes.values() if isinstance(shape[0], ir.SymbolicDim))
    batch = next(filter(None, names), COMMON_BATCH)
    for value, shape in shapes.items():
        if shape[0] == nameless:
            value.shape = ir.Shape([batch, *shape[1:]])


def note_defaults(model: ir.Model) -> Iterator[str]:
    """Yields which inputs with a default become constants."""
    names = [str(value.name) for value in model.graph.inputs if value.name in model.graph.initializers]
    if not names or (model.ir_version or 0) < CONSTANT_INPUTS_SINCE:
        return
    several = f"{len(names)} inputs with a default, such as {names[0]!r}, are constants in the file"
    yield several if len(names) > 1 else f"the input {names[0]!r}, which has a default, is a constant in the file"
