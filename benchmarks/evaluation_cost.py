"""What insertion and deletion cost beyond the forward passes they need: the metric against the bare session.

Both sides answer for the same masks in the same batches, in turn. The bare side is given its masks ready made; the
metric ranks the pixels, builds the masks as they are needed, and sums up. With 60 steps one image needs 2 · 59 passes,
and two more for the whole image and for nothing.

python -m benchmarks.evaluation_cost [--model MODEL.onnx]
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import compare
from masktool import load
from masktool.demo import model_path
from masktool.evaluation.maps import Map
from masktool.evaluation.metrics.faithfulness.insertion_deletion import InsertionDeletion
from masktool.evaluation.metrics.faithfulness.trial import Trial
from masktool.runtime.session import MaskedSession

LIMIT = 1.3
"""Of the ratio, as the project promises."""


def make_trial(session: MaskedSession, size: tuple[int, int]) -> Trial:
    """Returns a trial with a random image and one random map."""
    random = np.random.default_rng(0)
    shape = (1, 3, *size) if session.layout == "NCHW" else (1, *size, 3)

    def never(name: str, seed: int) -> Map:
        raise AssertionError(f"{name} was drawn again with seed {seed}")

    return Trial(
        name="benchmark",
        image=random.standard_normal(shape).astype(np.float32),
        layout=session.layout,
        maps={"random": random.random(size)},
        redraw=never,
        target=0,
        answer=session.scores,
        masking=session.metadata.masking,
        batch=session.batch_size(),
        seed=0,
    )


def collect_masks(metric: InsertionDeletion, trial: Trial) -> list[NDArray[np.float32] | None]:
    """Returns the batches of masks that the metric asks about; None stands for the whole image."""
    asked: list[NDArray[np.float32] | None] = []

    def answer(image: NDArray[np.float32], masks: NDArray[np.float32] | None) -> NDArray[np.float32]:
        asked.append(masks)
        return np.zeros((len(image if masks is None else masks), 1), np.float32)

    metric.measure(dataclasses.replace(trial, answer=answer))
    return asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=model_path(), help="what masktool export wrote")
    parser.add_argument("--size", type=int, nargs=2, help="height and width, where the model leaves them open")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()

    metric = InsertionDeletion(options.steps)
    with load(options.model, "cpu", threads=options.threads) as session:
        height, width = (own or given for own, given in zip(session.spatial_shape, options.size or (0, 0), strict=True))
        size = (height, width)
        batches = collect_masks(metric, make_trial(session, size))
        passes = sum(1 if masks is None else len(masks) for masks in batches)
        image = make_trial(session, size).image
        print(f"{options.model}, {height} x {width}, {passes} passes in batches of {session.batch_size()}")

        def bare() -> None:
            for masks in batches:
                session.scores(image, masks)

        def measure() -> None:
            metric.measure(make_trial(session, size))  # a new one, which knows no score yet

        ratio = compare("passes", bare, "metric", measure, options.repeats)
    print(f"limit {LIMIT}: {'kept' if ratio <= LIMIT else 'BROKEN'}")


if __name__ == "__main__":
    main()
