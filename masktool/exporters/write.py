"""Finishing a masked model: metadata, the full check, parity, and the file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from masktool.contract import MASK_INPUT, Layout, Metadata
from masktool.errors import MasktoolError
from masktool.exporters.onnx_file import find_class_output
from masktool.exporters.parity import Probe, check_parity, measure_parity, open_session
from masktool.files import atomic_path

PRODUCER = "masktool"


def write_masked(
    model: ir.Model,
    path: str | os.PathLike[str],
    metadata: Metadata,
    layout: Layout,
    plain: onnxruntime.InferenceSession,
    reference: Callable[[np.ndarray], np.ndarray] | None,
) -> Metadata:
    """Checks, measures and writes a masked model.

    Args:
        model: the masked graph.
        path: of the file.
        metadata: what is known so far.
        layout: of the image input.
        plain: the source, opened.
        reference: the source in its own framework, from images to its class output.

    Returns:
        The metadata as written, completed with what the graph tells.

    Raises:
        MasktoolError: metadata that do not fit the graph, a failed check or parity, or a path that cannot be written.
    """
    metadata = complete(metadata, model, layout)
    with atomic_path(path) as temporary:
        figures = measure(model, metadata, layout, plain, reference)
        check_parity(figures)
        metadata = dataclasses.replace(metadata, parity=figures)
        model.metadata_props.update(metadata.to_properties())
        model.producer_name, model.producer_version = PRODUCER, metadata.tool_version
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        temporary.write_bytes(proto.SerializeToString())
    return metadata


def complete(metadata: Metadata, model: ir.Model, layout: Layout) -> Metadata:
    """Adds what the graph tells to the metadata, and refuses what contradicts it."""
    class_output = find_class_output(model)
    if metadata.preprocessing is not None:
        preprocessing = dataclasses.replace(metadata.preprocessing, layout=layout)
        height, width = size_of(model)
        if (height, width) != preprocessing.size:
            raise MasktoolError(
                "the preprocessing is for another size",
                expected=f"the model's {height} x {width}",
                got=f"{preprocessing.size[0]} x {preprocessing.size[1]}",
                fix="correct the size in the preprocessing, or give --input-size",
            )
        metadata = dataclasses.replace(metadata, preprocessing=preprocessing)
    if metadata.labels is not None and class_output is not None:
        classes = next(value.shape[1] for value in model.graph.outputs if value.name == class_output and value.shape)
        if isinstance(classes, int) and classes != len(metadata.labels):
            raise MasktoolError(
                "the labels do not fit the model", expected=f"{classes} names", got=len(metadata.labels)
            )
    return dataclasses.replace(metadata, class_output=class_output)


def size_of(model: ir.Model) -> tuple[object, object]:
    """Returns height and width of the mask input."""
    mask = next(value for value in model.graph.inputs if value.name == MASK_INPUT)
    assert mask.shape is not None
    return mask.shape[2], mask.shape[3]


def measure(
    model: ir.Model,
    metadata: Metadata,
    layout: Layout,
    plain: onnxruntime.InferenceSession,
    reference: Callable[[np.ndarray], np.ndarray] | None,
) -> dict[str, float]:
    """Runs the parity measurement on a masked model that is not written yet."""
    image = next(value for value in model.graph.inputs if value.name == metadata.image_input)
    assert image.shape is not None
    assert image.dtype is not None
    sizes = [size for i in ((1, 2, 3) if layout == "NCHW" else (3, 1, 2)) if isinstance(size := image.shape[i], int)]
    if len(sizes) < 3:
        raise MasktoolError(
            "channels, height and width of the image input must be fixed",
            where=f"input {image.name!r}",
            got=image.shape,
            fix="give --input-size H W",
        )
    probe = Probe.draw((sizes[0], sizes[1], sizes[2]), layout, image.dtype.numpy())
    names = [output.name for output in model.graph.outputs]
    return measure_parity(
        plain,
        open_session(ir.to_proto(model).SerializeToString()),
        metadata.image_input,
        probe,
        reference,
        names.index(metadata.class_output) if metadata.class_output is not None else None,
    )
