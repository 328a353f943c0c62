"""Files with a correction that a test chooses, instead of one that is fitted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from masktool.contract import Metadata
from masktool.correction import Correction, Form, Space
from masktool.exporters.calibration import find_site, without_correction
from masktool.exporters.result import Export
from masktool.exporters.sources import load_source
from masktool.exporters.write_calibrated import write_calibrated


def draw_correction(form: Form, space: Space, n_classes: int, seed: int = 0) -> Correction:
    """Draws a correction that changes every class, and of a full one every class by every other."""
    rng = np.random.default_rng(seed)
    bias = np.zeros(n_classes) if form == "scale" else rng.normal(size=n_classes)
    weight = {
        "scale": np.array(0.6),
        "diagonal": rng.uniform(0.4, 1.6, n_classes),
        "full": np.eye(n_classes) + rng.normal(size=(n_classes, n_classes)) / 4,
    }[form]
    return Correction(form, space, weight, bias)


def record_of(correction: Correction) -> Mapping[str, Any]:
    """Returns entries for the metadata: numbers that nobody measured."""
    interval = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 40}
    names = (f"{what}_{when}" for what in ("divergence", "unchanged") for when in ("before", "after", "gain"))
    fitted = {"n_images": 40, "n_masks": 20, "cell_sides": [2, 4], "seed": 0, "n_folds": 5, "penalty": 0.01}
    return {"form": correction.form, "space": correction.space, **fitted, **dict.fromkeys(names, interval)}


def space_of(path: Path) -> Space:
    """Returns what a correction of a file's scores is of."""
    source = load_source(path)
    metadata = Metadata.from_properties(source.model.metadata_props)
    assert metadata is not None
    return find_site(*without_correction(source.model, metadata)).space


def correct_file(path: Path, target: Path, form: Form, n_classes: int, seed: int = 0) -> tuple[Correction, Export]:
    """Writes a file with a drawn correction; returns the correction and what was written."""
    correction = draw_correction(form, space_of(path), n_classes, seed)
    return correction, write_calibrated(load_source(path), target, correction, record_of(correction))
