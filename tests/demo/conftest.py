"""The training script, which pytest's ``pythonpath`` makes importable."""

import pytest


@pytest.fixture(scope="session")
def training():
    """The module ``train_demo_model``; skips where torch is not installed."""
    pytest.importorskip("torch")
    import train_demo_model

    return train_demo_model
