"""Measures a file that explains itself again: :func:`check_explained`.

What the map should be only the explainer of that name can say, and that takes the network with a mask or with
gradients, which such a file does not give. So the source is exported once more with the recorded settings; that export
is compared with the explainer, as every export is, and the file with that export.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masktool.contract import EXPLAIN_INPUT, SALIENCY_MAP, SEGMENTS_INPUT, TARGET_INPUT, Metadata
from masktool.embedding import embed_source
from masktool.embedding.measure import LIMIT, limit_for, share_of_range
from masktool.embedding.measure_preprocessing import draw_photograph
from masktool.embedding.method import EMBEDDED_METHODS
from masktool.embedding.settings import EmbeddingSettings
from masktool.errors import MasktoolError
from masktool.explainers.embedded import LABEL_MAP, embedded_method
from masktool.exporters.check import ExportCheck, judge_digest, plain_runnable
from masktool.exporters.class_output import NONE
from masktool.exporters.differences import relative_difference
from masktool.exporters.parity import Verdict, run_source
from masktool.exporters.precision_source import narrow_again
from masktool.exporters.probes import feed_of
from masktool.exporters.settings import ExportSettings
from masktool.exporters.sources import Source
from masktool.exporters.tolerance import BATCH_TOLERANCE, limits_of
from masktool.exporters.trial import try_batches
from masktool.exporters.user_choices import read_settings
from masktool.files import temporary_directory
from masktool.runtime.inputs import Inputs
from masktool.runtime.preprocessing import prepare
from masktool.runtime.session import MaskedSession

ALONE = 2
"""Images that a file is given together and one by one."""
STRIPS = 4
"""Segments of the label map for a file that takes one with every image."""


def check_explained(path: Path, metadata: Metadata, source: Source | None) -> ExportCheck:
    """Measures a file that explains itself, and says which figures are within their limits.

    Args:
        path: the path of the file.
        metadata: what the file says about itself.
        source: the model that the file was exported from; None leaves out what only the model tells: the predictions
            and the map.

    Raises:
        MasktoolError: the file does not run, or takes other inputs than the model.
    """
    with MaskedSession(path, providers="cpu") as session:
        if source is None:
            return ExportCheck(metadata, (judge_batches(session), recorded_figure(metadata)), None)
        verdicts = [*compare_with_source(session, source), *judge_digest(source, metadata)]
    return ExportCheck(metadata, tuple(verdicts), source.name)


def judge_batches(session: MaskedSession) -> Verdict:
    """Returns a verdict on whether images together give what each gives alone; of one at a time, whether twice."""
    feeds = other_values(session)
    if session.metadata.takes_photograph:
        return judge_repetition(session, draw_fed(session.metadata), feeds)
    images = draw_images(session)
    together = session.run(images, inputs=feeds)
    singles = [session.run(images[index : index + 1], inputs=feeds) for index in range(len(images))]
    worst = 0.0
    for name, values in together.items():
        alone = [single[name] for single in singles]
        if all(each.shape[:1] == (1,) for each in alone):
            worst = max(worst, relative_difference([values], [np.concatenate(alone)]))
    limit = max(BATCH_TOLERANCE, LIMIT)
    return Verdict("batches", worst, limit, worst <= limit, f"{len(images)} images together against one by one")


def judge_repetition(session: MaskedSession, photograph: NDArray[np.uint8], feeds: Inputs) -> Verdict:
    """Returns a verdict on whether a photograph gives the same twice."""
    first, second = (session.run(photograph, inputs=feeds) for _ in range(2))
    worst = max(relative_difference([first[name]], [second[name]]) for name in first)
    return Verdict("batches", worst, BATCH_TOLERANCE, worst <= BATCH_TOLERANCE, "one photograph twice")


def draw_fed(metadata: Metadata) -> NDArray[np.uint8]:
    """Returns a drawn photograph for a file that takes one."""
    assert metadata.preprocessing is not None
    return np.asarray(draw_photograph(metadata.preprocessing))


def draw_images(session: MaskedSession) -> NDArray[Any]:
    """Returns random images as a file takes them."""
    shape = [ALONE, *(length or 1 for length in session.input_shape[1:])]
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def recorded_figure(metadata: Metadata) -> Verdict:
    """Returns the figure of the export, without a verdict: only the source tells what the map should be."""
    recorded = metadata.parity.get("explanation", "none")
    return Verdict("explanation", recorded, None, None, "as recorded at export; not measured without the source")


def compare_with_source(session: MaskedSession, source: Source) -> Iterator[Verdict]:
    """Yields verdicts on the predictions, against the source, and on the map, against the explainer's.

    Raises:
        MasktoolError: the source cannot be exported as the file was.
    """
    metadata = session.metadata
    with temporary_directory() as directory:
        again = embed_source(
            source, directory / "again.onnx", recorded_settings(metadata), recorded_embedding(metadata)
        )
        if metadata.precision == "fp16":
            source = narrow_again(source, metadata.preprocessing, metadata.parity.get("probes"))
        own = [name for name in session.output_names if name not in session.explanation_outputs]
        plain = plain_runnable(source, metadata, own)
        layout = metadata.layout or "NCHW"
        trial, _ = try_batches(plain, source.model, layout, metadata.preprocessing, metadata.parity.get("probes"))
        first = trial.probes[0]
        images = first.images[:1]
        if metadata.takes_photograph:
            images = draw_fed(metadata)
            first = dataclasses.replace(first, images=prepare(Image.fromarray(images), metadata.preprocessing).array)
        feeds = other_values(session) | feed_of(trial.plain.others, 1)
        found = session.run(images, inputs=feeds)
        with MaskedSession(again.path, providers="cpu") as other:
            expected = other.run(images, inputs=feeds)
    outputs = run_source(trial.plain, first, alone=metadata.one_by_one)
    difference = relative_difference([found[name] for name in own], [each[:1] for each in outputs])
    limit = limits_of(source.model, metadata.image_input)["ones"]
    yield Verdict("predictions", difference, limit, difference <= limit, "the model's own outputs against the source")
    share = share_of_range(found[SALIENCY_MAP], expected[SALIENCY_MAP]) + float(again.metadata.parity["explanation"])
    rounding = EMBEDDED_METHODS.find(recorded_embedding(metadata).method.name).rounding
    limit = max(limit_for(source.model, metadata.image_input), rounding)
    yield Verdict("explanation", share, limit, share <= limit, "the map against the explainer's, of its range, at most")


def recorded_settings(metadata: Metadata) -> ExportSettings:
    """Returns the settings that a file was exported with."""
    old_names = {new: old for old, new in (metadata.renamed or {}).items()}
    class_output = NONE if metadata.class_output is None else metadata.class_output
    return read_settings(
        masking=metadata.masking,
        rule=metadata.rule,
        baseline=metadata.baseline,
        preprocessing=metadata.preprocessing,
        labels=metadata.labels,
        class_output=old_names.get(class_output, class_output),
        output_kind=metadata.output_kind,
        portable=metadata.portable,
        precision=metadata.precision,
        for_provider=metadata.for_provider,
    )


def recorded_embedding(metadata: Metadata) -> EmbeddingSettings:
    """Returns how the explanation became part of a file.

    Raises:
        MasktoolError: the metadata do not hold all of the method's options.
    """
    recorded: Mapping[str, Any] = metadata.explanation or {}
    if recorded["settings"].get("segments") == LABEL_MAP:
        raise MasktoolError(
            "the label map that the file was exported with stands in no metadata, so that the map cannot be measured",
            where=metadata.source,
            fix="export the model again",
        )
    return EmbeddingSettings(
        embedded_method(metadata, EMBEDDED_METHODS.find(recorded["method"]).defaults),
        recorded["seed"],
        recorded["chunk"],
        recorded["target"],
        recorded["on_request"],
        samples_input=recorded["samples_input"],
        embed_preprocessing=recorded["embed_preprocessing"],
        embed_overlay=recorded["embed_overlay"],
    )


def other_values(session: MaskedSession) -> dict[str, NDArray[Any]]:
    """Returns values for the inputs that a file requires besides the image and what the explanation asks."""
    needed = [each for each in session.other_inputs if each.required and each.name not in (TARGET_INPUT, EXPLAIN_INPUT)]
    values = {each.name: np.ones([length or 1 for length in each.shape], each.dtype) for each in needed}
    if SEGMENTS_INPUT in values:
        strips = np.arange(values[SEGMENTS_INPUT].shape[1]) * STRIPS // values[SEGMENTS_INPUT].shape[1]
        values[SEGMENTS_INPUT] = np.broadcast_to(strips, values[SEGMENTS_INPUT].shape).astype(np.int32)
    return values
