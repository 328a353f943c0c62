"""Intel's Model API reads a portable file that explains itself: its classifier finds the map by its name."""

import numpy as np
import pytest
from embedding.explained_files import SIZE, write_explained

model_api = pytest.importorskip("model_api.models", reason="openvino-model-api is not installed; no extra brings it")
adapters = pytest.importorskip("model_api.adapters")
from runtimes.test_openvino import run_openvino  # noqa: E402  # skips without OpenVINO, which Model API needs


@pytest.mark.parametrize("method", ["gradient", "occlusion", "lime"])
def test_the_classifier_finds_the_map(tmp_path, method):
    """Model API takes pictures as they are, and puts its own resize, here to the same size, in front of the network."""
    path = write_explained(tmp_path / "explained.onnx", method, portable=True)
    picture = np.random.default_rng(0).integers(0, 3, (*SIZE, 3)).astype(np.uint8)
    in_single_precision = {"plugin_config": {"INFERENCE_PRECISION_HINT": "f32"}, "device": "CPU"}
    adapter = adapters.OpenvinoAdapter(adapters.create_core(), str(path), **in_single_precision)
    found = model_api.Model.create_model(adapter, model_type="Classification")(picture)
    expected = run_openvino(path, {"image": picture.transpose(2, 0, 1)[None].astype(np.float32)})
    assert found.saliency_map.shape == (1, 1, *SIZE)
    assert np.ptp(found.saliency_map) > 0
    assert np.abs(found.saliency_map - expected["saliency_map"]).max() <= 1e-4 * np.ptp(expected["saliency_map"])
    assert found.top_labels[0].id == expected["logits"].argmax()
