"""What a model says of photographs behind random masks: what a correction of its scores is fitted to.

Every mask removes whole cells of a grid, chosen at random. The sides of the cells go round, and so do the fractions
that are removed: from 1 of N of the cells to all of them in N equal steps, N being the number of masks. With all
removed, every image tells what the model says of nothing at all.
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from masktool.calibration.fitting import ScoresBehindMasks
from masktool.contract import Size
from masktool.correction import Space, to_space
from masktool.errors import MasktoolError
from masktool.evaluation.removal import cut_cells, masks_without, remove_fractions
from masktool.explainers.mask_design import Masks
from masktool.explainers.reading import check_finite
from masktool.explainers.subject import ImageLike, make_subject, read_subject
from masktool.progress import Progress
from masktool.runtime.scores import drop_trailing_axes
from masktool.runtime.session import MaskedSession

CELLS_PER_SIDE = (16, 8, 4)
"""Cells along the shorter side of the image, from small cells to large ones: of 14, 28 and 56 of 224 pixels."""


@dataclasses.dataclass(frozen=True)
class RandomCells:
    """A design of random masks.

    Attributes:
        n_masks: number of masks of each image.
        sides: sides of the cells in pixels of the model's input; empty for some of the image's shorter side.
        seed: seed of the cells that go.
    """

    n_masks: int
    sides: tuple[int, ...]
    seed: int

    def sides_for(self, size: Size) -> tuple[int, ...]:
        """Returns the sides of the cells for images of a size, (height, width), each once."""
        usual = (max(1, min(size) // count) for count in CELLS_PER_SIDE)
        return tuple(dict.fromkeys(self.sides or usual))

    def draw(self, size: Size, name: str, batch: int) -> Iterator[Masks]:
        """Yields the masks of an image, a batch at a time.

        Args:
            size: (height, width) of the model's input.
            name: name of the image: each image has masks of its own, whatever was drawn before.
            batch: number of masks in a batch.
        """
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        sides = self.sides_for(size)
        masks = []
        for number in range(self.n_masks):
            cells = cut_cells((size[0], size[1]), sides[number % len(sides)])
            removed = remove_fractions(rng.permutation(int(cells.max()) + 1), [(number + 1) / self.n_masks])
            masks += list(masks_without(removed, cells, 1))
        for start in range(0, self.n_masks, batch):
            yield np.concatenate(masks[start : start + batch])


def score_images(
    session: MaskedSession,
    images: Sequence[ImageLike],
    design: RandomCells,
    space: Space,
    batch: int | None,
    progress: Progress,
) -> tuple[ScoresBehindMasks, tuple[str, ...]]:
    """Returns the scores of images with nothing missing and behind random masks.

    Args:
        session: the session of the model, with a class output of known kind.
        images: images or their paths.
        design: the design of the masks.
        space: what the scores are to be.
        batch: number of masks in a pass; None takes the session's own.
        progress: function that shows progress, by images.

    Returns:
        The scores, and which images were left out and why, one sentence each.

    Raises:
        MasktoolError: none of the images can be used.
    """
    kind = session.metadata.output_kind
    assert kind is not None  # as the caller has settled
    whole, masked, left_out = [], [], []
    with progress("scoring images behind masks", len(images)) as advance:
        for number, image in enumerate(images):
            name = name_image(image, number)
            try:
                scores = score_image(session, image, name, design, batch)
            except MasktoolError as error:
                left_out.append(f"left out: {name}: {error.message}")
            else:
                values = to_space(scores, kind, space)
                whole.append(values[0])
                masked.append(values[1:])
            advance(1)
    if not whole:
        raise MasktoolError("none of the images can be used", where=f"{len(images)} images", got=left_out[0])
    return ScoresBehindMasks(np.array(whole), np.array(masked), space), tuple(left_out)


def score_image(
    session: MaskedSession, image: ImageLike, name: str, design: RandomCells, batch: int | None
) -> np.ndarray:
    """Returns the class output (1 + M, K) of an image with nothing missing and behind its masks.

    Raises:
        MasktoolError: the image cannot be read or prepared, or the model gives NaN or infinity for it.
    """
    prepared = make_subject(read_subject(image), session).prepared
    output = str(session.metadata.class_output)
    ones = np.ones((1, 1, *prepared.size), np.float32)
    batches = [ones, *design.draw(prepared.size, name, session.batch_size(batch))]
    found = session.masked_scores(prepared.array, batches, output=output)
    return check_finite(np.concatenate([drop_trailing_axes(scores) for scores in found]))


def name_image(image: ImageLike, number: int) -> str:
    """Returns the name of an image: of a file without its directory, else its number."""
    return f"image {number}" if not isinstance(image, str | os.PathLike) else Path(image).name
