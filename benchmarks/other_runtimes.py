"""Files that explain themselves in Node and in a browser, against the explainer in Python: time and agreement.

    scripts/fetch_runtimes.sh runtimes
    python -m benchmarks.other_runtimes squeezenet.onnx cifar.onnx built-in --runtimes runtimes [--methods rise lime]

Each method runs on one image and one thread: by the explainer in Python, and from the file in Python, in
onnxruntime-node, and in onnxruntime-web (WebAssembly) in a headless browser, which Playwright drives (the extra
``dev``). Seconds are of one run after the file was opened; differences are from the explainer's map, as a share of its
range.
"""

from __future__ import annotations

import argparse
import base64
import functools
import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.embedded_explanations import BUILT_IN, Pair, make_pair
from masktool.embedding.method import EMBEDDED_METHODS

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OF_ONNX_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
IN_NODE = """
import { readFileSync, writeFileSync } from "node:fs";
import * as ort from "onnxruntime-node";
const { model, input, shape } = JSON.parse(readFileSync("case.json"));
const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1 });
const image = new ort.Tensor("float32", new Float32Array(readFileSync("image.f32").buffer), shape);
const start = performance.now();
const { saliency_map } = await session.run({ [input]: image });
const seconds = (performance.now() - start) / 1000;
writeFileSync("map.f32", new Uint8Array(saliency_map.data.buffer));
console.log(seconds);
"""
IN_BROWSER = """
async ({ model, input, shape }) => {
  const ort = await import("./ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(await (await fetch(model)).arrayBuffer());
  const values = new Float32Array(await (await fetch("image.f32")).arrayBuffer());
  const start = performance.now();
  const { saliency_map } = await session.run({ [input]: new ort.Tensor("float32", values, shape) });
  const seconds = (performance.now() - start) / 1000;
  const bytes = new Uint8Array(saliency_map.data.slice().buffer);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return { seconds, map: btoa(text) };
}
"""


class Measured(NamedTuple):
    """Seconds of one run, and the map (h, w) that it gave."""

    seconds: float
    saliency_map: np.ndarray


Runtime = Callable[[Path, dict[str, Any]], Measured]
"""Runs the file that a case names, in a folder that holds it and the image."""


def run_in_node(folder: Path, case: dict[str, Any], packages: Path) -> Measured:
    """Runs a file in onnxruntime-node."""
    (folder / "case.json").write_text(json.dumps(case))
    (folder / "run.mjs").write_text(IN_NODE)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(packages.resolve())
    done = subprocess.run(["node", "run.mjs"], cwd=folder, capture_output=True, text=True, check=True)
    return Measured(float(done.stdout), np.fromfile(folder / "map.f32", np.float32))


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *arguments: Any) -> None:
        """Leaves the table to itself."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Yields the address of a server of a folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def run_in_browser(folder: Path, case: dict[str, Any], packages: Path) -> Measured:
    """Runs a file in onnxruntime-web, in a headless browser."""
    from playwright.sync_api import sync_playwright

    for name in OF_ONNX_RUNTIME:
        shutil.copy(packages / "onnxruntime-web" / "dist" / name, folder)
    (folder / "index.html").write_text("<!doctype html><title>benchmark</title>")
    program = next(filter(None, map(shutil.which, PROGRAMS)))
    with serve(folder) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        found = page.evaluate(IN_BROWSER, case)
        browser.close()
    return Measured(found["seconds"], np.frombuffer(base64.b64decode(found["map"]), np.float32))


def time_python(call: Callable[[], np.ndarray]) -> Measured:
    """Runs a call once."""
    start = time.perf_counter()
    saliency_map = call()
    return Measured(time.perf_counter() - start, saliency_map)


def describe(measured: Measured, expected: np.ndarray) -> str:
    """Returns seconds and the difference from a map as a share of its range."""
    difference = float(np.abs(measured.saliency_map.reshape(expected.shape) - expected).max())
    return f"{measured.seconds:8.2f} s {difference / float(np.ptp(expected)):8.1e}"


def report(pair: Pair, method: str, runtimes: dict[str, Runtime]) -> None:
    """Prints one row of the table."""
    pair.image.tofile(pair.path.parent / "image.f32")
    case = {"model": pair.path.name, "input": pair.image_input, "shape": list(pair.image.shape)}
    reference = time_python(pair.in_python)
    expected = reference.saliency_map
    cells = [f"explainer {reference.seconds:8.2f} s", "file " + describe(time_python(pair.in_file), expected)]
    for name, run in runtimes.items():
        cells.append(f"{name} " + describe(run(pair.path.parent, case), expected))
    share = pair.extra_bytes / pair.plain_bytes
    size = f"{pair.plain_bytes / 1e6:.2f} MB {pair.extra_bytes / 1000:+.0f} kB ({share:+.1%})"
    print(f"{method:20}", *cells, size, sep=" | ", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help=f"ONNX files, or {BUILT_IN}")
    parser.add_argument("--runtimes", type=Path, required=True, help="folder that scripts/fetch_runtimes.sh filled")
    parser.add_argument("--methods", nargs="+", default=sorted(EMBEDDED_METHODS))
    parser.add_argument("--chunk", type=int, default=1)
    options = parser.parse_args()
    packages = options.runtimes / "node_modules"
    runtimes: dict[str, Runtime] = {
        "Node": functools.partial(run_in_node, packages=packages),
        "browser": functools.partial(run_in_browser, packages=packages),
    }
    for model in options.models:
        print(Path(model).name, flush=True)
        for method in options.methods:
            with tempfile.TemporaryDirectory() as folder:
                report(make_pair(model, method, Path(folder), options.chunk), method, runtimes)


if __name__ == "__main__":
    main()
