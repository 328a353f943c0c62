"""How large the numbers are that a network computes, measured on images: float16 ends at 65504."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir

from masktool.exporters.precision import is_single
from masktool.exporters.runnable import RunnableModel
from masktool.exporters.storage import open_model

PREFIX = "masktool_largest/"
"""Beginning of the names of the outputs that are measured, which no network has."""


def measure_largest(model: ir.Model, image_input: str, images: np.ndarray) -> dict[str, float]:
    """Returns the largest magnitude of the numbers in every float32 value that a model computes, by its name.

    Infinity and NaN count as infinity.

    Args:
        model: a canonical model; it stays as it is.
        image_input: the name of the image input.
        images: the images; copies of the first fill up a fixed batch.
    """
    measured = model.clone()
    names = add_maxima(measured.graph)
    if not names:
        return {}
    runnable = RunnableModel.of(functools.partial(open_model, measured), image_input)
    step, largest = runnable.batch or 1, dict.fromkeys(names.values(), 0.0)
    for start in range(0, len(images), step):
        batch = np.resize(images[start : start + step], (step, *images.shape[1:]))
        for name, found in zip(runnable.outputs, runnable.run_once(batch), strict=True):
            if name in names:
                value = float(np.nan_to_num(found, nan=np.inf, posinf=np.inf))
                largest[names[name]] = max(largest[names[name]], value)
    return largest


def add_maxima(graph: ir.Graph) -> dict[str, str]:
    """Adds to a graph an output for each float32 value that it computes: the largest magnitude, a single number.

    Returns:
        The values' names by those of the outputs.
    """
    names = {}
    for value in [output for node in graph for output in node.outputs if is_single(output) and output.uses()]:
        magnitude = ir.node("Abs", [value])
        maximum = ir.node("ReduceMax", [magnitude.outputs[0]], {"keepdims": 0})
        maximum.outputs[0].name = f"{PREFIX}{value.name}"
        maximum.outputs[0].type, maximum.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
        graph.extend([magnitude, maximum])
        graph.outputs.append(maximum.outputs[0])
        names[str(maximum.outputs[0].name)] = str(value.name)
    return names
