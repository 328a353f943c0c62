"""Occlusion's scores from what each window can have changed alone; everything else is computed once per image.

The graphs are made by :mod:`masktool.embedding.incremental`; whoever calls
:func:`masktool.explainers.explaining.explain_all` hands over what makes them, for nothing here knows ONNX.
"""

from __future__ import annotations

import contextvars
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.contract import MASK_INPUT, Size
from masktool.errors import MasktoolError
from masktool.execution_providers import CPU
from masktool.explainers.mask_design import MaskDesign, MasksOfRows, WindowDesign
from masktool.explainers.reading import Reading, check_finite
from masktool.explainers.target import SettledTarget, measure
from masktool.explainers.task import Evaluate, ScoredMasks
from masktool.exported_files import count_file_bytes
from masktool.progress import Counting
from masktool.runtime.model_beside import ModelBeside
from masktool.runtime.session import MaskedSession

CORNERS = "corners"
"""Name of the input that says where windows start."""
Pair = tuple[int, int]


def as_pair(lengths: Size) -> Pair:
    """Returns (height, width); graphs of windows are written for images alone."""
    height, width = lengths
    return height, width


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows that a graph is made for.

    Attributes:
        size: (height, width) of the model's input in pixels.
        window: (height, width) of the windows in pixels.
        alignment: the greatest common divisor of the rows and of the columns at which windows start.
    """

    size: Pair
    window: Pair
    alignment: Pair


class BaseInput(NamedTuple):
    """What an input of the graph of patches holds: a value of the image with nothing missing.

    Attributes:
        source: the name of the value.
        as_rows: whether it comes as rows, one per place, with one place more on each side of the map.
        outside: the number on these places.
        channels_last: whether its channels lie on the last axis.
    """

    source: str
    as_rows: bool = False
    outside: float = 0.0
    channels_last: bool = False

    def prepare(self, value: NDArray[np.generic]) -> NDArray[np.generic]:
        """Returns the input's value from the value (1, ...) that it holds."""
        if not self.as_rows:
            return value
        places = value[0] if self.channels_last else value[0].transpose(1, 2, 0)
        height, width, channels = places.shape
        rows = np.full((height + 2, width + 2, channels), self.outside, value.dtype)
        rows[1:-1, 1:-1] = places
        return rows.reshape(-1, channels)


class IncrementalGraphs(NamedTuple):
    """The models that compute an output under windows.

    Attributes:
        base: the model that gives the base values of an image, from the image and a mask of ones.
        patches: the model that gives the output under windows, from where they start and the base values.
        inputs: what its inputs hold, by name.
        gain: how many times fewer operations it takes than the masked network, as estimated.
        saved: the multiplications of a convolution that each window saves, as estimated.
    """

    base: bytes
    patches: bytes
    inputs: Mapping[str, BaseInput]
    gain: float
    saved: int


class NotIncrementalError(Exception):
    """A file cannot be computed where windows change it alone, or nothing would be gained."""


WriteIncremental = Callable[[Path, str, str, Windows], IncrementalGraphs]
"""Makes the models: of the file's path, the names of its image input and of the output, and the windows."""


class WindowGraphs(NamedTuple):
    """Writers of models that run beside the session's own on the CPU.

    Attributes:
        write_incremental: the writer of the models that compute what windows change.
        least_saved: the least multiplications that all windows of a call save, from which the models are made.
        saved_per_byte: as many more for each byte of the file.
        least_bytes: the least product of the file's size in bytes and the number of windows, from which the file is
            looked at.
    """

    write_incremental: WriteIncremental
    least_saved: float = 3e10
    """About 0.6 s of one core, as it takes to make and open the models of a small network."""
    saved_per_byte: float = 400
    """About 8 ns: the weights are read, copied into the models, and brought into blocks."""
    least_bytes: float = 2e8
    """Of smaller networks or fewer windows, all passes take less than it takes to look at the file."""

    def is_worth(self, saved: float, size: int) -> bool:
        """Whether it is worth it to make the models of a file of a size in bytes, for what all windows save."""
        return saved >= self.least_saved + self.saved_per_byte * size


MOST_KEPT = 2
"""Kinds of windows whose models a session keeps open; each holds the network's weights once more."""
MOST_BYTES = 1_500_000_000
"""Largest file whose models are made in memory: a message of Protocol Buffers holds 2 GiB."""
GRID = 64
"""Places that the maps of common networks lie apart at most, in pixels: a larger alignment of windows gains nothing."""
ROUNDING = 1e-5
"""Of the output's largest value: what kernels for maps of another size leave in single precision."""


@dataclasses.dataclass
class KeptModels:
    """What a session keeps for one kind of windows.

    Attributes:
        windows: the windows.
        output: the name of the output.
        saved: the multiplications that each window saves.
        refusal: why the masked network has to run; None where it need not.
        inputs: what the inputs of the model of patches hold, by name.
        models: the models that give base values and patches; None until they are wanted.
        agree: whether they were found to agree with the masked network.
    """

    windows: Windows
    output: str
    saved: int = 0
    refusal: str | None = None
    inputs: Mapping[str, BaseInput] = dataclasses.field(default_factory=dict)
    models: tuple[ModelBeside, ModelBeside] | None = None
    agree: bool = False

    def serves(self, windows: Windows, output: str) -> bool:
        """Whether the models are those for an output under windows."""
        own = self.windows
        same = (own.size, own.window, self.output) == (windows.size, windows.window, output)
        return same and not any(to % by for to, by in zip(windows.alignment, own.alignment, strict=True))


Run = Callable[[NDArray[np.int64]], NDArray[np.floating[Any]]]
"""Returns the output (M, ...) under the windows that start at corners (M, 2)."""


@dataclasses.dataclass(frozen=True)
class IncrementalEvaluation:
    """Runs the model on one image under windows, where they change it alone; called as :class:`Evaluate` is.

    Where the file cannot be computed in that way, or nothing would be gained, and for other masks, the masked network
    runs. So it does where both differ by more than rounding, and the session notes that.

    Attributes:
        reading: what is read of the model.
        image: the image (1, ...), as the model takes it.
        targets: the targets.
        counting: function that starts to count up to a number of masks.
        graphs: writers of the models.
        in_memory: function that runs the masked network.
    """

    reading: Reading
    image: NDArray[Any]
    targets: Sequence[SettledTarget]
    counting: Counting
    graphs: WindowGraphs
    in_memory: Evaluate

    def __call__(self, batches: Iterable[Any], total: int, design: MaskDesign | None = None) -> Iterator[ScoredMasks]:
        """Yields each batch of windows with its scores."""
        if not isinstance(design, WindowDesign) or not self.is_worth_a_look(total):
            yield from self.in_memory(batches, total, design)
            return
        rows = list(batches)
        corners = [design.corners(each) for each in rows]
        run = self.choose(design, np.concatenate(corners))
        if run is None:
            yield from self.in_memory(rows, total, design)
            return
        with self.counting(total) as advance:
            for each, places in zip(rows, corners, strict=True):
                found = self.reading.answer({self.reading.names[0]: run(places)})
                yield ScoredMasks(MasksOfRows(design, each), check_finite(measure(self.targets, found)))
                advance(len(places))

    def is_worth_a_look(self, total: int) -> bool:
        """Whether the file may be computed where windows change it alone, and is large enough for that."""
        session = self.reading.session
        if session.providers[0] != CPU.runtime_name or session.metadata.one_by_one or session.other_inputs:
            return False
        if len(self.reading.names) > 1:
            return False
        return self.graphs.least_bytes <= total * bytes_of(session) and bytes_of(session) <= MOST_BYTES

    def choose(self, design: WindowDesign, corners: NDArray[np.int64]) -> Run | None:
        """Returns what gives the output under windows; None where the masked network has to run.

        Args:
            design: the windows.
            corners: where all of them start, (n, 2).
        """
        session, output = self.reading.session, self.reading.names[0]
        rows, columns = corners.T.tolist()
        windows = Windows(
            as_pair(design.size), as_pair(design.window), (math.gcd(GRID, *rows), math.gcd(GRID, *columns))
        )
        kept = keep_models(session, windows, output, self.graphs, len(corners))
        models = kept.models  # another thread may give them up
        if models is None:
            return None
        base, patches = models
        image = session.metadata.image_input
        known = {image: self.image, MASK_INPUT: np.ones((1, 1, *design.size), session.mask_type)}
        values = known | base.run(known)
        feed = {name: each.prepare(values[each.source]) for name, each in kept.inputs.items()}

        def run(places: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
            return patches.run(feed | {CORNERS: places}, len(places))[output]

        few = corners[[0, len(corners) // 2]]
        if not kept.agree and not contextvars.Context().run(self.agrees, design, few, run):  # is nobody's cost
            kept.models, kept.refusal = None, session.window_note
            return None
        kept.agree = True
        return run

    def agrees(self, design: WindowDesign, corners: NDArray[np.int64], run: Run) -> bool:
        """Whether the masked network gives the same output up to rounding; otherwise the session notes that."""
        session, output = self.reading.session, self.reading.names[0]
        (expected,) = session.run(self.image, design.expand_corners(corners), outputs=[output]).values()
        found = run(corners)
        furthest, largest = largest_gap(found, expected), float(np.abs(expected[np.isfinite(expected)]).max(initial=0))
        if furthest <= ROUNDING * largest:
            return True
        session.window_note = (
            f"what windows change was not computed alone: it differed from the masked network by {furthest:.2g} of "
            f"{largest:.2g}"
        )
        return False


def largest_gap(found: NDArray[np.floating[Any]], expected: NDArray[np.floating[Any]]) -> float:
    """Returns the largest difference between two arrays; what is no number in one has to be the same in the other."""
    if found.shape != expected.shape:
        return math.inf
    finite = np.isfinite(found) & np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=True):
        return math.inf
    return float(np.abs(found[finite] - expected[finite]).max(initial=0))


def keep_models(session: MaskedSession, windows: Windows, output: str, graphs: WindowGraphs, total: int) -> KeptModels:
    """Returns what a session keeps for a kind of windows; the models are opened where that saves enough.

    Args:
        session: the session.
        windows: the windows.
        output: the name of the output.
        graphs: writers of the models.
        total: the number of windows.
    """
    with session.guard:
        session.runtime_session()  # beside a closed one nothing is opened
        return find_models(session, windows, output, graphs, total)


def find_models(session: MaskedSession, windows: Windows, output: str, graphs: WindowGraphs, total: int) -> KeptModels:
    """Does what :func:`keep_models` does, for one thread at a time."""
    held: list[KeptModels] = session.beside.setdefault(KeptModels.__name__, [])
    kept = next((each for each in held if each.serves(windows, output)), None)
    if kept is None:
        kept = KeptModels(windows, output)
        held[:] = [kept, *held][:MOST_KEPT]
    elif kept.refusal or kept.models or not graphs.is_worth(kept.saved * total, bytes_of(session)):
        return kept
    try:
        written = graphs.write_incremental(session.path, session.metadata.image_input, output, kept.windows)
        kept.saved, kept.inputs = written.saved, written.inputs
        if graphs.is_worth(kept.saved * total, bytes_of(session)):
            kept.models = ModelBeside(session, written.base), ModelBeside(session, written.patches)
    except (NotIncrementalError, MasktoolError) as error:
        kept.refusal = str(error)
    return kept


def bytes_of(session: MaskedSession) -> int:
    """Returns the size of a session's file, weights beside it included."""
    return count_file_bytes(session.path)
