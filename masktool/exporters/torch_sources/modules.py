"""Loads torch modules from a hub's name, a file, or a module in memory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir

from masktool.contract import Metadata, Size
from masktool.errors import MasktoolError, reported_as
from masktool.exporters.imported_files import within_installed
from masktool.exporters.onnx_door import read_onnx
from masktool.exporters.source_kinds import FileKind, detect_kind, refuse_architecture
from masktool.exporters.torch_sources import hub, weights
from masktool.exporters.torch_sources.archives import load_program, shape_of_image
from masktool.exporters.torch_sources.hub import Architecture
from masktool.exporters.torch_sources.hub_names import names_hub_model
from masktool.exporters.torch_sources.module_export import is_module, quiet, require_torch
from masktool.files import sha256_of
from masktool.identity import digest_model
from masktool.messages import parameter

if TYPE_CHECKING:
    import torch

TRAINING_ARGUMENTS = ("training", "train")
"""The argument of torch's batch norms and dropouts that switches training on, fixed in an exported program."""
NEEDED = "a torch module, its weights or a hub's name"
FROZEN_NOTE = "a torch.export archive is an exported program in evaluation mode: its weights stay as they are"


@dataclasses.dataclass(frozen=True)
class LoadedModule:
    """A torch module, and what its file or hub says about it.

    Attributes:
        known: the module, and what its hub says about it.
        name: the module's name to the user: a file's name without its directory, a hub name or a class name.
        sha256: the SHA-256 of the file, and of the code of a factory that built the architecture; None when there is no
            file.
        notes: notes for the user, one sentence each.
        frozen: whether the module is an exported program, which runs in evaluation mode alone and cannot be trained.
        input_size: (height, width) of the images that an exported program takes; None where it leaves them open, and
            for any other module.
    """

    known: Architecture
    name: str
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    frozen: bool = False
    input_size: Size | None = None


def load_module(model: object, *, arch: str | None = None, trust_code: bool = False) -> LoadedModule:
    """Loads a torch module.

    Args:
        model: ``torchvision:NAME`` or ``timm:NAME``; the path of a file: a state dict or ``.safetensors`` with
            ``arch``, a ``torch.export`` archive, which is unflattened and frozen, or, with ``trust_code``, a pickled
            module; or a ``torch.nn.Module``. A ``LoadedModule`` is returned as it is.
        arch: the architecture that a state dict belongs to, as for :func:`masktool.exporters.sources.load_source`.
        trust_code: whether to read a file although that may run code from it, see :mod:`masktool.exporters.trust`.

    Raises:
        MasktoolError: the model cannot be read, or is no torch module: an ONNX model or a TorchScript archive.
    """
    if isinstance(model, LoadedModule):
        return model
    if isinstance(model, str | os.PathLike):
        if names_hub_model(model):
            name = os.fspath(model)
            refuse_architecture(arch, name)
            return LoadedModule(hub.build(name, pretrained=True), name)
        return load_module_file(Path(model), arch, trust_code)
    if is_module(model):
        refuse_architecture(arch, type(model).__name__)
        return LoadedModule(hub.recognise(refuse_script(model)), type(model).__name__)
    if isinstance(model, onnx.ModelProto):
        raise refuse_graph(model.graph.name, {entry.key: entry.value for entry in model.metadata_props})
    if isinstance(model, onnx_ir.Model):
        raise refuse_graph(model.graph.name, model.metadata_props)
    raise MasktoolError("not a torch model", expected=NEEDED, got=type(model).__name__)


def load_module_file(path: Path, arch: str | None, trust_code: bool) -> LoadedModule:
    """Loads the module that a file holds, or that its weights belong to."""
    kind = detect_kind(path)
    if kind is FileKind.ONNX:
        raise refuse_graph(path, read_onnx(path).model.metadata_props)
    if kind is FileKind.TORCHSCRIPT:
        raise MasktoolError(
            "not a torch model",
            where=path,
            expected=NEEDED,
            got=f"a {kind.value}",
            fix="save the state dict of the module that it was made from, and give " + parameter("arch"),
        )
    require_torch(f"a {kind.value}")
    digest = sha256_of(path)
    if kind is FileKind.PT2:
        refuse_architecture(arch, path)
        module, size = unflatten_program(path, trust_code)
        return LoadedModule(Architecture(module), path.name, digest, (FROZEN_NOTE,), frozen=True, input_size=size)
    content = weights.load_torch_file(path, kind, trust_code)
    if is_module(content):
        refuse_architecture(arch, path)
        return LoadedModule(hub.recognise(refuse_script(content)), path.name, digest)
    known, notes = weights.build_with_weights(arch, content, path)
    return LoadedModule(known, path.name, digest_model(path, name_files(known.files, path)), notes)


def name_files(files: Mapping[str, str | None], weights: Path) -> dict[str, str | None]:
    """Returns digests by the files' paths as seen from the weights, or from the folder of installed packages that they
    are in: a project that moves as a whole, or a package that is installed elsewhere, stays the same.
    """
    base = os.path.realpath(weights.parent)
    return {within_installed(Path(file)) or os.path.relpath(file, base): digest for file, digest in files.items()}


def refuse_script(module: torch.nn.Module) -> torch.nn.Module:
    """Returns a module as it is; MasktoolError for a TorchScript module, which can be neither exported nor trained."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        fix = "give the module that it was made from"
        raise MasktoolError("not a torch model", expected=NEEDED, got="a TorchScript module", fix=fix)
    return module


def refuse_graph(where: object, properties: dict[str, str]) -> MasktoolError:
    """Returns the refusal of an ONNX model, which names the model's own source where masktool wrote the file."""
    metadata = Metadata.from_properties(properties)
    made_from = "" if metadata is None else f": {metadata.source}"
    fix = f"give the torch model that it was exported from{made_from}"
    return MasktoolError("not a torch model", where=where or None, expected=NEEDED, got="an ONNX model", fix=fix)


def unflatten_program(path: Path, trust_code: bool) -> tuple[torch.nn.Module, Size | None]:
    """Returns the program of a ``torch.export`` archive as a module with the original's parts, its weights frozen, and
    the (height, width) of the images that it takes, or what their axes are, None where it leaves any open.

    Raises:
        MasktoolError: the archive cannot be read, or its program takes no image, or was exported for a fixed batch or
            in training mode.
    """
    import torch

    program = load_program(path, trust_code)
    batch, _, *sides = shape_of_image(program, path)
    if isinstance(batch, int):
        raise MasktoolError(
            "the torch.export archive has a fixed batch",
            where=path,
            expected="any batch",
            got=batch,
            fix="export it with dynamic_shapes=({0: torch.export.Dim('batch')},)",
        )
    if training := nodes_in_training_mode(program):
        raise MasktoolError(
            "the torch.export archive was exported in training mode",
            where=path,
            got=", ".join(training),
            fix="call model.eval() before torch.export.export",
        )
    with quiet(), reported_as("torch cannot take the torch.export archive apart", where=path):
        module: torch.nn.Module = torch.export.unflatten(program)
    fixed = all(isinstance(side, int) for side in sides)
    return module.requires_grad_(False).eval(), tuple(sides) if fixed else None


def nodes_in_training_mode(program: Any) -> list[str]:
    """Returns the operators of an exported program whose switch for training is on, each once."""
    found: dict[str, None] = {}
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
        if any(given.get(name) is True for name in TRAINING_ARGUMENTS):
            found[schema.name.removeprefix("aten::")] = None
    return list(found)
