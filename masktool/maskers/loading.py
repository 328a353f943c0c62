"""Batches to train on, which depend on the seed and the step alone: not on the workers, nor on where a run began.

An epoch's order is drawn from (seed, epoch), an image's crop and mirroring from (seed, epoch, number of the image).
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import math
import os
import shutil
import signal
import sys
import weakref
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from masktool.contract import Preprocessing
from masktool.datasets.examples import Example
from masktool.errors import MasktoolError
from masktool.runtime.images import read_image
from masktool.runtime.preprocessing import prepare

ORDER_STREAM, IMAGE_STREAM = 2, 3
"""Streams of random numbers for orders and for crops, apart from each other and from other draws of the same seed."""
RATIO_RANGE = (3 / 4, 4 / 3)
"""Least and greatest width over height of a random crop."""
CROP_TRIES = 10
LEFT_TO_PARENT = (signal.SIGINT, signal.SIGTERM)
"""Signals that the parent process handles at the end of its step; its workers ignore them meanwhile."""
PREFETCHED = 2
"""Number of batches that each worker reads ahead (torch's own default)."""
SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps it; others set no such limit
SHARED_MEMORY_MARGIN = 2
"""Times that the batches on their way must fit into shared memory, which other processes may use too."""

Key = tuple[int, list[int]]
"""The epoch of a batch, and the numbers of its examples."""
Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]


class Batch(NamedTuple):
    """A batch of images as the classifier takes them.

    Attributes:
        images: images (B, C, H, W) float32, normalised.
        labels: indices of the images' classes, (B,) int64.
    """

    images: torch.Tensor
    labels: torch.Tensor


def steps_per_epoch(n: int, batch: int) -> int:
    """Returns the number of batches that ``n`` images fill; a single image left over joins the batch before.

    Batch normalisation needs more than one image in a batch.
    """
    return math.ceil(n / batch) - int(n > batch > 1 and n % batch == 1)


def load_batches(
    examples: Sequence[Example],
    preprocessing: Preprocessing,
    *,
    seed: int,
    batch: int,
    min_crop: float,
    flip: bool,
    workers: int,
    first_step: int,
    last_step: int,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Reads the batches of a range of steps, counted over the whole run.

    Args:
        examples: all images and their classes, in the order that the whole run keeps.
        preprocessing: preprocessing of the classifier; batches are NCHW whatever its layout.
        seed: seed of orders, crops and mirroring.
        batch: number of images per step.
        min_crop: least share of an image's area that a random crop keeps; 1 takes the preprocessing's own crop.
        flip: whether images are mirrored at random.
        workers: number of processes that read ahead; 0 reads in this process.
        first_step: number of the first step.
        last_step: number of the step after the last.
        pin_memory: whether batches are put where a GPU copies from fastest.

    Returns:
        An iterator of one batch per step; closing it, or letting go of it, ends the workers.

    Raises:
        MasktoolError: during iteration: an image cannot be read, or the preprocessing does not fit it.
    """
    channels, (height, width) = len(preprocessing.mean), preprocessing.size
    on_the_way = batch * channels * height * width * 4 * (workers * PREFETCHED + 1)  # 4 bytes a number
    loader = DataLoader(
        AugmentedImages(tuple(examples), dataclasses.replace(preprocessing, layout="NCHW"), seed, min_crop, flip),
        batch_size=None,
        sampler=list_keys(len(examples), batch, seed, first_step, last_step),
        num_workers=workers,
        prefetch_factor=PREFETCHED if workers else None,
        collate_fn=None if fits_shared_memory(on_the_way) else keep_arrays,
        worker_init_fn=leave_signals_to_parent,
        generator=torch.Generator(),  # without one of its own it draws from torch's, which others seed
        pin_memory=pin_memory,
    )
    return close_at_exit(unpack(loader))


def unpack(loader: Iterable[Any]) -> Generator[Batch, None, None]:
    """Yields the batches that workers hand over, and raises the errors that they hand over."""
    with signals_held():
        iterator = iter(loader)
    for loaded in iterator:
        if isinstance(loaded, MasktoolError):
            raise loaded
        images, labels = loaded
        yield Batch(torch.as_tensor(images), torch.as_tensor(labels))


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Holds signals back until the block ends; workers started in the block hold them until their handlers are set."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def close_at_exit(batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
    """Returns the batches, to be closed at the program's end, which waits for ever for workers that survive SIGTERM."""
    reference = weakref.ref(batches)

    def close() -> None:
        if (left := reference()) is not None:
            left.close()

    atexit.register(close)
    return batches


def list_keys(n: int, batch: int, seed: int, first_step: int, last_step: int) -> Iterator[Key]:
    """Yields the keys of a range of steps, each epoch's examples in an order of its own."""
    steps = steps_per_epoch(n, batch)
    for epoch in range(first_step // steps, math.ceil(last_step / steps)):
        order = np.random.default_rng((ORDER_STREAM, seed, epoch)).permutation(n)
        start = epoch * steps
        for i in range(max(first_step - start, 0), min(last_step - start, steps)):
            yield epoch, order[i * batch : n if i == steps - 1 else (i + 1) * batch].tolist()


@dataclasses.dataclass(frozen=True)
class AugmentedImages:
    """The data set that torch's workers read batches from."""

    examples: tuple[Example, ...]
    preprocessing: Preprocessing
    seed: int
    min_crop: float
    flip: bool

    def __getitem__(self, key: Key) -> Arrays | MasktoolError:
        """Returns the images and labels of a batch, or the error of an image that cannot be used.

        An error is handed over as a value: raised in a worker, it would reach the caller as a traceback.
        """
        epoch, numbers = key
        try:
            images = np.stack([self.draw(epoch, number) for number in numbers])
        except MasktoolError as error:
            return error
        return images, np.array([self.examples[number].label for number in numbers], dtype=np.int64)

    def draw(self, epoch: int, number: int) -> NDArray[np.float32]:
        """Returns one image (C, H, W), cropped and mirrored as drawn for an epoch."""
        rng = np.random.default_rng((IMAGE_STREAM, self.seed, epoch, number))
        return augment(
            read_image(self.examples[number].path), self.preprocessing, rng, min_crop=self.min_crop, flip=self.flip
        )


def augment(
    image: Image.Image, preprocessing: Preprocessing, rng: np.random.Generator, *, min_crop: float, flip: bool
) -> NDArray[np.float32]:
    """Returns the model's input, made from an image that is cropped and mirrored at random.

    Args:
        image: image, as :func:`masktool.runtime.read_image` gives it.
        preprocessing: preprocessing of the classifier, with the layout NCHW.
        rng: random numbers for the draws.
        min_crop: least share of the image's area that is kept; 1 leaves the crop to the preprocessing.
        flip: whether to mirror the image with probability 1/2.

    Returns:
        The model's input (C, H, W).
    """
    mirrored = flip and rng.random() < 0.5
    if min_crop < 1:
        image = image.crop(choose_crop(image.size, min_crop, rng))
        preprocessing = dataclasses.replace(preprocessing, resize="exact")
    array = prepare(image, preprocessing).array[0]
    return array[:, :, ::-1] if mirrored else array


def choose_crop(size: tuple[int, int], min_area: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draws a rectangle of random area and aspect ratio, anywhere in an image.

    Where ten rectangles in turn do not fit into the image, the largest of an allowed ratio in the middle is taken.

    Args:
        size: (width, height) of the image in pixels.
        min_area: least share of the image's area.
        rng: random numbers for the draws.

    Returns:
        (left, top, right, bottom), in whole pixels.

    Source:
        Szegedy et al., "Going Deeper with Convolutions", 2014, section 6, https://arxiv.org/abs/1409.4842; ten tries
        and the middle are torchvision's.
    """
    width, height = size
    for _ in range(CROP_TRIES):
        area = width * height * rng.uniform(min_area, 1)
        ratio = math.exp(rng.uniform(*np.log(RATIO_RANGE)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers((width - w, height - h), endpoint=True).tolist()
            return left, top, left + w, top + h
    w = min(width, round(height * RATIO_RANGE[1]))
    h = min(height, round(width / RATIO_RANGE[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def leave_signals_to_parent(worker: int) -> None:  # noqa: ARG001  # which of them it is does not matter
    """Makes a worker ignore SIGINT and the first SIGTERM, so that it lives while its parent ends a step.

    A terminal sends Ctrl-C, and a batch system SIGTERM, to every process of the group. A second SIGTERM is the
    parent's, which has waited long enough for its workers to end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, outlive_once)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_PARENT)


def outlive_once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # the signature of a handler
    """Ignores a signal; the next one ends the process."""
    signal.signal(number, lambda *_: os._exit(0))


def fits_shared_memory(n_bytes: int) -> bool:
    """Tells whether workers may hand over batches in shared memory.

    Containers often have 64 MB of it. Where it is full, torch's workers lose the batch and the parent waits for ever;
    batches then go through pipes, which is slower.
    """
    return not SHARED_MEMORY.is_dir() or shutil.disk_usage(SHARED_MEMORY).free >= SHARED_MEMORY_MARGIN * n_bytes


def keep_arrays(loaded: Arrays | MasktoolError) -> Arrays | MasktoolError:
    """Returns arrays unchanged: a collate function in place of torch's, which makes tensors in shared memory."""
    return loaded
