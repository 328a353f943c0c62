"""Masking models where the objects are known: variants of the training, on classifiers of several seeds.

    python -m benchmarks.maskers synthetic [--network shapes.pt2 ...] [--only both out ...]

Each network is a file that ``scripts/train_demo_model.py --only train`` writes; without one it is the built-in network.
Every variant is trained on the same pictures with the same number of steps. The maps are judged on pictures of another
seed, against the exact object: boxes are its tight rectangle. ``kept`` and ``lost`` count the pictures that the
classifier gets right: whether its class survives under the mask cut at .5, and whether it is gone under the rest, by
the file's own fill and by layer masking, which has no colour that could take part in the answer. Prints the means over
the networks, each network's figures, and for each inequality whether it holds.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table as Grid

import masktool
from benchmarks.maskers_shared import (
    BATCH,
    Case,
    Maps,
    cut,
    draw_sheet,
    predict,
    read_maps,
    remembered,
    say,
    write_json,
    write_pictures,
)
from benchmarks.missingness import draw_dataset
from masktool import demo
from masktool.contract import Preprocessing
from masktool.demo import shapes
from masktool.evaluation.maps import BASELINE_MAPS, CENTRE, EDGES, ONES, RANDOM_CELLS, MethodChoice, explain_scene
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.parts.localisation import Localisation, Row, find_region, judge_map
from masktool.evaluation.scene import Scene, read_scene
from masktool.maskers.loading import steps_per_epoch
from masktool.maskers.settings import TrainingSettings

FEW = 10
"""Pictures of each class in the few-shot variant."""
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "both": {},
    "out": {"objective": "out"},
    "in": {"objective": "in"},
    "few-shot": {"per_class": FEW},
    "ca": {"classifier": "ca"},
    "layer": {"through": "layer"},
    "both-last-two": {"stages": "last-two"},
    "out-last-two": {"objective": "out", "stages": "last-two"},
    "in-last-two": {"objective": "in", "stages": "last-two"},
    "infiller-mean": {"infiller": "mean"},
    "infiller-blur": {"infiller": "blur"},
    "out-classification": {"out_loss": "classification"},
}
OBJECTIVES = ("both", "out", "in")
LAST_TWO = "-last-two"
MAIN = (*OBJECTIVES, "few-shot", "ca", "layer", *(f"{name}{LAST_TWO}" for name in OBJECTIVES))
BASELINES = (CENTRE, RANDOM_CELLS, ONES, EDGES)
METHODS = ("gradient", "grad-cam", "occlusion")
TRAINING_SEED, TEST_SEED = 500, 3_000_000
"""Of the pictures; far from each other's and from those that the networks were trained on."""
PREPROCESSING = Preprocessing(
    size=(shapes.SIZE, shapes.SIZE), resize="shortest", resize_to=shapes.SIZE, mean=shapes.MEAN, std=shapes.STD
)
LOCALISATION = ("LE", "OM", "F1", "MaxBoxAcc V1", "MaxBoxAcc V2", "PxAP")
ANSWERS = (
    "area",
    "area cut",
    "kept, fill",
    "lost, fill",
    "kept, layer",
    "lost, layer",
    "accuracy",
    "seconds",
    "CPU seconds",
)
FEW_SHOT_POINTS = 0.03
MOST_SECONDS = 600.0
Figures = dict[str, float]
Results = dict[str, list[Figures]]
"""Of each masker, on every network."""


class Claim(NamedTuple):
    """Something that must hold, and what was found."""

    text: str
    found: str
    holds: bool


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this benchmark."""
    parser.add_argument("--network", type=Path, action="append", help="a .pt2 file; may be repeated")
    parser.add_argument("--pictures", type=int, default=2000, help="to train on")
    parser.add_argument("--test-pictures", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=MAIN, metavar="NAME", help=", ".join(VARIANTS))
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of every variant")
    parser.add_argument("--no-methods", action="store_true", help=f"leave out {', '.join(METHODS)}")


def run(options: argparse.Namespace) -> None:
    """Runs the benchmark."""
    results: Results = {}
    for seed, network in enumerate(options.network or [demo.program_path()]):
        folder = options.folder / f"seed{seed}"
        with tempfile.TemporaryDirectory() as temporary:
            study = Study(network, seed, folder, Path(temporary), options)
            for name, figures in study.figures():
                results.setdefault(name, []).append(figures)
                say(f"seed {seed}, {name}: {figures}")
            if options.sheet and seed == 0:
                study.draw(options.sheet)
    claims = list(check_claims(results))
    report(results, claims)
    if options.json:
        write_json(options.json, {"results": results, "claims": [claim._asdict() for claim in claims]})


class Study:
    """One classifier with its pictures.

    Args:
        network: the classifier, a ``.pt2``.
        seed: of the pictures and of the trainings.
        folder: that keeps maskers and figures.
        temporary: folder for pictures.
        options: of the benchmark.
    """

    def __init__(self, network: Path, seed: int, folder: Path, temporary: Path, options: argparse.Namespace) -> None:
        self.seed, self.folder, self.options = seed, folder, options
        self.module = load_network(network)
        self.temporary = temporary
        drawn = shapes.draw(TRAINING_SEED + seed, options.pictures)
        data = write_pictures(temporary / "train", drawn.images, drawn.labels.tolist(), shapes.LABELS)
        self.case = Case(self.module, None, data, PREPROCESSING, shapes.LABELS, folder)
        self.classifier = folder / "classifier.onnx"
        if not self.classifier.exists():
            masktool.export(
                self.module,
                self.classifier,
                input_size=PREPROCESSING.size,
                masking="fill",
                preprocessing=PREPROCESSING,
                labels=shapes.LABELS,
                output_kind="logits",
                gradient="logit",
            )
        self.scenes = self.read_scenes()
        self.regions = [find_region(scene) for scene in self.scenes]
        self.labels = np.array([scene.known.label for scene in self.scenes])
        self.inputs = np.concatenate([scene.array for scene in self.scenes])

    def read_scenes(self) -> list[Scene]:
        """Draws the test pictures and brings them to the input."""
        (self.temporary / "test").mkdir()
        dataset = draw_dataset(TEST_SEED + self.seed, self.options.test_pictures, self.temporary / "test")
        with masktool.load(self.classifier, "cpu", self.options.threads) as session:
            return [read_scene(sample, session) for sample in dataset.images]

    def settings(self, name: str) -> TrainingSettings:
        """Returns the settings of a variant; the number of steps is the same for all."""
        wanted = VARIANTS[name]
        steps = self.options.epochs * steps_per_epoch(self.options.pictures, BATCH)
        pictures = wanted["per_class"] * len(shapes.LABELS) if "per_class" in wanted else self.options.pictures
        common: dict[str, Any] = {
            "stages": "all",
            "min_crop": 1.0,
            "batch": BATCH,
            "epochs": round(steps / steps_per_epoch(pictures, BATCH)),
            "seed": self.seed,
            "precision": self.options.precision,
        }
        own = {key: float(value) for key, _, value in (each.partition("=") for each in self.options.set)}
        return TrainingSettings(**{**common, **own, **wanted})

    def figures(self) -> Iterator[tuple[str, Figures]]:
        """Yields name and figures of every masker and of what stands beside it."""
        test = [self.seed, self.options.pictures, self.options.test_pictures]
        for name in self.options.only:
            asked = [test, self.settings(name).to_json()]
            yield name, remembered(self.folder / f"{name}.json", asked, lambda name=name: self.measure(name))  # type: ignore[misc]
        for name in BASELINES:
            yield name, remembered(self.folder / f"{name}.json", test, lambda name=name: self.baseline(name))  # type: ignore[misc]
        for name in () if self.options.no_methods else METHODS:
            yield name, remembered(self.folder / f"{name}.json", test, lambda name=name: self.explain(name))  # type: ignore[misc]

    def measure(self, name: str) -> Figures:
        """Trains a masker and judges its maps."""
        files, taken = self.case.train(name, self.settings(name))
        threads = self.options.threads
        with masktool.load(files.fill, "cpu", threads) as fill, masktool.load(files.layer, "cpu", threads) as layer:
            classes, maps = read_maps(fill, self.inputs)
            right, kept = classes == self.labels, cut(maps)
            figures = self.localise(maps, right, signed=False)
            figures |= {"area": float(maps.mean()), "area cut": float(kept.mean()), "accuracy": float(right.mean())}
            for word, session in (("fill", fill), ("layer", layer)):
                inside, outside = (predict(session, self.inputs, each) == self.labels for each in (kept, ~kept))
                figures |= {
                    f"kept, {word}": float(inside[right].mean()),
                    f"lost, {word}": float((~outside)[right].mean()),
                }
        return figures | taken

    def baseline(self, name: str) -> Figures:
        """Judges maps that know nothing of the classifier."""
        maps = np.stack([BASELINE_MAPS[name](scene, self.seed) for scene in self.scenes])
        return self.localise(maps.astype(np.float32), np.ones(len(maps), np.bool_), signed=name != CENTRE)

    def explain(self, name: str) -> Figures:
        """Judges maps of another method, of the true class."""
        with masktool.load(self.classifier, "cpu", self.options.threads) as session:
            model = NamedModel(name, session)
            right = np.concatenate([session(scene.array).argmax(axis=1) for scene in self.scenes]) == self.labels
            found = [
                explain_scene(model, scene, MethodChoice(name), int(label), self.seed)
                for scene, label in zip(self.scenes, self.labels, strict=True)
            ]
        return self.localise(np.stack([each.model_attributions for each in found]), right, signed=found[0].signed)

    def localise(self, maps: Maps, right: np.ndarray, *, signed: bool) -> Figures:
        """Returns how far maps (N, h, w) lie on the objects."""
        row = Row("", "")
        records = [
            {"right": bool(hit), "maps": {"": {"": judge_map(each.astype(np.float64), region, signed)}}}
            for each, region, hit in zip(maps, self.regions, right, strict=True)
        ]
        found = Localisation(modes=(), methods=()).figures(records, row)
        return {name: found[name].value for name in LOCALISATION}

    def draw(self, path: Path) -> None:
        """Writes a contact sheet: each picture, its object, and the maps of all variants in the order of the table."""
        columns = [np.stack([region.inside for region in self.regions]).astype(np.float32)]
        for name in self.options.only:
            with masktool.load(self.folder / f"{name}.onnx", "cpu", self.options.threads) as session:
                columns.append(read_maps(session, self.inputs[:BATCH])[1])
        draw_sheet(path, np.stack([scene.pixels for scene in self.scenes]), columns)


def load_network(path: Path) -> torch.nn.Module:
    """Returns the module that a program was made from: a program itself could not be trained alongside."""
    network = importlib.import_module("scripts.shapes_network")  # no package: type checkers know it by another name
    module: torch.nn.Module = network.ShapesNetwork(len(shapes.LABELS))
    module.load_state_dict(torch.export.load(path).state_dict)
    return module.eval()


def check_claims(results: Results) -> Iterator[Claim]:
    """Yields the inequalities whose maskers are there."""
    errors = {name: float(np.mean([each["LE"] for each in figures])) for name, figures in results.items()}
    for suffix in ("", LAST_TWO):
        names = [f"{name}{suffix}" for name in OBJECTIVES]
        if all(name in results for name in names):
            yield from check_objectives(results, names, errors)
    if "both" in errors and "few-shot" in errors:
        gap = errors["few-shot"] - errors["both"]
        text = f"LE, mean: {FEW} pictures a class at most {FEW_SHOT_POINTS} worse"
        yield Claim(text, f"{errors['few-shot']:.3f} - {errors['both']:.3f} = {gap:.3f}", gap <= FEW_SHOT_POINTS)
    if "both" in errors:
        seconds = [each["seconds"] for each in results["both"]]
        found = ", ".join(f"{each:.0f}" for each in seconds)
        yield Claim(f"training within {MOST_SECONDS:.0f} s", found, max(seconds) <= MOST_SECONDS)


def check_objectives(results: Results, names: Sequence[str], errors: Mapping[str, float]) -> Iterator[Claim]:
    """Yields what must hold between maskers of both objectives, of the one and of the other."""
    both, *_ = names
    found = " < ".join(f"{errors[name]:.3f}" for name in names)
    holds = all(errors[first] < errors[second] for first, second in itertools.pairwise(names))
    yield Claim(f"LE, mean over the networks: {' < '.join(names)}", found, holds)
    for figure in ("MaxBoxAcc V1", "MaxBoxAcc V2", "PxAP"):
        rows = list(zip(*(results[name] for name in names), strict=True))
        found = "; ".join(" ".join(f"{each[figure]:.3f}" for each in row) for row in rows)
        holds = all(row[0][figure] > max(row[1][figure], row[2][figure]) for row in rows)
        yield Claim(f"{figure}, each network: {both} > {', '.join(names[1:])}", found, holds)


def report(results: Results, claims: Sequence[Claim]) -> None:
    """Prints everything."""
    console = Console(width=170)
    for title, names in (("where the objects are", LOCALISATION), ("what the classifier says", ANSWERS)):
        means = Grid("masker", *names, title=f"{title}: mean over the networks (least..greatest)")
        single = Grid("network", "masker", *names, title=f"{title}: each network")
        for masker, rows in results.items():
            if any(name in rows[0] for name in names):
                means.add_row(masker, *(show_spread([row[name] for row in rows]) for name in names))
                for seed, row in enumerate(rows):
                    single.add_row(str(seed), masker, *(show(row[name]) for name in names))
        console.print(means)
        console.print(single)
    verdicts = Grid("must hold", "found", "holds")
    for claim in claims:
        verdicts.add_row(claim.text, claim.found, "yes" if claim.holds else "NO")
    console.print(verdicts)


def show(value: float) -> str:
    """Returns a share to three places, and seconds as they are."""
    return f"{value:.3f}" if value <= 1 else f"{value:.0f}"


def show_spread(values: Sequence[float]) -> str:
    """Returns the mean with the least and the greatest."""
    return f"{show(float(np.mean(values)))} ({show(min(values))}..{show(max(values))})"
