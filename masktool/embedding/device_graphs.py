"""Small models that run beside a masked one, on the same device: what masks are made of goes in, sums come back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from masktool.embedding.designs import emit_masks
from masktool.embedding.flow import FLOAT, Flow
from masktool.explainers.mask_design import MaskDesign, Rows
from masktool.explainers.on_device import (
    BASELINE,
    CHANGE,
    IMAGES,
    MASKS,
    PLACES,
    SQUARES,
    SUMS,
    VALUES,
    WEIGHTS,
    DeviceGraphs,
)

OPSET, IR_VERSION = 18, 8
"""Versions that every ONNX Runtime that masktool runs with reads."""
ROWS = "rows"
"""Name of the length of an axis with a row for each mask or image."""


def write_masks(design: MaskDesign, rows: Rows, dtype: np.dtype[Any]) -> bytes:
    """Returns a model that makes masks of rows.

    Args:
        design: how masks are made of rows; what it shares among all masks are inputs too.
        rows: a batch of rows, for the names, types and lengths of inputs.
        dtype: the element type of the masks.
    """
    flow = open_flow("masks")
    given = {name: declare(flow, name, value, value.shape) for name, value in design.shared.items()}
    given |= {name: declare(flow, name, value, (ROWS, *value.shape[1:])) for name, value in rows.items()}
    masks = flow.typed(emit_masks(design, flow, given), FLOAT)
    return finish(flow, {MASKS: flow.as_type(masks, ir.DataType.from_numpy(dtype))})


def write_steps(image: NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    """Returns a model that makes images on the straight way from a baseline to an image.

    Args:
        image: the image (1, ...) float32, for the lengths of inputs.
        dtype: the element type of the images.
    """
    flow = open_flow("steps")
    baseline, change = (declare(flow, name, image, image.shape) for name in (BASELINE, CHANGE))
    places = declare(flow, PLACES, np.zeros(1, np.float32), (ROWS,))
    moved = flow.emit("Add", baseline, flow.emit("Mul", flow.reshape(places, -1, 1, 1, 1), change))
    moved = flow.typed(moved, FLOAT, [ROWS, *image.shape[1:]])
    return finish(flow, {IMAGES: flow.as_type(moved, ir.DataType.from_numpy(dtype))})


def write_sums(dtype: np.dtype[Any], *, squares: bool) -> bytes:
    """Returns a model that adds up rows of values with weights, (sums, rows) of them.

    Args:
        dtype: the element type of the values.
        squares: whether the squares of the values are added up too.
    """
    flow = open_flow("sums")
    given = declare(flow, VALUES, np.zeros(1, dtype), None)
    weights = declare(flow, WEIGHTS, np.zeros(1, np.float32), ("sums", ROWS))
    values = flow.typed(flow.emit("Flatten", flow.as_type(given, FLOAT), axis=1), FLOAT)
    outputs = {SUMS: flow.emit("MatMul", weights, values)}
    if squares:
        outputs[SQUARES] = flow.emit("MatMul", weights, flow.emit("Mul", values, values))
    return finish(flow, outputs)


DEVICE_GRAPHS = DeviceGraphs(write_masks, write_steps, write_sums)
"""Writers of all models, for :func:`masktool.explainers.explaining.explain_all`."""


def open_flow(name: str) -> Flow:
    """Returns what emits into a new graph."""
    return Flow(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=name), name)


def declare(flow: Flow, name: str, like: NDArray[Any], shape: tuple[int | str, ...] | None) -> ir.Value:
    """Adds an input of an array's element type to a graph; a shape of None leaves it open."""
    kind = ir.TensorType(ir.DataType.from_numpy(like.dtype))
    value = ir.Value(name=name, type=kind, shape=None if shape is None else ir.Shape(shape))
    flow.graph.inputs.append(value)
    return value


def finish(flow: Flow, outputs: Mapping[str, ir.Value]) -> bytes:
    """Returns the model of a graph, with values as its outputs."""
    flow.outputs_are(list(outputs.values()))
    for name, value in zip(outputs, flow.graph.outputs, strict=True):
        value.name = name
    return ir.to_proto(ir.Model(flow.graph, ir_version=IR_VERSION)).SerializeToString()
