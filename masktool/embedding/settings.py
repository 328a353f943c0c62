"""How a method becomes part of a file, in one frozen object."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from masktool.explainers.method import Method
from masktool.option_checks import check_choice, check_count

TargetInput = Literal["top", "optional", "required"]
ExplainInput = Literal["always", "optional", "required"]
SamplesInput = Literal["fixed", "optional", "required"]


@dataclasses.dataclass(frozen=True)
class EmbeddingSettings:
    """How a method becomes part of a file.

    Attributes:
        method: the method with its options.
        seed: the seed of every random choice, which is made once, at export.
        chunk: the largest number of masks or steps in one pass of the network.
        target: the class to explain: the ``top`` prediction of each image, with no input for it; or an input ``target``
            (1,) or one per image, int64, -1 for the top prediction, that is ``optional`` or, for runtimes that cannot
            leave inputs out, ``required``.
        on_request: when to explain: ``always``; or where the boolean input ``explain`` (1,), ``optional`` with the
            default true, or ``required``, is true.
        samples_input: whether the number of masks or steps is ``fixed`` at export, or an input named as the method's
            option (``n_steps``, ``n_samples``), (1,) int64, ``optional`` with the option's value as its default, or
            ``required``.
        embed_preprocessing: whether the file takes one photograph as it is, and prepares it.
        embed_overlay: whether the file draws the map over its picture.
    """

    method: Method
    seed: int = 0
    chunk: int = 1
    target: TargetInput = "top"
    on_request: ExplainInput = "always"
    samples_input: SamplesInput = "fixed"
    embed_preprocessing: bool = False
    embed_overlay: bool = False

    def __post_init__(self) -> None:
        """Raises MasktoolError for an option out of range."""
        check_count("chunk", self.chunk)
        check_choice("target", self.target, ("top", "optional", "required"))
        check_choice("on_request", self.on_request, ("always", "optional", "required"))
        check_choice("samples_input", self.samples_input, ("fixed", "optional", "required"))

    def document(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Returns what the file's metadata say of the explanation, as JSON values."""
        return {
            "method": self.method.name,
            "settings": settings,
            "seed": self.seed,
            "chunk": self.chunk,
            "target": self.target,
            "on_request": self.on_request,
            "samples_input": self.samples_input,
            "embed_preprocessing": self.embed_preprocessing,
            "embed_overlay": self.embed_overlay,
        }
