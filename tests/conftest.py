"""What all tests share: the folder of real weights and photographs, and torchvision where its operators are missing."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import ModuleType

import pytest

# Tests run in as many processes as there are cores: threads of torch's and numpy's would only wait for one another.
for _library in ("OMP", "OPENBLAS"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

# Files of tests need not outlive a power cut, and a disk that others use takes .1 s to say that it has them.
os.fsync = lambda fd: None  # noqa: ARG005 - the name that os has

# A shell lets its background jobs ignore an interruption, and what they start inherits that: tests send some.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from quick_sessions import run_sessions_on_one_thread  # noqa: E402
from quick_torch import share_operators_where_torch_is  # noqa: E402

import masktool  # noqa: E402, F401 - before any test imports ONNX Runtime: turns its telemetry off
from benchmarks.torchvision_networks import import_torchvision_models  # noqa: E402

run_sessions_on_one_thread()

DATA_VARIABLE = "MASKTOOL_TEST_DATA"
DATA_BESIDE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_runtest_setup() -> None:
    """Before a test."""
    share_operators_where_torch_is()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with weights/, golden/, cifar/, acuity227/ and more; the test is skipped where there is none."""
    folder = Path(os.environ.get(DATA_VARIABLE) or DATA_BESIDE_CHECKOUT)
    if not (folder / "weights").is_dir():
        pytest.skip(f"needs the test data: set {DATA_VARIABLE} to its folder (looked in {folder})")
    return folder


@pytest.fixture(scope="session")
def torchvision_models() -> ModuleType:
    """The module ``torchvision.models``."""
    pytest.importorskip("torch")
    return import_torchvision_models()
