"""Arrays in .npy and .npz files: images as they are, and label maps."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from fuzz.children import Bounds
from fuzz.mutations import mutate_bytes
from fuzz.targets.target import TARGETS, Target

ODD_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': [('a', '<f4'), ('b', '|S9')], 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 400 + ")" * 400 + ", }",
    "{'descr': '<f4', 'fortran_order': 3, 'shape': 'x', }",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (2,), }",
    "{'descr': '<c8', 'fortran_order': False, 'shape': (2,), }",
    "(" * 5000,
    "'",
)


def draw(rng: np.random.Generator) -> tuple[bytes, str]:
    """Breaks the bytes of an array, or gives it an odd header."""
    if rng.random() < 0.25:
        header = ODD_HEADERS[int(rng.integers(len(ODD_HEADERS)))].encode().ljust(118) + b"\n"
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + rng.bytes(64), ".npy"
    kinds = (np.float32, np.int64, np.uint8, np.float16, np.bool_)
    array = rng.integers(0, 5, (12, 12)).astype(kinds[int(rng.integers(len(kinds)))])
    stream = io.BytesIO()
    if rng.random() < 0.2:
        np.savez_compressed(stream, array)
        return mutate_bytes(stream.getvalue(), rng), ".npz"
    np.save(stream, array)
    return mutate_bytes(stream.getvalue(), rng), ".npy"


def run(path: Path, option: int) -> str:
    """Reads it."""
    if option % 2:
        from masktool.explainers.segmentation import read_label_map

        read_label_map(path)
    else:
        from masktool.explainers.subject import read_subject

        read_subject(path)
    return ""


TARGETS["arrays"] = Target(draw, run, Bounds(seconds=15, megabytes=1000))
