"""Exported files with mutated graphs and metadata: opened, described, measured and explained."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

import masktool
from fuzz.children import Bounds
from fuzz.graphs import change_metadata, mutate_model
from fuzz.networks.drawing import draw_network, prune
from fuzz.networks.writer import write_program
from fuzz.targets.target import TARGETS, Target
from masktool.cli import run as run_command
from masktool.errors import MasktoolError

PARENTS = 8


@functools.cache
def parents() -> list[bytes]:
    """Returns the exported files that mutants descend from: networks, and the built-in model, which has labels."""
    from masktool.contract import Preprocessing
    from masktool.demo import model_path

    found = [model_path().read_bytes()]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        for seed in range(PARENTS):
            program, path = prune(draw_network(seed)), Path(directory) / "masked.onnx"
            preprocessing = Preprocessing(size=program.image_shape[1:], mean=(0.0,) * program.image_shape[0])
            try:
                masktool.export(write_program(program), path, preprocessing=preprocessing, gradient="logit")
            except MasktoolError:
                continue  # a network that is refused has no file
            found.append(path.read_bytes())
    return found


def draw(rng: np.random.Generator) -> tuple[bytes, str]:
    """Mutates metadata, or anything, of one of the parents."""
    import onnx

    content = parents()[int(rng.integers(len(parents())))]
    if rng.random() < 0.4:
        return mutate_model(content, rng), ".onnx"
    model = onnx.load_model_from_string(content)
    for _ in range(int(rng.integers(1, 4))):
        change_metadata(model, rng)
    return model.SerializeToString(), ".onnx"


def run(path: Path, option: int) -> str:
    """Uses the file in one of several ways; the commands turn every error that is foreseen into exit code 2."""
    ways = (use_session, use_info, use_check, use_explain)
    return ways[option % len(ways)](path)


def use_session(path: Path) -> str:
    """Runs it with a mask."""
    with masktool.load(path, threads=1) as session:
        height, width = (side or 20 for side in session.spatial_shape)
        sides = [length or 1 for length in session.input_shape]
        for axis, side in zip((2, 3) if session.layout == "NCHW" else (1, 2), (height, width), strict=True):
            sides[axis] = side
        session(np.zeros(sides, np.float32), np.ones((2, 1, height, width), np.float32))
    return ""


def use_info(path: Path) -> str:
    """Describes it."""
    return code_of(["info", str(path), "--rules"])


def use_check(path: Path) -> str:
    """Measures it; exit code 1 says that a figure is beyond its limit, as it may well be."""
    return code_of(["export", "--check", str(path)], allowed=(0, 1, 2))


def use_explain(path: Path) -> str:
    """Explains a picture with it."""
    from masktool.demo import sample_path

    options = ["--method", "occlusion", "--threads", "1", "-o", str(path.parent), "--format", "png,json"]
    return code_of(["explain", str(sample_path()), "-m", str(path), *options])


def code_of(arguments: list[str], allowed: tuple[int, ...] = (0, 2)) -> str:
    """Runs a command quietly and returns what was wrong with its exit code."""
    import contextlib
    import io

    said, printed = io.StringIO(), io.TextIOWrapper(io.BytesIO())  # paths are printed as bytes
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = run_command(arguments)
    return "" if code in allowed else f"exit code {code} of {arguments[0]}: {said.getvalue()[-300:]}"


TARGETS["masked"] = Target(draw, run, Bounds(seconds=60, megabytes=4000))
