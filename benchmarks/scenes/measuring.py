"""Do maps of one object of a scene stay with that object? And do few passes give what D-RISE does in 5,000?

    python -m benchmarks.scenes.measuring DIR --network segmenter --pictures 60 --oracle 6

DIR holds what :mod:`benchmarks.scenes.training` wrote. Each object that the network finds is explained within 250
passes, which the objects of a picture share. With ``--oracle`` the first pictures are explained by D-RISE too, twice:
how well it agrees with itself is the most that can be asked of any other map. Scenes are drawn afresh.
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
from benchmarks.scenes.drawing import OBJECTS, Scene, draw_scenes
from benchmarks.scenes.records import OBJECT_HEAD, ObjectRecord, describe_objects, record_object, show
from masktool.evaluation.bootstrap import interval_of_mean
from masktool.evaluation.metrics.localisation.boxes import best_iou, box_of
from masktool.explainers.explanation import Explanation
from masktool.explainers.target import Target
from masktool.explainers.targets.detection import LEAST_SCORE
from masktool.runtime.preprocessing import prepare as prepare_photograph
from masktool.runtime.session import MaskedSession

SEED = 5_000_000
BUDGET = 250
METHODS: Mapping[str, Mapping[str, Any]] = {
    "lime": {},
    "occlusion": {},
    "kernel-shap": {},
    "rise": {},
    "hsic": {},
}
"""Methods with the options that are not theirs by default."""
OF_GRADIENTS = (
    "grad-cam",
    "layercam",
    "integrated-gradients",
    "input-x-gradient",
    "smoothgrad",
    "neuromask",
    "extremal",
)
"""Methods that need gradients, which a region of a segmentation has."""
ORACLE: Mapping[str, Any] = {"n_samples": 5000, "p": 0.5, "estimator": "mean"}
PUBLISHED_GRID = 16
"""D-RISE as published, but for the sum's divisor, the sum of the masks in place of its expectation: less noise."""
FOUND_SHARE = 0.5
"""Share of an object's places that have to be predicted as its class for a segmentation to have found it, and overlap
of a detection's box with the object's."""


class Asked(NamedTuple):
    """A scene and what is asked of it.

    Attributes:
        scene: the scene.
        objects: the places of the objects that the network finds.
        targets: the target of each of these.
    """

    scene: Scene
    objects: tuple[int, ...]
    targets: tuple[Target, ...]


def ask_segmenter(session: MaskedSession, scene: Scene) -> Asked:
    """Returns each object's class over the object's box, of the objects that are predicted as their class."""
    logits = session.run(prepare(session, scene))["output"][0]
    step = scene.image.shape[0] // logits.shape[1]
    predicted = logits.argmax(axis=0).repeat(step, axis=0).repeat(step, axis=1)
    found = [
        place
        for place, label in enumerate(scene.labels)
        if (predicted[scene.masks[place]] == label + 1).mean() >= FOUND_SHARE
    ]
    targets = tuple(masktool.OutputRegion(scene.labels[each] + 1, box_around(scene.masks[each])) for each in found)
    return Asked(scene, tuple(found), targets)


def box_around(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Returns the box of an object."""
    box = box_of(mask)
    assert box is not None  # an object has pixels
    return box[0], box[1], box[2], box[3]


def prepare(session: MaskedSession, scene: Scene) -> NDArray[np.float32]:
    """Returns a scene as a network takes it."""
    return prepare_photograph(Image.fromarray(scene.image), session.metadata.preprocessing).array


def ask_detector(session: MaskedSession, scene: Scene) -> Asked:
    """Returns the detection of each object that one of its class finds, with half of its box."""
    rows = session.run(prepare(session, scene))["output"][0]
    sizes = rows[:, 2:4] / 2
    boxes = np.concatenate([rows[:, :2] - sizes, rows[:, :2] + sizes], axis=1).astype(np.float64)
    classes, sure = rows[:, 5:].argmax(axis=1), rows[:, 4] * rows[:, 5:].max(axis=1) >= LEAST_SCORE
    found, targets = [], []
    for place, label in enumerate(scene.labels):
        box = box_around(scene.masks[place])
        if best_iou(boxes[sure & (classes == label)], [box]) >= FOUND_SHARE:
            found.append(place)
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            targets.append(masktool.Detection(f"{OBJECTS[label]} near {x:g},{y:g}", "yolov5"))
    return Asked(scene, tuple(found), tuple(targets))


ASK = {"segmenter": ask_segmenter, "detector": ask_detector}


def explain_scenes(
    session: MaskedSession, asked: Sequence[Asked], method: str, **options: Any
) -> Iterator[list[Explanation]]:
    """Yields the maps of each scene's objects."""
    for scene, _, targets in asked:
        yield masktool.explain_targets(session, scene.image, list(targets), method, **options) if targets else []


def measure_method(session: MaskedSession, asked: Sequence[Asked], method: str) -> list[ObjectRecord]:
    """Returns the records of all objects' maps by one method."""
    maps = explain_scenes(session, asked, method, budget=BUDGET, **METHODS.get(method, {}))
    return [
        record_object(picture, each, asked[picture].scene.masks, place)
        for picture, found in enumerate(maps)
        for place, each in zip(asked[picture].objects, found, strict=True)
    ]


def compare_with_oracle(session: MaskedSession, asked: Sequence[Asked], grid: int) -> Iterator[str]:
    """Yields rows of rank correlations with D-RISE over all pixels, that of D-RISE with itself first."""
    options = {**ORACLE, "grid_size": grid}
    oracle, again = (
        [each for found in explain_scenes(session, asked, "rise", seed=seed, **options) for each in found]
        for seed in (1, 2)
    )
    yield f"| D-RISE, other masks | {oracle[0].forward_passes} | {correlate(oracle, again)} |"
    for method, own in METHODS.items():
        maps = [each for found in explain_scenes(session, asked, method, budget=BUDGET, **own) for each in found]
        yield f"| {method} | {maps[0].forward_passes} | {correlate(oracle, maps)} |"


def correlate(some: Sequence[Explanation], others: Sequence[Explanation]) -> str:
    """Returns the mean rank correlation of maps."""
    from scipy.stats import spearmanr

    found = [
        float(spearmanr(one.model_attributions, other.model_attributions, axis=None).statistic)
        for one, other in zip(some, others, strict=True)
    ]
    return show(interval_of_mean(found))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", choices=ASK, default="segmenter")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--oracle", type=int, default=0, metavar="N", help="pictures that D-RISE explains too")
    parser.add_argument("--grid", type=int, default=PUBLISHED_GRID, metavar="G", help="cells along a side of its masks")
    parser.add_argument(
        "--method",
        choices=[*METHODS, *OF_GRADIENTS],
        action="append",
        help="may be repeated; those of gradients are for the segmenter alone  [default: all without gradients]",
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    path = options.folder / f"{options.network}.masked.onnx"
    differentiates = not set(OF_GRADIENTS).isdisjoint(options.method or ())
    output = "output" if differentiates and options.network == "segmenter" else None
    with masktool.load(path, "cpu", threads=options.threads, gradient_output=output) as session:
        asked = [ASK[options.network](session, scene) for scene in draw_scenes(SEED, options.pictures)]
        drawn, found = (sum(map(len, rows)) for rows in ([a.scene.labels for a in asked], [a.objects for a in asked]))
        print(f"{options.network}: {found} of {drawn} objects found in {len(asked)} scenes of {OBJECTS}\n{OBJECT_HEAD}")
        for method in options.method or METHODS:
            print(describe_objects(method, measure_method(session, asked, method)), flush=True)
        if options.oracle:
            print("\n| map | passes | rank correlation with D-RISE |\n|---|---|---|")
            for row in compare_with_oracle(session, asked[: options.oracle], options.grid):
                print(row, flush=True)


if __name__ == "__main__":
    main()
