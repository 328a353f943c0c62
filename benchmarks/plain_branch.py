"""What ``--plain-branch`` saves and costs: passes without a mask and under masks, file sizes, memory of a session.

Everything runs in ONNX Runtime alone, on one thread of the CPU; calls take turns, and ratios are of CPU time, so that
what else the machine does falls on all sides. Weights are random: they decide neither time nor size.

python -m benchmarks.plain_branch --networks squeezenet1_1 resnet18 resnet50 mobilenet_v2 --batches 1 8
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

import masktool
from benchmarks.torchvision_networks import import_torchvision_models
from masktool.contract import MASK_INPUT
from masktool.exporters.sources import load_source
from masktool.exporters.storage import Running, open_session
from masktool.interface.bench.passes import draw_masks
from masktool.interface.bench.spread import Clocks, divide_laps, take_turns

NETWORKS = ("squeezenet1_1", "resnet18", "resnet50", "mobilenet_v2")
ONE_THREAD = Running(threads=1)
PLAIN, TODAY, BRANCHES = "plain", "masked", "with both"
"""The files: the plain network, the masked one, and the one that holds both."""
STATUS, RESIDENT = Path("/proc/self/status"), ("RssAnon:", "RssFile:")
"""Where Linux says how much memory of a process is its own, and how much lies in files that it maps."""


def write_files(name: str, size: int, folder: Path) -> tuple[dict[str, Path], str]:
    """Writes the files of a network of torchvision; returns their paths and the name of the image input."""
    module = import_torchvision_models().get_model(name, weights=None).eval()
    source = load_source(module, input_size=(size, size))
    paths = {kind: folder / f"{kind.replace(' ', '-')}.onnx" for kind in (PLAIN, TODAY, BRANCHES)}
    ir.save(source.model, paths[PLAIN])
    masktool.export(source, paths[TODAY])
    image = masktool.export(source, paths[BRANCHES], plain_branch=True).metadata.image_input
    return paths, image


def count_bytes(path: Path) -> int:
    """Returns the size of a file with that of its weights beside it."""
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))


def resident_memory() -> dict[str, float]:
    """Returns what of this process is in memory, in MiB: its own, and what it maps from files.

    What was freed is given back to the system first: glibc keeps some of it, which says nothing of what is needed.
    """
    ctypes.CDLL(None).malloc_trim(0)
    lines = (line.split() for line in STATUS.read_text().splitlines())
    return {name: int(rest[0]) / 1024 for name, *rest in lines if name in RESIDENT}


def grow(path: Path, feeds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Returns how much memory a session and runs add to this process, in MiB."""
    before = resident_memory()
    session = open_session(str(path), running=ONE_THREAD)
    for feed in feeds:
        session.run(None, feed)
    return {name: value - before[name] for name, value in resident_memory().items()}


def measure_memory(path: Path, feeds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Returns what :func:`grow` does, of a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(grow, (path, feeds))


def show(ratio: Clocks) -> str:
    """Returns a ratio of CPU times with its spread."""
    cpu = ratio.cpu
    return f"{cpu.median:.3f} ({cpu.lowest:.3f} to {cpu.highest:.3f})"


def measure_times(paths: Mapping[str, Path], image: str, batch: int, size: int, rounds: int) -> None:
    """Prints the ratios of CPU times of passes, and how far the results of the files differ."""
    images = np.random.default_rng(1).standard_normal((batch, 3, size, size)).astype(np.float32)
    sessions = {kind: open_session(str(path), running=ONE_THREAD) for kind, path in paths.items()}
    whole, masked = {image: images}, {image: images, MASK_INPUT: draw_masks(batch, (size, size), np.float32)}
    feeds = {(kind, False): whole for kind in sessions} | {(kind, True): masked for kind in (TODAY, BRANCHES)}
    calls = {key: functools.partial(sessions[key[0]].run, None, feed) for key, feed in feeds.items()}
    results = {key: call()[0] for key, call in calls.items()}
    laps = dict(zip(calls, take_turns({str(key): call for key, call in calls.items()}, rounds).values(), strict=True))
    for kind, under_masks, by in ((TODAY, False, PLAIN), (BRANCHES, False, PLAIN), (BRANCHES, True, TODAY)):
        ratio = divide_laps(laps[kind, under_masks], laps[by, under_masks])
        apart = np.abs(results[kind, under_masks] - results[by, under_masks]).max()
        what = "under masks" if under_masks else "mask left out"
        print(f"  batch {batch}, {what}: {kind} / {by} {show(ratio)}, differing by {apart:g}", flush=True)


def measure_size(paths: Mapping[str, Path], image: str, size: int) -> None:
    """Prints the sizes of the files, and the memory of a session of each."""
    sizes = {kind: count_bytes(path) for kind, path in paths.items()}
    listed = ", ".join(f"{kind} {n_bytes / 1e6:.2f} MB" for kind, n_bytes in sizes.items())
    print(f"  files: {listed}; {BRANCHES} / {TODAY} {sizes[BRANCHES] / sizes[TODAY]:.3f}")
    feed = {image: np.zeros((1, 3, size, size), np.float32)}
    masked = feed | {MASK_INPUT: draw_masks(1, (size, size), np.float32)}
    runs = {PLAIN: [feed], TODAY: [feed, masked], BRANCHES: [feed, masked]}
    for kind, path in paths.items():
        for feeds in ([], runs[kind]):
            found = measure_memory(path, feeds)
            when = f"after {len(feeds)} run{'s' * (len(feeds) != 1)}" if feeds else "opened"
            print(
                f"  memory of {kind}, {when}: " + ", ".join(f"{name} {value:.0f} MiB" for name, value in found.items())
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="names of torchvision networks")
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 8))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    for name in options.networks:
        print(f"{name}, {options.size} x {options.size}, one thread of the CPU, {options.rounds} rounds", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            paths, image = write_files(name, options.size, Path(folder))
            measure_size(paths, image, options.size)
            for batch in options.batches:
                measure_times(paths, image, batch, options.size, options.rounds)


if __name__ == "__main__":
    main()
