"""The baselines on which a network gives numbers, tried once it gave none on the baseline that was asked for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from masktool.contract import BASELINES, MASK_INPUT, Layout, Preprocessing
from masktool.errors import MasktoolError
from masktool.exporters.differences import relative_difference
from masktool.exporters.fill import fill_model
from masktool.exporters.parity import of_one_shape
from masktool.exporters.probes import Probe
from masktool.exporters.runnable import RunnableModel
from masktool.exporters.storage import open_session

IMAGE, FILLED = "image", "image_with_holes"
OPSET, IR_VERSION = 18, 8
"""Enough for what ``fill`` emits."""


def find_baselines(
    plain: RunnableModel, probe: Probe, layout: Layout, preprocessing: Preprocessing | None, failed: str
) -> list[str]:
    """Returns the names of the baselines on which a network gives numbers.

    Args:
        plain: the network.
        probe: the images and masks to try the baselines on.
        layout: the layout of the images.
        preprocessing: how a photograph becomes the input; None leaves out the baselines that are colours.
        failed: the baseline on which the network gave no numbers; it is not tried again.
    """
    others = [name for name in BASELINES if name != failed]
    return [name for name in others if gives_numbers(plain, probe, layout, preprocessing, name)]


def gives_numbers(
    plain: RunnableModel, probe: Probe, layout: Layout, preprocessing: Preprocessing | None, baseline: str
) -> bool:
    """Tells whether a network gives numbers on images that are filled with a baseline."""
    try:
        filled = fill_images(probe, layout, preprocessing, baseline)
    except MasktoolError:  # a colour without a preprocessing, or for other channels
        return False
    found, expected = of_one_shape(plain.run_alone(filled), plain.run_alone(probe.images))
    return bool(np.isfinite(relative_difference(found, expected)))


def fill_images(probe: Probe, layout: Layout, preprocessing: Preprocessing | None, baseline: str) -> np.ndarray:
    """Returns a probe's images with the baseline where their masks are 0, as an exported file fills them."""
    image = ir.Value(
        name=IMAGE,
        shape=ir.Shape(["N", *probe.images.shape[1:]]),
        type=ir.TensorType(ir.DataType.from_numpy(probe.images.dtype)),
    )
    node = ir.node("Identity", [image], name=FILLED)
    output = node.outputs[0]
    output.name, output.shape, output.type = FILLED, image.shape, image.type
    graph = ir.Graph([image], [output], nodes=[node], opset_imports={"": OPSET}, name=FILLED)
    model = ir.Model(graph, ir_version=IR_VERSION)
    fill_model(model, IMAGE, layout, baseline, preprocessing, mask_required=True)
    session = open_session(ir.to_proto(model).SerializeToString())
    return np.asarray(session.run([FILLED], {IMAGE: probe.images, MASK_INPUT: probe.masks})[0])
