"""Measuring an exported file again: against itself and, where it is at hand, against its source."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir
import onnxruntime

import masktool
from masktool.contract import Metadata
from masktool.errors import MasktoolError
from masktool.exporters.batch import open_source
from masktool.exporters.names import rename_as_before
from masktool.exporters.parity import Subject, Verdict, judge_parity, measure_parity
from masktool.exporters.probes import draw_probes
from masktool.exporters.storage import open_session
from masktool.exporters.tolerance import limits_of

if TYPE_CHECKING:
    from masktool.exporters.sources import Source

DRIFT_TOLERANCE = 0.02
"""Share by which the response may differ from the one recorded: kernels of another processor round differently, and an
altered weight changes it by more."""


@dataclasses.dataclass(frozen=True)
class Check:
    """What was measured.

    Attributes:
        metadata: of the file.
        verdicts: one for every figure.
        source: name of the source that it was compared with, None where there was none.
    """

    metadata: Metadata
    verdicts: tuple[Verdict, ...]
    source: str | None

    @property
    def failed(self) -> list[Verdict]:
        """The figures beyond their limits."""
        return [verdict for verdict in self.verdicts if verdict.passed is False]


def check_file(path: Path, source: Source | None = None) -> Check:
    """Measures parity, invariance and batch agreement of an exported file.

    Args:
        path: of the file.
        source: what it was exported from; None leaves out the figures that need it.

    Raises:
        MasktoolError: the file is not masktool's, does not run, or takes other inputs than the source.
    """
    session = open_session(str(path))
    metadata = Metadata.from_properties(session.get_modelmeta().custom_metadata_map)
    if metadata is None:
        raise MasktoolError("not a masktool file", where=path, fix=f"run `masktool export {path}` first")
    masked = subject_of(session, metadata.image_input, path)
    layout = metadata.layout or (metadata.preprocessing.layout if metadata.preprocessing else "NCHW")
    figures = measure_parity(
        masked,
        draw_probes(masked.image_shape, layout, masked.image_type, metadata.preprocessing),
        None if source is None else plain_subject(source, metadata, masked.outputs),
        None if source is None else source.reference,
    )
    limits = limits_of(onnx_ir.load(path), metadata.image_input)
    verdicts = [*judge_parity(figures, limits), *judge_record(figures["response"], metadata)]
    if source is not None:
        verdicts += judge_digest(source, metadata)
    return Check(metadata, tuple(verdicts), None if source is None else source.name)


def subject_of(session: onnxruntime.InferenceSession, image_input: str, where: object) -> Subject:
    """Returns a session and how to feed it; MasktoolError where it has no such image input."""
    if image_input not in [node.name for node in session.get_inputs()]:
        found = ", ".join(node.name for node in session.get_inputs())
        raise MasktoolError("no such image input", where=where, expected=image_input, got=found)
    return Subject.of(session, image_input)


def plain_subject(source: Source, metadata: Metadata, outputs: list[str]) -> Subject:
    """Opens a source; MasktoolError where its inputs or outputs are not the file's."""
    rename_as_before(source.model, metadata.renamed or {})
    session = open_source(source.model, metadata.image_input)
    found = [output.name for output in session.get_outputs()]
    if found != outputs:
        made_from = f"the file says that it was made from {metadata.source}"
        trained = f"leave it out: the masking model in the file was trained on {metadata.source}, and is not in it"
        raise MasktoolError(
            "not the file's source",
            where=source.name,
            expected=f"outputs {', '.join(outputs)}",
            got=", ".join(found),
            fix=made_from if metadata.masker is None else trained,
        )
    return subject_of(session, metadata.image_input, source.name)


def judge_record(response: float, metadata: Metadata) -> Iterator[Verdict]:
    """Yields how far the response is from the one recorded by the same version, which draws the same images."""
    recorded = metadata.parity.get("response")
    if metadata.tool_version == masktool.__version__ and isinstance(recorded, int | float) and recorded > 0:
        drift = abs(response - recorded) / recorded
        meaning = "response against the one recorded at export, as a share of it"
        yield Verdict("record", drift, DRIFT_TOLERANCE, drift <= DRIFT_TOLERANCE, meaning)


def judge_digest(source: Source, metadata: Metadata) -> Iterator[Verdict]:
    """Yields whether a source's file is, byte by byte, the one that was exported."""
    if source.sha256 is not None:
        recorded = metadata.source_sha256
        yield Verdict(
            "sha256", source.sha256, recorded, source.sha256 == recorded, "the source's file against the record"
        )
