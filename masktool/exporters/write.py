"""Finishes a masked model: completes its metadata, checks it, measures parity and writes the file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx_ir as ir

from masktool.contract import (
    BATCH_AXIS,
    LOSSES,
    MASK_INPUT,
    Layout,
    Metadata,
)
from masktool.errors import MasktoolError
from masktool.exporters.bad_weights import find_huge_weights
from masktool.exporters.baseline_trial import find_baselines
from masktool.exporters.class_candidates import is_vector
from masktool.exporters.diagnosis import excuse
from masktool.exporters.given_maps import give_feature_maps
from masktool.exporters.gradient import add_gradients
from masktool.exporters.gradient_ends import Differentiated, ScoreLosses, WeighedOutput
from masktool.exporters.heads import MEASURED_WITH_HEAD, Head, head_path, measure_head
from masktool.exporters.integer_images import check_gives_integers, refuse_gradients
from masktool.exporters.names import INPUTS_OF_GRADIENTS, NEW_PREFIX, OWN_NAMES, free_gradient_names, is_own
from masktool.exporters.onnx_file import describe_value, find_other_inputs
from masktool.exporters.parity import DEFECT, check_parity, measure_parity
from masktool.exporters.portable import make_portable
from masktool.exporters.presets import layout_of_photographs
from masktool.exporters.probes import Probe
from masktool.exporters.reopen import answer, check_written
from masktool.exporters.result import Export, summarise_export
from masktool.exporters.runnable import Outputs, RunnableModel
from masktool.exporters.saturation import advise_on_difference
from masktool.exporters.storage import Staging, staging
from masktool.exporters.tolerance import limits_of, widened, without_unfused
from masktool.exporters.trial import TriedNetwork
from masktool.exporters.widening import compute_in_single, narrow_outputs
from masktool.layouts import show_size
from masktool.messages import OneOf, Placeholder, parameter

if TYPE_CHECKING:
    from masktool.exporters.sources import Source

PRODUCER = "masktool"
Compare = Callable[[Path, np.ndarray], dict[str, Any]]
"""It gets the path of a file before it is moved to its place, and the images that parity was measured on, and returns
further figures of parity by name."""


def write_masked(
    model: ir.Model,
    path: str | os.PathLike[str],
    metadata: Metadata,
    layout: Layout,
    trial: TriedNetwork,
    source: Source,
    compare: Compare | None = None,
    head: Head | None = None,
) -> Export:
    """Checks, measures and writes a masked model, one above 2 GiB with its weights in ``NAME.data`` beside it.

    Gradients and feature maps that the metadata ask for are added after the measurement.

    Args:
        model: the masked graph.
        path: the path of the file to write.
        metadata: the metadata without what the graph and the measurement tell.
        layout: the layout of the image input.
        trial: the source, and what it was tried on.
        source: the source that the model was made from.
        compare: the function that compares what was written with another file; None compares it with none.
        head: the layers behind a feature map, which are written beside the file; None where there are none.

    Returns:
        What was written; the metadata are completed with what the graph tells.

    Raises:
        MasktoolError: the metadata do not fit the graph, the check or the parity fails, or the path cannot be written.
    """
    metadata = complete(metadata, model, layout)
    if metadata.portable:
        metadata = make_portable(model, metadata)
    declare_batches(model, metadata.image_input)
    with staging(Path(path), model) as staged:
        limits = without_unfused(limits_of(model, source.image_input), source.model)
        masked = RunnableModel.of(staged.open, metadata.image_input)
        figures = measure_model(masked, trial, source, metadata, limits)
        metadata = dataclasses.replace(metadata, parity=figures)
        measured = answer(masked, trial.probes[0])
        declare_ranks(model, masked, trial.probes[0])
        del masked
        if metadata.has_gradients:
            metadata = with_gradients(model, metadata)
        elif metadata.feature_maps:
            give_feature_maps(model, metadata.feature_maps)
        if head is not None:
            metadata = dataclasses.replace(metadata, head=head_path(staged.target).name)
        written = ExpectedAnswer(trial.probes[0], measured, widened(limits, metadata.parity)["ones"])
        return finish_file(staged, Path(path), metadata, source, written, compare, head)


class ExpectedAnswer(NamedTuple):
    """What a file that is written has to give again.

    Attributes:
        probe: the images and masks.
        outputs: what :func:`masktool.exporters.reopen.answer` gave for the graph that was measured.
        tolerance: the largest difference that is allowed, relative to max |output|.
    """

    probe: Probe
    outputs: Outputs
    tolerance: float


def finish_file(
    staged: Staging,
    path: Path,
    metadata: Metadata,
    source: Source,
    measured: ExpectedAnswer,
    compare: Compare | None,
    head: Head | None = None,
) -> Export:
    """Writes a measured model with its metadata, checks what was written and moves it to its place.

    Args:
        staged: the model, and where it is written.
        path: the path of the file, as the caller named it.
        metadata: the metadata, with all figures but those of the comparison.
        source: the source that the model was made from.
        measured: what the file has to give where more than metadata was changed since it was measured.
        compare: as for :func:`write_masked`.
        head: as for :func:`write_masked`.
    """
    model = staged.model
    model.metadata_props.update(metadata.to_properties())
    model.producer_name, model.producer_version = PRODUCER, metadata.tool_version
    staged.write()
    staged.check()
    if not staged.holds_what_was_opened():
        fix = advise_on_difference(source.model)
        check_written(staged.path, metadata, measured.probe, measured.outputs, measured.tolerance, fix)
    if compare is not None:
        figures = dict(metadata.parity) | compare(staged.path, measured.probe.images)
        metadata = dataclasses.replace(metadata, parity=figures)
    if head is not None:
        metadata = write_head(head, staged, metadata, measured.probe.images)
    if compare is not None or head is not None:
        model.metadata_props.update(metadata.to_properties())
        staged.write()
    staged.commit()
    return summarise_export(path, staged.count_bytes(), model, metadata, source)


def write_head(head: Head, staged: Staging, metadata: Metadata, images: np.ndarray) -> Metadata:
    """Exports a head beside a file that is about to be committed, and measures both together.

    Returns:
        The metadata of the file, with the figure ``head``.

    Raises:
        MasktoolError: the head cannot be exported, or gives other scores than the whole network.
    """
    path = head_path(staged.path)
    head.write(path)
    figure = measure_head(staged.path, path, metadata, images[:MEASURED_WITH_HEAD])
    limit = widened(limits_of(staged.model, metadata.image_input), metadata.parity)["head"]
    if not figure <= limit:
        raise MasktoolError(
            "the head gives other scores for the feature map than the whole network",
            where=head.feature_map,
            expected=f"a difference of at most {limit:.1e} relative to max |score|",
            got=f"{figure:.1e}",
            fix=advise_on_difference(staged.model),
        )
    staged.beside.append(path)
    return dataclasses.replace(metadata, parity={**metadata.parity, "head": figure})


def with_gradients(model: ir.Model, metadata: Metadata) -> Metadata:
    """Adds the gradients that the metadata ask for to a masked model in place.

    What computes in 16 bits computes in float32 from then on, from weights of 16 bits, and gives outputs of 16 bits.

    Returns:
        The metadata with the file's losses and the names of its feature maps.

    Raises:
        MasktoolError: the model has no such output, or names that the gradients need.
    """
    image = next(value for value in model.graph.inputs if value.name == metadata.image_input)
    refuse_gradients(image, "leave " + parameter("gradient") + " out")
    if taken := sorted(str(value.name) for value in model.graph.inputs if value.name in INPUTS_OF_GRADIENTS):
        raise MasktoolError("the model has inputs that gradients need", where=", ".join(taken), fix="export it again")
    renamed = free_gradient_names(model)
    metadata = dataclasses.replace(
        metadata,
        class_output=metadata.class_output and renamed.get(metadata.class_output, metadata.class_output),
        gradient_output=metadata.gradient_output and renamed.get(metadata.gradient_output, metadata.gradient_output),
        renamed={**(metadata.renamed or {}), **renamed} or None,
    )
    wanted = [NEW_PREFIX + name if is_own(name, OWN_NAMES) else name for name in metadata.feature_maps]
    narrow = compute_in_single(model)
    feature_maps = add_gradients(
        model,
        metadata.image_input,
        what_to_differentiate(model, metadata),
        wanted,
        for_provider=metadata.for_provider,
        blocks=not metadata.portable and metadata.precision != "fp16",
    )
    narrow_outputs(model, narrow)
    metadata = metadata.with_feature_maps(feature_maps)
    if metadata.gradient is not None:
        metadata = dataclasses.replace(metadata, losses=(metadata.gradient,) if metadata.portable else LOSSES)
    return make_portable(model, metadata) if metadata.portable else metadata


def what_to_differentiate(model: ir.Model, metadata: Metadata) -> Differentiated:
    """Returns what the metadata say that gradients are of.

    Raises:
        MasktoolError: that is class scores, and the model has none.
    """
    if metadata.gradient_output is not None:
        return WeighedOutput(metadata.gradient_output)
    if metadata.class_output is None:
        named = parameter("class_output", Placeholder("NAME"))
        raise MasktoolError(
            "gradients are of class scores (N, K), and the model has none",
            got=", ".join(describe_value(value) for value in model.graph.outputs),
            fix="name the output whose values are explained, "
            + parameter("output", Placeholder("NAME"))
            + ", or where a file is exported, "
            + parameter("gradient_output", Placeholder("NAME"))
            + ("; or with " + named if any(map(is_vector, model.graph.outputs)) else "")
            + "; methods without gradients (lime, occlusion, rise) need none",
        )
    loss = metadata.gradient or LOSSES[0]
    return ScoreLosses(metadata.class_output, metadata.output_kind, loss, selectable=not metadata.portable)


def declare_batches(model: ir.Model, image_input: str) -> None:
    """Declares every other input that has one row per image as having one row per result.

    The results' batch is the larger of the image's and the mask's, and such an input goes with the results.
    """
    image = next(value for value in model.graph.inputs if value.name == image_input)
    assert image.shape is not None
    for other in find_other_inputs(model, image_input):
        if other.shape and other.shape[0] == image.shape[0] and not isinstance(image.shape[0], int):
            other.shape = ir.Shape([BATCH_AXIS, *list(other.shape)[1:]])


def declare_ranks(model: ir.Model, masked: RunnableModel, probe: Probe) -> None:
    """Declares the number of axes that a run finds for outputs of unknown shape: ONNX wants it declared."""
    unknown = {value.name: value for value in model.graph.outputs if value.shape is None}
    if not unknown:
        return
    found = masked.run_once(probe.images[:1], probe.masks[:1] if masked.takes_mask else None)
    for name, array in zip(masked.outputs, found, strict=True):
        if name in unknown:
            unknown[name].shape = ir.Shape([None] * array.ndim)


def complete(metadata: Metadata, model: ir.Model, layout: Layout) -> Metadata:
    """Adds to the metadata what the graph tells; MasktoolError where they contradict the graph."""
    if metadata.preprocessing is not None:
        preprocessing = dataclasses.replace(metadata.preprocessing, layout=layout_of_photographs(layout))
        sides = size_of(model)
        if any(isinstance(side, int) and side != own for side, own in zip(sides, preprocessing.size, strict=True)):
            raise MasktoolError(
                "the preprocessing is for another size",
                expected=f"the model's {show_size(sides)}",
                got=show_size(preprocessing.size),
                fix="correct the size in the preprocessing, or give " + parameter("input_size"),
            )
        image = next(value for value in model.graph.inputs if value.name == metadata.image_input)
        check_gives_integers(image, preprocessing)
        metadata = dataclasses.replace(metadata, preprocessing=preprocessing)
    return dataclasses.replace(metadata, layout=layout)


def size_of(model: ir.Model) -> tuple[object, ...]:
    """Returns height and width of the mask input, or what its axes of places are."""
    mask = next(value for value in model.graph.inputs if value.name == MASK_INPUT)
    assert mask.shape is not None
    return tuple(mask.shape[2:])


def refuse_infinite_response(response: float, metadata: Metadata, model: ir.Model, trial: TriedNetwork) -> None:
    """Raises MasktoolError where a network that gives numbers on images gives none once half of an image is hidden."""
    if np.isfinite(response):
        return
    if huge := find_huge_weights(model):
        raise MasktoolError(
            "with half of an image hidden the network's numbers overflow",
            where=huge,
            got="NaN or infinity",
            fix="take weights from before they grew so large",
        )
    raise MasktoolError(
        "with half of an image hidden the network gives NaN or infinity",
        where=parameter("masking", metadata.masking),
        fix=DEFECT if metadata.baseline is None else advise_baseline(metadata.baseline, metadata, trial),
    )


def advise_baseline(failed: str, metadata: Metadata, trial: TriedNetwork) -> str:
    """Returns advice on which other baselines the network gives numbers with, found by running it."""
    assert metadata.layout is not None  # completed by now
    found = find_baselines(trial.plain, trial.probes[0], metadata.layout, metadata.preprocessing, failed)
    if found:
        others = parameter("baseline", OneOf(tuple(found), " | "))
        return f"it has no answer to the baseline {failed}, and one to " + others
    known = "; where " + parameter("preprocessing") + " is given, colours can be tried too"
    nothing = f"it has no answer to the baseline {failed}, nor to any other that was tried"
    return nothing if metadata.preprocessing else nothing + known


def measure_model(
    masked: RunnableModel, trial: TriedNetwork, source: Source, metadata: Metadata, limits: Mapping[str, float]
) -> Mapping[str, float | str]:
    """Runs the parity measurement on a masked model that is not written yet.

    Raises:
        MasktoolError: a figure is beyond its limit.
    """
    figures = measure_parity(masked, trial.probes, trial.plain, source.reference)
    refuse_infinite_response(figures["response"], metadata, source.model, trial)
    figures = excuse(figures, limits, masked, trial, source.model)
    in_float_too = figures.get("ones_unfused", 0.0) > limits.get("ones_unfused", np.inf)  # where nothing saturates
    check_parity(figures, limits, DEFECT if in_float_too else advise_on_difference(source.model))
    return {**figures, "probes": trial.domain.name, **({} if trial.usual else {"size": trial.probes[0].size})}
