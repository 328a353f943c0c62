"""`masktool serve` under load, by Triton's client: latency with many clients, and its cost beside the bare session's.

    scripts/serving_environment.sh serving-environment
    serving-environment/bin/python -m benchmarks.serving MODEL [--clients 50] [--seconds 60] [--batch 8] [--rounds 30]

MODEL is what `masktool serve` takes; without it the built-in model. Server and session have one thread. *Clients* send
one image each, again and again, all at once; any answer that is an error, or differs from the session's by more than
1e-5, counts as one. *Overhead*: a request of several images, and a run of ONNX Runtime's session on the same, take
turns; of the server its own CPU seconds count, not the client's, which are told beside.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from masktool.interface.load import load
from masktool.runtime.session import MaskedSession

CLOSE = 1e-5
"""Largest difference from the session's outputs."""
WARM_UP = 3
"""Runs of either side before the first that counts."""
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Running(NamedTuple):
    """A server that runs: where it listens, and its process."""

    address: str
    process: subprocess.Popen[str]

    def cpu_seconds(self) -> float:
        """Returns the CPU seconds that the server has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def megabytes(self) -> float:
        """Returns the memory that the server holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE / 1e6


@contextlib.contextmanager
def run_server(model: str | None) -> Iterator[Running]:
    """Yields a server of one model, named ``model``, once it is ready."""
    import tritonclient.http as triton

    command = [sys.executable, "-m", "masktool", "serve", "--port", "0", "--threads", "1"]
    named = [] if model is None else [f"model={model}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *named], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip().removeprefix("http://")
        with triton.InferenceServerClient(address) as client:
            while not client.is_server_ready():
                time.sleep(0.05)
        yield Running(address, process)
    finally:
        process.terminate()
        process.wait()


class Asking:
    """One client that asks again and again.

    Args:
        address: where the server listens.
        name: name of the model.
        image: its input.
        values: values of the input.
    """

    def __init__(self, address: str, name: str, image: str, values: np.ndarray) -> None:
        import tritonclient.http as triton
        from tritonclient.utils import np_to_triton_dtype

        self.client = triton.InferenceServerClient(address, network_timeout=120.0, connection_timeout=120.0)
        self.name = name
        self.input = triton.InferInput(image, list(values.shape), np_to_triton_dtype(values.dtype))
        self.input.set_data_from_numpy(values)

    def __call__(self, output: str) -> np.ndarray:
        """Returns an output of one request."""
        found: np.ndarray = self.client.infer(self.name, [self.input]).as_numpy(output)
        return found


def measure_clients(server: Running, session: MaskedSession, name: str, clients: int, seconds: float) -> None:
    """Prints the latency of many clients that ask at once."""
    output = session.output_names[0]
    images = draw_images(session, clients)
    expected = [session.run(image[None])[output] for image in images]
    before = server.megabytes()
    times: list[list[float]] = [[] for _ in range(clients)]
    errors: list[str] = []
    began = time.perf_counter()

    def ask(number: int) -> None:
        asking = Asking(server.address, name, session.metadata.image_input, images[number][None])
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            try:
                found = asking(output)
            except Exception as error:  # whatever the client raises is what is counted
                errors.append(f"{type(error).__name__}: {error}")
                continue
            times[number].append(time.perf_counter() - start)
            if np.abs(found - expected[number]).max() > CLOSE:
                errors.append("another result")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - began
    all_times = np.sort(np.concatenate([np.array(each) for each in times]))
    p50, p95, p99 = (1000 * np.quantile(all_times, share) for share in (0.5, 0.95, 0.99))
    print(f"{clients} clients, {elapsed:.0f} s: {len(all_times)} requests, {len(all_times) / elapsed:.0f} a second")
    print(f"errors: {len(errors)}" + "".join(f"\n  {text}" for text in sorted(set(errors))[:5]))
    print(f"latency: p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms, largest {1000 * all_times[-1]:.0f} ms")
    print(f"fewest and most requests of a client: {min(map(len, times))}, {max(map(len, times))}")
    print(f"the server's memory: {before:.0f} MB before, {server.megabytes():.0f} MB after")


def measure_overhead(server: Running, session: MaskedSession, name: str, batch: int, rounds: int) -> None:
    """Prints what a request costs beside a run of the bare session on the same images."""
    bare = open_bare(session)
    images, output = draw_images(session, batch), session.output_names[0]
    asking = Asking(server.address, name, session.metadata.image_input, images)
    sides: dict[str, Callable[[], Any]] = {
        "bare": lambda: bare.run([output], {session.metadata.image_input: images}),
        "server": lambda: asking(output),
    }
    for _ in range(WARM_UP):
        for run in sides.values():
            run()
    found: dict[str, list[tuple[float, float, float]]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sorted(sides, reverse=bool(number % 2)):
            before = (time.perf_counter(), time.process_time(), server.cpu_seconds())
            sides[side]()
            after = (time.perf_counter(), time.process_time(), server.cpu_seconds())
            found[side].append((after[0] - before[0], after[1] - before[1], after[2] - before[2]))
    wall, own, its = ({side: np.array(rows)[:, column] for side, rows in found.items()} for column in range(3))
    print(f"batch {batch}, {rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"bare session: {np.median(wall['bare']):.4f} s wall, {own['bare'].mean():.4f} s CPU")
    print(f"server: {np.median(wall['server']):.4f} s wall, {its['server'].mean():.4f} s CPU")
    print(f"  beside it, the client {own['server'].mean():.4f} s CPU")
    print(f"overhead: {its['server'].sum() / own['bare'].sum() - 1:+.1%} CPU", end=", ")
    print(f"{np.median(wall['server'] / wall['bare']) - 1:+.1%} wall (median of ratios)")


def open_bare(session: MaskedSession) -> Any:
    """Returns ONNX Runtime's session of the same file, with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(session.path, options, providers=["CPUExecutionProvider"])


def draw_images(session: MaskedSession, count: int) -> np.ndarray:
    """Returns noise as images for the model."""
    size = session.known_size or (224, 224)
    channels = session.channels or 3
    shape = (count, channels, *size) if session.layout == "NCHW" else (count, *size, channels)
    return np.random.default_rng(0).standard_normal(shape).astype(session.image_type)


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    with load(given.model, "cpu", 1) as session, run_server(given.model) as server:
        name = "demo" if given.model is None else "model"
        print(f"{session.path.name}, input {draw_images(session, 1).shape[1:]}, one thread")
        if given.rounds:
            measure_overhead(server, session, name, given.batch, given.rounds)
        if given.seconds:
            measure_clients(server, session, name, given.clients, given.seconds)


if __name__ == "__main__":
    main()
