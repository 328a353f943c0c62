"""What ONNX Runtime's providers really do here: those that load compute what the CPU does, under masks and options.

Where the CPU alone loads, all of it is skipped. WebGPU loads in the environment of scripts/webgpu_environment.sh;
OpenVINO in one that has onnxruntime-openvino in place of ONNX Runtime.
"""

import numpy as np
import pytest
from networks.plain_classifier import write_plain_model

import masktool
from masktool.execution_providers import CPU, PROVIDERS, know_provider
from masktool.interface.provider_checks import EXACT, check_options, check_provider
from masktool.interface.provider_proof import ProviderProof
from masktool.runtime.drivers import find_driver_obstacle
from masktool.runtime.provider_options import ChosenProvider
from masktool.runtime.providers import find_missing_build, try_providers

WEBGPU, OPENVINO = know_provider("webgpu"), know_provider("openvino")
SHARE = 1e-3
"""Of the map's range."""


@pytest.fixture(scope="module")
def proof(tmp_path_factory):
    return ProviderProof(tmp_path_factory.mktemp("proof"))


def require(provider):
    """Skips a test where a provider does not load."""
    if reason := find_missing_build(provider) or find_driver_obstacle(provider.driver):
        pytest.skip(reason)


@pytest.mark.parametrize("provider", [each for each in PROVIDERS if each != CPU], ids=lambda provider: provider.name)
def test_it_computes_what_the_cpu_does(provider, proof):
    require(provider)
    found, reason = proof.run(provider)
    assert reason is None
    assert found.difference <= EXACT
    assert check_provider(provider, proof).state == "ok"
    for options in provider.trials:
        assert check_options(provider, options, proof).state in ("ok", "warning")


@pytest.mark.parametrize("provider", [WEBGPU, OPENVINO], ids=lambda provider: provider.name)
def test_an_explanation_is_the_cpus(provider, tmp_path, monkeypatch):
    """Of a plain model, which is exported as the provider needs it."""
    require(provider)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    write_plain_model(tmp_path / "model.onnx")
    given = {"method": "occlusion", "preprocessing": "imagenet", "target": 0, "sliding_window_shapes": (8, 8)}
    on_cpu, there = (
        masktool.explain(tmp_path / "model.onnx", image, **given, strides=(4, 4), providers=name)
        for name in ("cpu", provider.name)
    )
    assert there.settings["providers"][0] == provider.runtime_name
    seen = np.isfinite(on_cpu.attributions)  # the crop leaves an edge out
    span = np.ptp(on_cpu.attributions[seen])
    assert span > 0
    assert np.abs(there.attributions - on_cpu.attributions)[seen].max() <= SHARE * span


def test_openvino_ignores_a_mask_that_may_be_left_out(proof):
    """The day that this fails, ``makes_defaults_constant`` may go."""
    require(OPENVINO)
    session, _ = try_providers(proof._path(False), [ChosenProvider(OPENVINO, {})], None)
    scores, _ = proof._score(session)
    assert proof._differ(scores) > EXACT
    assert all(np.array_equal(scores[0], row) for row in scores)
