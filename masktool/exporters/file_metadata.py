"""The metadata of a file before the masked graph was measured: its source, its class output, its batch."""

from __future__ import annotations

from masktool.contract import Metadata, __version__, name_classes
from masktool.exporters.class_candidates import count_columns, is_vector
from masktool.exporters.class_output import ClassOutput, choose_class_output
from masktool.exporters.gradient_ends import find_weighed_output
from masktool.exporters.image_axis import declare_image_axis
from masktool.exporters.preparation import Prepared
from masktool.exporters.settings import ExportSettings, OutputSettings
from masktool.exporters.sources import Source
from masktool.exporters.storage import fingerprint


def find_class_output(source: Source, prepared: Prepared, output: OutputSettings, batch: int | None) -> ClassOutput:
    """Returns which output of a source holds the class scores, and what is known of it.

    Args:
        source: the model that was read.
        prepared: the canonical graph of the source.
        output: what the user says of the class output.
        batch: the number of images that the source takes; None for any number.
    """
    described = declare_image_axis(source.model, prepared.model) if prepared.proved else source.model
    name = source.renamed.get(output.class_output or "", output.class_output)
    batch = None if prepared.proved else batch
    columns = {count_columns(value) for value in described.graph.outputs if is_vector(value, batch)}
    names = class_names(source, output)
    if names is None and len(source.said.labels or ()) in columns - {1}:  # 1 column may be anything
        names = source.said.labels
    claims = source.claims.with_user(name, output.output_kind, names)
    return choose_class_output(described, claims, batch)


def name_weighed_output(source: Source, prepared: Prepared, name: str) -> str:
    """Returns the name that an output has in the file, whose gradients are wanted.

    Args:
        source: the model that was read.
        prepared: the canonical graph of the source.
        name: the name that the user gives, which may be that in the source.
    """
    return str(find_weighed_output(prepared.model.graph, source.renamed.get(name, name)).name)


def class_names(source: Source, output: OutputSettings) -> tuple[str, ...] | None:
    """Returns the user's names of the classes, else those that are the source's own; None where neither are known."""
    return source.labels if output.labels is None else output.labels


def written_names(source: Source, head: ClassOutput, output: OutputSettings) -> tuple[str, ...] | None:
    """Returns the names of the classes that stand in the file: those of :func:`class_names`, else what the source says.

    The latter have to be as many as the class output has columns. Without one, they are those of a detector's or a
    segmentation's classes.
    """
    names = class_names(source, output)
    if names is not None or source.said.labels is None:
        return names
    chosen = [value for value in source.model.graph.outputs if value.name == head.name and is_vector(value)]
    fits = all(count_columns(value) in (None, len(source.said.labels)) for value in chosen)
    return source.said.labels if fits else None


def begin_metadata(source: Source, prepared: Prepared, head: ClassOutput, settings: ExportSettings) -> Metadata:
    """Returns a file's metadata, as far as they are known before the masked graph is measured."""
    return Metadata(
        masking=settings.masking,
        source=source.name,
        source_sha256=source.sha256 or fingerprint(source.model),
        image_input=source.image_input,
        class_output=head.name,
        output_kind=head.kind,
        preprocessing=prepared.preprocessing,
        labels=name_classes(written_names(source, head, settings.output), head.kind),
        parity={},
        tool_version=__version__,
        baseline=settings.baseline,
        gradient=settings.gradient,
        masker=source.masker,
        renamed=source.renamed or None,
        output_evidence=head.evidence,
        batching="any" if prepared.proved else "one",
        independence=prepared.independence.verdict,
        batching_reason=prepared.independence.describe() or None,
        copies=prepared.copies,
        portable=settings.portable,
        for_provider=settings.for_provider,
        precision=None if settings.precision == "fp32" else settings.precision,
        behind=source.behind,
        plain_branch=settings.plain_branch,
        rule=settings.rule,
        task=source.said.task,
        gradient_output=settings.gradient_output and name_weighed_output(source, prepared, settings.gradient_output),
    ).with_feature_maps(settings.feature_map)
