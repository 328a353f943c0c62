"""The demo network with gradients, and pictures whose object is known."""

from __future__ import annotations

from pathlib import Path

from masktool.contract import Masking, Preprocessing
from masktool.demo import program_path, shapes


def write_shapes_model(path: Path, masking: Masking) -> Path:
    """Exports the demo network with gradients; needs torch."""
    from masktool.interface.export import export

    export(
        program_path(),
        path,
        input_size=(shapes.SIZE, shapes.SIZE),
        preprocessing=Preprocessing(
            size=(shapes.SIZE, shapes.SIZE),
            resize="shortest",
            resize_to=shapes.SIZE,
            mean=shapes.MEAN,
            std=shapes.STD,
        ),
        labels=shapes.LABELS,
        output_kind="logits",
        masking=masking,
        gradient="logit",
    )
    return path
