"""What occlusion costs where only what windows change is computed, against the masked network, on one thread.

python -m benchmarks.incremental_occlusion --network vgg16 --masking layer --window 32 --stride 16

Both sides run in turn, on the same batches of windows. The set-up (reading the file, opening the models, the base
values of one image) is told apart, since an explanation pays it once.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import masktool
from benchmarks.torchvision_networks import import_torchvision_models
from masktool.contract import MASK_INPUT, Masking
from masktool.embedding.incremental.write import write_incremental
from masktool.explainers.incremental import CORNERS, Windows
from masktool.explainers.methods.occlusion import window_corners, window_masks
from masktool.exporters.sources import load_source
from masktool.runtime.model_beside import ModelBeside

THREADS = 1


def cpu_seconds(call: Callable[[], object]) -> float:
    """Returns how long one call takes, in seconds of the process's CPU time."""
    start = time.process_time()
    call()
    return time.process_time() - start


def describe(times: Sequence[float]) -> str:
    """Returns the median of times, with the least and largest."""
    return f"{statistics.median(times):.3f} ({min(times):.3f} to {max(times):.3f})"


def measure(network: str, masking: Masking, window: int, options: argparse.Namespace) -> None:
    """Prints the figures of one network under windows of one size."""
    size, batch = (options.size, options.size), options.batch
    corners = np.array(window_corners(size, (window, window), (options.stride, options.stride)), np.int64)
    rows, columns = corners.T.tolist()
    windows = Windows(size, (window, window), (math.gcd(*rows), math.gcd(*columns)))
    module = import_torchvision_models().get_model(network, weights=None).eval()
    image = np.random.default_rng(0).standard_normal((1, 3, *size)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "masked.onnx"
        metadata = masktool.export(load_source(module, input_size=size), path, masking=masking).metadata
        name, output = metadata.image_input, str(metadata.class_output)
        with masktool.load(path, threads=THREADS) as session:
            start = time.process_time()
            graphs = write_incremental(path, name, output, windows)
            base, patches = (ModelBeside(session, model) for model in (graphs.base, graphs.patches))
            known = {name: image, MASK_INPUT: np.ones((1, 1, *size), np.float32)}
            values = known | base.run(known)
            feed = {each: held.prepare(values[held.source]) for each, held in graphs.inputs.items()}
            set_up = time.process_time() - start
            order = np.random.default_rng(1).permutation(len(corners))
            pairs, furthest = [], 0.0
            for turn in range(options.repeats + 1):  # the first warms up
                chosen = corners[np.take(order, range(turn * batch, (turn + 1) * batch), mode="wrap")]
                found: dict[str, np.ndarray] = {}
                masks = window_masks(size, (window, window), chosen.tolist())
                whole = cpu_seconds(lambda: found.update(whole=session(image, masks)))  # noqa: B023
                part = cpu_seconds(lambda: found.update(patches.run(feed | {CORNERS: chosen})))  # noqa: B023
                pairs.append((whole, part))
                largest = float(np.abs(found["whole"]).max())
                furthest = max(furthest, float(np.abs(found["whole"] - found[output]).max()) / largest)
    ratios = [whole / part for whole, part in pairs[1:]]
    whole, part = (statistics.median(times) / batch for times in zip(*pairs[1:], strict=True))
    overall = (whole * len(corners)) / (part * len(corners) + set_up)
    print(
        f"{network:14} {masking:5} {window:3} px: {describe(ratios)} x, estimated {graphs.gain:.2f}; "
        f"per window {whole * 1e3:.1f} and {part * 1e3:.1f} ms; set-up {set_up:.2f} s, with it {overall:.2f} x "
        f"for {len(corners)} windows; largest difference {furthest:.1e} of the largest score",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", default=["vgg16", "resnet18", "resnet50", "alexnet", "squeezenet1_1"])
    parser.add_argument("--masking", nargs="+", default=["fill", "layer"])
    parser.add_argument("--window", nargs="+", type=int, default=[32, 16])
    parser.add_argument("--stride", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for network in options.network:
        for masking in options.masking:
            for window in options.window:
                measure(network, masking, window, options)


if __name__ == "__main__":
    main()
