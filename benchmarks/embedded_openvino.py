"""Files that explain themselves in OpenVINO against the explainer in Python and ONNX Runtime: time and agreement.

    python -m benchmarks.embedded_openvino squeezenet.onnx cifar.onnx built-in [--methods rise lime]

Each file is written with ``portable=True`` and run once on one thread; seconds are of the first run after the file was
opened. Differences are from the explainer's map, as a share of its range. OpenVINO computes in single precision here;
left to itself it takes half precision where the processor has it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import masktool
from benchmarks.embedded_explanations import BUILT_IN, open_plain, options_of
from masktool.contract import SALIENCY_MAP
from masktool.demo import program_path
from masktool.embedding.method import EMBEDDED_METHODS
from masktool.embedding.options import build_embedded_method
from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.exporters.sources import load_source
from masktool.exporters.storage import serialise
from masktool.runtime.session import MaskedSession

ON_ONE_THREAD = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def timed(call: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Returns the seconds of one call, and the map (h, w) that it gave."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found.reshape(found.shape[-2:])


def report_method(plain: Path, method: str, folder: Path, chunk: int) -> None:
    """Prints one row of the table."""
    import openvino

    needs_gradient = build_embedded_method(method, {}).needs_gradient
    masktool.export(plain, folder / "masked.onnx", gradient="logit" if needs_gradient else None)
    with MaskedSession(folder / "masked.onnx", providers="cpu", threads=1) as masked:
        height, width = masked.spatial_shape
        assert height is not None
        assert width is not None
        options = options_of(method, (height, width))
        exported = masktool.export_explained(
            plain, folder / "explained.onnx", method, chunk=chunk, portable=True, **options
        )
        shape = [1, *(length for length in masked.input_shape[1:] if length is not None)]
        image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        feed = {masked.metadata.image_input: image}
        built, settings = build_embedded_method(method, options), ExplanationSettings(perturbations_per_eval=chunk)

        def explain() -> np.ndarray:
            """Returns the map of the explainer in Python."""
            ((found,),) = explain_all(masked, [image[0]], [[None]], built, settings)
            return np.asarray(found.model_attributions)

        seconds, expected = timed(explain)
    session = open_plain(folder / "explained.onnx")
    compiled = openvino.Core().compile_model(str(folder / "explained.onnx"), "CPU", ON_ONE_THREAD)
    runs = {
        "ONNX Runtime": lambda: np.asarray(session.run([SALIENCY_MAP], feed)[0]),
        "OpenVINO": lambda: np.asarray(compiled(feed)[SALIENCY_MAP]),
    }
    cells = [f"explainer {seconds:7.2f} s"]
    for name, run in runs.items():
        seconds, found = timed(run)
        share = float(np.abs(found - expected).max()) / float(np.ptp(expected))
        cells.append(f"{name} {seconds:7.2f} s {share:8.1e}")
    extra = exported.n_bytes - plain.stat().st_size
    print(
        f"{method:22}", *cells, f"{extra / 1000:+.0f} kB ({extra / plain.stat().st_size:+.1%})", sep=" | ", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help=f"ONNX files, or {BUILT_IN}")
    parser.add_argument("--methods", nargs="+", default=sorted(EMBEDDED_METHODS))
    parser.add_argument("--chunk", type=int, default=1)
    options = parser.parse_args()
    for model in options.models:
        print(Path(model).name, flush=True)
        for method in options.methods:
            with tempfile.TemporaryDirectory() as folder:
                plain = Path(folder) / "plain.onnx"
                plain.write_bytes(serialise(load_source(program_path() if model == BUILT_IN else model).model))
                report_method(plain, method, Path(folder), options.chunk)


if __name__ == "__main__":
    main()
