"""Masking models on a real network and few pictures: does the class survive inside the mask, and is it gone outside?

    python -m benchmarks.maskers cifar --weights FILE.th --arch FILE.py:factory --images FILE.npz [...]

Archives hold ``images`` (N, H, W, 3) uint8, ``labels`` (N,) and ``class_names``. Two thirds of each class train, the
rest is held out; judged are the held-out pictures that the classifier gets right. Beside each masker stand maps that
keep as many pixels of the same picture as its mask cut at .5 (``own``), or a fixed share of them: the pixels nearest to
the centre, random cells, and occlusion's and RISE's most salient ones. Pixels are hidden by fill (the data's mean
colour) and by layer masking; occlusion and RISE ask the classifier in the way in which they are judged. Maskers that
change the classifier stand beside centre and random cells alone. Intervals are 95 % bootstraps over pictures;
``masker's lead`` is the paired difference in pictures whose class is kept inside and lost outside.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table as Grid

import masktool
from benchmarks.maskers_shared import (
    BATCH,
    Case,
    Files,
    Maps,
    Pixels,
    cut,
    draw_sheet,
    predict,
    prepare_pictures,
    read_maps,
    say,
    write_json,
    write_pictures,
)
from masktool.contract import Preprocessing
from masktool.datasets.dataset import DatasetImage
from masktool.evaluation.bootstrap import Interval, interval_of_mean
from masktool.evaluation.maps import BASELINE_MAPS, CENTRE, RANDOM_CELLS, MethodChoice, explain_scene
from masktool.evaluation.metrics.scaling import min_max
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.scene import Scene, read_scene
from masktool.files import atomic_path
from masktool.maskers.settings import TrainingSettings

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "all stages": {},
    "last two stages": {"stages": "last-two"},
    "ca": {"classifier": "ca"},
    "layer": {"through": "layer"},
    "in": {"objective": "in"},
    "out": {"objective": "out"},
}
MAIN = ("all stages", "last two stages", "ca", "layer")
HELD_OUT = 1 / 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What the published networks were trained with, although the pictures are CIFAR's."""
METHODS = ("occlusion", "rise")
OWN = "own"
HIDINGS = ("fill", "layer")
FIGURES = ("kept", "lost", "both")


class Split(NamedTuple):
    """Pictures (N, H, W, 3) uint8 with their classes (N,)."""

    pictures: Pixels
    labels: NDArray[np.int64]


Answers = dict[str, NDArray[np.float64]]
"""Whether the class is ``kept`` inside a mask, ``lost`` outside it, and ``both``, (N,) each."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this benchmark."""
    parser.add_argument("--weights", required=True, help="a torch model, as masktool train-masker takes it")
    parser.add_argument("--arch", help="architecture that a state dict belongs to")
    parser.add_argument("--images", type=Path, action="append", required=True, help="an .npz; may be repeated")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=MAIN, metavar="NAME", help=", ".join(VARIANTS))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--min-crop", type=float, default=0.6)
    parser.add_argument("--areas", type=float, nargs="*", default=(0.1, 0.25, 0.5), help="shares of fixed cuts")
    parser.add_argument("--rise-masks", type=int, default=500)
    parser.add_argument("--judged", type=int, help="how many of the held-out pictures are judged  [default: all]")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> None:
    """Runs the benchmark."""
    names, training, held_out = read_archives(options.images, options.seed)
    side = training.pictures.shape[1]
    preprocessing = Preprocessing(size=(side, side), resize="shortest", resize_to=side, mean=MEAN, std=STD)
    document: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        data = write_pictures(Path(temporary), training.pictures, training.labels.tolist(), names)
        case = Case(options.weights, options.arch, data, preprocessing, names, options.folder)
        every = np.linspace(0, len(held_out.labels) - 1, options.judged or len(held_out.labels)).astype(int)
        study = Study(case, Split(held_out.pictures[every], held_out.labels[every]), options)
        for name in options.only:
            found = study.measure(name)
            report(name, found)
            document[name] = found
        if options.sheet:
            study.draw(options.sheet)
    if options.json:
        write_json(options.json, document)


def read_archives(paths: list[Path], seed: int) -> tuple[tuple[str, ...], Split, Split]:
    """Returns the names of the classes, what is trained on and what is held out: a third of each class."""
    archives = [np.load(path) for path in paths]
    pictures, labels = (np.concatenate([each[name] for each in archives]) for name in ("images", "labels"))
    random = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        held_out[members[: round(HELD_OUT * len(members))]] = True
    names = tuple(map(str, archives[0]["class_names"]))
    return names, Split(pictures[~held_out], labels[~held_out]), Split(pictures[held_out], labels[held_out])


class Study:
    """A classifier, and the pictures that its maskers are judged on.

    Args:
        case: the classifier and what is trained on.
        held_out: the rest.
        options: of the benchmark.
    """

    def __init__(self, case: Case, held_out: Split, options: argparse.Namespace) -> None:
        self.case, self.options = case, options
        self.pictures, self.labels = held_out
        self.inputs = prepare_pictures(self.pictures, case.preprocessing)
        self.plain = Files(case.folder / "classifier.fill.onnx", case.folder / "classifier.layer.onnx")
        for path, masking in zip(self.plain, HIDINGS, strict=True):
            if not path.exists():
                masktool.export(
                    case.model,
                    path,
                    arch=case.arch,
                    input_size=case.preprocessing.size,
                    masking=masking,  # type: ignore[arg-type]  # a literal
                    preprocessing=case.preprocessing,
                    labels=case.labels,
                    output_kind="logits",
                )
        self.scenes = self.read_scenes()

    def read_scenes(self) -> list[Scene]:
        """Returns the pictures as baseline maps and methods take them."""
        scenes = []
        with tempfile.TemporaryDirectory() as folder, masktool.load(self.plain.fill, "cpu") as session:
            for index, picture in enumerate(self.pictures):
                path = Path(folder) / f"{index:05d}.png"
                Image.fromarray(picture).save(path)
                scenes.append(read_scene(DatasetImage(path.name, path), session))
        return scenes

    def settings(self, name: str) -> TrainingSettings:
        """Returns the settings of a variant."""
        common = {
            "stages": "all",
            "min_crop": self.options.min_crop,
            "epochs": self.options.epochs,
            "batch": BATCH,
            "seed": self.options.seed,
            "precision": self.options.precision,
        }
        return TrainingSettings(**{**common, **VARIANTS[name]})

    def measure(self, name: str) -> dict[str, Any]:
        """Trains a masker; returns its figures and those of the maps beside it, as JSON values."""
        settings = self.settings(name)
        files, taken = self.case.train(name.replace(" ", "-"), settings)
        threads = self.options.threads
        tables: dict[str, Any] = {}
        with masktool.load(files.fill, "cpu", threads) as fill, masktool.load(files.layer, "cpu", threads) as layer:
            classes, maps = read_maps(fill, self.inputs)
            right = classes == self.labels
            for hiding, session in zip(HIDINGS, (fill, layer), strict=True):
                rivals = {"masker": maps, **self.rivals(hiding, changed=settings.classifier == "ca")}
                for area, kept in self.cuts(maps, rivals):
                    found = {rival: self.ask(session, each, right) for rival, each in kept.items()}
                    tables.setdefault(area, {})[hiding] = summarise(found)
        return {
            "settings": settings.to_json(),
            "areas": describe_areas(maps[right]),
            "accuracy": float(right.mean()),
            "pictures": int(right.sum()),
            "tables": tables,
            **taken,
        }

    def cuts(self, maps: Maps, rivals: Mapping[str, Maps]) -> Iterator[tuple[str, dict[str, NDArray[np.bool_]]]]:
        """Yields, for each area, what every map keeps; all keep as many pixels of a picture."""
        own = cut(maps).sum(axis=(1, 2))
        counts = {OWN: own} | {
            f"{area:g}": np.full(len(maps), round(area * maps[0].size)) for area in self.options.areas
        }
        for area, count in counts.items():
            yield area, {rival: keep_most(each, count) for rival, each in rivals.items()}

    def ask(self, session: masktool.MaskedSession, kept: NDArray[np.bool_], right: NDArray[np.bool_]) -> Answers:
        """Returns what becomes of the class of the pictures that the classifier gets right."""
        inputs, labels = self.inputs[right], self.labels[right]
        inside = predict(session, inputs, kept[right]) == labels
        outside = predict(session, inputs, ~kept[right]) == labels
        answers = {"kept": inside, "lost": ~outside, "both": inside & ~outside}
        return {name: each.astype(np.float64) for name, each in answers.items()}

    def rivals(self, hiding: str, *, changed: bool) -> dict[str, Maps]:
        """Returns maps (N, h, w) of every picture, by what drew them; without methods for a changed classifier."""
        found = {
            name: np.stack([BASELINE_MAPS[name](scene, self.options.seed) for scene in self.scenes]).astype(np.float32)
            for name in (CENTRE, RANDOM_CELLS)
        }
        return found if changed else found | {name: self.explain(name, hiding) for name in METHODS}

    def explain(self, name: str, hiding: str) -> Maps:
        """Returns a method's maps of the true class; they are kept in the folder."""
        n_samples = self.options.rise_masks if name == "rise" else None
        path = self.case.folder / f"{name}.{hiding}.{n_samples}.{len(self.scenes)}.npy"
        if not path.exists():
            say(f"{name}, {hiding}: {len(self.scenes)} pictures")
            choice = MethodChoice(name, n_samples=n_samples)
            with masktool.load(getattr(self.plain, hiding), "cpu", self.options.threads) as session:
                model = NamedModel(hiding, session)
                found = [
                    explain_scene(model, scene, choice, int(label), self.options.seed).model_attributions
                    for scene, label in zip(self.scenes, self.labels, strict=True)
                ]
            with atomic_path(path) as temporary:
                np.save(temporary, np.stack(found).astype(np.float32))
        maps: Maps = np.load(path)
        return maps

    def draw(self, path: Path) -> None:
        """Writes a contact sheet: each picture, the maps of all maskers in the order given, occlusion and RISE."""
        columns = []
        for name in self.options.only:
            with masktool.load(self.case.folder / f"{name.replace(' ', '-')}.onnx", "cpu") as session:
                columns.append(read_maps(session, self.inputs[:BATCH])[1])
        columns += [
            np.stack([min_max(each) for each in self.explain(name, "fill")[:BATCH].astype(np.float64)])
            for name in METHODS
        ]
        draw_sheet(path, self.pictures, columns)


def keep_most(maps: Maps, counts: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Returns masks that keep the most salient pixels of each map (N, h, w), so many; the first of equal ones."""
    order = np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], axis=1)
    return (ranks < counts[:, None]).reshape(maps.shape)


def describe_areas(maps: Maps) -> dict[str, float]:
    """Returns how much masks keep: soft, and cut at .5, with its spread over pictures."""
    areas = cut(maps).mean(axis=(1, 2))
    low, middle, high = np.quantile(areas, (0.1, 0.5, 0.9))
    return {
        "soft": float(maps.mean()),
        "cut": float(areas.mean()),
        "cut, 10 %": float(low),
        "cut, 50 %": float(middle),
        "cut, 90 %": float(high),
        "empty": float((areas == 0).mean()),
    }


def summarise(found: Mapping[str, Answers]) -> dict[str, dict[str, str]]:
    """Returns every figure with its interval, and by how much the masker leads."""
    rows = {}
    for rival, answers in found.items():
        rows[rival] = {name: str(interval_of_mean(answers[name])) for name in FIGURES}
        if rival != "masker":
            rows[rival]["masker's lead"] = show_signed(interval_of_mean(found["masker"]["both"] - answers["both"]))
    return rows


def show_signed(figure: Interval) -> str:
    """Returns a difference with its interval."""
    return f"{figure.value:+.3f} [{figure.low:+.3f}, {figure.high:+.3f}]"


def report(name: str, found: Mapping[str, Any]) -> None:
    """Prints the tables of one masker."""
    console = Console(width=170)
    areas = ", ".join(f"{key} {value:.2f}" for key, value in found["areas"].items())
    console.print(
        f"\n{name}: {found['pictures']} held-out pictures that the classifier gets right (accuracy "
        f"{found['accuracy']:.3f}); area {areas}; training {found['CPU seconds']:.0f} CPU seconds",
        highlight=False,
    )
    columns = (*FIGURES, "masker's lead")
    own = Grid("hidden by", "map", *columns, title=f"{name}: as many pixels as its mask cut at .5")
    others = [area for area in found["tables"] if area != OWN]
    fixed = Grid("hidden by", "map", *(f"both, {area}" for area in others), title=f"{name}: fixed shares of the pixels")
    for hiding, rows in found["tables"][OWN].items():
        for rival, figures in rows.items():
            own.add_row(hiding, rival, *(figures.get(column, "") for column in columns))
            fixed.add_row(hiding, rival, *(found["tables"][area][hiding][rival]["both"] for area in others))
    console.print(own, fixed)
