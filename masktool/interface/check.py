"""Measuring an exported file again: :func:`check_export`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from masktool.contract import Size
from masktool.data_files import check_readable
from masktool.errors import MasktoolError
from masktool.exported_files import metadata_of
from masktool.files import temporary_directory
from masktool.messages import parameter
from masktool.streams import unheard

if TYPE_CHECKING:
    from masktool.exporters.check import ExportCheck
    from masktool.exporters.sources import Model, Source


@unheard()
def check_export(
    path: str | os.PathLike[str],
    model: Model | Source | None = None,
    *,
    arch: str | None = None,
    input_size: Size | None = None,
    channels: int | None = None,
    image_input: str | None = None,
    trust_code: bool = False,
    against: Model | Source | None = None,
) -> ExportCheck:
    """Measures an exported file as it was measured at export, and says which figures are within their limits.

    Args:
        path: the path of the exported file, which takes a mask or explains itself.
        model: the model that the file was exported from, as for :func:`masktool.export`; None compares the file with
            itself, and leaves out the figures that need the model: of a file that explains itself, whether the map is
            the one that the explainer gives.
        arch: the architecture that a state dict belongs to, as for ``export``.
        input_size: the height and width of the image input in pixels, as for ``export``.
        channels: the number of channels of a torch module's images, as for ``export``.
        image_input: the name of the ONNX input that is the image, as for ``export``.
        trust_code: whether a model file is read although that may run code from it, as for ``export``.
        against: the float32 network that the file's own network was made from, for a file in fewer bits: scores, first
            choices and maps are compared with those of its export. None takes ``model`` where the export itself
            brought that to another precision, and compares nothing otherwise.

    Returns:
        A verdict on every figure; ``failed`` holds those beyond their limits.

    Raises:
        MasktoolError: the file is not masktool's, does not run, or takes other inputs than the model.
    """
    from masktool.embedding.check import check_explained
    from masktool.exporters.check import check_masked
    from masktool.exporters.precision_source import computes_in
    from masktool.exporters.settings import SourceSettings
    from masktool.exporters.sources import load_source, read_sources
    from masktool.exporters.write_calibrated import write_uncorrected

    path = Path(path)
    check_readable(path, "a file that `masktool export` wrote")
    reading = SourceSettings(arch, input_size, channels, image_input, trust_code)
    source, other = read_sources((model, against), reading)
    metadata = metadata_of(path)
    if source is not None and source.exported_before:
        raise MasktoolError(
            "a file is compared with the model that it was exported from: this one is an export itself",
            where=source.name,
            expected=None if metadata is None else metadata.source,
            fix="give that model, or none",
        )
    if metadata is not None and not metadata.takes_mask:
        if other is not None:
            raise MasktoolError(
                "a file that explains itself is compared with its own source alone",
                where=path,
                fix="leave out " + parameter("against"),
            )
        return check_explained(path, metadata, source)
    check = check_masked(path, source)
    if other is None and metadata is not None and metadata.precision is not None:
        other = source
    if other is None:
        return check
    from masktool.interface.agreement import add_agreement

    with temporary_directory() as directory:
        compared = path
        if check.metadata.calibration is not None:  # the other model's scores are as they are too
            compared = directory / path.name
            write_uncorrected(load_source(path), compared)
        return add_agreement(check, compared, other, computes_in(path, check.metadata))
