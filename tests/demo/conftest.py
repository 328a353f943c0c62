"""The training script's modules, which are no package."""

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="session")
def training():
    """The module ``train_demo_model``; skips where torch is not installed."""
    pytest.importorskip("torch")
    sys.path.insert(0, str(SCRIPTS))
    try:
        import train_demo_model
    finally:
        sys.path.remove(str(SCRIPTS))
    return train_demo_model
