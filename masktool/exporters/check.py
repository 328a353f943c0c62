"""Measures an exported file again: against itself and, where its source is given, against that source."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir

from masktool.contract import Metadata, __version__
from masktool.errors import MasktoolError
from masktool.exported_files import find_head_file
from masktool.exporters.calibration_figures import measure_alone
from masktool.exporters.chosen_boxes import leave_out_lists
from masktool.exporters.diagnosis import excuse
from masktool.exporters.heads import MEASURED_WITH_HEAD, measure_head
from masktool.exporters.names import rename_as_before
from masktool.exporters.parity import Verdict, judge_parity, measure_branches, measure_parity
from masktool.exporters.plain_branch import masked_alone, opened_alone
from masktool.exporters.precision_source import narrow_again
from masktool.exporters.runnable import RunnableModel
from masktool.exporters.storage import load_small_weights, open_session
from masktool.exporters.tolerance import limits_of, widened, without_unfused
from masktool.exporters.trial import TriedNetwork, open_source, try_batches, try_source
from masktool.messages import call

if TYPE_CHECKING:
    from masktool.exporters.sources import Source

DRIFT_TOLERANCE = 0.02
"""Share by which the response may differ from the one recorded: kernels of another processor round differently, and an
altered weight changes it by more."""


@dataclasses.dataclass(frozen=True)
class ExportCheck:
    """What a check of an exported file found.

    Attributes:
        metadata: what the file says about itself.
        verdicts: the verdicts, one for every figure that was measured.
        source: the name of the source that the file was compared with; None where there was none.
        cause: what is wrong with the source, where that is why a figure is beyond its limit; else None.
    """

    metadata: Metadata
    verdicts: tuple[Verdict, ...]
    source: str | None
    cause: str | None = None

    @property
    def failed(self) -> list[Verdict]:
        """The figures beyond their limits."""
        return [verdict for verdict in self.verdicts if verdict.passed is False]


def check_masked(path: Path, source: Source | None) -> ExportCheck:
    """Measures a file that takes a mask as it was measured at export, and says which figures are within their limits.

    Args:
        path: the path of the exported file.
        source: the model that the file was exported from; None leaves out the figures that need it.

    Raises:
        MasktoolError: the file is not masktool's, does not run, or takes other inputs than the model.
    """
    session = open_session(str(path))
    metadata = Metadata.from_properties(session.get_modelmeta().custom_metadata_map)
    if metadata is None:
        raise MasktoolError("not a masktool file", where=path, fix="run `" + call("export", path, ...) + "` first")
    if source is not None and metadata.behind is not None:
        raise MasktoolError(
            f"the file holds the layers behind {metadata.behind!r} alone, which no source is compared with",
            where=path,
            fix="check the file that it stands beside, or this one by itself",
        )
    refuse_other_input([node.name for node in session.get_inputs()], metadata.image_input, path)
    model = onnx_ir.load(path)
    source = None if source is None else leave_out_lists(source, metadata.masking)
    file = RunnableModel.of(functools.partial(open_session, str(path)), metadata.image_input)
    if source is not None and metadata.precision == "fp16":
        source = narrow_again(source, metadata.preprocessing, metadata.parity.get("probes"))
    limits = widened(limits_of(model, metadata.image_input, None if source is None else source.model), metadata.parity)
    if metadata.plain_branch:
        load_small_weights(model)
        with opened_alone(masked_alone(model, path), metadata.image_input) as masked:
            figures, cause = measure_file(masked, model, metadata, limits, source, file)
    else:
        figures, cause = measure_file(file, model, metadata, limits, source)
    if metadata.head is not None:
        figures["head"] = measure_beside(path, file, model, metadata)
    if metadata.calibration is not None:
        figures |= measure_alone(file, model, metadata)
    limits = limits if source is None else without_unfused(limits, source.model)
    verdicts = [*judge_parity(figures, limits), *judge_record(figures["response"], metadata)]
    if source is not None:
        verdicts += judge_digest(source, metadata)
    return ExportCheck(metadata, tuple(verdicts), None if source is None else source.name, cause)


def measure_file(
    masked: RunnableModel,
    model: onnx_ir.Model,
    metadata: Metadata,
    limits: Mapping[str, float],
    source: Source | None,
    both: RunnableModel | None = None,
) -> tuple[dict[str, float], str | None]:
    """Returns the figures of a file, and what is wrong with its source where that is why a figure exceeds its limit.

    Args:
        masked: the file's masked network.
        model: the file's graph.
        metadata: the file's metadata.
        limits: the limits of the figures.
        source: the model that the file was exported from; None leaves out the figures that need it.
        both: the file, where it holds the plain network too; None where it is the masked network.
    """

    def of_both(trial: TriedNetwork) -> dict[str, float]:
        plain = None if source is None else trial.plain
        return {} if both is None else measure_branches(both, masked, trial.probes, plain)

    layout = metadata.layout or (metadata.preprocessing.layout if metadata.preprocessing else "NCHW")
    recorded = metadata.parity.get("probes")
    if source is None:
        alone = try_source(masked, model, layout, metadata.preprocessing, recorded)
        return measure_parity(masked, alone.probes, None) | of_both(alone), None
    plain = plain_runnable(source, metadata, masked.outputs)
    plain = dataclasses.replace(plain, image_shape=[plain.image_shape[0], *masked.image_shape[1:]])  # fixed at export
    trial, _ = try_batches(plain, source.model, layout, metadata.preprocessing, recorded)
    figures = measure_parity(masked, trial.probes, trial.plain, source.reference) | of_both(trial)
    try:
        return excuse(figures, without_unfused(limits, source.model), masked, trial, source.model), None
    except MasktoolError as error:
        return figures, error.message


def measure_beside(path: Path, masked: RunnableModel, model: onnx_ir.Model, metadata: Metadata) -> float:
    """Returns the figure of a file and its head together.

    Raises:
        MasktoolError: the head is missing or does not run.
    """
    assert metadata.head is not None
    layout = metadata.layout or "NCHW"
    trial = try_source(masked, model, layout, metadata.preprocessing, metadata.parity.get("probes"))
    return measure_head(path, find_head_file(path, metadata), metadata, trial.probes[0].images[:MEASURED_WITH_HEAD])


def refuse_other_input(inputs: Sequence[str | None], image_input: str, where: object) -> None:
    """Raises MasktoolError where the image input is not among the names of the inputs."""
    if image_input not in inputs:
        found = ", ".join(str(name) for name in inputs)
        raise MasktoolError("no such image input", where=where, expected=image_input, got=found)


def plain_runnable(source: Source, metadata: Metadata, outputs: list[str]) -> RunnableModel:
    """Opens a source to be compared with a file; MasktoolError where its inputs or outputs are not the file's."""
    rename_as_before(source.model, metadata.renamed or {})
    graph = source.model.graph
    found = [str(value.name) for value in graph.outputs]
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
    refuse_other_input([value.name for value in graph.inputs], metadata.image_input, source.name)
    return open_source(source.model, metadata.image_input, source.path)


def judge_record(response: float, metadata: Metadata) -> Iterator[Verdict]:
    """Yields a verdict on how far the response is from the recorded one; nothing for a file of another version.

    Only the same version draws the same images.
    """
    recorded = metadata.parity.get("response")
    if metadata.tool_version == __version__ and isinstance(recorded, int | float) and recorded > 0:
        drift = abs(response - recorded) / recorded
        meaning = "response against the one recorded at export, as a share of it"
        yield Verdict("record", drift, DRIFT_TOLERANCE, drift <= DRIFT_TOLERANCE, meaning)


def judge_digest(source: Source, metadata: Metadata) -> Iterator[Verdict]:
    """Yields a verdict on whether a source's file is, byte by byte, the one that was exported."""
    if source.sha256 is not None:
        recorded = metadata.source_sha256
        yield Verdict(
            "sha256", source.sha256, recorded, source.sha256 == recorded, "the source's file against the record"
        )
