"""Files that explain themselves against the explainer in Python: time, agreement, size and memory.

    python -m benchmarks.embedded_explanations squeezenet.onnx cifar.onnx built-in [--methods rise lime] [--repeats 5]
    python -m benchmarks.embedded_explanations --memory squeezenet.onnx

Each method is run in the file and in Python in turn, on one thread, with the same settings; CPU time stands beside
ratios. ``--memory`` gives the peak of a process that runs RISE in the file, 8 masks a pass, for 100 and for 4,000
masks, beside that of one pass of the plain model on 8 images.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime

import masktool
from masktool.contract import SALIENCY_MAP
from masktool.demo import program_path
from masktool.embedding.method import EMBEDDED_METHODS
from masktool.embedding.options import build_embedded_method
from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.exporters.sources import load_source
from masktool.exporters.storage import serialise
from masktool.runtime.session import MaskedSession

BUILT_IN = "built-in"
OPTIONS: dict[str, dict[str, Any]] = {
    "rise": {"n_masks": 300},
    "lime": {"n_samples": 1000, "n_segments": 100},
    "integrated-gradients": {"n_steps": 20},
    "smoothgrad": {"n_samples": 20},
    "neuromask": {"n_iterations": 100, "tolerance": 0},
    "extremal": {"n_iterations": 100, "tolerance": 0},
}
"""Options with which a method is measured, where they are not its defaults."""
OCCLUSION_SIDE = 7
"""Windows per row and column of occlusion, edge to edge: 49 where the side of the input is a multiple."""
MEMORY_CHUNK = 8
MEMORY_MASKS = (100, 4000)


class Pair(NamedTuple):
    """One method in a file and in Python, ready to run on an image; the file, its image input, and sizes in bytes."""

    path: Path
    image_input: str
    image: np.ndarray
    in_file: Callable[[], np.ndarray]
    in_python: Callable[[], np.ndarray]
    extra_bytes: int
    plain_bytes: int


def options_of(method: str, size: tuple[int, int]) -> dict[str, Any]:
    """Returns the options that a method is measured with, on an input of (height, width)."""
    if method == "occlusion":
        window = [max(1, side // OCCLUSION_SIDE) for side in size]
        return {"sliding_window_shapes": window, "strides": window}
    return OPTIONS.get(method, {})


def open_plain(path: Path) -> onnxruntime.InferenceSession:
    """Opens a file in ONNX Runtime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def make_pair(model: str, method: str, folder: Path, chunk: int) -> Pair:
    """Exports a model with one method, and with a mask and gradients, and opens both on one thread."""
    source = load_source(program_path() if model == BUILT_IN else model)
    plain = folder / "plain.onnx"
    plain.write_bytes(serialise(source.model))
    needs_gradient = build_embedded_method(method, {}).needs_gradient
    masktool.export(plain, folder / "masked.onnx", gradient="logit" if needs_gradient else None)
    masked = MaskedSession(folder / "masked.onnx", providers="cpu", threads=1)
    height, width = masked.spatial_shape
    assert height is not None
    assert width is not None
    options = options_of(method, (height, width))
    exported = masktool.export_explained(plain, folder / "explained.onnx", method, chunk=chunk, **options)
    session = open_plain(folder / "explained.onnx")
    shape = [1, *(length for length in masked.input_shape[1:] if length is not None)]
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    built = build_embedded_method(method, options)
    settings = ExplanationSettings(perturbations_per_eval=chunk)

    def in_file() -> np.ndarray:
        (found,) = session.run([SALIENCY_MAP], {masked.metadata.image_input: image})
        return np.asarray(found)[0, 0]

    def in_python() -> np.ndarray:
        ((found,),) = explain_all(masked, [image[0]], [[None]], built, settings)
        return np.asarray(found.model_attributions)

    path = folder / "explained.onnx"
    return Pair(
        path,
        masked.metadata.image_input,
        image,
        in_file,
        in_python,
        exported.n_bytes - plain.stat().st_size,
        plain.stat().st_size,
    )


def cpu_seconds(call: Callable[[], object]) -> float:
    """Returns the CPU time of one call, of all threads of this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


def report_method(model: str, method: str, repeats: int, chunk: int) -> None:
    """Prints one row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        pair = make_pair(model, method, Path(folder), chunk)
        found, expected = pair.in_file(), pair.in_python()
        rounds = [(cpu_seconds(pair.in_python), cpu_seconds(pair.in_file)) for _ in range(repeats)]
    ratios = sorted(own / python for python, own in rounds)
    share = float(np.abs(found - expected).max()) / float(np.ptp(expected))
    print(
        f"{method:22} file {statistics.median(own for _, own in rounds):8.3f} s, Python "
        f"{statistics.median(python for python, _ in rounds):8.3f} s, ratio {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}), difference {share:.1e} of the range, "
        f"{pair.extra_bytes / 1000:+.0f} kB ({pair.extra_bytes / pair.plain_bytes:+.1%})",
        flush=True,
    )


def peak_of(lines: str) -> float:
    """Returns the largest resident set of a process that runs lines of Python, in MiB."""
    process = subprocess.Popen([sys.executable, "-c", lines])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("a measured process failed")
    return usage.ru_maxrss / 1024


def lines_that_run(path: Path, shape: Sequence[int]) -> str:
    """Returns a program that opens a file on one thread and runs it once; an empty shape opens it only."""
    run = f"session.run(None, {{session.get_inputs()[0].name: np.zeros({list(shape)}, np.float32)}})" if shape else ""
    return "\n".join(
        [
            "import numpy as np, onnxruntime",
            "options = onnxruntime.SessionOptions()",
            "options.intra_op_num_threads = 1",
            f"session = onnxruntime.InferenceSession({str(path)!r}, options, providers=['CPUExecutionProvider'])",
            run,
        ]
    )


def report_memory(model: str) -> None:
    """Prints peaks of memory: the plain model on as many images as a pass has masks, and RISE in the file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = load_source(program_path() if model == BUILT_IN else model)
        plain = folder / "plain.onnx"
        plain.write_bytes(serialise(source.model))
        image = onnx.load(plain).graph.input[0].type.tensor_type.shape
        shape = [1, *(dim.dim_value for dim in image.dim[1:])]
        idle = peak_of(lines_that_run(plain, ()))
        masktool.export(plain, folder / "masked.onnx", mask_required=False)
        eight = peak_of(lines_that_run(folder / "masked.onnx", [MEMORY_CHUNK, *shape[1:]]))
        print(f"opened: {idle:.0f} MiB; {MEMORY_CHUNK} images in one pass without a mask: {eight:.0f} MiB")
        for n_masks in MEMORY_MASKS:
            path = folder / f"rise_{n_masks}.onnx"
            masktool.export_explained(plain, path, "rise", n_masks=n_masks, chunk=MEMORY_CHUNK)
            peak = peak_of(lines_that_run(path, shape))
            print(f"RISE, {n_masks} masks, {MEMORY_CHUNK} a pass: {peak:.0f} MiB, {peak / eight:.2f} x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help=f"ONNX files, or {BUILT_IN}")
    parser.add_argument("--methods", nargs="+", default=sorted(EMBEDDED_METHODS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunk", type=int, default=1)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    for model in options.models:
        print(f"{Path(model).name}", flush=True)
        if options.memory:
            report_memory(model)
            continue
        for method in options.methods:
            report_method(model, method, options.repeats, options.chunk)


if __name__ == "__main__":
    main()
