"""A session on the region model."""

import pytest

from explainers.models import write_region_model
from masktool import load


@pytest.fixture(scope="package")
def model(tmp_path_factory):
    return write_region_model(tmp_path_factory.mktemp("model") / "regions.onnx")


@pytest.fixture
def session(model):
    with load(model, providers="cpu", threads=1) as opened:
        yield opened
