"""A network made for one image may drop the axis of its images, as a Squeeze does; what takes many images keeps it."""

from __future__ import annotations

import onnx_ir as ir

from masktool.exporters.runnable import Outputs


def with_image_axis(results: Outputs, like: Outputs) -> Outputs:
    """Gives results of image after image, behind each other, the axis of the images back where it is missing.

    Args:
        results: of a network for one image.
        like: the same results of a network for any number of images.
    """
    pairs = zip(results, like, strict=True)
    return [x.reshape(y.shape) if y.ndim == x.ndim + 1 and y.size == x.size else x for x, y in pairs]


def declare_image_axis(model: ir.Model, lifted: ir.Model) -> ir.Model:
    """Returns a network with the shapes of its outputs as they were inferred for any number of images.

    So those that drop the axis of the images have it, and what the file declares wrongly does not count.

    Args:
        model: the network; it stays as it is.
        lifted: the same for any number of images.
    """
    declared = model.clone()
    shapes = {value.name: value.shape for value in lifted.graph.outputs}
    for value in declared.graph.outputs:
        found = shapes.get(value.name)
        if found is not None:
            value.shape = found
    return declared
