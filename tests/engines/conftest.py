"""What tests of other engines share: files, photographs, and their own processes."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import masktool
from masktool import demo
from masktool.demo import shapes

ROOT = Path(__file__).parents[2]
PATIENCE = 200.0
"""Seconds that a program has; CI's machines are slow and busy."""


def environment(**more):
    """The variables of a program that imports this checkout, with one thread for each library of numbers."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow starts its server by name
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def run_program(*command, timeout=PATIENCE, **options):
    """Runs a program to its end, and returns what it wrote on stdout; what it wrote on stderr is in the error."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=timeout, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def wait_until(condition, what, timeout=PATIENCE):
    """Waits until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A folder of 200 photographs, in which one is damaged."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, pixels in enumerate(shapes.draw(3, 200).images):
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    (folder / "100.png").write_bytes((folder / "100.png").read_bytes()[:300])
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The built-in network, at a path of its own."""
    return Path(shutil.copy(demo.model_path(), tmp_path_factory.mktemp("model") / "shapes.onnx"))


@pytest.fixture(scope="session")
def python():
    """The interpreter of this environment."""
    return sys.executable


@pytest.fixture(scope="session")
def explained(data_dir, tmp_path_factory):
    """A file that explains itself, of a ResNet-20 for CIFAR-10."""
    target = tmp_path_factory.mktemp("explained") / "explained.onnx"
    source = data_dir / "weights" / "cifar_resnet20_ts_op13.onnx"
    options = {"sliding_window_shapes": 8, "strides": 8, "output_kind": "logits"}
    masktool.export_explained(source, target, "occlusion", **options)
    return target


@pytest.fixture(scope="session")
def images():
    """Twelve images as that file takes them."""
    return np.random.default_rng(0).standard_normal((12, 3, 32, 32)).astype(np.float32)
