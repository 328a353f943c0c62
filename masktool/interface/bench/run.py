"""Measures what a model costs on this machine: :func:`measure_costs`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Size
from masktool.demo import sample_path
from masktool.errors import MasktoolError
from masktool.explainers.method import METHODS, Method
from masktool.explainers.subject import make_subject, read_subject
from masktool.exported_files import LAST
from masktool.files import temporary_directory
from masktool.interface.bench.explanations import (
    MethodFailure,
    MethodFigures,
    list_methods,
    measure_methods,
)
from masktool.interface.bench.machine import describe_machine, read_load
from masktool.interface.bench.memory import MemoryFigures, counted_methods, measure_memory
from masktool.interface.bench.passes import PassFigures, measure_passes
from masktool.interface.bench.plain import PLAIN, PlainNetwork, find_source_beside, open_plain
from masktool.interface.bench.processes import measure_start
from masktool.interface.bench.spread import Clocks
from masktool.interface.load import load
from masktool.interface.models import MODEL_VARIABLE, masked_file
from masktool.interface.options import ExportOptions
from masktool.messages import join
from masktool.progress import Say, log
from masktool.runtime.session import MaskedSession

PASSES, METHOD_TIMES, MEMORY, START = "passes", "methods", "memory", "start"
PARTS = (PASSES, METHOD_TIMES, MEMORY, START)
"""What is measured, in this order."""
ROUNDS_PER_REPEAT = 5
"""Rounds of passes for every repetition of a method, which takes hundreds of passes."""
ARRAY_SIDE = 224
"""Side in pixels of the image for a model that takes no photograph and leaves its size open."""


@dataclasses.dataclass(frozen=True)
class BenchSettings:
    """What is measured, and how often.

    Attributes:
        parts: some of ``passes``, ``methods``, ``memory``, ``start``.
        methods: the names of the methods; empty for all that the model has the outputs for.
        repeats: the repetitions of each method and each start; passes take five times as many rounds.
        samples: the number of samples of methods that draw any or take steps; None takes each method's default.
        memory_samples: the two numbers of masks or steps that peak memory is measured with.
    """

    parts: Sequence[str] = PARTS
    methods: Sequence[str] = ()
    repeats: int = 3
    samples: int | None = None
    memory_samples: tuple[int, int] = (100, 10_000)


QUICK = BenchSettings(repeats=1, samples=16, memory_samples=(100, 200))
"""For a look at whether everything runs; its figures mean little."""


@dataclasses.dataclass(frozen=True)
class BenchReport:
    """What was measured; None or empty where a part was left out.

    Attributes:
        machine: the machine, see :func:`masktool.interface.bench.machine.describe_machine`.
        model: the file that takes the mask: its path and source, masking mode, input, providers and threads.
        settings: what was measured, and how often.
        passes: what one pass costs.
        methods: what each method costs, by name.
        memory: peak memory with few and many masks or steps, by method.
        start: the seconds from the command to its first pass.
        load_after: the load at the end, as ``machine`` holds it at the beginning.
    """

    machine: Mapping[str, Any]
    model: Mapping[str, Any]
    settings: BenchSettings
    passes: PassFigures | None
    methods: Mapping[str, MethodFigures | MethodFailure]
    memory: Mapping[str, MemoryFigures]
    start: Clocks | None
    load_after: float | None


def measure_costs(
    model: str | None = None,
    image: Path | None = None,
    plain: str | None = None,
    settings: BenchSettings = BenchSettings(),
    *,
    providers: str | None = None,
    threads: int | None = None,
    provider_options: Mapping[str, object] | None = None,
    say: Say = log,
    **options: Unpack[ExportOptions],
) -> BenchReport:
    """Measures what masks, gradients and explanations by a model cost on this machine.

    Args:
        model: the model, as for :func:`masktool.load`.
        image: the photograph, or the ``.npy`` file of the model's input; None takes the sample picture, or noise for a
            model that takes no photograph.
        plain: the network that an exported file was made from, to compare it with; None looks for it beside the file.
        settings: what is measured, and how often.
        providers: ONNX Runtime's execution providers, as for :func:`masktool.load`.
        threads: the number of threads that one node may use, as for :func:`masktool.load`.
        provider_options: options of the providers, as for :func:`masktool.load`.
        say: function that is called with what is being measured, a line at a time.
        **options: options of the export of a model that is not masked yet.

    Raises:
        MasktoolError: the model, the image or an option cannot be used, or ``plain`` is another network.
    """
    opening = {"providers": providers, "threads": threads, "provider_options": provider_options, **options}
    machine, parts = describe_machine(), settings.parts
    with open_models(model, image, opening, settings, say) as opened:
        sessions = opened.sessions(list_methods(settings.methods, opened.masked))
        passes: PassFigures | None = None
        methods: dict[str, MethodFigures | MethodFailure] = {}
        memory: dict[str, MemoryFigures] = {}
        start: Clocks | None = None
        if PASSES in parts:
            found = find_plain(model, plain, opened.masked, options, say)
            say("passes")
            passes = opened.measure_passes(found, settings.repeats * ROUNDS_PER_REPEAT)
        if METHOD_TIMES in parts:
            methods = measure_methods(sessions, opened.image, settings.repeats, settings.samples, say)
        if MEMORY in parts:
            counted = {name: sessions[name] for name in counted_methods(list(sessions))}
            usable = {name: each for name, each in counted.items() if not isinstance(each, str)}
            memory = measure_memory(usable, opened.image, opened.size, settings.memory_samples, say)
        if START in parts:
            start = measure_start(opened.masked, opened.image, settings.repeats, say)
        described = describe_model(opened.masked)
    return BenchReport(machine, described, settings, passes, methods, memory, start, read_load())


class OpenedModels(NamedTuple):
    """A model that takes a mask, with and without gradients, a head and a feature map, and the image to measure it on.

    Attributes:
        masked: the file that takes a mask.
        differentiable: the file with gradients, or the reason why there is none.
        with_head: the file with a head, or the reason why there is none.
        with_map: the file with a feature map, or the reason why there is none.
        image: the path of the image.
        array: the image as the model takes it, (1, C, H, W) or (1, H, W, C).
        size: (height, width) of that in pixels.
    """

    masked: MaskedSession
    differentiable: MaskedSession | str
    with_head: MaskedSession | str
    with_map: MaskedSession | str
    image: Path
    array: NDArray[Any]
    size: Size

    def sessions(self, methods: Sequence[str]) -> dict[str, MaskedSession | str]:
        """Returns the session for each method, or the reason why there is none."""
        return {name: self._session(METHODS[name]) for name in methods}

    def _session(self, method: type[Method]) -> MaskedSession | str:
        if method.needs_gradient:
            return self.differentiable
        if method.needs_feature_map:
            return self.with_map
        return self.with_head if method.needs_head else self.masked

    def measure_passes(self, plain: PlainNetwork | str, rounds: int) -> PassFigures:
        """Measures passes of the model and of the plain network."""
        return measure_passes(self.masked, self.array, rounds, plain=plain, differentiable=self.differentiable)


@contextlib.contextmanager
def open_models(
    model: str | None, image: Path | None, opening: Mapping[str, Any], settings: BenchSettings, say: Say
) -> Iterator[OpenedModels]:
    """Opens a model with and without gradients, a head and a feature map, and chooses an image; closes all after that.

    Raises:
        MasktoolError: the model or the image cannot be used.
    """
    with contextlib.ExitStack() as stack:
        masked = stack.enter_context(load(model, say=say, **opening))
        if not masked.metadata.takes_mask:
            raise MasktoolError(
                "the file explains itself and takes no mask", where=masked.path, fix="measure the model without that"
            )
        asked = [METHODS.find(name) for name in settings.methods] or list(METHODS.values())
        differentiable: MaskedSession | str = "not asked for"
        with_head: MaskedSession | str = "not asked for"
        if PASSES in settings.parts or any(method.needs_gradient for method in asked):
            differentiable = open_or_tell_why(stack, model, say, gradient=True, **opening)
        if masked.metadata.head is not None:
            with_head = masked
        elif any(method.needs_head for method in asked):
            with_head = open_or_tell_why(stack, model, say, head=LAST, **opening)
        with_map: MaskedSession | str = "not asked for"
        if masked.metadata.feature_maps:
            with_map = masked
        elif any(method.needs_feature_map for method in asked):
            with_map = open_or_tell_why(stack, model, say, feature_map=LAST, **opening)
        path = image or choose_image(masked, stack.enter_context(temporary_directory()))
        subject = make_subject(read_subject(path), masked, opening.get("input_size"))
        yield OpenedModels(
            masked, differentiable, with_head, with_map, path, subject.prepared.array, subject.prepared.size
        )


def open_or_tell_why(stack: contextlib.ExitStack, model: str | None, say: Say, **opening: Any) -> MaskedSession | str:
    """Opens a model until a stack is closed, or returns why it cannot have what it is to hold."""
    try:
        return stack.enter_context(load(model, say=say, **opening))
    except MasktoolError as error:
        return error.message


def choose_image(session: MaskedSession, folder: Path) -> Path:
    """Returns the path of an image that a model takes: the sample picture, else noise, written into a folder."""
    if session.metadata.preprocessing is not None:
        return sample_path()
    lengths = [length or ARRAY_SIDE for length in session.input_shape[1:]]
    noise = np.random.default_rng(0).standard_normal(lengths).astype(np.float32)
    np.save(folder / "noise.npy", noise)
    return folder / "noise.npy"


def find_plain(
    model: str | None, named: str | None, session: MaskedSession, options: ExportOptions, say: Say
) -> PlainNetwork | str:
    """Opens the plain network behind a session, or returns why it is not known.

    It is the model itself where that was not masked yet, else the one that is named, else the file's source where it
    lies beside the file.

    Raises:
        MasktoolError: the plain network that was named cannot be read.
    """
    from masktool.exporters.sources import load_source
    from masktool.exporters.user_choices import source_size

    given = model or os.environ.get(MODEL_VARIABLE) or None
    plain = named or (given if given is not None and masked_file(given) is None else None)
    found = plain or find_source_beside(session.path, session.metadata)
    if found is None:
        return join("", [f"{session.metadata.source} does not lie beside the file; ", PLAIN, " names it"])
    say(f"plain network: {found}")
    try:
        source = load_source(
            found,
            arch=options.get("arch"),
            input_size=source_size(found, options.get("input_size"), options.get("preprocessing")),
            channels=options.get("channels"),
            image_input=options.get("image_input"),
            trust_code=options.get("trust_code") or False,
        )
    except MasktoolError as error:
        if plain is not None:
            raise
        return error.message
    return open_plain(source, session)


def describe_model(session: MaskedSession) -> dict[str, Any]:
    """Returns what was measured, as JSON values."""
    return {
        "path": str(session.path),
        "source": session.metadata.source,
        "masking": session.metadata.masking,
        "rule": session.metadata.rule,
        "input": list(session.input_shape),
        "providers": session.providers,
        "threads": session.threads,
    }
