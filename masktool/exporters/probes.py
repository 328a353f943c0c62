"""What a masked model is measured with: random images, masks, and values for its other inputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from masktool.contract import MASK_INPUT, Layout, Preprocessing, Size
from masktool.errors import MasktoolError
from masktool.exporters.domains import Domain
from masktool.layouts import CHANNEL_AXIS, FROM_CHANNELS_FIRST, SPATIAL_AXES, USUAL_SIZES, show_size
from masktool.messages import Placeholder, parameter
from masktool.tensor_types import numpy_type

BATCH_SIZES = (1, 3, 8)
LARGE_IMAGES: Mapping[int, int] = {10_000_000: 2, 2_000_000: 3}
"""How many images are drawn where one holds more numbers than that: several copies of all of them, and of what the
network makes of them, are in memory at once. 2 million are 800 x 800 pixels of three channels."""
LARGE_TENSORS: Mapping[int, int] = {50_000_000: 2, 16_000_000: 3}
"""The same by the largest tensor that the network computes of one image: some ten as large are in memory at once."""
GRIDS: Mapping[int, int] = {1: 49, 2: 7, 3: 7}
"""Masks hide cells of a 7 x 7 grid, of a line of 49 or a cube of 7, by the number of axes of places: large enough that
something is missing from every window and every layer."""
SECOND_SIZE_STEPS: Mapping[int, Size] = {1: (64,), 2: (32, 64), 3: (8, 32, 64)}
"""What is added to an open height and width, or what the axes are, for the second measurement: 32 is the stride of most
networks of images."""
OTHER_SIZES: Sequence[Size] = (
    *((side, side) for side in (32, 28, 64, 96, 112, 128, 256, 299, 320, 384, 416, 512, 640)),
    *((height, 320) for height in (32, 48, 64, 80)),
)
"""Tried in this order where the source does not run at the usual size: usual sides of photographs, then usual heights
of lines of text and spectrograms."""
OTHER_LENGTHS: Sequence[Size] = tuple((length,) for length in (128, 512, 4096, 187, 250, 1000, 5000, 16000, 64, 32))
"""The same of signals: powers of two, heartbeats, a second or ten of a usual sampling rate."""
OTHER_VOLUMES: Sequence[Size] = (
    *((side, side, side) for side in (32, 64, 96, 128)),
    *((frames, side, side) for frames, side in ((8, 112), (16, 224), (32, 224))),
)
"""The same of volumes and videos: usual patches of scans, usual frames."""
SIZES_TO_TRY: Mapping[int, Sequence[Size]] = {1: OTHER_LENGTHS, 2: OTHER_SIZES, 3: OTHER_VOLUMES}
"""Sizes by their number of axes."""
LARGEST_TRIED = 10_000_000
"""Most numbers in an image of a size that is only tried: a network of 5,000 channels that runs at no size took minutes,
and one of three channels has an eighth of that at the largest size."""
TEXTS = "tensor(string)"
"""What ONNX Runtime calls an input of texts."""
POISON = (np.nan, np.inf, -np.inf, 1e30)
"""What stands under the mask when nothing there may matter; 1e30 is infinite in float16."""
Shape = Sequence[int | str | None]


@dataclasses.dataclass(frozen=True)
class DrawnValue:
    """A value for an input that is neither the image nor the mask.

    Attributes:
        value: the array that is fed for one image.
        per_image: whether the array's first axis is the images' batch, so that its one row is repeated for each image.
    """

    value: np.ndarray
    per_image: bool

    @classmethod
    def draw(cls, shape: Shape, dtype: np.dtype[Any], batch: object) -> DrawnValue:
        """Draws numbers in 0..1, or zeros for integers and booleans.

        Args:
            shape: the shape of the input, open axes as names or None, which take length 1.
            dtype: the element type of the input.
            batch: length or name of the image input's batch axis.
        """
        per_image = bool(shape) and shape[0] == batch != 1
        sides = [side if isinstance(side, int) else 1 for side in (shape[1:] if per_image else shape)]
        drawn = np.random.default_rng(0).random(sides) if dtype.kind == "f" else np.zeros(sides)
        value = np.asarray(drawn).astype(dtype)
        return cls(value[None] if per_image else value, per_image)

    def repeat(self, count: int) -> np.ndarray:
        """Returns the value for a number of images."""
        return np.repeat(self.value, count, axis=0) if self.per_image else self.value


def feed_of(others: Mapping[str, DrawnValue], count: int) -> dict[str, np.ndarray]:
    """Returns the values of the other inputs, by name, for a number of images."""
    return {name: other.repeat(count) for name, other in others.items()}


def others_of_session(session: onnxruntime.InferenceSession, image_input: str, batch: object) -> dict[str, DrawnValue]:
    """Draws a value for every input of a session that is neither the image nor the mask.

    Args:
        session: the session of a plain or a masked model.
        image_input: name of the image input.
        batch: length or name of the axis along which values are repeated for every image.

    Raises:
        MasktoolError: an input is no numeric tensor.
    """
    nodes = [node for node in session.get_inputs() if node.name not in (image_input, MASK_INPUT)]
    return {node.name: DrawnValue.draw(node.shape, type_of(node), batch) for node in nodes}


def others_of_graph(values: Iterable[ir.Value], batch: object) -> dict[str, DrawnValue]:
    """Draws a value for every one of a graph's inputs.

    Args:
        values: the inputs.
        batch: length or name of the axis along which values are repeated for every image.
    """
    found = {}
    for value in values:
        if value.dtype is None or value.shape is None:
            raise MasktoolError("an input that is no tensor of known shape", where=f"input {value.name!r}")
        sides = [side if isinstance(side, int) else side.value for side in value.shape]
        assert value.name is not None
        found[value.name] = DrawnValue.draw(sides, value.dtype.numpy(), batch)
    return found


def type_of(node: Any) -> np.dtype[Any]:
    """Returns the element type of one of a session's inputs.

    Raises:
        MasktoolError: the input is neither a tensor of numbers nor of texts.
    """
    return np.dtype(object) if node.type == TEXTS else numpy_type(node)


@dataclasses.dataclass(frozen=True)
class Probe:
    """Random images, and masks in which half of the places, block by block, are missing."""

    images: np.ndarray
    masks: np.ndarray

    @classmethod
    def draw(
        cls,
        shape: tuple[int, ...],
        layout: Layout,
        dtype: Any,
        domain: Domain,
        seed: int = 0,
        computed: int = 0,
        most: int | None = None,
    ) -> Probe:
        """Draws as many images and masks as the largest batch that is measured; of large images fewer.

        Args:
            shape: the channels and the lengths of the axes of places: (channels, height, width).
            layout: the layout of the images.
            dtype: the element type of the images.
            domain: the range of numbers that the images are drawn from.
            seed: the seed of the random numbers.
            computed: the number of numbers in the largest tensor that the network is known to compute of one image.
            most: the largest number of images; None for as many as are measured.
        """
        rng = np.random.default_rng(seed)
        sides = shape[1:]
        count = min(count_images(math.prod(shape), LARGE_IMAGES), count_images(computed, LARGE_TENSORS))
        count = count if most is None else min(count, most)
        images = domain.draw(rng, (count, *shape), np.dtype(dtype))
        cells = GRIDS[len(sides)]
        masks = rng.random((count, 1, *[cells] * len(sides))) < 0.5
        for axis, side in enumerate(sides, start=2):
            masks = np.take(masks, np.arange(side) * cells // side, axis)
        return cls(images.transpose(FROM_CHANNELS_FIRST[layout]), masks.astype(np.float32))

    def first(self, count: int) -> Probe:
        """Returns a probe of the first ``count`` images and masks."""
        return Probe(self.images[:count], self.masks[:count])

    @property
    def size(self) -> str:
        """Height and width, or whatever the axes of places are, for messages."""
        return show_size(self.masks.shape[2:])

    def poisoned(self) -> np.ndarray:
        """Returns the images with NaN, infinities and huge numbers, or extreme integers, wherever the masks are 0."""
        channels_last = self.images.shape[2:] != self.masks.shape[2:]
        missing = (np.moveaxis(self.masks, 1, -1) if channels_last else self.masks) == 0
        return np.where(missing, np.resize(poison_of(self.images.dtype), self.images.shape), self.images)


def poison_of(dtype: np.dtype[Any]) -> np.ndarray:
    """Returns numbers of an element type that spoil every result computed from them."""
    if dtype.kind in "iu":
        return np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    with np.errstate(over="ignore"):  # 1e30 becomes infinite in float16, which is as good
        return np.array(POISON).astype(dtype)


def count_images(numbers: int, fewer: Mapping[int, int]) -> int:
    """Returns how many images are drawn where each of them takes ``numbers`` numbers of memory."""
    return next((count for beyond, count in fewer.items() if numbers > beyond), max(BATCH_SIZES))


def sides_of(shape: Shape, layout: Layout) -> tuple[int, list[int | str | None]]:
    """Returns the channels of an image input, and the lengths of its axes of places, open ones as names or None.

    Args:
        shape: the shape of the input.
        layout: the layout of the input.

    Raises:
        MasktoolError: the number of channels is open.
    """
    channels = shape[CHANNEL_AXIS[layout]]
    if not isinstance(channels, int):
        raise MasktoolError(
            "the number of input channels is not fixed",
            got=tuple(shape),
            fix="add " + parameter("channels", Placeholder("C")),
        )
    return channels, [shape[axis] for axis in SPATIAL_AXES[layout]]


def settle_size(sides: Sequence[int | str | None], wanted: Sequence[int]) -> Size:
    """Returns a height and width, or what the axes are: fixed ones as they are, open ones as ``wanted`` has them."""
    return tuple(side if isinstance(side, int) else own for side, own in zip(sides, wanted, strict=True))


def usual_size(sides: Sequence[int | str | None], preprocessing: Preprocessing | None) -> Size:
    """Returns the size that is tried first: the graph's, else the preprocessing's, else the usual one."""
    return settle_size(sides, USUAL_SIZES[len(sides)] if preprocessing is None else preprocessing.size)


def choose_sizes(
    channels: int, sides: Sequence[int | str | None], preprocessing: Preprocessing | None, runs: Callable[[Size], bool]
) -> list[Size]:
    """Returns the sizes to measure at: a fixed height and width, else two sizes at which the source runs.

    A network whose declared size is open need not take every one: one that reads lines of text takes one height. Where
    it does not run at the usual size, others are tried; where it runs at none, the usual one is to say why.

    Args:
        channels: the number of channels of the image input.
        sides: height and width of the image input, open ones as names or None.
        preprocessing: the preprocessing whose size goes first where the graph leaves it open; None where unknown.
        runs: the function that tells whether the source runs on an image of a size.
    """
    usual = usual_size(sides, preprocessing)
    if all(isinstance(side, int) for side in sides):
        return [usual]
    others = dict.fromkeys(settle_size(sides, size) for size in SIZES_TO_TRY[len(sides)])
    small = [size for size in others if channels * math.prod(size) <= LARGEST_TRIED]
    first = next(filter(runs, [usual, *small]), usual)
    larger = settle_size(sides, [side + step for side, step in zip(first, SECOND_SIZE_STEPS[len(sides)], strict=True)])
    return [first, larger] if runs(larger) else [first]
