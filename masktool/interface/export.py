"""From a trained network to a masked ONNX file: :func:`export`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masktool.contract import DeviceProvider, FilePrecision, Loss, Masking, OutputKind, SamplerRule, Size
from masktool.exporters.settings import ExportSettings, LabelsLike, PreprocessingLike, SourceSettings
from masktool.files import check_target, temporary_directory
from masktool.progress import Progress, Say, log, no_progress
from masktool.streams import unheard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from masktool.exporters.result import Export
    from masktool.exporters.sources import Model, Source

__all__ = ["export"]


@unheard()
def export(
    model: Model | Source,
    path: str | os.PathLike[str],
    *,
    arch: str | None = None,
    input_size: Size | None = None,
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
    feature_map: str | Sequence[str] | None = None,
    portable: bool = False,
    precision: FilePrecision | None = None,
    for_provider: DeviceProvider | None = None,
    head: str | None = None,
    plain_branch: bool = False,
    rule: SamplerRule | None = None,
    calibrate: str | os.PathLike[str] | None = None,
    gradient_output: str | None = None,
) -> Export:
    """Exports a trained CNN as an ONNX model that takes a mask and carries it through every layer.

    Most models need none of the options, or the one that an error names. The first five say how the model is read, the
    next three what the mask does, four what comes in and out, two whether gradients are added, one for which
    runtimes the file is written, one in which precision it computes, one whether its last layers take a mask too, one
    what a run without a mask costs, one what the mask does where a layer looks at few places, one by which photographs
    scores behind masks are corrected, and the last whether gradients are of another output than the class scores.

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
        preprocessing: how a photograph becomes the input: ``imagenet``, ``caffe``, ``tf`` or ``yolo``; the path of a
            JSON file with the fields of :class:`masktool.Preprocessing`; a :class:`masktool.Preset`, with another mean
            or standard deviation; or a :class:`masktool.Preprocessing`. None takes what the source knows.
        labels: the path of a file of class names, one per line or ``.json``, or a sequence of them, one per class; of
            an output of one column that tells two classes apart, the positive class's or both, the negative one first.
            None takes what the source knows.
        class_output: the name of the output that holds one score per class, or ``none`` for a model without one; None
            finds the output where the graph tells, see :mod:`masktool.exporters.class_output`.
        output_kind: what the class output holds; None takes what the graph tells.
        gradient: the loss whose gradients the file gives by default; None adds no gradients.
            :func:`masktool.add_gradients_to` lists the losses, and adds gradients to a file that was exported before.
        feature_map: the name of the value (N, c, h, w) that the gradients are with respect to, besides image and mask,
            or several names; None takes the last feature map. Without gradients the file gives these activations alone,
            ``last`` for the last: the outputs ``feature_map``, ``feature_map_2`` and so on, in the order of the names.
        portable: whether the file is written for other runtimes than ONNX Runtime too (OpenVINO, tract), and for ONNX
            Runtime in JavaScript: one image and one mask of fixed size, every input required, functions inlined, and
            gradients of the one loss ``gradient``.
        precision: the precision that a float32 network computes in: ``fp16`` makes a file of half the size, whose
            inputs and outputs stay float32, and measures it against the float32 file (``metadata.parity["fp32"]``).
            What float16 does not hold stays in float32, and where gradients are added the file computes in float32
            from weights of 16 bits. None and ``fp32`` leave the network as it is; ``bf16`` cannot be measured yet.
        for_provider: the provider of ONNX Runtime that the gradients are written for: ``webgpu``, ``tensorrt`` and
            ``directml`` give no indices of maxima or add nothing up at them, so that the gradient of max pooling is
            written in other operators, which takes longer on the CPU. None, ``cuda`` and ``coreml`` change nothing.
        head: the name of a feature map (N, c, h, w), or ``last`` for the last one; the layers behind it, which take a
            mask there, are written beside the file as ``NAME.head.onnx``, and the file gives the feature map as an
            output. Recipro-CAM needs both. None writes no such file.
        plain_branch: whether the file also holds the plain network, which runs where the mask is left out or is 1
            everywhere: such a run costs what the plain model costs. Weights of 1 MiB and more then stand in
            ``NAME.data`` beside the file, once for both. Not together with ``gradient``, ``portable`` or
            ``head``.
        rule: what keeps an output of a sampler that is narrower than its stride, such as a 1 x 1 convolution of stride
            2, under ``layer`` masking: ``cell``, any place of the square that a step passes over, or ``published``,
            only a place that the sampler looks at. None takes :data:`masktool.sampler_rules.DEFAULT_RULE`.
        calibrate: the folder of photographs, without labels, by which the class scores are corrected where something is
            missing, as :func:`masktool.calibrate` does it by default; None leaves them as they are.
        gradient_output: the name of any output (N, ...) whose gradients the file gives in place of those of class
            scores: of the sum of its values, each times its weight, which is the input ``output_weights`` in the
            output's shape. So are those of a mean over a region, of one value, of a slice and, by the derivative, of
            whatever is made of them. None adds those of ``gradient``, if any.

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
        precision=precision,
        for_provider=for_provider,
        head=head,
        plain_branch=plain_branch,
        rule=rule,
        gradient_output=gradient_output,
    )
    size = source_size(model, input_size, settings.preprocessing)
    source = read_source(model, SourceSettings(arch, size, channels, image_input, trust_code))
    if calibrate is None:
        return export_compared(source, path, settings)
    return export_calibrated(source, path, settings, calibrate)


def export_calibrated(
    source: Source,
    path: str | os.PathLike[str],
    settings: ExportSettings,
    images: str | os.PathLike[str],
    progress: Progress = no_progress,
    say: Say = log,
) -> Export:
    """Exports a model that was read, and corrects the file's class scores where something is missing.

    Args:
        source: the model that was read.
        path: the path of the file to write, which appears when both have succeeded.
        settings: the masking mode and the other options of the export.
        images: the folder of photographs.
        progress: function that shows progress, see :func:`masktool.calibrate`.
        say: function that is called with what the user should know, see :func:`masktool.calibrate`.
    """
    from masktool.interface.calibrate import calibrate, find_images

    find_images(images, lambda _: None)  # a wrong folder is told before anything is exported
    with temporary_directory() as directory:
        exported = export_compared(source, directory / Path(path).name, settings)
        written = calibrate(exported.path, images, path, progress=progress, say=say)
    notes = dict.fromkeys((*exported.notes, *written.notes))
    return dataclasses.replace(written, notes=tuple(notes), source=exported.source)


def export_compared(source: Source, path: str | os.PathLike[str], settings: ExportSettings) -> Export:
    """Exports a model that was read; in another precision, the file is compared with the one in the model's own.

    Args:
        source: the model that was read.
        path: the path of the file to write.
        settings: the masking mode and the other options of the export.
    """
    from masktool.exporters import export_source
    from masktool.exporters.precision_source import refuse_precision

    if settings.precision in (None, "fp32"):
        return export_source(source, path, settings)
    refuse_precision(source, settings.precision)
    with temporary_directory() as directory:
        without = dataclasses.replace(settings, precision=None, head=None, plain_branch=False)
        own = export_source(source, directory / "own.onnx", without)

        def compare(written: Path, images: NDArray[Any]) -> dict[str, Any]:
            from masktool.interface.agreement import compare_files

            return {"fp32": dataclasses.asdict(compare_files(own.path, written, images))}

        return export_source(source, path, settings, compare)
