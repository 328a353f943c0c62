"""Every command that writes, struck at every kind of moment: never half a file, nothing left, the same bytes at last.

The quick run strikes each command once in each way; ``pytest -m slow tests/faults`` kills each twenty times, at random
steps and at random times.
"""

import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from explainers.models import noise_photograph
from networks.small_graphs import classifier
from PIL import Image

from masktool import export
from masktool.contract import Preprocessing
from masktool.exporters.cache import RECORD
from masktool.files import TEMPORARY_PREFIX
from masktool.interface.folders.run import JOURNAL

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, limits and /proc of Linux")

ROOT = Path(__file__).parents[2]
CPU = ["--provider", "cpu"]
PHOTO = ["photos/a.png", *CPU, "--method", "occlusion", "--format", "png,json,npz", "-o", "out"]
FOLDER = ["photos", *CPU, "--method", "occlusion", "--format", "png,json,npz,parquet", "-o", "out"]
EVALUATE = [
    "evaluate",
    "faithfulness",
    "masked.onnx",
    "photos",
    "--method",
    "occlusion",
    "--metric",
    "confidence",
    *CPU,
]
COMMANDS = {
    "export": ["export", "plain.onnx", "-o", "out/model.onnx", "--gradient", "logit"],
    "gradient": [
        "gradient",
        "plain.onnx",
        "--of",
        "image",
        "--output",
        "scores",
        "--target",
        "1",
        "-o",
        "out/model.onnx",
    ],
    "explain": ["explain", *PHOTO, "-m", "masked.onnx"],
    "explain a folder": ["explain", *FOLDER, "-m", "masked.onnx"],
    "explain in the cache": ["explain", *PHOTO, "-m", "plain.onnx", "--preprocess", "pre.json"],
    "evaluate": [*EVALUATE, "-o", "out"],
    "report": ["evaluate", "report", "results", "-o", "out/page.html"],
    "package": ["package", "masked.onnx", "--triton", "out", "--overwrite"],
    "package an image": ["package", "masked.onnx", "--docker", "out/image", "--overwrite"],
    "demo": ["demo", "-o", "out", "--samples", "20", *CPU],
}
TRAIN = [
    *("train-masker", "weights.pt", "--arch", "net.py:build", "--input-size", "32", "32", "--data", "data"),
    *("--mean", ".5,.5,.5", "--std", ".13,.13,.13", "--epochs", "2", "--batch", "8", "-o", "out/masker.onnx"),
    *("--log", "out/log.jsonl", "--resume"),
]
KILLS = 20
MEMORY = (0, 64 << 20)
"""Bytes that a process may take beyond what it has at the start."""


class Driver:
    """A process that runs jobs; see :mod:`faults.driver`."""

    def __init__(self, folder, *modules):
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "faults.driver", *modules]
        self.folder = folder
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, *jobs):
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.communicate()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    driver = Driver(tmp_path_factory.mktemp("faults"))
    yield driver
    driver.close()


@pytest.fixture(scope="module")
def inputs(driver):
    """A folder with all that the commands read."""
    folder = driver.folder / "inputs"
    (folder / "photos").mkdir(parents=True)
    for seed, name in enumerate("abc"):
        Image.fromarray(noise_photograph((8, 8), seed)).save(folder / "photos" / f"{name}.png")
    network = classifier(classify="logits = Gemm(flat, weight) scores = Softmax(logits)")
    onnx.save(network, folder / "plain.onnx")
    (folder / "pre.json").write_text('{"size": [8, 8], "resize": "exact"}')
    export(network, folder / "masked.onnx", preprocessing=Preprocessing(size=(8, 8), resize="exact"))
    (outcome,) = driver.run(job(folder, [*EVALUATE, "-o", "results"]))
    assert outcome["code"] == 0, outcome["said"]
    return folder


def job(folder, arguments, **fault):
    """One run in a folder: caches and temporary files are in it too."""
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {"XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder / "tmp"), "HOME": str(folder)}
    environment["MPLCONFIGDIR"] = str(folder.parent / "matplotlib")
    messages = str(folder.parent / f"{folder.name}-{random.random()}.txt")
    return {"folder": str(folder), "arguments": arguments, "environment": environment, "messages": messages, **fault}


def outputs(folder):
    """What the commands wrote, by name; journals and checkpoints are on their way, and are looked at by themselves.

    That of a folder's explanation stays, and knows photographs by their whole paths."""
    found = {}
    for place in ("out", "cache"):
        for path in sorted((folder / place).rglob("*")):
            if path.is_file() and TEMPORARY_PREFIX not in str(path) and path.name != JOURNAL:
                found[str(path.relative_to(folder))] = settle(path)
    return found


def settle(path):
    """The bytes of a file, less the times, and the source's place, that it names."""
    if path.suffix == ".json":
        document = json.loads(path.read_text())
        if isinstance(document, dict):
            own = {"timing", "command", *(["source"] if path.name == RECORD else [])}
            document = {key: value for key, value in document.items() if key not in own}
        return json.dumps(document, sort_keys=True)
    if path.suffix == ".npz":
        with np.load(io.BytesIO(path.read_bytes())) as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files if name != "metadata"}
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return picture.tobytes()
    if path.suffix == ".checkpoint":
        import torch

        return torch.load(path, weights_only=True)["records"]
    return path.read_bytes()


def leftovers(folder):
    return [str(path.relative_to(folder)) for path in folder.rglob(f"{TEMPORARY_PREFIX}*")]


class Trial:
    """One command: what it writes undisturbed, and runs that are struck."""

    def __init__(self, driver, inputs, arguments):
        self.driver, self.inputs, self.arguments = driver, inputs, arguments
        self.folder = self.fresh()
        (outcome,) = driver.run(job(self.folder, arguments))
        assert outcome["code"] == 0, outcome["said"]
        self.steps, self.expected = outcome["steps"], outputs(self.folder)
        assert self.expected
        assert not leftovers(self.folder)

    def fresh(self):
        folder = self.driver.folder / f"trial-{random.random()}"
        shutil.copytree(self.inputs, folder)
        return folder

    def strike(self, **fault):
        folder = self.fresh()
        (outcome,) = self.driver.run(job(folder, self.arguments, **fault))
        self.check_whole(folder)
        return folder, outcome

    def check_whole(self, folder):
        """Whatever is there under its own name is as it will be; what a run goes on from can be read."""
        for name, content in outputs(folder).items():
            if name.endswith((".jsonl", ".checkpoint")):
                continue
            assert name in self.expected, name
            assert content == self.expected[name], name

    def check_recovery(self, folder):
        """The next run makes what an undisturbed one does, and leaves nothing."""
        (outcome,) = self.driver.run(job(folder, self.arguments))
        assert outcome["code"] == 0, outcome["said"]
        assert outputs(folder) == self.expected
        assert not leftovers(folder)
        shutil.rmtree(folder)


SLOW = ("demo", "train-masker")
"""They take seconds for every run."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in (*COMMANDS, "train-masker")],
)
def trial(request, driver, inputs):
    if request.param == "train-masker":
        pytest.importorskip("torch")
        from commands.trainings import prepare_folder

        prepare_folder(inputs)
    return Trial(driver, inputs, {**COMMANDS, "train-masker": TRAIN}[request.param])


def kill(trial, number, step):
    folder, outcome = trial.strike(fault="kill", step=step, signal=number)
    if number == signal.SIGTERM and outcome["code"] != 0:  # at the last steps it may have ended first
        assert outcome["code"] in (143, 130), outcome["said"]
        assert not leftovers(folder)
    elif number == signal.SIGKILL:
        assert outcome["code"] == -signal.SIGKILL
    trial.check_recovery(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_kill_leaves_no_half_file(trial, number):
    kill(trial, number, random.Random(0).randint(1, trial.steps) if number == signal.SIGKILL else trial.steps)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_many_kills_leave_no_half_file(trial, number):
    draw = random.Random(1)
    for _ in range(KILLS // 2):
        kill(trial, number, draw.randint(1, trial.steps))
    for _ in range(KILLS // 2):
        folder, _ = trial.strike(seconds=draw.uniform(0, 2), signal=number)
        trial.check_recovery(folder)


@pytest.mark.parametrize("fault", ["ENOSPC", "EROFS"])
def test_a_disk_that_takes_no_more_is_one_line(trial, fault):
    folder, outcome = trial.strike(fault=fault, step=1 if fault == "EROFS" else max(trial.steps // 2, 1))
    if outcome["code"] != 0:  # what is only removed or looked for may fail without harm
        last = outcome["said"].splitlines()[-1]
        assert outcome["code"] == 2, outcome["said"]
        assert last.startswith("masktool: "), last
        assert os.strerror(getattr(errno, fault)) in last
    assert "Traceback" not in outcome["said"]
    trial.check_recovery(folder)


def test_two_writers_both_succeed(trial):
    folder = trial.fresh()
    found = trial.driver.run(job(folder, trial.arguments), job(folder, trial.arguments))
    assert [outcome["code"] for outcome in found] == [0, 0], found
    assert {name: text for name, text in outputs(folder).items() if not name.endswith(".jsonl")} == trial.expected
    trial.check_recovery(folder)


def test_a_closed_pipe_leaves_whole_files(trial):
    folder, outcome = trial.strike(fault="pipe")
    assert outcome["code"] in (0, 128 + signal.SIGPIPE)  # the demo's result is what it prints
    assert "Traceback" not in outcome["said"]
    trial.check_recovery(folder)


@pytest.mark.parametrize("spare", MEMORY)
def test_little_memory_leaves_whole_files(trial, spare):
    folder, outcome = trial.strike(fault="memory", bytes=spare)
    assert outcome["code"] in (0, 1, 2), outcome
    assert "Traceback" not in outcome["said"]
    trial.check_recovery(folder)
