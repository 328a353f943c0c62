"""The result as files: all formats, deterministic, never half-written."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from explainers.models import noise_photograph
from masktool import MasktoolError, explain
from masktool.explainers.explanation import encode_compactly, encode_map
from masktool.runtime.pictures import PNG_KEY


@pytest.fixture
def found(session):
    return explain(session, noise_photograph(), "lime", target=0, n_samples=30, n_segments=6)


def test_json_holds_everything(found):
    document = json.loads(found.to_json({"file": "a.jpg"}))
    assert document["file"] == "a.jpg"
    assert document["schema"] == "masktool.explanation/1"
    assert document["target"]["label"] == "Top Left"
    assert document["settings"]["n_samples"] == 30
    assert document["settings"]["seed"] == 0
    assert document["image"] == {"height": 16, "width": 24, "crop_box": [0, 0, 24, 16]}
    np.testing.assert_allclose(document["attributions"], found.attributions, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(document["model_attributions"], found.model_attributions, rtol=1e-5, atol=1e-12)
    assert np.array_equal(document["segments"], found.segments)
    assert list(document)[-1] == "timing"
    assert " " not in found.to_json()[: found.to_json().index("meaning")]


def test_numbers_are_short_and_nan_is_null():
    values = np.array([[np.nan, 0.1], [1 / 3, -1e-9]], np.float32)
    assert "".join(encode_map(values)) == "[[null,0.1],[0.333333,-1e-09]]"
    assert (
        encode_compactly({"a": float("nan"), "b": [np.float32(0.1), 2, None, "x"]}) == '{"a":null,"b":[0.1,2,null,"x"]}'
    )
    assert "".join(encode_map(None)) == "null"


def test_npz_holds_the_arrays(found):
    with np.load(io.BytesIO(found.to_npz()), allow_pickle=False) as arrays:
        assert np.array_equal(arrays["attributions"], found.attributions)
        assert np.array_equal(arrays["segments"], found.segments)
        assert json.loads(str(arrays["explanation"]))["method"] == "lime"


def test_save_writes_what_was_asked_for_and_nothing_else(found, tmp_path):
    paths = found.save(tmp_path / "new", ("png", "json", "npz"), "cat.lime")
    assert [path.name for path in paths] == ["cat.lime.png", "cat.lime.json", "cat.lime.npz"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    assert json.loads(paths[1].read_text())["method"] == "lime"
    with Image.open(paths[0]) as picture:
        assert json.loads(picture.info[PNG_KEY])["settings"]["seed"] == 0


def test_unknown_format_writes_nothing(found, tmp_path):
    with pytest.raises(MasktoolError, match=r"unknown format.*gif"):
        found.save(tmp_path / "new", ("png", "gif"))
    assert not (tmp_path / "new").exists()


def test_failure_leaves_nothing_behind(found, tmp_path, monkeypatch):
    monkeypatch.setattr(type(found), "plot", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_plot_over_another_photograph(found):
    assert found.plot(Image.new("RGB", (24, 16), "red")).tobytes() != found.plot().tobytes()
    with pytest.raises(MasktoolError, match=r"another size.*24 x 16"):
        found.plot(Image.new("RGB", (25, 16)))


def test_subtitle_says_how_sure_the_map_is(found):
    assert "31 passes" in found.subtitle()
    assert "sampling error" in found.subtitle()
    assert "layer masking" in found.subtitle()
    assert "regions.onnx" in found.subtitle()


def test_result_cannot_be_changed(found):
    with pytest.raises(AttributeError):
        found.target = 2
