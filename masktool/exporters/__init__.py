"""From a trained network to a masked ONNX file: :func:`export`, the whole path, whose steps have files of their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from masktool.contract import Loss, Masking, Metadata, OutputKind
from masktool.errors import MasktoolError
from masktool.exporters.added_gradients import add_gradients_to
from masktool.exporters.settings import ExportSettings, LabelsLike, PreprocessingLike, SourceSettings
from masktool.files import check_target
from masktool.messages import differently
from masktool.streams import unheard

if TYPE_CHECKING:
    from masktool.exporters.masked import MaskedNetwork
    from masktool.exporters.result import Export
    from masktool.exporters.sources import Model, Source

__all__ = ["add_gradients_to", "export"]


@unheard()
def export(
    model: Model | Source,
    path: str | os.PathLike[str],
    *,
    arch: str | None = None,
    input_size: tuple[int, int] | None = None,
    channels: int | None = None,
    image_input: str | None = None,
    trust_code: bool = False,
    masking: Masking = "layer",
    baseline: str | None = None,
    mask_required: bool | None = None,
    preprocessing: PreprocessingLike | None = None,
    labels: LabelsLike | None = None,
    class_output: str | None = None,
    output_kind: OutputKind | None = None,
    gradient: Loss | None = None,
    feature_map: str | None = None,
    portable: bool = False,
) -> Export:
    """Exports a trained CNN as an ONNX model that takes a mask and carries it through every layer.

    Most models need none of the options, or the one that an error names. The first five say how the model is read, the
    next three what the mask does, four what comes in and out, two whether gradients are added, and one for which
    runtimes the file is written.

    Args:
        model: a file (``.onnx``, ``.pt2``, state dict, ``.safetensors`` or, with ``trust_code``, TorchScript or a
            pickled module); ``torchvision:NAME`` or ``timm:NAME``; a ``torch.nn.Module``; an ONNX model in memory.
        path: the path of the file to write; the file appears only when everything has succeeded.
        arch: the architecture that a state dict belongs to: ``torchvision:NAME``, ``timm:NAME``,
            ``package.module:factory`` or ``path/to/file.py:factory``.
        input_size: (height, width) of the image input in pixels, where the source does not fix it.
        channels: the number of channels of a torch module's images; None takes what its hub says, else 3 where the
            module runs on them, else what its first convolution takes.
        image_input: the name of the ONNX input that is the image, where several may be; all others stay as they are.
        trust_code: whether a model file is read although that may run code from it: a pickled module, a TorchScript
            archive, a ``torch.export`` archive that cannot be checked to hold none.
        masking: the masking mode: ``layer`` or ``partial``, which carry the mask through every layer of a CNN, or
            ``fill``, which changes the input alone and takes any network.
        baseline: what ``fill`` puts in place of missing pixels: ``mean`` (the default: the mean that the preprocessing
            subtracts, which is 0 in the input), ``black``, ``grey``, ``noise`` or a colour ``R,G,B``, all in pixels
            0..255 before the preprocessing, or ``image-mean`` or ``blur``, both of the kept pixels.
        mask_required: whether ``mask`` is an ordinary input, for runtimes that cannot leave inputs out, instead of one
            with a default of ones; None makes ``mask`` an ordinary input where the network leaves its height or width
            open, so that no default fits.
        preprocessing: how a photograph becomes the input: ``imagenet``, ``caffe`` or ``tf``; the path of a JSON file
            with the fields of :class:`masktool.Preprocessing`; a :class:`masktool.Preset`, with another mean or
            standard deviation; or a :class:`masktool.Preprocessing`. None takes what the source knows.
        labels: the path of a file of class names, one per line or ``.json``, or a sequence of them, one per class; of
            an output of one column that tells two classes apart, the positive class's or both, the negative one first.
            None takes what the source knows.
        class_output: the name of the output that holds one score per class, or ``none`` for a model without one; None
            finds the output where the graph tells, see :mod:`masktool.exporters.class_output`.
        output_kind: what the class output holds; None takes what the graph tells.
        gradient: the loss whose gradients the file gives by default; None adds no gradients.
            :func:`masktool.add_gradients_to` lists the losses, and adds gradients to a file that was exported before.
        feature_map: the name of the value (N, c, h, w) that the gradients are with respect to, besides image and mask;
            None takes the last feature map.
        portable: whether the file is written for other runtimes than ONNX Runtime too (OpenVINO, tract), and for ONNX
            Runtime in JavaScript: one image and one mask of fixed size, every input required, functions inlined, and
            gradients of the one loss ``gradient``.

    Returns:
        What was written: the path, the metadata with the parity figures measured on random inputs (relative to max
        |output|), the mask rule of every node, and notes.

    Raises:
        UnsupportedOperatorError: nodes without a mask rule; the error lists all of them.
        MasktoolError: the model or an option is not usable.

    Source:
        Balasubramanian and Feizi, "Towards Improved Input Masking for Convolutional Neural Networks", 2023,
        https://arxiv.org/abs/2211.14646.
    """
    from masktool.exporters.sources import read_source
    from masktool.exporters.user_choices import read_settings, source_size

    check_target(path)
    settings = read_settings(
        masking=masking,
        baseline=baseline,
        preprocessing=preprocessing,
        labels=labels,
        class_output=class_output,
        output_kind=output_kind,
        mask_required=mask_required,
        gradient=gradient,
        feature_map=feature_map,
        portable=portable,
    )
    size = source_size(model, input_size, settings.preprocessing)
    source = read_source(model, SourceSettings(arch, size, channels, image_input, trust_code))
    return export_source(source, path, settings)


def export_source(whole: Source, path: str | os.PathLike[str], settings: ExportSettings) -> Export:
    """Exports a model that was read, by the steps that DESIGN.md describes.

    Args:
        whole: the model that was read, with all its outputs; it stays as it is.
        path: the path of the file to write.
        settings: the masking mode and the other options of the export.

    Raises:
        MasktoolError: see :func:`export`.
    """
    from masktool.exporters.other_ways import advising_a_size
    from masktool.exporters.write import write_masked

    network = mask_source(whole, settings)
    prepared = network.prepared
    with advising_a_size(whole, settings, prepared.trial.size, export_source):
        return write_masked(prepared.model, path, network.metadata, prepared.layout, prepared.trial, network.source)


def mask_source(whole: Source, settings: ExportSettings) -> MaskedNetwork:
    """Makes a model that was read take a mask, in memory.

    Args:
        whole: the model that was read, with all its outputs; it stays as it is.
        settings: the masking mode and the other options of the export.

    Raises:
        MasktoolError: see :func:`export`.
    """
    from masktool.exporters.chosen_boxes import leave_out_lists
    from masktool.exporters.file_metadata import begin_metadata, find_class_output
    from masktool.exporters.masked import MaskedNetwork
    from masktool.exporters.other_ways import advising_fill
    from masktool.exporters.preparation import add_mask, prepare_graph, settle_one_image
    from masktool.exporters.trial import open_source
    from masktool.exporters.user_choices import source_preprocessing

    refuse_exported(whole)
    source = leave_out_lists(whole, settings.masking)
    plain = open_source(source.model, source.image_input, source.path)  # what ONNX Runtime refuses needs no other look
    prepared = prepare_graph(source, plain, source_preprocessing(source, settings.preprocessing))
    head = find_class_output(source, prepared, settings.output, plain.batch)
    unmasked = prepared.model.clone()
    settle_one_image(source, prepared, unmasked)
    with advising_fill(whole, settings, export_source):
        add_mask(source, prepared, settings)
    return MaskedNetwork(source, unmasked, prepared, begin_metadata(source, prepared, head, settings))


def refuse_exported(source: Source) -> None:
    """Raises MasktoolError for a model that masktool exported before."""
    recorded = Metadata.from_properties(source.model.metadata_props)
    if recorded is not None and not recorded.takes_mask:
        raise MasktoolError(
            "the model explains itself already: masktool exported it before",
            where=source.name,
            fix=f"export the plain model, {recorded.source}",
        )
    if source.exported_before:
        raise MasktoolError(
            "the model takes a mask already: masktool exported it before",
            where=source.name,
            fix=differently(
                python="export the plain model, or add gradients to this one with masktool.add_gradients_to",
                command="export the plain model, or add gradients to this one with --gradient",
            ),
        )
