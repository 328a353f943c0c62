"""The plain network behind a masked file: the source that the file was exported from, found and opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Metadata
from masktool.errors import MasktoolError
from masktool.files import temporary_directory
from masktool.identity import digest_model
from masktool.messages import differently
from masktool.runtime.providers import open_on_providers
from masktool.runtime.session import MaskedSession

if TYPE_CHECKING:
    import onnx_ir

    from masktool.exporters.sources import Source

AGREEMENT = 0.05
"""Most by which the outputs of a file and of its plain network may differ, relative to the largest: what the CPU's and
a device's rounding of 16 bits leave, and far less than what tells two networks apart."""
PLAIN = differently(python="the argument plain", command="--plain")


class PlainNetwork(NamedTuple):
    """The plain network of a masked file in a session of ONNX Runtime.

    Attributes:
        session: the session of ONNX Runtime.
        image_input: the name of its image input.
    """

    session: Any
    image_input: str


def find_source_beside(path: Path, metadata: Metadata) -> Path | None:
    """Returns the file that an exported file says it was made from, where one of its name and bytes lies beside it."""
    beside = path.parent / Path(metadata.source).name
    if metadata.source_sha256 is None or not beside.is_file():
        return None
    return beside if digest_model(beside) == metadata.source_sha256 else None


def open_plain(source: Source, session: MaskedSession) -> PlainNetwork:
    """Opens the graph that takes a mask in a session, as it was before it took one, on the same providers and threads.

    Args:
        source: the source of the session's file.
        session: the session.

    Raises:
        MasktoolError: ONNX Runtime does not take the graph.
    """
    from masktool.exporters.storage import is_large, serialise, write_files

    model = prepare_plain(source, session.metadata)
    with temporary_directory() as folder:
        path = folder / "plain.onnx"
        if is_large(model):
            write_files(model, path)
        else:
            path.write_bytes(serialise(model))
        opened = open_on_providers(path, session.providers, session.threads, session.provider_options)
    return PlainNetwork(opened.session, source.image_input)


def prepare_plain(source: Source, metadata: Metadata) -> onnx_ir.Model:
    """Returns the graph of a source in the form that took the mask: for any batch, and in the file's precision."""
    from masktool.exporters.chosen_boxes import leave_out_lists
    from masktool.exporters.precision_source import narrow_again
    from masktool.exporters.preparation import prepare_graph, settle_one_image
    from masktool.exporters.trial import open_source

    source = leave_out_lists(source, metadata.masking)
    if metadata.precision == "fp16":
        source = narrow_again(source, metadata.preprocessing, metadata.parity.get("probes"))
    tried = open_source(source.model, source.image_input, source.path)
    prepared = prepare_graph(source, tried, metadata.preprocessing)
    settle_one_image(source, prepared, prepared.model)
    return prepared.model


def check_same_network(session: MaskedSession, plain: list[NDArray[Any]], masked: NDArray[Any]) -> None:
    """Raises MasktoolError unless one of the plain network's outputs is the masked file's, both on the same images."""
    for found in plain:
        if found.shape == masked.shape and np.abs(found - masked).max() <= AGREEMENT * np.abs(masked).max():
            return
    raise MasktoolError(
        "the plain network gives other results than the file under a mask of ones",
        where=session.path,
        expected=f"its source, {session.metadata.source}",
        fix="name that with " + PLAIN,
    )
