"""Reads a model from a file, a hub name, a torch module or an ONNX model in memory into one plain graph.

The kind of a file is read off its content, never off its extension. torch is needed for torch's own kinds only and is
imported in :mod:`masktool.exporters.torch_sources`, inside functions.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
import onnx_ir

from masktool.contract import METADATA_PREFIX, Metadata, Preprocessing, Size
from masktool.errors import MasktoolError, reported_as
from masktool.exporters.class_candidates import Claims, count_columns, is_vector
from masktool.exporters.declared_shapes import check_sizes
from masktool.exporters.endless import refuse_endless_loops
from masktool.exporters.foreseen import refuse_negative_lengths
from masktool.exporters.integer_images import assumed_preprocessing, note_assumed
from masktool.exporters.names import free_ends, note_renamed
from masktool.exporters.onnx_checks import check_external_data
from masktool.exporters.onnx_door import Opened, open_proto, read_onnx
from masktool.exporters.onnx_file import channels_of, input_size_of, settle_input
from masktool.exporters.rewrites.deprecated import rewrite_deprecated
from masktool.exporters.rewrites.sequences import settle_kept_axes
from masktool.exporters.said import NOTHING, SaidByFile, read_said
from masktool.exporters.settings import SourceSettings
from masktool.exporters.source_kinds import HOLD_WEIGHTS_ALONE, FileKind, detect_kind, refuse_architecture
from masktool.exporters.torch_sources import archives, module_export
from masktool.exporters.torch_sources.hub_names import names_hub_model
from masktool.exporters.torch_sources.modules import LoadedModule, load_module
from masktool.identity import digest_model
from masktool.messages import SIZE, parameter
from masktool.streams import unheard

if TYPE_CHECKING:
    import torch

    Model: TypeAlias = str | os.PathLike[str] | torch.nn.Module | onnx.ModelProto | onnx_ir.Model


@dataclasses.dataclass(frozen=True)
class Source:
    """A plain classifier, and what its file or hub says about it.

    Attributes:
        model: the graph as it was read, any opset; from torch: opset 18 or 20, input ``image``, symbolic batch.
        name: the model's name to the user: a file's name without its directory, a hub name or a class name.
        sha256: the SHA-256 of the source file and every file that belongs to it, see :mod:`masktool.identity`; None
            when there is no file.
        files: the SHA-256, by path, of the code and other files that a factory of the user's was made of.
        preprocessing: the steps from a photograph to the input; None when the source does not know.
        labels: one name per class; None when the source does not know.
        claims: statements of the source about its class output.
        reference: torch's own outputs for a float32 batch of images: every one, in the graph's order, floating point as
            float32 and others in their own type; None for ONNX sources.
        notes: notes for the user, one sentence each.
        image_input: name of the graph's input that is the image.
        masker: how the masking model in the graph was trained, JSON values by name, see
            :class:`masktool.contract.Metadata`; None where there is no masking model.
        renamed: new names of inputs and outputs by their original names, see :mod:`masktool.exporters.names`.
        path: the path of the ``.onnx`` file that the graph was read from; None for any other source.
        configuration: the hub's configuration that preprocessing and labels come from; None where they do not.
        behind: name of the feature map that is the image input, where the graph is what lies behind it in a network;
            None for a whole network.
        said: what another exporter wrote into the file beside the graph; nothing of a model that masktool wrote.
    """

    model: onnx_ir.Model
    name: str
    sha256: str | None
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None
    claims: Claims
    reference: Callable[[np.ndarray], list[np.ndarray]] | None
    notes: tuple[str, ...]
    image_input: str
    masker: Mapping[str, Any] | None = None
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    path: Path | None = None
    configuration: str | None = None
    behind: str | None = None
    said: SaidByFile = NOTHING

    @property
    def exported_before(self) -> bool:
        """Whether masktool wrote the graph, so that it takes a mask already."""
        return was_exported(self.model)


def load_source(
    model: Model | Source,
    *,
    arch: str | None = None,
    input_size: Size | None = None,
    channels: int | None = None,
    image_input: str | None = None,
    trust_code: bool = False,
) -> Source:
    """Reads a model of any supported kind into a plain ONNX graph.

    Args:
        model: the path of a file (``.onnx``, ``.pt2``, state dict, ``.safetensors`` or, with ``trust_code``,
            TorchScript or a pickled module); ``torchvision:NAME`` or ``timm:NAME``; a ``torch.nn.Module``; an ONNX
            model. A ``Source`` is returned as it is.
        arch: the architecture that a state dict belongs to: ``torchvision:NAME``, ``timm:NAME``,
            ``package.module:factory`` or ``path/to/file.py:factory``.
        input_size: (height, width) of the image input in pixels; torch modules need it unless the hub's configuration
            tells, ONNX models where they leave it open.
        channels: the number of channels of a torch module's images, or of an ONNX model that leaves it open; None
            finds it, see :func:`masktool.exporters.torch_sources.module_export.find_channels`.
        image_input: name of the ONNX input that is the image, where several may be.
        trust_code: whether to read a file although that may run code from it, see :mod:`masktool.exporters.trust`.

    Raises:
        MasktoolError: the model cannot be read or exported; the message says why and what to do.
    """
    return read_source(model, SourceSettings(arch, input_size, channels, image_input, trust_code))


def was_exported(model: onnx_ir.Model) -> bool:
    """Tells whether masktool wrote a model."""
    return METADATA_PREFIX + "schema_version" in model.metadata_props


def holds_explanation(model: onnx_ir.Model) -> bool:
    """Tells whether masktool wrote a model, as one that explains itself."""
    recorded = Metadata.from_properties(model.metadata_props)
    return recorded is not None and not recorded.takes_mask


@unheard()
def read_source(model: Model | Source, settings: SourceSettings) -> Source:
    """Reads a model of any supported kind into a plain ONNX graph.

    Args:
        model: as for :func:`load_source`.
        settings: the architecture, input size and the like that the model does not say itself.

    Raises:
        MasktoolError: the model cannot be read or exported; the message says why and what to do.
    """
    if isinstance(model, Source):
        return model
    if isinstance(model, str | os.PathLike) and not names_hub_model(model):
        return _source_from_file(Path(model), settings)
    if isinstance(model, onnx.ModelProto):
        name = model.graph.name or "model"
        refuse_architecture(settings.arch, name)
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        check_external_data(copy, Path(name))
        return check_channels(_source_from_onnx(open_proto(copy, name), name, None, settings), settings.channels)
    if isinstance(model, onnx_ir.Model):
        name = model.graph.name or "model"
        refuse_architecture(settings.arch, name)
        source = _source_from_graph(model.clone(), name, None, settings)
        return check_channels(source, settings.channels)
    if isinstance(model, str | os.PathLike) or module_export.is_module(model):
        return source_from_module(load_module(model, arch=settings.arch), settings.input_size, settings.channels)
    raise MasktoolError(
        "not a model", expected="a path, a hub name, a torch.nn.Module or an ONNX model", got=type(model).__name__
    )


def read_sources(models: Iterable[Model | Source | None], settings: SourceSettings) -> list[Source | None]:
    """Reads several models as :func:`read_source` does; None stays.

    An architecture is of those that are weights alone, and of the others too where none is, which refuse it.
    """
    given, without = list(models), dataclasses.replace(settings, arch=None)
    weights = [settings.arch is not None and may_be_weights(model) for model in given]
    return [
        None if model is None else read_source(model, settings if alone or not any(weights) else without)
        for model, alone in zip(given, weights, strict=True)
    ]


def may_be_weights(model: object) -> bool:
    """Tells whether a model is a file that may hold weights without their network."""
    if not isinstance(model, str | os.PathLike) or names_hub_model(model):
        return False
    return detect_kind(Path(model)) in HOLD_WEIGHTS_ALONE


def _source_from_file(path: Path, settings: SourceSettings) -> Source:
    kind, size, channels = detect_kind(path), settings.input_size, settings.channels
    if kind in HOLD_WEIGHTS_ALONE:
        loaded = load_module(path, arch=settings.arch, trust_code=settings.trust_code)
        return source_from_module(loaded, size, channels)
    refuse_architecture(settings.arch, path)
    digest = digest_model(path)
    if kind is FileKind.ONNX:
        source = _source_from_onnx(read_onnx(path), path.name, digest, settings)
        return check_channels(dataclasses.replace(source, path=path), channels)
    module_export.require_torch(f"a {kind.value}")
    if kind is FileKind.PT2:
        graph = archives.export_pt2(path, size, trust_code=settings.trust_code)
        return check_channels(_source_from_torch(graph, path.name, digest, size), channels)
    graph = archives.export_torchscript(path, size, channels, trust_code=settings.trust_code)
    return _source_from_torch(graph, path.name, digest)


def _source_from_onnx(opened: Opened, name: str, digest: str | None, settings: SourceSettings) -> Source:
    source = _source_from_graph(opened.model, name, digest, settings)
    return dataclasses.replace(source, labels=opened.tail.labels, notes=(*opened.tail.notes, *source.notes))


def check_channels(source: Source, channels: int | None) -> Source:
    """Returns a source; MasktoolError where it takes another number of channels than the user says."""
    taken = channels_of(source.model, source.image_input)
    if channels is not None and taken != channels:
        raise MasktoolError(
            "the network takes its own number of channels", where=source.name, expected=taken, got=channels
        )
    return source


def _source_from_graph(model: onnx_ir.Model, name: str, digest: str | None, settings: SourceSettings) -> Source:
    renamed = {} if was_exported(model) else free_ends(model)
    rewrite_deprecated(model)
    wanted = named_image_input(model, settings.image_input, renamed)
    image = settle_input(model, settings.input_size, wanted, settings.channels)
    assert image.name is not None
    with reported_as("shapes cannot be inferred", where=name):
        settle_kept_axes(model)
        refuse_negative_lengths(model, image, name)
        if not holds_explanation(model):  # whose Loops are many, and which nothing takes as a source
            refuse_endless_loops(model, image, name)
    check_sizes(model, name)
    preprocessing = assumed_preprocessing(image, channels_of(model, image.name), input_size_of(model, image.name))
    notes = (*note_renamed(model.graph.outputs, renamed), *(() if preprocessing is None else (note_assumed(image),)))
    said = NOTHING if was_exported(model) else read_said(model.metadata_props)
    return Source(
        model, name, digest, preprocessing, None, Claims(), None, notes, image.name, renamed=renamed, said=said
    )


def named_image_input(model: onnx_ir.Model, given: str | None, renamed: Mapping[str, str]) -> str | None:
    """Returns the name of the image input: the user's, else what an exported model says; None where the graph tells.

    Args:
        model: the model, with the names that masktool needs freed.
        given: the name that the user gave.
        renamed: new names of inputs by old ones.
    """
    if given is not None:
        return renamed.get(given, given)
    recorded = Metadata.from_properties(model.metadata_props)
    return None if recorded is None else recorded.image_input


def _source_from_torch(
    graph: module_export.TorchGraph, name: str, digest: str | None, input_size: Size | None = None
) -> Source:
    source = _source_from_graph(graph.model, name, digest, SourceSettings(input_size=input_size))
    notes = (*source.notes, *graph.notes)
    return dataclasses.replace(
        source, reference=graph.run, notes=notes, claims=Claims(own_name=module_export.OUTPUT_NAME)
    )


def source_from_module(loaded: LoadedModule, input_size: Size | None = None, channels: int | None = None) -> Source:
    """Exports a torch module into a plain ONNX graph with a symbolic batch.

    Args:
        loaded: the module, which may be a replacement of the one that was loaded.
        input_size: (height, width) of the images in pixels; None takes that of the hub's configuration.
        channels: the number of channels of the images; None finds it, see
            :func:`masktool.exporters.torch_sources.module_export.find_channels`.

    Raises:
        MasktoolError: the input size is unknown, the module does not run on such images, or torch cannot export it.
    """
    known = loaded.known
    size = input_size or (known.preprocessing.size if known.preprocessing else None)
    if size is None:
        raise MasktoolError("input size unknown", where=loaded.name, fix="add " + parameter("input_size", SIZE))
    graph = module_export.export_module(known.module, size, channels, known.channels)
    source = _source_from_torch(graph, loaded.name, loaded.sha256)
    columns = {count_columns(value) for value in source.model.graph.outputs if is_vector(value)}
    labels = known.labels if known.labels and len(known.labels) in columns else None
    said_by = f"the classifier that the hub builds ({known.configuration})"
    claims = dataclasses.replace(source.claims, n_classes=known.n_classes, said_by=said_by)
    return dataclasses.replace(
        source,
        preprocessing=known.preprocessing and known.preprocessing.scaled_to(size),
        labels=labels,
        claims=claims,
        notes=(*loaded.notes, *graph.notes),
        files=known.files,
        configuration=known.configuration,
    )
