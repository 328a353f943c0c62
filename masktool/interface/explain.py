"""Explanations by any model: of one image and target (:func:`explain`), or of several that share the work."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy.typing as npt

from masktool.contract import Metadata, SamplerRule, Size
from masktool.errors import MasktoolError
from masktool.explainers.bands.baselines import BandBaseline
from masktool.explainers.bands.groups import BandsLike
from masktool.explainers.budgets import default_for_budget
from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation import Explanation
from masktool.explainers.explanation_settings import SHARED_ARGUMENTS, ExplanationSettings
from masktool.explainers.method import Method, build_method
from masktool.explainers.model_outputs import Scale
from masktool.explainers.regions import RegionLike
from masktool.explainers.stopping import STOPPING_ARGUMENTS, Stopping
from masktool.explainers.subject import ImageLike, read_subject
from masktool.explainers.target import TargetLike
from masktool.explainers.target_choice import refuse_class_methods
from masktool.exported_files import LAST
from masktool.interface.device_graphs import graphs_for
from masktool.interface.gradient_outputs import find_gradient_output
from masktool.interface.load import load, refuse_for_session
from masktool.interface.models import explains_itself, file_of, known_metadata
from masktool.interface.options import EXPORT_OPTIONS, ModelLike
from masktool.messages import call, join, parameter
from masktool.option_checks import check_several
from masktool.progress import Progress, Say, log
from masktool.runtime.session import MaskedSession

OF_AN_EXPORT = {
    "n_samples": parameter("n_samples"),
    "seed": parameter("seed"),
    "perturbations_per_eval": parameter("perturbations_per_eval"),
    **{name: parameter(name) for name in STOPPING_ARGUMENTS},
}
"""Keyword arguments of :func:`explain` that a file that explains itself has settled, besides the method's options."""
OPENING_ARGUMENTS = ("providers", "threads", "provider_options", "say")
"""Keyword arguments of :func:`explain` that say how a model is opened, whatever the model."""


def explain(
    model: ModelLike | None,
    image: ImageLike,
    method: str | None = None,
    target: TargetLike = None,
    *,
    output: str | None = None,
    sum_with: Sequence[TargetLike] = (),
    against: TargetLike = None,
    reference: ImageLike | None = None,
    region: RegionLike | None = None,
    detector: str | None = None,
    least_score: float | None = None,
    bands: BandsLike | None = None,
    band_baseline: BandBaseline = "mean",
    rgb: tuple[int, int, int] | None = None,
    score: Scale = "probability",
    inputs: Mapping[str, npt.ArrayLike | ImageLike] | None = None,
    input_size: Size | None = None,
    n_samples: int | None = None,
    until: Literal["stable", "top-k"] | None = None,
    tolerance: float = Stopping.tolerance,
    top_k: int = Stopping.top_k,
    budget: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    perturbations_per_eval: int | Literal["fastest"] | None = None,
    providers: str | Sequence[str] | None = None,
    threads: int | None = None,
    provider_options: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    say: Say = log,
    **options: Any,
) -> Explanation:
    """Explains which parts of an image a model's score for one class relied on.

    Args:
        model: an open session from :func:`masktool.load`, which saves opening the model for every image, or a model as
            for :func:`masktool.load`.
        image: a photograph: a Pillow image, a path, or (H, W, 3) uint8 RGB. Or the model's input as it is, for networks
            that look at something else: any other array (C, H, W) or (H, W, C), or the path of a ``.npy`` file.
        method: the name of the method: ``lime``, ``occlusion``, ``rise`` or another of ``masktool.explainers.methods``;
            None takes ``lime``, or the method of a file that explains itself. Such a file explains by that method
            alone, whose options and seed were settled when it was exported.
        target: the class to explain: an index, a label, or None or ``"top"`` for the class with the highest score; with
            ``output``, indices into all axes of that output but the batch, such as ``(5, 0)``, or ``"top"`` for its
            largest value; or slices among them, as in ``"0,2:5,:"``, for the mean of a part of it. Or a target object,
            such as ``masktool.Contrast("cat", "dog")``. Of a detector ``"box:0"``, the detection with the highest
            score, or ``"dog near 120,80"``, the nearest one to a point of the picture.
        output: the name of an output of which values are explained, as the model gives them; None explains a class.
        sum_with: classes that are explained together with the target as one, by the sum of their probabilities.
        against: what the target is compared with: why the target and not this. Explained is the difference of logits,
            or of log-probabilities or log-odds where the file gives probabilities.
        reference: another image, as for ``image``: explained is the cosine similarity of the two images' embeddings,
            which ``output`` holds; None explains no similarity.
        region: the region of a segmentation over which the class's mean score is explained: ``"auto"`` for the places
            that are predicted as the class, a box (x0, y0, x1, y1) in the photograph's pixels, a mask (H, W) of the
            photograph's size, or the path of a file that holds one. ``output`` names the output (N, K, h, w) where the
            model has several.
        detector: the kind of head of a detection network, such as ``yolov8``, for targets that are detections; None
            finds it from the outputs' names and shapes.
        least_score: the score in 0..1 from which on a place of a detector's outputs counts as a detection; None for
            .25, or what a ``masktool.Detection`` says itself.
        bands: a group of bands, such as ``"4-6"``: the method hides places in these channels of the input alone, by
            filling them; None hides places in all. :func:`masktool.explain_bands` compares groups.
        band_baseline: what stands in hidden bands: ``mean``, ``image-mean``, ``blur``, or one number for all bands or
            one for each.
        rgb: the bands that are red, green and blue in the picture of an array; None takes the mean of all, and where
            ``bands`` is given the first three.
        score: the score of a class: its ``probability`` p, or its ``log-odds`` log p - log(1 - p), which still differ
            where p is rounded to 0 or 1. Methods that need gradients take no ``log-odds``.
        inputs: the values of the model's inputs other than the image and the mask, by name. A photograph, as a Pillow
            image or a path, is prepared as the image is: such as the second one of a siamese network.
        input_size: (height, width) of the image input in pixels, for a model that leaves them open; None takes that of
            the model's preprocessing.
        n_samples: the number of masks, or of steps in methods that take steps; None takes the method's default, which
            for methods that draw masks is until the map is stable, at most 250.
        until: ``"stable"`` stops a method that draws samples as soon as half of the map's 95 % interval is at most
            ``tolerance`` of its range, before its number of samples; ``"top-k"`` as soon as the order of the ``top_k``
            highest segments has been the same over two doublings of the samples. None does as ``"stable"`` does, and
            only where that number is left open.
        tolerance: what counts as stable, as a share of the map's range.
        top_k: the number of segments whose order counts, with ``until="top-k"``; of a map of pixels, the number of
            cells of a 7 x 7 grid.
        budget: the largest number of forward passes, that of the image as it is among them: options of the method that
            are left at their defaults take what makes the most of them, such as the number of samples, of steps, of
            segments or of windows, and where no method is named the budget chooses that too; None sets no limit.
        seconds: the time in seconds after which a method draws no more samples; the answer then depends on the machine,
            which it notes. None sets no limit.
        seed: the seed of every random choice.
        perturbations_per_eval: the number of masks per forward pass; None chooses it from the input's size, and
            ``"fastest"`` measures for a few seconds which number runs the most masks per second on this machine, once
            per session and size, and notes it.
        providers: ONNX Runtime's execution providers for a model that is not open yet, as for :func:`masktool.load`.
        threads: the number of threads that one node may use, as for :func:`masktool.load`.
        provider_options: options of the providers, as for :func:`masktool.load`.
        progress: function that takes a description and the number of masks (in methods that need gradients: of images
            or steps), and returns a context manager; that yields a function which is called with the number just done
            and, in methods that iterate, a note such as the loss. None shows no progress.
        say: function that is called with which file is used and why, a line at a time; by default it writes to the
            logger ``masktool`` (level INFO).
        **options: the method's own options, see ``masktool.explainers.methods``; and, for a model that is not masked
            yet, those of :class:`masktool.ExportOptions`. Where the method has a ``baseline`` of its own, ``baseline``
            is the method's.

    Returns:
        The attributions in the image's own pixels, in units of the score, with all that is needed to repeat the run.

    Raises:
        MasktoolError: the image, the model, the target or an option cannot be used.
    """
    if isinstance(target, list):
        raise MasktoolError(
            "explain takes one target",
            got=target,
            fix="call masktool.explain_targets, or for classes as one give sum_with",
        )
    arguments = dict(
        output=output,
        sum_with=sum_with,
        against=against,
        reference=reference,
        region=region,
        detector=detector,
        least_score=least_score,
        bands=bands,
        band_baseline=band_baseline,
        rgb=rgb,
        score=score,
        inputs=inputs,
        input_size=input_size,
        n_samples=n_samples,
        until=until,
        tolerance=tolerance,
        top_k=top_k,
        budget=budget,
        seconds=seconds,
        seed=seed,
        perturbations_per_eval=perturbations_per_eval,
        providers=providers,
        threads=threads,
        provider_options=provider_options,
        progress=progress,
        say=say,
        **options,
    )
    ((explanation,),) = open_and_explain(model, [image], [[target]], method, arguments)
    return explanation


def explain_targets(
    model: ModelLike | None,
    image: ImageLike,
    targets: Sequence[TargetLike],
    method: str | None = None,
    **arguments: Any,
) -> list[Explanation]:
    """Explains several targets of one image as :func:`explain` explains one; they share the forward passes.

    Args:
        model: the model, as for :func:`explain`.
        image: the image, as for :func:`explain`.
        targets: classes, or values of an output, each as ``target`` of :func:`explain`.
        method: the name of the method, as for :func:`explain`.
        **arguments: further keyword arguments of :func:`explain`.

    Returns:
        One explanation per target.

    Raises:
        MasktoolError: the image, the model, the target or an option cannot be used.
    """
    check_several("targets", targets)
    (explanations,) = open_and_explain(model, [image], [targets], method, arguments)
    return explanations


def explain_images(
    model: ModelLike | None,
    images: Sequence[ImageLike],
    method: str | None = None,
    targets: Sequence[TargetLike] | None = None,
    **arguments: Any,
) -> list[Explanation]:
    """Explains several images as :func:`explain` explains one; methods that learn a mask learn all in one batch.

    The explanation of each image is the one that the image would get alone, up to rounding. Where images share a batch,
    ``seconds`` and ``forward_passes`` of each are its share of the whole.

    Args:
        model: the model, as for :func:`explain`.
        images: the images, each as for :func:`explain`; all of them are held in memory.
        method: the name of the method, as for :func:`explain`.
        targets: one target per image; None takes the class with the highest score of each.
        **arguments: further keyword arguments of :func:`explain`.

    Returns:
        One explanation per image.

    Raises:
        MasktoolError: the image, the model, the target or an option cannot be used.
    """
    check_several("images", images)
    if targets is not None:
        check_several("targets", targets)
    if len(images) == 0:
        raise MasktoolError("no images to explain", expected="at least one")
    wanted = [None] * len(images) if targets is None else list(targets)
    if len(wanted) != len(images):
        raise MasktoolError("targets do not fit the images", expected=f"{len(images)} targets", got=len(wanted))
    found = open_and_explain(model, images, [[target] for target in wanted], method, arguments)
    return [explanation for (explanation,) in found]


def open_and_explain(
    model: ModelLike | None,
    images: Sequence[ImageLike],
    targets: Sequence[Sequence[TargetLike]],
    method: str | None,
    arguments: Mapping[str, Any],
) -> list[list[Explanation]]:
    """Opens a model with the gradients or the head that a method needs, and explains every target of every image.

    What is wrong in the arguments and the images is told before the model is exported or opened.

    Args:
        model: the model, as for :func:`explain`; an open session stays open.
        images: the images, each as for :func:`explain`.
        targets: the targets of each image, each as for :func:`explain`.
        method: the name of the method, as for :func:`explain`.
        arguments: further keyword arguments of :func:`explain`.

    Returns:
        For each image, one explanation per target.
    """
    metadata = known_metadata(model)
    method = method or default_method(metadata, arguments.get("budget"))
    rest = dict(arguments)
    opening = {name: rest.pop(name) for name in OPENING_ARGUMENTS if name in rest}
    shared = {name: rest.pop(name) for name in SHARED_ARGUMENTS if name in rest}
    stopping = Stopping(**{name: rest.pop(name) for name in STOPPING_ARGUMENTS if name in rest})
    own, of_export = split_options(method, rest)
    given = [*own, *(name for name in OF_AN_EXPORT if shared.get(name) or name in stopping.given)]
    built = build_method(method, own, shared.pop("n_samples", None))
    refuse_settled_options(metadata, file_of(model), given)
    settings = ExplanationSettings(**shared, stopping=stopping)
    refuse_class_methods([type(built)], [each for wanted in targets for each in wanted], settings)
    pictures = [read_subject(image) for image in images]
    to_open = {**opening, **of_export}
    gradient_output = None
    if built.needs_gradient:
        every = [each for wanted in targets for each in wanted]
        plain = functools.partial(open_without_gradients, model, settings.input_size, to_open)
        gradient_output = find_gradient_output(model, built.title, every, settings, plain)
    with open_for_method(model, built, settings.input_size, to_open, gradient_output) as session:
        return explain_all(session, pictures, targets, built, settings, graphs_for(session))


@contextlib.contextmanager
def open_for_method(
    model: ModelLike | None,
    method: Method,
    input_size: Size | None,
    options: Mapping[str, Any],
    gradient_output: str | None = None,
) -> Iterator[MaskedSession]:
    """Opens a model with the gradients that a method needs, and closes it after the block; an open session stays open.

    Args:
        model: the model, as for :func:`explain`.
        method: the method that will explain.
        input_size: (height, width) of the image input, which both an export and an explanation may need.
        options: further keyword arguments of :func:`masktool.load`.
        gradient_output: the output that gradients have to be of; None for class scores.

    Raises:
        MasktoolError: the model cannot be exported or opened, or an option was given that an open session has settled.
    """
    if isinstance(model, MaskedSession):
        with open_without_gradients(model, input_size, options) as session:
            yield session
        return
    gradient = method.needs_gradient and not explains_itself(model)
    named = getattr(method, "feature_map", None)
    head = (named or LAST) if method.needs_head and not explains_itself(model) else None
    feature_map = named if gradient else None
    if method.needs_feature_map and not explains_itself(model):
        feature_map = named or LAST
    with load(
        model,
        gradient=gradient,
        feature_map=feature_map,
        head=head,
        gradient_output=gradient_output,
        input_size=input_size,
        **options,
    ) as session:
        yield session


@contextlib.contextmanager
def open_without_gradients(
    model: ModelLike | None, input_size: Size | None, options: Mapping[str, Any]
) -> Iterator[MaskedSession]:
    """Opens a model without gradients, and closes it after the block; an open session stays open.

    Args:
        model: the model, as for :func:`explain`.
        input_size: (height, width) of the image input, which both an export and an explanation may need.
        options: further keyword arguments of :func:`masktool.load`.

    Raises:
        MasktoolError: the model cannot be exported or opened, or an option was given that an open session has settled.
    """
    if isinstance(model, MaskedSession):
        refuse_for_session(model, {name: value for name, value in options.items() if name != "say"})
        yield model
        return
    with load(model, input_size=input_size, **options) as session:
        yield session


def default_method(metadata: Metadata | None, budget: int | None = None) -> str:
    """Returns the method to explain by where none is named: that of a file that explains itself, else the budget's."""
    if metadata is None or metadata.explanation is None:
        return default_for_budget(budget)
    return str(metadata.explanation["method"])


def refuse_settled_options(metadata: Metadata | None, where: object, given: Sequence[str]) -> None:
    """Raises MasktoolError where an option was given that the export of a file that explains itself has settled."""
    if metadata is None or metadata.explanation is None or not given:
        return
    again = call("export_explained", metadata.source, "NEW.onnx", metadata.explanation["method"])
    raise MasktoolError(
        "the export of the file has settled how it explains itself",
        where=where,
        got=join(", ", [OF_AN_EXPORT.get(name, name) for name in given]),
        fix="leave that out, or export with it: " + again,
    )


def split_options(method: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the options of the method, and those of an export.

    Integrated gradients have a ``rule`` of their own: the names of its rules and of the export's tell which is meant.

    Raises:
        MasktoolError: ``baseline`` may be an option of either the method or the export.
    """
    kind: type[Method] = type(build_method(method, {}))
    own = {field.name for field in dataclasses.fields(kind)}
    if options.get("rule") in get_args(SamplerRule):
        own.discard("rule")
    if options.get("masking") == "fill" and "baseline" in own & set(options):
        raise MasktoolError(
            f"baseline may be what fill puts in place of pixels, or the option of {kind.title}",
            fix="call masktool.load with the former, and give explain the session",
        )
    of_export = {name: value for name, value in options.items() if name in EXPORT_OPTIONS and name not in own}
    return {name: value for name, value in options.items() if name not in of_export}, of_export
