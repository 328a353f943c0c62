"""What a method of explanation is: options, what it may ask of the model, what it answers; and the registry of all
methods.

A method is a frozen dataclass whose fields are its options. It lives in a file of its own under ``methods/``, which
is found by looking into that package, so nothing else needs editing to add one.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import importlib
import operator
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from masktool.contract import Loss, Masking
from masktool.errors import MasktoolError
from masktool.explainers.subject import Subject
from masktool.progress import Counting
from masktool.runtime.gradients import IMAGE, Gradient
from masktool.runtime.inputs import Inputs
from masktool.runtime.preprocessing import PreparedImage
from masktool.runtime.session import MaskedSession

Masks = NDArray[np.float32]
"""(M, 1, h, w), 1 = kept, 0 = missing."""


class ScoredMasks(NamedTuple):
    """One forward pass: the masks (M, 1, h, w) float32 and the targets' scores under them (M, T) float64."""

    masks: Masks
    scores: NDArray[np.float64]


class Evaluate(Protocol):
    """Runs the model on one image under many masks, batch by batch, as the masks are generated."""

    def __call__(self, batches: Iterable[Masks], total: int) -> Iterator[ScoredMasks]:
        """Yields each batch with its scores; ``total`` is the number of masks in all batches."""


Predict = Callable[[Masks], NDArray[np.float32]]
"""Runs the model on one image under masks (M, 1, h, w) in one pass, and returns all scores (M, K)."""


@dataclasses.dataclass(frozen=True)
class Differentiable:
    """The model of a task, for methods that ask for gradients.

    Attributes:
        session: whose file holds gradients.
        inputs: what the model asks for besides the image and the mask.
        counting: shows progress.
    """

    session: MaskedSession
    inputs: Inputs
    counting: Counting

    def gradient(
        self,
        images: npt.ArrayLike,
        target: npt.ArrayLike,
        masks: npt.ArrayLike | None = None,
        *,
        loss: Loss = "logit",
        of: Sequence[str] = (IMAGE,),
    ) -> Gradient:
        """Runs one batch through :meth:`masktool.runtime.session.MaskedSession.gradient`, in one piece.

        Raises:
            MasktoolError: what is differentiated, or a gradient, is not finite.
        """
        found = self.session.gradient(images, masks, self.inputs, target=target, loss=loss, of=of)
        check_finite_gradient(found)
        return found


def check_finite_gradient(found: Gradient) -> None:
    """Raises a MasktoolError where numbers are not finite: a map made from NaN would be NaN everywhere."""
    for name in ("objective", "image", "mask", "gradient_feature_map"):
        values = getattr(found, name)
        if values is not None and not np.isfinite(values).all():
            raise MasktoolError("the gradients are not finite", where=name, expected="numbers", got="NaN or infinity")


@dataclasses.dataclass(frozen=True)
class Task:
    """One photograph and the classes to explain: all that a method may ask about.

    Attributes:
        subject: the photograph, prepared for the model.
        scores: (K,) float32, of all classes, or one output's values laid out flat, with nothing missing.
        targets: where each of the T targets stands among the scores.
        given: of each, whether the user named it; otherwise it is the one with the highest score.
        masking: the model's masking mode.
        seed: of every random choice.
        perturbations_per_eval: how many masks go into one forward pass.
        evaluate: runs the model under masks, for the targets' scores.
        predict: likewise, for all scores.
        outputs: (...) float32 of the one image, from the pass that gave ``scores``: those in the method's ``outputs``.
        differentiable: what a method with ``needs_gradient`` asks for gradients; None for any other.
    """

    subject: Subject
    scores: NDArray[np.float32]
    targets: tuple[int, ...]
    given: tuple[bool, ...]
    masking: Masking
    seed: int
    perturbations_per_eval: int
    evaluate: Evaluate
    predict: Predict
    outputs: Mapping[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    differentiable: Differentiable | None = None

    @property
    def base(self) -> NDArray[np.float64]:
        """The score (T,) of each target with nothing missing."""
        return self.scores[list(self.targets)].astype(np.float64)

    @property
    def prepared(self) -> PreparedImage:
        """The photograph as the model's input, and the way back to its own pixels."""
        return self.subject.prepared

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 RGB, the model's input as it looks."""
        return self.subject.pixels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the model's input."""
        return self.prepared.size

    def batch_ranges(self, total: int) -> Iterator[range]:
        """Yields 0..total in pieces of one forward pass each."""
        for start in range(0, total, self.perturbations_per_eval):
            yield range(start, min(start + self.perturbations_per_eval, total))


@dataclasses.dataclass(frozen=True)
class Attribution:
    """What a method answers.

    Attributes:
        attributions: (T, h, w) float32 or float64 at the model's input.
        settings: every option with the value that was used, defaults included; JSON values only.
        quality: for each target, figures by which to judge the answer, such as ``attributions_error``.
        segments: (h, w) labels from 0 without gaps, where the method works on segments.
        notes: for each target, what the reader of the map must know, one sentence each; none at all may be left out.
    """

    attributions: NDArray[np.floating[Any]]
    settings: Mapping[str, Any]
    quality: tuple[Mapping[str, float], ...]
    segments: NDArray[np.int32] | None = None
    notes: tuple[tuple[str, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class Method(abc.ABC):
    """A method of explanation; the fields of a subclass are its options.

    Class attributes:
        name: on the command line and in the API.
        title: in pictures and messages.
        meaning: what an attribution is, ``{score}`` standing for probability or score.
        signed: True where 0 separates support from opposition; False where only differences within the map mean
            anything.
        samples_option: the option that ``n_samples`` sets; None where the method draws no samples.
        counts_steps: whether ``samples_option`` counts steps of an integral or a descent instead of random samples.
        capped: whether a few pixels outshine all others, so that the picture's colours end below them.
        needs_gradient: whether the file must hold gradients; the task then has a ``differentiable``.
        outputs: what the method reads of the model besides the scores, in the same pass: names of outputs, each with
            the command that makes a file which has it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    signed: ClassVar[bool]
    samples_option: ClassVar[str | None]
    counts_steps: ClassVar[bool] = False
    capped: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = False
    outputs: ClassVar[Mapping[str, str]] = {}

    @abc.abstractmethod
    def attribute(self, task: Task) -> Attribution:
        """Explains every target of the task with one set of forward passes."""


METHODS: dict[str, type[Method]] = {}


def register(method: type[Method]) -> type[Method]:
    """Class decorator that makes a method known by its name."""
    METHODS[method.name] = method
    return method


@functools.cache
def load_methods() -> Mapping[str, type[Method]]:
    """Imports every file of the package ``methods`` and returns the registered classes by name."""
    import_modules("masktool.explainers.methods")
    return dict(sorted(METHODS.items()))


def import_modules(name: str) -> None:
    """Imports every file of a package, so that what is in them registers itself."""
    package = importlib.import_module(name)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{name}.{module.name}")


def find_method(name: str) -> type[Method]:
    """Returns the method's class.

    Raises:
        MasktoolError: there is no such method.
    """
    methods = load_methods()
    if name not in methods:
        raise MasktoolError("unknown method", where=name, expected=f"one of {', '.join(methods)}")
    return methods[name]


def build_method(name: str, options: Mapping[str, Any], n_samples: int | None = None) -> Method:
    """Builds a method with the given options.

    Args:
        name: of the method.
        options: by name; what is left out takes its default.
        n_samples: number of masks, whatever the method's own word for it is.

    Raises:
        MasktoolError: unknown method or option, or a value out of range.
    """
    method = find_method(name)
    known = [field.name for field in dataclasses.fields(method)]
    if unknown := sorted(set(options) - set(known)):
        expected = f"some of {', '.join(known)}" if known else "none: it has no options"
        raise MasktoolError(f"unknown option of {method.title}", where=", ".join(unknown), expected=expected)
    values = dict(options)
    if n_samples is not None:
        if method.samples_option is None:
            raise MasktoolError(
                f"{method.title} draws no samples",
                where=f"samples={n_samples}",
                fix=f"set {' or '.join(known)} instead" if known else "leave it out: it has no options",
            )
        values[method.samples_option] = n_samples
    return method(**values)


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raises a MasktoolError that names the option when its value is none of the choices."""
    if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in choices):
        expected = " | ".join(str(choice) for choice in choices)
        raise MasktoolError("option out of range", where=name, expected=expected, got=repr(value))


def check_count(name: str, value: object, minimum: int = 1) -> int:
    """Returns an option's value as an int, or raises a MasktoolError that names the option."""
    try:
        count = operator.index(value)  # type: ignore[arg-type]  # whatever is no integer raises TypeError
    except TypeError:
        count = minimum - 1
    if count < minimum or isinstance(value, bool):
        raise MasktoolError(
            "option out of range", where=name, expected=f"a whole number from {minimum}", got=repr(value)
        )
    return count


LARGEST = sys.float_info.max
"""An integer may be beyond it."""


def check_real(name: str, value: object, *, above: float, below: float = np.inf) -> float:
    """Returns an option's value as a float strictly between two limits, or raises a MasktoolError that names it."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not above < value < min(below, LARGEST):  # type: ignore[operator]  # it is a number
        limits = f"above {above:g}" + ("" if below == np.inf else f" and below {below:g}")
        raise MasktoolError("option out of range", where=name, expected=f"a number {limits}", got=repr(value))
    return float(value)  # type: ignore[arg-type]  # it is one
