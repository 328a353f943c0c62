"""Adds the axis of the images to results of networks made for one image, which may drop it, as a Squeeze does."""

from __future__ import annotations

import onnx_ir as ir

from masktool.exporters.runnable import Outputs


def with_image_axis(results: Outputs, like: Outputs) -> Outputs:
    """Returns results with the axis of the images where it is missing.

    Args:
        results: the results of a network for one image, run on image after image and joined.
        like: the results of the same network for any number of images.
    """
    pairs = zip(results, like, strict=True)
    return [x.reshape(y.shape) if y.ndim == x.ndim + 1 and y.size == x.size else x for x, y in pairs]


def declare_image_axis(model: ir.Model, lifted: ir.Model) -> ir.Model:
    """Returns a network with the shapes of its outputs as they were inferred for any number of images.

    Outputs that drop the axis of the images have it then, and shapes that the file declares wrongly do not count.

    Args:
        model: the network; it stays as it is.
        lifted: the same network for any number of images.
    """
    declared = model.clone()
    shapes = {value.name: value.shape for value in lifted.graph.outputs}
    for value in declared.graph.outputs:
        found = shapes.get(value.name)
        if found is not None:
            value.shape = found
    return declared
