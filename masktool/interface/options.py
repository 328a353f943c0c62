"""How a model that is not masked yet is exported: the options that every public function takes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from masktool.contract import Masking, OutputKind
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
"""What names or is a model; libraries that only a few of these need are not imported for the name."""


class ExportOptions(TypedDict, total=False):
    """How a model that is not masked yet is exported; an exported file has settled it.

    Attributes:
        arch: architecture that a state dict belongs to: ``torchvision:NAME``, ``timm:NAME``, ``package.module:factory``
            or ``path/to/file.py:factory``.
        input_size: (height, width) of the image input in pixels, where the model does not fix it.
        channels: of the images, where the model leaves them open.
        image_input: name of the input that is the image, where several may be.
        preprocessing: of photographs; left out, what the model's hub says.
        labels: of the classes; left out, what the model's hub says.
        masking: ``layer`` (the default), ``partial`` or ``fill``.
        baseline: what ``fill`` puts in place of missing pixels.
        class_output: name of the output that holds one score per class, where several may.
        output_kind: what that output holds, where the graph does not tell.
        trust_code: whether a file may be read although that may run code from it.
    """

    arch: str | None
    input_size: tuple[int, int] | None
    channels: int | None
    image_input: str | None
    preprocessing: PreprocessingLike | None
    labels: LabelsLike | None
    masking: Masking | None
    baseline: str | None
    class_output: str | None
    output_kind: OutputKind | None
    trust_code: bool


EXPORT_OPTIONS = tuple(ExportOptions.__annotations__)
"""Their names."""


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """A model, and the file that is wanted of it.

    Attributes:
        model: what names it or is it; None takes ``$MASKTOOL_MODEL``, else the built-in one.
        gradient: whether the file must hold gradients.
        feature_map: name of the value that they are with respect to, besides image and mask; None for the last one.

    The others are those of :class:`ExportOptions`; None where nothing is said.
    """

    model: ModelLike | None
    arch: str | None = None
    input_size: tuple[int, int] | None = None
    preprocessing: PreprocessingLike | None = None
    masking: Masking | None = None
    baseline: str | None = None
    image_input: str | None = None
    gradient: bool = False
    trust_code: bool = False
    channels: int | None = None
    feature_map: str | None = None
    class_output: str | None = None
    output_kind: OutputKind | None = None
    labels: LabelsLike | None = None


def check_known(options: Iterable[str], called: str) -> None:
    """Raises MasktoolError where one of the names is none of :class:`ExportOptions`."""
    if unknown := sorted(set(options) - set(EXPORT_OPTIONS)):
        raise MasktoolError(
            f"unknown option of {called}", where=", ".join(unknown), expected=f"some of {', '.join(EXPORT_OPTIONS)}"
        )


def name_given(options: Mapping[str, Any]) -> str:
    """Returns the names of the options that say something, with commas between them."""
    return ", ".join(name for name, value in options.items() if value not in (None, False))
