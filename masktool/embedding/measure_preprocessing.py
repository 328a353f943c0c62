"""Measures the photograph that a file prepares against the one that Pillow prepares."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
from PIL import Image

from masktool.contract import Preprocessing
from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.preprocessing import declare_photograph, emit_preprocessing, photograph_channels
from masktool.errors import MasktoolError
from masktool.exporters.parity import DEFECT
from masktool.exporters.storage import open_model
from masktool.normalisation import LEVELS
from masktool.runtime.preprocessing import prepare

GREY_LIMIT = 1
"""Largest difference in grey levels between photographs prepared in the file and by Pillow. With Pillow 13 there is
none; another version may round between its two passes in another order."""
STRETCH = (1.9, 1.4)
"""Width and height of a drawn photograph in those of the crop: larger, and of another shape."""
PATCHES = (6, 9)
"""Rows and columns of colours in a drawn photograph."""


def draw_photograph(preprocessing: Preprocessing) -> Image.Image:
    """Returns a smooth picture of random colours that is neither of the size nor of the shape of the crop."""
    height, width = preprocessing.size
    size = (round(STRETCH[0] * width), round(STRETCH[1] * height))
    colours = np.random.default_rng(0).integers(0, LEVELS, (*PATCHES, 3), np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def measure_preprocessing(model: ir.Model, preprocessing: Preprocessing, photograph: Image.Image) -> float:
    """Returns the largest difference in grey levels between a photograph prepared in a graph and by Pillow.

    Args:
        model: the model that prepares photographs, for its opset.
        preprocessing: how it does that.
        photograph: the photograph.

    Raises:
        MasktoolError: the difference is beyond the limit.
    """
    zeros, ones = ((value,) * photograph_channels(preprocessing) for value in (0.0, 1.0))
    pixels = dataclasses.replace(preprocessing, scale=1.0, mean=zeros, std=ones)
    graph = ir.Graph([], [], nodes=[], opset_imports=dict(model.graph.opset_imports), name="preprocessing")
    flow = Flow(graph, "preprocessing")
    prepared = emit_preprocessing(flow, declare_photograph("photograph"), pixels, FLOAT)
    graph.inputs.append(prepared.pixels)
    flow.outputs_are([prepared.image])
    session = open_model(ir.Model(graph, ir_version=model.ir_version))
    (found,) = session.run(None, {"photograph": np.asarray(photograph)})
    worst = float(np.abs(np.asarray(found) - prepare(photograph, pixels).array).max())
    if not worst <= GREY_LIMIT:
        raise MasktoolError(
            "the photograph that the file prepares is not the one that Pillow prepares",
            where=f"{preprocessing.interpolation}, {preprocessing.resize}",
            expected=f"a difference of at most {GREY_LIMIT} grey level",
            got=f"{worst:.0f}",
            fix=DEFECT,
        )
    return worst
