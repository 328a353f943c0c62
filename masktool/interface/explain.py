"""Explanations by any model: :func:`explain` of one image and target, others of several that share the work."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from masktool.errors import MasktoolError
from masktool.explainers import explaining
from masktool.explainers.explanation import Explanation
from masktool.explainers.explanation_settings import SHARED_ARGUMENTS, ExplanationSettings
from masktool.explainers.method import Method, build_method
from masktool.explainers.reading import Scale
from masktool.explainers.subject import ImageLike, read_subject
from masktool.explainers.targets import Target
from masktool.interface.load import load, refuse_for_session
from masktool.interface.options import EXPORT_OPTIONS, ModelLike
from masktool.progress import Progress, Say, log
from masktool.runtime.inputs import Inputs
from masktool.runtime.session import MaskedSession


def explain(
    model: ModelLike | None,
    image: ImageLike,
    method: str = "lime",
    target: Target = None,
    *,
    output: str | None = None,
    score: Scale = "probability",
    inputs: Inputs | None = None,
    input_size: tuple[int, int] | None = None,
    n_samples: int | None = None,
    seed: int = 0,
    perturbations_per_eval: int | None = None,
    providers: str | Sequence[str] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    say: Say = log,
    **options: Any,
) -> Explanation:
    """Says which parts of a photograph a model's score for one class relied on.

    Args:
        model: from :func:`masktool.load`, which saves opening it for every image, or whatever that takes.
        image: a photograph: a Pillow image, a path, or (H, W, 3) uint8 RGB. Or the model's input as it is, for networks
            that look at something else: any other array (C, H, W) or (H, W, C), or the path of a ``.npy`` file.
        method: ``lime``, ``occlusion``, ``rise`` or another registered one.
        target: None or ``"top"`` for the class with the highest score, an index, or a label; with ``output``, indices
            into all its axes but the batch, such as ``(5, 0)``, or ``"top"`` for its largest value.
        output: name of an output to explain one value of, as the model gives it; None explains a class.
        score: of a class: its ``probability``, or its ``log-odds`` log p - log(1 - p), which go on where p is rounded
            to 0 or 1. Not for methods that differentiate, which have their own ``loss``.
        inputs: by name, what the model asks for besides the image and the mask.
        input_size: (height, width) for a model that leaves them open; None takes its preprocessing's.
        n_samples: number of masks; by default the method's own.
        seed: of every random choice.
        perturbations_per_eval: masks per forward pass; chosen from the input's size by default.
        providers: where a model that is not open yet runs, see :func:`masktool.load`.
        threads: likewise.
        progress: is called with a description and the number of masks (for methods that ask for gradients: of images
            or steps), and returns a context manager that yields a function to call with the number just done and, in
            methods that iterate, a note such as the loss.
        say: is told which file is used and why, a line at a time; by default the logger ``masktool`` (level INFO).
        **options: the method's own, see ``masktool.explainers.methods``; and how a model that is not masked yet is
            exported, see :class:`masktool.ExportOptions`. A method that has a ``baseline`` of its own gets it.

    Returns:
        The attributions in the photograph's pixels, in units of the score, with all that is needed to repeat the run.

    Raises:
        MasktoolError: bad image, model, target or option.
    """
    if isinstance(target, list):
        raise MasktoolError("explain takes one target", got=target, fix="call masktool.explain_targets")
    own, of_export = split_options(method, options)
    built = build_method(method, own, n_samples)
    settings = ExplanationSettings(
        output=output,
        score=score,
        inputs=inputs,
        input_size=input_size,
        seed=seed,
        perturbations_per_eval=perturbations_per_eval,
        progress=progress,
    )
    image = read_subject(image)
    with open_model(model, built, of_export, providers, threads, input_size, say) as session:
        ((explanation,),) = explaining.explain_all(session, [image], [[target]], built, settings)
    return explanation


def explain_targets(
    model: ModelLike | None, image: ImageLike, targets: Sequence[Target], method: str = "lime", **arguments: Any
) -> list[Explanation]:
    """Like :func:`explain` for several targets of one image, which share the forward passes.

    Args:
        model: as for ``explain``.
        image: likewise.
        targets: classes, or values of an output.
        method: as for ``explain``.
        **arguments: likewise.

    Returns:
        One explanation per target.

    Raises:
        MasktoolError: bad image, model, target or option.
    """
    with open_for(model, method, arguments) as (session, rest):
        return explaining.explain_targets(session, image, targets, method, **rest)


def explain_images(
    model: ModelLike | None,
    images: Sequence[ImageLike],
    method: str = "lime",
    targets: Sequence[Target] | None = None,
    **arguments: Any,
) -> list[Explanation]:
    """Like :func:`explain` for several images; methods that learn a mask learn all of them in one batch.

    Every image gets what it would get alone, up to rounding. Where images share a batch, ``seconds`` and
    ``forward_passes`` of each are its share of the whole.

    Args:
        model: as for ``explain``.
        images: likewise, each; all of them are held in memory.
        method: as for ``explain``.
        targets: one per image; None takes the class with the highest score of each.
        **arguments: as for ``explain``.

    Returns:
        One explanation per image.

    Raises:
        MasktoolError: bad image, model, target or option.
    """
    with open_for(model, method, arguments) as (session, rest):
        return explaining.explain_images(session, images, method, targets, **rest)


@contextlib.contextmanager
def open_for(
    model: ModelLike | None, method: str, arguments: Mapping[str, Any]
) -> Iterator[tuple[MaskedSession, dict[str, Any]]]:
    """Opens a model for a method, and yields it with the arguments that are not about the model's file."""
    rest = dict(arguments)
    providers, threads, say = rest.pop("providers", None), rest.pop("threads", None), rest.pop("say", log)
    shared = {name: rest.pop(name) for name in SHARED_ARGUMENTS if name in rest}
    own, of_export = split_options(method, rest)
    built, _ = explaining.build_run(method, {**shared, **own})  # what is wrong in them is told before any export
    with open_model(model, built, of_export, providers, threads, shared.get("input_size"), say) as session:
        yield session, {**shared, **own}


@contextlib.contextmanager
def open_model(
    model: ModelLike | None,
    method: Method,
    of_export: Mapping[str, Any],
    providers: str | Sequence[str] | None,
    threads: int | None,
    input_size: tuple[int, int] | None,
    say: Say,
) -> Iterator[MaskedSession]:
    """Opens a model with what a method asks of its file, and closes it behind the block; leaves an open session open.

    Raises:
        MasktoolError: it cannot be exported or opened, or something is asked of an open session that is settled.
    """
    if isinstance(model, MaskedSession):
        refuse_for_session(model, {"providers": providers, "threads": threads, **of_export})
        yield model
        return
    with load(
        model,
        providers,
        threads,
        gradient=method.needs_gradient,
        feature_map=getattr(method, "feature_map", None),
        input_size=input_size,
        say=say,
        **of_export,
    ) as session:
        yield session


def split_options(method: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the options that are the method's own, and those of an export.

    Raises:
        MasktoolError: one may be either's.
    """
    kind: type[Method] = type(build_method(method, {}))
    own = {field.name for field in dataclasses.fields(kind)}
    if options.get("masking") == "fill" and "baseline" in own & set(options):
        raise MasktoolError(
            f"baseline may be what fill puts in place of pixels, or the option of {kind.title}",
            fix="call masktool.load with the former, and give explain the session",
        )
    of_export = {name: value for name, value in options.items() if name in EXPORT_OPTIONS and name not in own}
    return {name: value for name, value in options.items() if name not in of_export}, of_export
