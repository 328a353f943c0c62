"""Options of ``masktool export`` for a file that explains itself, and what the user should know of such a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from masktool.commands.info import describe_embedding, warn_of_optional
from masktool.commands.options import assignments_option, samples_option, seed_option
from masktool.errors import MasktoolError

if TYPE_CHECKING:
    from masktool.exporters.result import Export
    from masktool.exporters.sources import Source

EXPLANATION_OPTIONS = (
    click.option(
        "--explain",
        "method",
        metavar="METHOD",
        help="Write a file that explains itself: one run gives the prediction and the saliency map of METHOD, as "
        "`masktool explain` knows them, in any runtime. It takes no mask.",
    ),
    assignments_option,
    samples_option,
    seed_option,
    click.option(
        "--chunk",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="With --explain: most masks or steps in one pass of the network.",
    ),
    click.option(
        "--target",
        type=click.Choice(["top", "optional", "required"]),
        default="top",
        show_default=True,
        help="With --explain: the class with the highest score, or an input target, int64, -1 for that class. "
        "ONNX Runtime in JavaScript knows no optional inputs.",
    ),
    click.option(
        "--on-request",
        type=click.Choice(["always", "optional", "required"]),
        default="always",
        show_default=True,
        help="With --explain: whether to explain in every run, or where an input explain is true. Without, such a run "
        "costs what the plain network costs. The weights then stand in NAME.data beside the file.",
    ),
    click.option(
        "--samples-input",
        type=click.Choice(["fixed", "optional", "required"]),
        default="fixed",
        show_default=True,
        help="With --explain: whether the number of steps is settled here, or an input, int64, named as the method's "
        "option.",
    ),
    click.option(
        "--embed-preprocessing",
        is_flag=True,
        help="With --explain: take one photograph, uint8 RGB of any size, and prepare it in the file.",
    ),
    click.option(
        "--embed-overlay",
        is_flag=True,
        help="With --explain: also give a picture, uint8 RGB, of the map over its photograph.",
    ),
)
"""Options of a file that explains itself, which count beside ``--explain`` only."""
OF_AN_EXPLANATION = frozenset(
    {
        *("assignments", "samples", "seed", "chunk", "target", "on_request", "samples_input"),
        *("embed_preprocessing", "embed_overlay"),
    }
)
"""Their parameters, but for ``--explain`` itself."""
OF_A_MASK = frozenset({"mask", "gradient", "feature_map", "head", "calibrate", "plain_branch"})
"""Parameters of a file that takes a mask, which one that explains itself has no use for."""


@dataclasses.dataclass(frozen=True)
class EmbeddedChoice:
    """What the options say of the explanation in a file.

    Attributes:
        method: the name of the method; None for a file that takes a mask.
        assignments: the method's options as they were typed.
        samples: the number of masks or steps; None takes the method's default.
        seed: the seed of every random choice.
        chunk: the largest number of masks or steps in one pass.
        target: the class to explain, or whether there is an input for it.
        on_request: when to explain.
        samples_input: whether the number of steps is an input.
        embed_preprocessing: whether the file takes a photograph and prepares it.
        embed_overlay: whether the file draws the map over its picture.
    """

    method: str | None
    assignments: tuple[str, ...]
    samples: int | None
    seed: int
    chunk: int
    target: Any
    on_request: Any
    samples_input: Any
    embed_preprocessing: bool
    embed_overlay: bool

    def refuse_others(self, given: Collection[str]) -> None:
        """Raises MasktoolError where parameters were given that do not go together with the kind of file.

        Args:
            given: the names of the parameters that were typed, each with its option.
        """
        if self.method is None and (unused := OF_AN_EXPLANATION & set(given)):
            raise MasktoolError(
                "only for a file that explains itself", got=name_options(unused), fix="add --explain METHOD"
            )
        if self.method is not None and (unused := OF_A_MASK & set(given)):
            raise MasktoolError(
                "a file that explains itself takes no mask and gives no gradients",
                got=name_options(unused),
                fix="leave that out, or leave --explain out; --set OPTION=VALUE sets an option of the method",
            )

    def export(self, source: Source, path: Path, of_export: Mapping[str, Any]) -> Export:
        """Writes a file that explains itself.

        Args:
            source: the model that was read.
            path: the path of the file to write.
            of_export: options of the export, by the names that :func:`masktool.export` has; those that are None are
                left out.
        """
        from masktool.commands.explain_options import parse_assignments, share_options
        from masktool.explainers.method import METHODS
        from masktool.interface.export_explained import export_explained

        assert self.method is not None
        METHODS.find(self.method)
        own = share_options([self.method], self.samples, parse_assignments(self.assignments))[self.method]
        chosen = {name: value for name, value in of_export.items() if value is not None}
        if twice := sorted(set(own) & set(chosen)):
            raise MasktoolError(
                "an option of both the masking and the method", got=", ".join(twice), fix="leave one out"
            )
        return export_explained(
            source,
            path,
            self.method,
            seed=self.seed,
            chunk=self.chunk,
            target=self.target,
            on_request=self.on_request,
            samples_input=self.samples_input,
            embed_preprocessing=self.embed_preprocessing,
            embed_overlay=self.embed_overlay,
            **chosen,
            **own,
        )


def name_options(parameters: Collection[str]) -> str:
    """Returns the options of parameters as they are typed."""
    names = {"assignments": "--set"}
    return ", ".join(sorted(names.get(name, "--" + name.replace("_", "-")) for name in parameters))


def describe_embedded(exported: Export) -> Iterator[str]:
    """Yields what the user should know of the explanation in a file, a line each; nothing for one that takes a mask."""
    if exported.metadata.explanation is None:
        return
    from masktool.exporters.description import describe

    described = describe(exported.path)
    yield from (f"explanation: {line}" for line in describe_embedding(dataclasses.asdict(exported.metadata)))
    yield f"inputs: {', '.join(each.name for each in described.inputs)}"
    yield f"outputs: {', '.join(each.name for each in described.outputs)}"
    yield from (f"warning: {line}" for line in warn_of_optional(described.optional_inputs))
