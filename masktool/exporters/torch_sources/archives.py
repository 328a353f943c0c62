"""Exports torch's own archives, ``torch.export`` (``.pt2``) and TorchScript, to plain ONNX graphs."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir

from masktool.contract import Size
from masktool.errors import MasktoolError, first_line, reported_as
from masktool.exporters.batch import BATCH_NAME
from masktool.exporters.source_kinds import check_archive
from masktool.exporters.torch_sources.module_export import (
    EXAMPLE_BATCH,
    IMAGE_NAME,
    TorchGraph,
    evaluation_mode,
    export_quietly,
    find_channels,
    flatten_outputs,
    in_evaluation_mode,
    make_example,
    quiet,
    root_cause,
    run_once,
    with_reference,
)
from masktool.exporters.torch_sources.pt2_safety import copy_archive
from masktool.exporters.trust import refuse_code
from masktool.layouts import RANKS
from masktool.messages import SIZE, parameter

if TYPE_CHECKING:
    import torch

LEGACY_OPSET = 18
"""TorchScript goes through torch's legacy exporter, which has no newer forms worth asking for."""


def export_pt2(path: Path, input_size: Size | None = None, *, trust_code: bool = False) -> TorchGraph:
    """Exports a ``.pt2`` archive; a fixed batch stays fixed.

    Args:
        path: the path of the archive.
        input_size: (height, width) of the images in pixels, needed only where the archive leaves them open.
        trust_code: whether to read the archive although that may run code from it.

    Raises:
        MasktoolError: the archive is damaged or another torch version's, may run code, takes no image, or cannot be
            exported.
    """
    program = load_program(path, trust_code)
    with reported_as("torch cannot build the program of the torch.export archive", where=path):
        module = program.module()
    example = make_program_example(program, path, input_size)
    names = list(flatten_outputs(run_once(module, example)))
    graph = export_quietly(program, input_names=[IMAGE_NAME], output_names=names)
    batch = graph.model.graph.inputs[0].shape[0]
    if not isinstance(batch, int):
        rename_dimension(graph.model, str(batch), BATCH_NAME)
    return with_reference(graph.model, lambda images: collect_tensors(module(images)), example)


def collect_tensors(outputs: Any) -> list[torch.Tensor]:
    """Returns the tensors in a result, however nested: an exported program gives each as an output of its own."""
    import torch

    if isinstance(outputs, torch.Tensor):
        return [outputs]
    parts = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    return [each for part in parts for each in collect_tensors(part)] if isinstance(parts, list | tuple) else []


def load_program(path: Path, trust_code: bool) -> Any:
    """Reads a ``torch.export`` archive; without ``trust_code``, from a copy that was checked to hold no code.

    Raises:
        MasktoolError: the archive is damaged or another torch version's, or cannot be checked.
    """
    import torch

    archive = path if trust_code else copy_archive(path)
    if trust_code:
        check_archive(path)
    try:
        with quiet():
            return torch.export.load(archive)
    except Exception as error:  # the loader raises whatever a damaged or foreign member leads it to
        raise MasktoolError(
            "cannot read the torch.export archive",
            where=path,
            got=first_line(error),
            fix=f"save it again with torch {torch.__version__}",
        ) from error


def rename_dimension(model: onnx_ir.Model, old: str, new: str) -> None:
    """Gives a symbolic dimension another name, wherever it stands alone."""
    for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs)):
        if value.shape is not None and any(str(dim) == old for dim in value.shape):
            value.shape = onnx_ir.Shape([new if str(dim) == old else dim for dim in value.shape])


def shape_of_image(program: Any, path: Path) -> tuple[Any, ...]:
    """Returns the shape of the image that an exported program takes, an open axis as torch's symbol.

    Raises:
        MasktoolError: the program does not take exactly one image.
    """
    shapes = [tuple(getattr(value, "shape", ())) for value in values_of_inputs(program)]
    if len(shapes) != 1 or len(shapes[0]) not in RANKS:
        raise MasktoolError("not an image model", where=path, expected="one input (N, C, H, W)", got=shapes or "none")
    return shapes[0]


def values_of_inputs(program: Any) -> list[Any]:
    """Returns what torch noted about the inputs of an exported program, its weights apart."""
    placeholders = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    return [placeholders[name] for name in program.graph_signature.user_inputs]


def make_program_example(program: Any, path: Path, input_size: Size | None) -> torch.Tensor:
    """Returns random images of the shape that an exported program takes.

    Raises:
        MasktoolError: the program does not take exactly one image, or leaves height and width open and ``input_size``
            is None.
    """
    import torch

    taken = shape_of_image(program, path)
    fallback = (EXAMPLE_BATCH, None, *(input_size or [None] * (len(taken) - 2)))
    shape = [dim if isinstance(dim, int) else other for dim, other in zip(taken, fallback, strict=True)]
    if None in shape:
        raise MasktoolError("input size unknown", where=path, got=taken, fix="add " + parameter("input_size", SIZE))
    (image,) = values_of_inputs(program)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(image.dtype)


def export_torchscript(
    path: Path, input_size: Size | None, channels: int | None = None, *, trust_code: bool = False
) -> TorchGraph:
    """Exports a TorchScript archive with a symbolic batch, by torch's legacy exporter, the only one for such archives.

    TorchScript is a programming language whose ``__setstate__`` runs while a file is read, and whose functions write
    files. Only torch's own reader parses a file, and it runs it: no check can come first, so every file needs consent.

    Raises:
        MasktoolError: there is no consent, the archive is damaged, the input size is unknown, or the exporter fails.
    """
    import torch

    if not trust_code:
        otherwise = "export the module that it was made from, with torch.export or to .onnx"
        raise refuse_code(path, "a TorchScript archive is a program", otherwise=otherwise)
    check_archive(path)
    try:
        with quiet():
            module = torch.jit.load(path, map_location="cpu")
    except Exception as error:  # the loader raises RuntimeError and more
        raise MasktoolError("cannot read the TorchScript archive", where=path, got=first_line(error)) from error
    if input_size is None:
        raise MasktoolError("input size unknown", where=path, fix="add " + parameter("input_size", SIZE))
    channels, notes = (channels, ()) if channels is not None else find_channels(module, input_size)
    example = make_example(module, input_size, channels)
    with evaluation_mode(module):
        names = list(flatten_outputs(run_once(module, example)))
        model = trace_legacy(module, example, names)
    return with_reference(model, in_evaluation_mode(module), example)._replace(notes=notes)


def trace_legacy(module: torch.nn.Module, example: torch.Tensor, names: list[str]) -> onnx_ir.Model:
    """Runs torch's legacy exporter on a scripted module."""
    import torch

    buffer = io.BytesIO()
    try:
        with quiet(), torch.no_grad():
            torch.onnx.export(
                module,
                (example,),
                buffer,
                dynamo=False,
                opset_version=LEGACY_OPSET,
                input_names=[IMAGE_NAME],
                output_names=names,
                dynamic_axes={name: {0: "batch"} for name in (IMAGE_NAME, *names)},
            )
    except Exception as error:  # the exporter raises its own errors and those of its passes
        raise MasktoolError(
            "torch cannot export the TorchScript archive to ONNX",
            got=first_line(root_cause(error)),
            fix="export the original module, or use torch.export",
        ) from error
    return onnx_ir.from_proto(onnx.load_model_from_string(buffer.getvalue()))
