"""From a trained network to a masked ONNX file: :func:`export`."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from masktool.contract import (
    LOSSES,
    Layout,
    Loss,
    Masking,
    Metadata,
    OutputKind,
    Preprocessing,
    __version__,
    name_classes,
)
from masktool.errors import MasktoolError, UnsupportedOperatorError
from masktool.files import check_target
from masktool.streams import unheard

if TYPE_CHECKING:
    import onnx_ir as ir

    from masktool.exporters.independence import Independence
    from masktool.exporters.result import Export
    from masktool.exporters.runnable import RunnableModel
    from masktool.exporters.sources import Model, Source
    from masktool.exporters.trial import TriedNetwork

__all__ = ["export"]


@unheard()
def export(
    model: Model | Source,
    path: str | os.PathLike[str],
    *,
    input_size: tuple[int, int] | None = None,
    channels: int | None = None,
    arch: str | None = None,
    masking: Masking = "layer",
    baseline: str | None = None,
    image_input: str | None = None,
    mask_required: bool | None = None,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] | None = None,
    class_output: str | None = None,
    output_kind: OutputKind | None = None,
    trust_code: bool = False,
    trust_pickle: bool = False,
    gradient: Loss | None = None,
    feature_map: str | None = None,
) -> Export:
    """Exports a trained CNN as an ONNX model that takes a mask and carries it through every layer.

    Args:
        model: see :func:`masktool.exporters.sources.load_source`.
        path: of the file to write; it appears only when everything has succeeded.
        input_size: (height, width) of the image input in pixels, where the source does not fix it.
        channels: of the images of a torch module; None takes what its hub says, else 3 where it runs on them, else
            what its first convolution takes.
        arch: the architecture that a state dict belongs to.
        masking: ``layer`` or ``partial``, which carry the mask through every layer of a CNN, or ``fill``, which
            changes the input alone and takes any network.
        baseline: what ``fill`` puts in place of missing pixels: ``mean`` (the default: the mean that the preprocessing
            subtracts, which is 0 in the input), ``black``, ``grey``, ``noise`` or a colour ``R,G,B``, all in pixels
            0..255 before the preprocessing, or ``image-mean`` or ``blur``, both of the kept pixels.
        image_input: name of the ONNX input that is the image, where several may be; all others stay as they are.
        mask_required: makes ``mask`` an ordinary input, for runtimes that cannot leave inputs out; None does so where
            the network leaves its height or width open, so that no default of ones fits.
        preprocessing: how a photograph becomes the input; None takes what the source knows.
        labels: one name per class; of an output of one column that tells two classes apart, the positive class's or
            both, the negative one first; None takes what the source knows.
        class_output: name of the output that holds one score per class, or ``none``; None finds it where the graph
            tells, see :mod:`masktool.exporters.class_output`.
        output_kind: what the class output holds; None takes what the graph tells.
        trust_code: read a model file although that may run code from it: a pickled module, a TorchScript archive, a
            ``torch.export`` archive that cannot be checked to hold none.
        trust_pickle: the old name of ``trust_code``.
        gradient: adds gradients, see :func:`masktool.exporters.gradient.add_gradients`; the loss that they are of by
            default. A file that was exported before gets them, and nothing else is changed.
        feature_map: name of the value (N, c, h, w) that they are with respect to, besides image and mask; None takes
            the last one.

    Returns:
        What was written: the path, the metadata with the parity figures measured on random inputs (relative to max
        |output|), the mask rule of every node, and notes.

    Raises:
        UnsupportedOperatorError: nodes without a mask rule; it lists all of them.
        MasktoolError: the model or an option is not usable.

    Source:
        Balasubramanian and Feizi, "Towards Improved Input Masking for Convolutional Neural Networks", 2023,
        https://arxiv.org/abs/2211.14646.
    """
    from masktool.baselines import choose_baseline
    from masktool.exporters.chosen_boxes import leave_out_lists
    from masktool.exporters.class_output import choose_class_output
    from masktool.exporters.image_axis import declare_image_axis
    from masktool.exporters.one_image import take_one_image
    from masktool.exporters.size_trial import advise_size
    from masktool.exporters.sources import load_source
    from masktool.exporters.storage import fingerprint
    from masktool.exporters.trial import open_source
    from masktool.exporters.write import write_masked, write_with_gradients

    check_target(path)
    check_choices(masking, gradient, feature_map)
    chosen = choose_baseline(masking, baseline)
    source = load_source(
        model,
        arch=arch,
        input_size=input_size,
        channels=channels,
        image_input=image_input,
        trust_code=trust_code or trust_pickle,
    )
    recorded = Metadata.from_properties(source.model.metadata_props)
    if recorded is not None and gradient is None:
        raise MasktoolError(
            "the model takes a mask already: masktool exported it before",
            where=source.name,
            fix="export the plain model, or add gradients to this one with --gradient",
        )
    if recorded is not None and gradient is not None:  # masked before
        refuse_what_is_settled(
            masking=None if masking == "layer" else masking,
            baseline=baseline,
            mask_required=mask_required,
            preprocessing=preprocessing,
            labels=labels,
            class_output=class_output,
            output_kind=output_kind,
        )
        return write_with_gradients(source, path, recorded, gradient, feature_map)
    whole, source = source, leave_out_lists(source, masking)
    names = labels if labels is not None else source.labels
    class_output = source.renamed.get(class_output or "", class_output)
    plain = open_source(source.model, source.image_input, source.path)  # what ONNX Runtime refuses needs no other look
    preprocessing = preprocessing or source.preprocessing
    if mask_required is None:
        mask_required = needs_mask(source)
    prepared = prepare(source, plain, preprocessing)
    proved = prepared.independence.verdict == "proved"
    described = declare_image_axis(source.model, prepared.model) if proved else source.model
    claims = source.claims.with_user(class_output, output_kind, names)
    head = choose_class_output(described, claims, None if proved else plain.batch)
    if chosen is None:
        try:
            mask_prepared(source, prepared, masking, mask_required=mask_required)
        except MasktoolError as error:
            if not can_export(whole, masking="fill", class_output=class_output, output_kind=output_kind):
                raise
            raise error.advised("--masking fill takes this file") from error.__cause__ or error
    else:
        fill_prepared(source, prepared, chosen, preprocessing, mask_required=mask_required)
    if prepared.copies > 1:
        rows = prepared.trial.plain.count_rows(prepared.trial.probes[0].images[0])
        take_one_image(prepared.model, source.image_input, prepared.copies, rows)
    metadata = Metadata(
        masking=masking,
        source=source.name,
        source_sha256=source.sha256 or fingerprint(source.model),
        image_input=source.image_input,
        class_output=head.name,
        output_kind=head.kind,
        preprocessing=preprocessing,
        labels=name_classes(names, head.kind),
        parity={},
        tool_version=__version__,
        baseline=chosen,
        gradient=gradient,
        feature_map=feature_map,
        masker=source.masker,
        renamed=source.renamed or None,
        output_evidence=head.evidence,
        batching="any" if proved else "one",
        independence=prepared.independence.verdict,
        batching_reason=prepared.independence.describe() or None,
        copies=prepared.copies,
    )
    try:
        return write_masked(prepared.model, path, metadata, prepared.layout, prepared.trial, source)
    except UnsupportedOperatorError as error:  # of gradients: all else is settled by now
        fixed = None if gradient is None else with_size(whole, prepared.trial.size)
        options = {"masking": masking, "gradient": gradient, "class_output": class_output, "output_kind": output_kind}
        if fixed is None or not can_export(fixed, **options):
            raise
        raise error.advised(advise_size(error)) from error


def can_export(source: Source, **options: Any) -> bool:
    """Tells whether a source can be exported with other options than it was refused with, by doing so."""
    with tempfile.TemporaryDirectory(prefix="masktool-") as directory:
        try:
            export(source, Path(directory) / "other.onnx", **options)
        except MasktoolError:
            return False
    return True


def with_size(source: Source, size: tuple[int, int]) -> Source | None:
    """Returns a source of open height or width with these fixed; None where they are."""
    from masktool.exporters.onnx_file import find_image_input, fix_size, open_size_of

    model = source.model.clone()
    image = find_image_input(model, source.image_input)
    if None not in open_size_of(image):
        return None
    fix_size(image, size)
    return dataclasses.replace(source, model=model)


def check_choices(masking: Masking, gradient: Loss | None, feature_map: str | None) -> None:
    """Raises MasktoolError for a mode or loss that there is not, or a feature map without gradients."""
    if masking not in get_args(Masking):
        raise MasktoolError("unknown masking mode", expected=" | ".join(get_args(Masking)), got=masking)
    if gradient not in (None, *LOSSES):
        raise MasktoolError("unknown loss", where="gradient", expected=" | ".join(LOSSES), got=gradient)
    if feature_map is not None and gradient is None:
        raise MasktoolError("a feature map without gradients", where=feature_map, fix="give gradient too")


def refuse_what_is_settled(**options: object) -> None:
    """Raises MasktoolError for options that a file, which was exported before, has settled already."""
    if given := [name for name, value in options.items() if value is not None]:
        raise MasktoolError(
            "the model was exported before, and has these settled",
            got=", ".join(given),
            fix="leave them out, or export the plain model",
        )


def needs_mask(source: Source) -> bool:
    """Tells whether a source leaves its height or width open: no default of ones fits an image of any size."""
    from masktool.exporters.onnx_file import input_size_of

    return input_size_of(source.model, source.image_input) is None


class Prepared(NamedTuple):
    """The canonical graph of a source: for any batch where that is proved to be right, else for one image.

    Attributes:
        model: the graph.
        layout: of its image input.
        independence: whether an image's results depend on the images beside it.
        trial: of the source.
        copies: of the image, which make up a fixed batch that cannot be opened; 1 in any other graph.
    """

    model: ir.Model
    layout: Layout
    independence: Independence
    trial: TriedNetwork
    copies: int = 1


def prepare(source: Source, plain: RunnableModel, preprocessing: Preprocessing | None) -> Prepared:
    """Returns the canonical graph of a source, for as many images at once as it keeps apart."""
    from masktool.exporters.batch import lift_batch
    from masktool.exporters.canonical import canonicalise
    from masktool.exporters.integer_images import check_preprocessing
    from masktool.exporters.one_image import one_image_model
    from masktool.exporters.onnx_file import find_image_input, layout_of
    from masktool.exporters.trial import try_batches

    if preprocessing is not None:
        check_preprocessing(find_image_input(source.model, source.image_input), preprocessing)
    model = canonicalise(source.model)
    layout = layout_of(find_image_input(model, source.image_input))
    trial, taken = try_batches(plain, source.model, layout, preprocessing)
    if taken is not source.model:
        model = canonicalise(taken)
    independence, copies = lift_batch(model, source.image_input, trial.domain, trial.size), 1
    if independence.verdict != "proved":
        model, copies = one_image_model(taken, source.image_input)
    return Prepared(model, layout, independence, trial, copies)


def mask_prepared(source: Source, prepared: Prepared, masking: Masking, *, mask_required: bool) -> None:
    """Carries a mask through every layer of a prepared graph, in place."""
    from masktool.exporters.propagate import mask_model
    from masktool.exporters.refusals import refuse_files_of_another_kind
    from masktool.exporters.size_trial import trying_a_size

    model, layout = prepared.model, prepared.layout
    refuse_files_of_another_kind(model)
    if not any(node.op_type == "Conv" for node in model.graph):
        raise MasktoolError(
            "not a convolutional network",
            where=source.name,
            expected="at least one Conv node",
            got="none",
        )
    with trying_a_size(source.model, source.image_input, masking):
        mask_model(model, source.image_input, layout, mask_required=mask_required, masking=masking)


def fill_prepared(
    source: Source, prepared: Prepared, baseline: str, preprocessing: Preprocessing | None, *, mask_required: bool
) -> None:
    """Fills the input of a prepared graph where its mask is 0, in place."""
    from masktool.exporters.fill import fill_model

    model, layout = prepared.model, prepared.layout
    fill_model(model, source.image_input, layout, baseline, preprocessing, mask_required=mask_required)
