"""Gradients in ONNX Runtime against torch, on the CPU: time and peak memory, both sides in one run.

    python -m benchmarks.gradient [--network resnet18 --network resnet50] [--batch 4] [--threads 1]

Two jobs: the gradient of a logit with respect to the image, and one step of a learned mask (blend with a grey image,
cross-entropy, gradient with respect to the mask, RMSProp). Weights are frozen on both sides. torch runs in its default
layout and in channels_last. With --threads 1 times are CPU seconds, which other work on the machine hardly changes.
Peak memory is that of a process that does the first job alone.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import seconds_of

CLASS = 7
LEARNING_RATE, DECAY, EPSILON = 0.03, 0.9, 1e-10
"""RMSProp as in NeuroMask (arXiv 1908.04389)."""
Job = Callable[[], object]


def draw_images(batch: int, size: int) -> np.ndarray:
    """Returns images (batch, 3, size, size) float32."""
    return np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32)


def build_network(name: str, size: int) -> Any:
    """Returns a torchvision network with random weights of unit size, frozen."""
    import torch

    from benchmarks.random_weights import draw_weights
    from benchmarks.torchvision_networks import import_torchvision_models

    fixed = {"image_size": size} if name.startswith("vit") else {}
    network = import_torchvision_models().get_model(name, weights=None, **fixed).eval()
    draw_weights(network, torch.Generator().manual_seed(0), (size, size))
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network


def write_files(name: str, size: int, folder: Path) -> tuple[Path, Path]:
    """Writes the plain network with gradients, and the network behind a blend with grey; returns both paths."""
    import onnx_ir as ir

    import masktool
    from masktool.exporters.canonical import canonicalise
    from masktool.exporters.gradient import add_gradients
    from masktool.exporters.gradient_ends import ScoreLosses
    from masktool.exporters.sources import load_source

    source = load_source(build_network(name, size), input_size=(size, size))
    model = canonicalise(source.model)
    output = model.graph.outputs[0].name
    assert output is not None
    add_gradients(model, source.image_input, ScoreLosses(output, "logits"))
    plain = folder / f"{name}.gradient.onnx"
    ir.save(model, plain)
    filled = folder / f"{name}.fill.onnx"
    masktool.export(source, filled, masking="fill", baseline="mean", gradient="log-softmax")
    return plain, filled


def gradient_in_onnx(path: Path, images: np.ndarray, threads: int | None = None) -> Job:
    """Returns a job: the gradient of one logit with respect to the images."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # as masktool opens sessions on the CPU
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: images, "target": np.array([CLASS])}
    return lambda: session.run(["gradient_image"], feeds)[0]


def gradient_in_torch(network: Any, images: np.ndarray, channels_last: bool) -> Job:
    """Returns the same job in torch."""
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = copy.deepcopy(network).to(memory_format=layout)
    data = torch.from_numpy(images).contiguous(memory_format=layout)

    def run() -> np.ndarray:
        value = data.detach().requires_grad_(True)
        network(value)[:, CLASS].sum().backward()
        assert value.grad is not None
        return value.grad.numpy()

    return run


def step_in_onnx(path: Path, images: np.ndarray, threads: int | None) -> Job:
    """Returns a job: one step of a learned mask, through a file with gradients."""
    import masktool

    session = masktool.load(path, providers="cpu", threads=threads)
    weights = np.zeros((len(images), 1, *images.shape[2:]), np.float32)
    squares = np.ones_like(weights)

    def run() -> None:
        mask = 1 / (1 + np.exp(-weights))
        found = session.gradient(images, mask, target=CLASS, of=("mask",))
        assert found.mask is not None
        slope = -found.mask * mask * (1 - mask)
        squares[:] = DECAY * squares + (1 - DECAY) * slope**2
        weights[:] -= LEARNING_RATE * slope / np.sqrt(squares + EPSILON)

    return run


def step_in_torch(network: Any, images: np.ndarray, channels_last: bool) -> Job:
    """Returns the same job in torch."""
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = copy.deepcopy(network).to(memory_format=layout)
    data = torch.from_numpy(images).contiguous(memory_format=layout)
    weights = torch.zeros(len(images), 1, *images.shape[2:], requires_grad=True)
    optimiser = torch.optim.RMSprop([weights], lr=LEARNING_RATE, alpha=DECAY, eps=EPSILON)
    target = torch.full((len(images),), CLASS)

    def run() -> None:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(data * torch.sigmoid(weights)), target, reduction="sum")
        loss.backward()
        optimiser.step()

    return run


def peak_memory() -> float:
    """Returns the largest resident set of this process so far, in MiB; getrusage would count the parent's."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def peak_of_onnx(path: str, images: np.ndarray, pipe: Any) -> None:
    """Sends the peak resident set, in MiB, of a process that computes gradients in ONNX Runtime."""
    job = gradient_in_onnx(Path(path), images)
    job(), job()
    pipe.send(peak_memory())


def peak_of_torch(name: str, images: np.ndarray, pipe: Any) -> None:
    """Sends the same for torch."""
    job = gradient_in_torch(build_network(name, images.shape[2]), images, channels_last=False)
    job(), job()
    pipe.send(peak_memory())


def cpu_seconds_of(job: Job) -> float:
    """Returns the CPU seconds that one run of a job takes, in all threads."""
    began = time.process_time()
    job()
    return time.process_time() - began


def measure_peak(target: Callable[..., None], subject: str, images: np.ndarray) -> float:
    """Runs one of the two in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(subject, images, sender))
    process.start()
    peak = receiver.recv()
    process.join()
    return float(peak)


def report(title: str, jobs: dict[str, Job], repeats: int, threads: int | None) -> None:
    """Runs jobs in turn and prints medians, spread, and how many times as long as the first the others take.

    Each runs twice in a row and the second run counts: idle threads of one library spin for a while and would slow the
    other's next run, which happens to nobody who uses one of them.
    """
    for job in jobs.values():
        job()
    take = cpu_seconds_of if threads == 1 else seconds_of
    rounds = [[(job(), take(job))[1] for job in jobs.values()] for _ in range(repeats)]
    first = [times[0] for times in rounds]
    print(title + (", CPU seconds" if threads == 1 else ""))
    for name, times in zip(jobs, zip(*rounds, strict=True), strict=True):
        ratios = [own / other for own, other in zip(times, first, strict=True)]
        spread = f"from {min(times):.3f} to {max(times):.3f} s"
        around = f"({min(ratios):.2f} to {max(ratios):.2f})"
        median = statistics.median(times)
        print(f"  {name:22} median {median:.3f} s, {spread}, {statistics.median(ratios):.2f} x ours {around}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", help="name of a torchvision network")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, help="of one operator, on both sides; each side's own choice")
    options = parser.parse_args()
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    images = draw_images(options.batch, options.size)
    for name in options.network or ["resnet18", "resnet50"]:
        with tempfile.TemporaryDirectory() as folder:
            plain, filled = write_files(name, options.size, Path(folder))
            memory = measure_peak(peak_of_onnx, str(plain), images), measure_peak(peak_of_torch, name, images)
            network = build_network(name, options.size)
            gradients: dict[str, Job] = {
                "ONNX Runtime": gradient_in_onnx(plain, images, options.threads),
                "torch": gradient_in_torch(network, images, channels_last=False),
                "torch, channels_last": gradient_in_torch(network, images, channels_last=True),
            }
            steps: dict[str, Job] = {
                "ONNX Runtime": step_in_onnx(filled, images, options.threads),
                "torch": step_in_torch(network, images, channels_last=False),
                "torch, channels_last": step_in_torch(network, images, channels_last=True),
            }
            report(
                f"{name}, batch {options.batch}: gradient with respect to the image",
                gradients,
                options.repeats,
                options.threads,
            )
            report(f"{name}, batch {options.batch}: step of a learned mask", steps, options.repeats, options.threads)
            print(f"  peak memory: {memory[0]:.0f} MiB, torch {memory[1]:.0f} MiB, ratio {memory[0] / memory[1]:.2f}")


if __name__ == "__main__":
    main()
