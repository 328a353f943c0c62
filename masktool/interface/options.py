"""Options that say how a model that is not masked yet is exported, for every public function that takes a model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from masktool.contract import FilePrecision, Masking, OutputKind, SamplerRule, Size
from masktool.errors import MasktoolError

if TYPE_CHECKING:
    import onnx
    import onnx_ir
    import torch

    from masktool.exporters.settings import LabelsLike, PreprocessingLike
    from masktool.runtime.session import MaskedSession

ModelLike: TypeAlias = (
    "str | os.PathLike[str] | MaskedSession | torch.nn.Module | onnx.ModelProto | onnx_ir.Model"  # see load
)
"""The types of a model, or of its name; libraries that only a few of them need are not imported for the alias."""


class ExportOptions(TypedDict, total=False):
    """How a model that is not masked yet is exported; for an exported file these options are settled.

    Attributes:
        arch: the architecture that a state dict belongs to: ``torchvision:NAME``, ``timm:NAME``,
            ``package.module:factory`` or ``path/to/file.py:factory``.
        input_size: (height, width) of the image input in pixels, where the model does not fix it.
        channels: the number of the images' channels, where the model leaves it open.
        image_input: the name of the input that is the image, where several may be.
        preprocessing: how a photograph becomes the input, as for :func:`masktool.export`; left out, what the model's
            hub says.
        labels: the names of the classes, as for :func:`masktool.export`; left out, what the model's hub says.
        masking: the masking mode: ``layer`` (the default), ``partial`` or ``fill``.
        baseline: what ``fill`` puts in place of missing pixels, as for :func:`masktool.export`.
        class_output: the name of the output that holds one score per class, where several may.
        output_kind: what the class output holds, where the graph does not tell.
        trust_code: whether a file may be read although reading may run code from the file.
        precision: the precision that a float32 network computes in, as for :func:`masktool.export`.
        rule: the rule of samplers narrower than their stride under ``layer`` masking, as for :func:`masktool.export`.
    """

    arch: str | None
    input_size: Size | None
    channels: int | None
    image_input: str | None
    preprocessing: PreprocessingLike | None
    labels: LabelsLike | None
    masking: Masking | None
    baseline: str | None
    class_output: str | None
    output_kind: OutputKind | None
    trust_code: bool
    precision: FilePrecision | None
    rule: SamplerRule | None


EXPORT_OPTIONS = tuple(ExportOptions.__annotations__)
"""The names of the options of :class:`ExportOptions`."""


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """A model, and what its masked file must hold.

    Attributes:
        model: the model or its name, as for :func:`masktool.load`; None takes ``$MASKTOOL_MODEL``, else the built-in
            one.
        gradient: whether the file must hold gradients.
        mask_required: whether the mask must be an ordinary input, without a default, where the model is exported.
        feature_map: the names of the feature maps that the file must give, with gradients where it has these; none
            takes the last one, with gradients alone.
        head: the name of the feature map behind which the file's head must begin, or ``last``; None needs none.
        gradient_output: the name of the output whose values the gradients must be of; None takes class scores.

    The other attributes are those of :class:`ExportOptions`; None where an option is not given.
    """

    model: ModelLike | None
    arch: str | None = None
    input_size: Size | None = None
    preprocessing: PreprocessingLike | None = None
    masking: Masking | None = None
    baseline: str | None = None
    image_input: str | None = None
    gradient: bool = False
    mask_required: bool = False
    trust_code: bool = False
    channels: int | None = None
    feature_map: tuple[str, ...] = ()
    class_output: str | None = None
    output_kind: OutputKind | None = None
    labels: LabelsLike | None = None
    precision: FilePrecision | None = None
    head: str | None = None
    rule: SamplerRule | None = None
    gradient_output: str | None = None


def check_known(options: Iterable[str], called: str) -> None:
    """Raises MasktoolError where a name is not an option of :class:`ExportOptions`."""
    if unknown := sorted(set(options) - set(EXPORT_OPTIONS)):
        raise MasktoolError(
            f"unknown option of {called}", where=", ".join(unknown), expected=f"some of {', '.join(EXPORT_OPTIONS)}"
        )


def name_given(options: Mapping[str, Any]) -> str:
    """Returns the names of the options that are neither None nor False, with commas between them."""
    return ", ".join(name for name, value in options.items() if value is not None and value is not False)
