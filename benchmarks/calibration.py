"""What a correction of the scores gains in each masking mode, and whether it changes which mode is best.

    python -m benchmarks.calibration DATA [--network NAME ...] [--images N] [--side PIXELS ...] [--out FILE.json]

DATA and the names are those of :mod:`benchmarks.real_networks`; ``shapes`` is the built-in network with drawn pictures.
Each network is exported in every mode, and scored behind the masks that ``masktool calibrate`` draws, the same in every
mode. The correction is chosen and fitted on one half of the images and measured on the other, then the other way round,
for several splits, so that every image has figures that do not know it. Printed are the predictions that stay and the
KL divergence from the prediction for the whole image, before and after, and the paired differences between calibrated
layer masking and each other mode, with 95 % bootstrap intervals over images. With ``--out`` scores are kept beside that
file, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import masktool
from benchmarks.real_networks import NETWORKS, RealNetwork, find_network, read_images
from masktool import demo
from masktool.calibration.choosing import HeldOutFigures, choose_correction, cut_folds, measure_gain
from masktool.calibration.fitting import ScoresBehindMasks
from masktool.evaluation.bootstrap import Interval, interval_of_mean
from masktool.interface.calibrate import find_space
from masktool.interface.calibration_scores import RandomCells, score_images
from masktool.progress import no_progress

BUILT_IN = "shapes"
MODES: dict[str, dict[str, Any]] = {
    "layer": {"masking": "layer"},
    "mean": {"masking": "fill", "baseline": "mean"},
    "blur": {"masking": "fill", "baseline": "blur"},
    "black": {"masking": "fill", "baseline": "black"},
}
RULES = {"layer": "published", "layer, cell rule": "cell"}
"""Rules of layer masking by the mode's name in tables, where the installed masktool has them."""
N_SPLITS = 3
Figures = Mapping[str, np.ndarray]


def list_modes() -> dict[str, dict[str, Any]]:
    """Returns the options of each mode by its name; of layer masking by each rule."""
    if "rule" not in inspect.signature(masktool.export).parameters:
        return MODES
    return {name: {"masking": "layer", "rule": rule} for name, rule in RULES.items()} | {
        name: options for name, options in MODES.items() if name != "layer"
    }


def score_mode(path: Path, images: Sequence[Path], design: RandomCells) -> ScoresBehindMasks:
    """Returns the scores of an exported file on one thread."""
    from masktool.exporters.sources import load_source

    with masktool.MaskedSession(path, providers="cpu", threads=1) as session:
        return score_images(session, images, design, find_space(load_source(path)), None, no_progress)[0]


def read_scores(kept: Path | None, export: Any, images: Sequence[Path], design: RandomCells) -> ScoresBehindMasks:
    """Returns scores that an earlier run kept, else those of an export made now, which are kept."""
    if kept is not None and kept.exists():
        found = np.load(kept)
        return ScoresBehindMasks(found["whole"], found["masked"], str(found["space"]))  # type: ignore[arg-type]
    scores = score_mode(export(), images, design)
    if kept is not None:
        np.savez_compressed(kept, whole=scores.whole, masked=scores.masked, space=scores.space)
    return scores


def measure_splits(scores: ScoresBehindMasks, seed: int) -> tuple[Figures, list[str]]:
    """Returns each image's figures, the mean over the splits, and which forms were chosen.

    Args:
        scores: the scores of one mode.
        seed: seed of the splits, the same in every mode.
    """
    sums: dict[str, np.ndarray] = {}
    forms: list[str] = []
    for split in range(N_SPLITS):
        halves = cut_folds(scores.n_images, 2, seed + split)
        for fitted, held in (halves, halves[::-1]):
            choice = choose_correction(scores.of(fitted), seed)
            forms.append(choice.attempt.form or "none")
            found: HeldOutFigures = measure_gain(scores.of(held), choice.correction)
            for name, values in vars(found).items():
                sums.setdefault(name, np.zeros(scores.n_images))[held] += values / N_SPLITS
    return sums, forms


def measure_network(
    network: RealNetwork, name: str, options: argparse.Namespace, folder: Path
) -> tuple[dict[str, Figures], dict[str, list[str]]]:
    """Returns the figures of every image, by mode, and the forms that were chosen."""
    images = [each.path for each in read_images(network.kind, options.data, folder, options.images).images]
    source = network.read(options.data)
    design = RandomCells(options.masks, tuple(options.side or ()), options.seed)
    figures, forms = {}, {}
    for mode, of_mode in list_modes().items():
        started, path = time.process_time(), folder / f"{name}.onnx"

        def export(path: Path = path, of_mode: dict[str, Any] = of_mode) -> Path:
            masktool.export(source.model, path, **source.options, **of_mode)
            return path

        sides = "-".join(map(str, options.side or ["usual"]))
        tag = f"{Path(name).stem}.{mode.replace(', ', '-').replace(' ', '-')}.{len(images)}.{options.masks}.{sides}"
        kept = None if options.out is None else options.out.with_name(f"{tag}.npz")
        scores = read_scores(kept, export, images, design)
        figures[mode], forms[mode] = measure_splits(scores, options.seed)
        print(f"{name}, {mode}: {len(images)} images, {time.process_time() - started:.0f} s of CPU", flush=True)
    return figures, forms


def differences(figures: Mapping[str, Figures], first: str, what: str, when: str) -> dict[str, Interval]:
    """Returns how far a mode lies above every other one, image by image; of divergences, how far below."""
    sign = 1 if what == "unchanged" else -1
    key = f"{what}_{when}"
    return {
        mode: interval_of_mean(sign * (figures[first][key] - own[key]))
        for mode, own in figures.items()
        if mode != first
    }


def show_network(title: str, figures: Mapping[str, Figures], forms: Mapping[str, list[str]]) -> dict[str, Any]:
    """Prints the tables of one network, and returns their figures, JSON values by name."""
    grid = Table("mode", "what", "before", "after", "gain", "A", title=title)
    document: dict[str, Any] = {}
    for mode, own in figures.items():
        for what in ("unchanged", "divergence"):
            before, after = own[f"{what}_before"], own[f"{what}_after"]
            sign = 1 if what == "unchanged" else -1
            means = [interval_of_mean(values) for values in (before, after, sign * (after - before))]
            shapes = ", ".join(f"{form} {forms[mode].count(form)}" for form in dict.fromkeys(forms[mode]))
            grid.add_row(mode, what, *map(str, means), shapes)
            document.setdefault(mode, {})[what] = [vars(each) for each in means]
    others = Table("calibrated, against", "what", "difference, above 0: better", "before", title=title)
    for first in (mode for mode in figures if mode.startswith("layer")):
        for what in ("unchanged", "divergence"):
            by_time = {when: differences(figures, first, what, when) for when in ("after", "before")}
            for mode, found in by_time["after"].items():
                others.add_row(f"{first} - {mode}", what, str(found), str(by_time["before"][mode]))
                document[first].setdefault("against", {})[f"{what} {mode}"] = vars(found)
    for each in (grid, others):
        Console(width=150).print(each)
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", action="append", help=f"{BUILT_IN}, {', '.join(NETWORKS)}; may be repeated")
    parser.add_argument("--images", type=int, help="how many; all by default")
    parser.add_argument("--masks", type=int, default=20, help="of each image")
    parser.add_argument("--side", type=int, action="append", help="of the cells; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file; scores are kept beside it")
    options = parser.parse_args()
    document = {}
    for name in options.network or [BUILT_IN, *NETWORKS]:
        network = find_network(str(demo.program_path()) if name == BUILT_IN else name)
        with tempfile.TemporaryDirectory() as folder:
            figures, forms = measure_network(network, name, options, Path(folder))
        n_images = len(next(iter(figures["layer"].values())))
        title = f"{network.title}, {n_images} images"
        document[name] = {"n_images": n_images, **show_network(title, figures, forms)}
        print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
