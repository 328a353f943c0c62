"""Where a model may come from: a file, a hub name, a torch module, an ONNX model in memory; all become one plain graph.

The kind of a file is read off its content, never off its extension. torch is needed for torch's own kinds only and is
imported by ``torch_*.py``, inside functions.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx
import onnx_ir
from onnx_ir.passes.common import ShapeInferencePass

from masktool.contract import OutputKind, Preprocessing
from masktool.errors import MasktoolError
from masktool.exporters import torch_archives, torch_export, torch_hub, torch_weights
from masktool.exporters.onnx_file import (
    count_classes,
    find_class_output,
    infer_output_kind,
    read_onnx,
    settle_input,
)
from masktool.exporters.source_kinds import FileKind, detect_kind
from masktool.files import sha256_of

if TYPE_CHECKING:
    import torch

    Model: TypeAlias = str | os.PathLike[str] | torch.nn.Module | onnx.ModelProto | onnx_ir.Model

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Source:
    """A plain classifier and what its origin knows about it.

    Attributes:
        model: the graph as it came, any opset; from torch: opset 18 or 20, input ``image``, symbolic batch.
        name: what the user calls it: a file's name without its directory, a hub name or a class name.
        sha256: of the source file; None when there is no file.
        preprocessing: None when the source does not know.
        labels: one name per class; None when the source does not know.
        output_kind: what the class output holds; None when the graph does not tell.
        reference: torch's own class output, float32 (N, K, ...), for a float32 batch of images; None for ONNX sources.
        notes: what the user should be told, one sentence each.
        image_input: name of the graph's input that is the image.
    """

    model: onnx_ir.Model
    name: str
    sha256: str | None
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None
    output_kind: OutputKind | None
    reference: Callable[[np.ndarray], np.ndarray] | None
    notes: tuple[str, ...]
    image_input: str


def load_source(
    model: Model | Source,
    *,
    arch: str | None = None,
    input_size: Size | None = None,
    channels: int | None = None,
    image_input: str | None = None,
    trust_pickle: bool = False,
) -> Source:
    """Reads a model of any supported kind into a plain ONNX graph.

    Args:
        model: a file (``.onnx``, ``.pt2``, TorchScript, state dict, ``.safetensors`` or, with ``trust_pickle``, a
            pickled module); ``torchvision:NAME`` or ``timm:NAME``; a ``torch.nn.Module``; an ONNX model. A ``Source``
            is returned as it is.
        arch: architecture that a state dict belongs to: ``torchvision:NAME``, ``timm:NAME``,
            ``package.module:factory`` or ``path/to/file.py:factory``.
        input_size: (height, width) of the image input; torch modules need it unless the hub's configuration tells,
            ONNX models where they leave it open.
        channels: of the image input; None takes those of the module's first convolution.
        image_input: name of the ONNX input that is the image, where several may be.
        trust_pickle: unpickle a module although that runs code from the file.

    Raises:
        MasktoolError: the model cannot be read or exported; the message says why and what to do.
    """
    if isinstance(model, Source):
        return model
    if isinstance(model, str | os.PathLike):
        text = os.fspath(model)
        if torch_hub.is_hub_name(text) and not Path(text).exists():
            return _source_from_module(torch_hub.build(text, pretrained=True), text, None, input_size, channels)
        return _source_from_file(Path(text), arch, input_size, channels, image_input, trust_pickle)
    if isinstance(model, onnx.ModelProto):
        graph, name = onnx_ir.from_proto(model), model.graph.name or "model"
        return _source_from_graph(graph, name, None, input_size, image_input)
    if isinstance(model, onnx_ir.Model):
        return _source_from_graph(model.clone(), model.graph.name or "model", None, input_size, image_input)
    if torch_export.is_module(model):
        return _source_from_module(torch_hub.recognise(model), type(model).__name__, None, input_size, channels)
    raise MasktoolError(
        "not a model", expected="a path, a hub name, a torch.nn.Module or an ONNX model", got=type(model).__name__
    )


def _source_from_file(
    path: Path,
    arch: str | None,
    input_size: Size | None,
    channels: int | None,
    image_input: str | None,
    trust_pickle: bool,
) -> Source:
    kind = detect_kind(path)
    digest = sha256_of(path)
    if kind is FileKind.ONNX:
        return _source_from_graph(read_onnx(path), path.name, digest, input_size, image_input)
    torch_export.require_torch(f"a {kind.value}")
    if kind is FileKind.PT2:
        return _source_from_torch(torch_archives.export_pt2(path, input_size), path.name, digest, input_size)
    if kind is FileKind.TORCHSCRIPT:
        return _source_from_torch(torch_archives.export_torchscript(path, input_size, channels), path.name, digest)
    content = torch_weights.load_torch_file(path, kind, trust_pickle)
    if torch_export.is_module(content):
        return _source_from_module(torch_hub.recognise(content), path.name, digest, input_size, channels)
    known, notes = torch_weights.build_with_weights(arch, content, path)
    return _source_from_module(known, path.name, digest, input_size, channels, notes)


def _source_from_graph(
    model: onnx_ir.Model,
    name: str,
    digest: str | None,
    input_size: Size | None,
    image_input: str | None = None,
) -> Source:
    image = settle_input(model, input_size, image_input)
    assert image.name is not None
    if any(value.shape is None for value in model.graph.outputs):
        ShapeInferencePass(strict_mode=False)(model)
    kind = infer_output_kind(model, find_class_output(model))
    return Source(model, name, digest, None, None, kind, None, (), image.name)


def _source_from_torch(
    graph: torch_export.TorchGraph, name: str, digest: str | None, input_size: Size | None = None
) -> Source:
    plain = _source_from_graph(graph.model, name, digest, input_size)
    class_output = find_class_output(graph.model)
    if class_output is None:
        return plain
    index = [value.name for value in graph.model.graph.outputs].index(class_output)
    return dataclasses.replace(plain, reference=lambda images: graph.run(images)[index])


def _source_from_module(
    known: torch_hub.Architecture,
    name: str,
    digest: str | None,
    input_size: Size | None,
    channels: int | None,
    notes: tuple[str, ...] = (),
) -> Source:
    preprocessing = known.preprocessing
    size = input_size or (preprocessing.size if preprocessing else None)
    if size is None:
        raise MasktoolError("input size unknown", where=name, fix="add --input-size H W")
    source = _source_from_torch(torch_export.export_module(known.module, size, channels), name, digest)
    classes = count_classes(source.model, find_class_output(source.model))
    labels = known.labels if known.labels and len(known.labels) == classes else None
    given = [word for word, value in (("preprocessing", preprocessing), ("labels", labels)) if value]
    if given:
        notes = (*notes, f"{' and '.join(given)} taken from the hub's configuration {known.configuration}")
    preprocessing = preprocessing and preprocessing.scaled_to(size)
    return dataclasses.replace(source, preprocessing=preprocessing, labels=labels, notes=notes)
