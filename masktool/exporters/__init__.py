"""From a trained network to a masked ONNX file: :func:`export`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import masktool
from masktool.contract import Layout, Masking, Metadata, OutputKind, Preprocessing
from masktool.errors import MasktoolError

if TYPE_CHECKING:
    import onnx_ir as ir

    from masktool.exporters.sources import Model, Source

__all__ = ["export"]


def export(
    model: Model | Source,
    path: str | os.PathLike[str],
    *,
    input_size: tuple[int, int] | None = None,
    channels: int | None = None,
    arch: str | None = None,
    masking: Masking = "layer",
    mask_required: bool = False,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] | None = None,
    output_kind: OutputKind | None = None,
    trust_pickle: bool = False,
) -> Metadata:
    """Exports a trained CNN as an ONNX model that takes a mask and carries it through every layer.

    Args:
        model: see :func:`masktool.exporters.sources.load_source`.
        path: of the file to write; it appears only when everything has succeeded.
        input_size: (height, width) of the image input in pixels, where the source does not fix it.
        channels: of the image input, where the source does not fix it.
        arch: the architecture that a state dict belongs to.
        masking: ``layer``, the only mode so far.
        mask_required: makes ``mask`` an ordinary input, for runtimes that cannot leave inputs out.
        preprocessing: how a photograph becomes the input; None takes what the source knows.
        labels: one name per class; None takes what the source knows.
        output_kind: what the class output holds; None takes what the source knows.
        trust_pickle: unpickle a pickled module, which runs code from the file.

    Returns:
        What the file says about itself, with the parity figures measured on random inputs, relative to max |output|.

    Raises:
        UnsupportedOperatorError: nodes without a mask rule; it lists all of them.
        MasktoolError: the model or an option is not usable.

    Source:
        Balasubramanian and Feizi, "Towards Improved Input Masking for Convolutional Neural Networks", 2023,
        https://arxiv.org/abs/2211.14646.
    """
    import onnx_ir as ir

    from masktool.exporters.parity import open_session
    from masktool.exporters.sources import load_source
    from masktool.exporters.write import write_masked

    if masking != "layer":
        raise MasktoolError("unknown masking mode", expected="layer", got=masking)
    source = load_source(model, arch=arch, input_size=input_size, channels=channels, trust_pickle=trust_pickle)
    plain_bytes = ir.to_proto(source.model).SerializeToString()
    plain = open_session(plain_bytes)  # first of all: what ONNX Runtime refuses needs no mask
    masked, image_input, layout = masked_model(source, mask_required=mask_required)
    metadata = Metadata(
        masking=masking,
        source=source.name,
        source_sha256=source.sha256 or hashlib.sha256(plain_bytes).hexdigest(),
        image_input=image_input,
        class_output=None,
        output_kind=output_kind or source.output_kind,
        preprocessing=preprocessing or source.preprocessing,
        labels=tuple(labels) if labels is not None else source.labels,
        parity={},
        tool_version=masktool.__version__,
    )
    return write_masked(masked, path, metadata, layout, plain, source.reference)


def masked_model(source: Source, *, mask_required: bool) -> tuple[ir.Model, str, Layout]:
    """Returns the masked graph of a source, the name of its image input and that input's layout."""
    from masktool.exporters.batch import lift_batch
    from masktool.exporters.canonical import canonicalise
    from masktool.exporters.onnx_file import find_image_input, layout_of
    from masktool.exporters.propagate import mask_model

    model = canonicalise(source.model)
    if not any(node.op_type == "Conv" for node in model.graph):
        raise MasktoolError(
            "not a convolutional network", where=source.name, expected="at least one Conv node", got="none"
        )
    image = find_image_input(model)
    assert image.name is not None
    lift_batch(model, image.name)
    layout = layout_of(image)
    mask_model(model, image.name, layout, mask_required=mask_required)
    return model, image.name, layout
