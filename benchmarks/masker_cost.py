"""What a masking model's explanation costs: against a plain forward pass of its classifier, on the CPU provider.

    python -m benchmarks.masker_cost [--network squeezenet1_1 --network resnet18 --network built-in] [--size 224]

On an array: the classifier's plain ONNX graph in ONNX Runtime; the masker's file there, scores and map; the whole
``masktool.explain(session, array, method="masker")``. On a photograph, which is resized first and gets its map in its
own pixels: preparing it and the plain pass; the whole explanation. What a masker costs does not depend on what it has
learned, so none is trained here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from PIL import Image

import masktool
from benchmarks.timing import seconds_of
from masktool.contract import Preprocessing
from masktool.exporters.sources import load_source
from masktool.runtime.preprocessing import prepare
from masktool.runtime.providers import open_on_providers
from masktool.runtime.session import MaskedSession

LIMIT = 1.3
"""Of the ratio between an explanation and a plain forward pass, as the project promises."""
BUILT_IN = "built-in"
PHOTOGRAPH_SIZE = (375, 500)
"""(height, width), as photographs of ImageNet come."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Job = Callable[[], object]


class Network(NamedTuple):
    """A classifier in evaluation mode, and the side of its input in pixels."""

    module: Any
    side: int


def build_network(name: str, side: int) -> Network:
    """Returns a torchvision network with random weights, or the network of ``masktool demo``."""
    from benchmarks.torchvision_networks import import_torchvision_models
    from masktool.demo import program_path, shapes
    from masktool.exporters.torch_sources.modules import load_module

    if name == BUILT_IN:
        return Network(load_module(program_path()).known.module, shapes.SIZE)
    return Network(import_torchvision_models().get_model(name, weights=None).eval(), side)


def write_masker(network: Network, path: Path) -> None:
    """Writes the file of an untrained masker on the classifier's last two stages."""
    import torch

    from masktool.maskers.network import ExplainedClassifier, MaskerNetwork
    from masktool.maskers.settings import TrainingSettings
    from masktool.maskers.stages import choose_stages, list_maps

    size = (network.side, network.side)
    stages = choose_stages(list_maps(network.module, torch.zeros(1, 3, *size)), TrainingSettings().stages, "network")
    both = ExplainedClassifier(network.module, MaskerNetwork(stages, size), stages).eval()
    preprocessing = Preprocessing(size=size, resize="shortest", resize_to=network.side * 256 // 224, mean=MEAN, std=STD)
    masktool.export(
        both,
        path,
        input_size=size,
        channels=3,
        masking="fill",
        preprocessing=preprocessing,
        output_kind="logits",
    )


def write_plain(network: Network, path: Path) -> str:
    """Writes the classifier's plain graph and returns the name of its input."""
    source = load_source(network.module, input_size=(network.side, network.side))
    ir.save(source.model, path)
    return source.image_input


def make_jobs(network: Network, folder: Path, session: MaskedSession) -> tuple[dict[str, Job], dict[str, Job]]:
    """Returns what is timed on an array and on a photograph, the plain pass first."""
    random = np.random.default_rng(0)
    name = write_plain(network, folder / "plain.onnx")
    plain, masker = (
        open_on_providers(path, "cpu", session.threads).session for path in (folder / "plain.onnx", session.path)
    )
    images = random.standard_normal((1, 3, network.side, network.side)).astype(np.float32)
    photograph = Image.fromarray(random.integers(0, 256, (*PHOTOGRAPH_SIZE, 3), np.uint8))
    preprocessing = session.metadata.preprocessing
    return {
        "plain pass": lambda: plain.run(None, {name: images}),
        "masker's pass": lambda: masker.run(None, {session.metadata.image_input: images}),
        "explain": lambda: masktool.explain(session, images, method="masker"),
    }, {
        "plain pass": lambda: plain.run(None, {name: prepare(photograph, preprocessing).array}),
        "explain": lambda: masktool.explain(session, photograph, method="masker"),
    }


def report(title: str, jobs: dict[str, Job], repeats: int) -> list[float]:
    """Runs jobs in turn, prints medians and spread, and returns the medians of their ratios to the first.

    Each runs twice in a row and the second run counts: idle threads of one session spin for a while and would slow the
    other's next run, which happens to nobody who uses one of them.
    """
    for job in jobs.values():
        job()
    rounds = [[(job(), seconds_of(job))[1] for job in jobs.values()] for _ in range(repeats)]
    print(title)
    medians = []
    for name, times in zip(jobs, zip(*rounds, strict=True), strict=True):
        ratios = sorted(own / other[0] for own, other in zip(times, rounds, strict=True))
        medians.append(statistics.median(ratios))
        milliseconds = [1000 * each for each in (statistics.median(times), min(times), max(times))]
        print(
            f"  {name:13} median {milliseconds[0]:7.2f} ms, from {milliseconds[1]:.2f} to {milliseconds[2]:.2f}; "
            f"{medians[-1]:.2f} x plain ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", help=f"name of a torchvision network, or {BUILT_IN}")
    parser.add_argument("--size", type=int, default=224, help="height and width of torchvision networks' input")
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--threads", type=int, help="of every session; by default ONNX Runtime chooses")
    options = parser.parse_args()
    for name in options.network or ["squeezenet1_1", "resnet18", BUILT_IN]:
        network = build_network(name, options.size)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "masker.onnx"
            write_masker(network, path)
            with masktool.load(path, "cpu", threads=options.threads) as session:
                kinds = zip(("an array", "a photograph"), make_jobs(network, Path(folder), session), strict=True)
                for kind, jobs in kinds:
                    title = f"{name}, {network.side} x {network.side}, {kind}"
                    ratio = report(title, jobs, options.repeats)[-1]
                    print(f"  limit {LIMIT}: {'kept' if ratio <= LIMIT else 'BROKEN'}")


if __name__ == "__main__":
    main()
