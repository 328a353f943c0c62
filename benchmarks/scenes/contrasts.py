"""Does a map of A against B lie on what tells A from B? On pairs of pictures that differ in one part.

    python -m benchmarks.scenes.contrasts DIR --network coloured --pairs 60

DIR holds what :mod:`benchmarks.scenes.training` wrote. A figure is a body with a top on it, and every top comes with
every body, so that the network has to know both. A pair is one figure twice, but for the outline of its top: A and B
share the body. Where the network knows both pictures, that of A is explained as A, and as A against B. The differing
part is where either has its top; the share of the map's positive part on it is what counts. Of ``figures`` outlines
tell the parts, and what is beside an outline is as much of it as what is within; of ``coloured`` figures colours do.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import masktool
from benchmarks.scenes.drawing import FIGURES, TOPS, Figure, draw_pair
from benchmarks.scenes.records import show
from masktool.evaluation.bootstrap import interval_of_mean
from masktool.evaluation.metrics.localisation.energy import energy_inside
from masktool.explainers.explanation import Explanation
from masktool.runtime.preprocessing import prepare
from masktool.runtime.session import MaskedSession

SEED = 6_000_000
BUDGET = 250
METHODS: Mapping[str, Mapping[str, Any]] = {"lime": {}, "occlusion": {}, "kernel-shap": {}, "rise": {}, "hsic": {}}
"""Methods with the options that are not theirs by default."""
WANTED = 0.7


class Pair(NamedTuple):
    """A figure, another of the same body, and the pixels of either top: elsewhere their pictures are the same."""

    figure: Figure
    other: Figure
    differing: NDArray[np.bool_]


def draw_pairs(seed: int, count: int, coloured: bool) -> Iterator[Pair]:
    """Yields pairs of all classes, the other top by chance."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        label = index % len(FIGURES)
        body, top = divmod(label, len(TOPS))
        other = body * len(TOPS) + (top + int(rng.integers(1, len(TOPS)))) % len(TOPS)
        figure, twin = draw_pair(rng, label, other, coloured)
        yield Pair(figure, twin, figure.top | twin.top)


def is_known(session: MaskedSession, pair: Pair) -> bool:
    """Tells whether the network gives both pictures their class."""
    return all(
        session.scores(prepare(Image.fromarray(each.image), session.metadata.preprocessing).array)[0].argmax()
        == each.label
        for each in (pair.figure, pair.other)
    )


def measure(session: MaskedSession, pairs: Sequence[Pair], method: str) -> Iterator[tuple[dict[str, float], int]]:
    """Yields what lies on the differing part and on the top alone, of the contrast and of A alone, and the passes."""
    for pair in pairs:
        asked = (pair.figure.label, masktool.Contrast(pair.figure.label, pair.other.label))
        found = masktool.explain_targets(session, pair.figure.image, asked, method, budget=BUDGET, **METHODS[method])
        where = {"part": pair.differing, "top": pair.figure.top, "body": pair.figure.body}
        shares = {
            f"{name} {part}": weigh(each, inside)
            for name, each in zip(("alone", "contrast"), found, strict=True)
            for part, inside in where.items()
        }
        yield shares, found[0].forward_passes


def weigh(found: Explanation, inside: NDArray[np.bool_]) -> float:
    """Returns the share of a map's positive part inside a part of the picture; NaN where it has none."""
    share = energy_inside(found.attributions.astype(np.float64), inside, found.signed)
    return float("nan") if share is None else share


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--network", choices=("coloured", "figures"), default="coloured", help="of what colour or outline tells"
    )
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--method", choices=METHODS, action="append", help="may be repeated  [default: all]")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with masktool.load(options.folder / f"{options.network}.masked.onnx", "cpu", threads=options.threads) as session:
        drawn = list(draw_pairs(SEED, options.pairs, options.network == "coloured"))
        pairs = [pair for pair in drawn if is_known(session, pair)]
        print(f"{len(pairs)} of {len(drawn)} pairs are known")
        columns = ("contrast part", "alone part", "contrast top", "alone top", "contrast body", "alone body")
        print(f"| method | passes | {' | '.join(columns)} | 70 % on the part |\n|{'---|' * (len(columns) + 3)}")
        for method in options.method or METHODS:
            shares, passes = zip(*measure(session, pairs, method), strict=True)
            figures = [show(interval_of_mean([each[name] for each in shares])) for name in columns]
            reached = show(interval_of_mean([float(each["contrast part"] >= WANTED) for each in shares]))
            print(f"| {method} | {max(passes)} | {' | '.join(figures)} | {reached} |", flush=True)


if __name__ == "__main__":
    main()
