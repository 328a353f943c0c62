"""Eigen-CAM against singular value decompositions, its sign, and files with and without gradients."""

import numpy as np
import onnx
import pytest
from networks.integer_sums import WEIGHT_RANGE

import masktool
from explainers.small_network import SMALL_SIZE, draw_input, export_small, small_network
from masktool import MasktoolError, explain, explain_targets, load
from masktool.explainers.methods.eigen_cam import SAME, first_component
from masktool.explainers.methods.grad_cam import enlarge


def decompose(features, *, centred):
    """Returns the first principal component (h, w) and its share of the sum of squares, by numpy's own SVD."""
    rows = features.reshape(len(features), -1).T.astype(np.float64)
    if centred:
        rows = rows - rows.mean(axis=0)
    _, values, right = np.linalg.svd(rows, full_matrices=False)
    weights = right[0] if right[0].sum() >= 0 else -right[0]
    return (rows @ weights).reshape(features.shape[1:]), values[0] ** 2 / (values**2).sum()


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("shape", [(3, 7, 9), (63, 7, 9), (200, 4, 5), (1, 3, 3)])
def test_it_is_the_first_right_singular_vector_whichever_products_are_fewer(shape, centred):
    features = np.random.default_rng(sum(shape)).normal(loc=0.7, size=shape).astype(np.float32)
    found = first_component(features, centred=centred)
    expected, share = decompose(features, centred=centred)
    np.testing.assert_allclose(found.values, expected, atol=1e-5 * np.abs(expected).max())
    assert found.share == pytest.approx(share, rel=1e-6)


def test_behind_a_relu_no_place_is_below_0():
    features = np.maximum(np.random.default_rng(0).normal(size=(20, 6, 6)), 0).astype(np.float32)
    assert first_component(features, centred=False).values.min() >= 0
    assert first_component(features, centred=True).values.min() < 0


def test_nothing_active_gives_a_map_of_zeros():
    found = first_component(np.zeros((4, 3, 3), np.float32), centred=False)
    assert not found.values.any()
    assert found.share == 0


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """The network's file with both feature maps alone, and with gradients."""
    folder = tmp_path_factory.mktemp("eigen")
    maps = {"head": None, "feature_map": ["late", "early"]}
    plain, differentiable = (
        export_small(folder / "p.onnx", gradient=None, **maps),
        export_small(folder / "g.onnx", **maps),
    )
    with load(plain, "cpu", threads=1) as first, load(differentiable, "cpu", threads=1) as second:
        yield first, second


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("name", ["late", "early"])
def test_the_map_is_that_of_the_feature_map_that_torch_computes(sessions, name, centred):
    pytest.importorskip("torch")
    from explainers.small_network_in_torch import maps_and_gradients

    image = draw_input(2)
    (early, _), (late, _) = maps_and_gradients(image, 0)
    expected, share = decompose({"early": early, "late": late}[name], centred=centred)
    for session in sessions:
        found = explain(session, image, "eigen-cam", 1, feature_map=name, centred=centred)
        size = enlarge(expected.astype(np.float32), SMALL_SIZE)
        np.testing.assert_allclose(found.model_attributions, size, atol=1e-4 * np.abs(size).max())
        assert found.quality["component_share"] == pytest.approx(share, rel=1e-4)
        assert found.settings["feature_map"] == name
        assert found.forward_passes == 1


def test_every_target_has_the_same_map_and_is_told_so(sessions):
    both = explain_targets(sessions[0], draw_input(3), [0, 2], "eigen-cam")
    assert np.array_equal(both[0].model_attributions, both[1].model_attributions)
    assert SAME in both[0].notes
    assert both[0].settings["feature_map"] == "late"  # the first that the file gives


def test_what_the_file_does_not_give_is_told(sessions, tmp_path):
    with pytest.raises(MasktoolError, match=r"gives another feature map \(pooled\): late, early"):
        explain(sessions[0], draw_input(0), "eigen-cam", feature_map="pooled")
    with pytest.raises(MasktoolError, match="explains classes only"):
        explain(sessions[0], draw_input(0), "eigen-cam", (0,), output="logits")
    without = export_small(tmp_path / "m.onnx", gradient=None, head=None)
    with pytest.raises(MasktoolError, match=r'not give.*export it again: .*"small".*feature_map="last"'):
        explain(load(without, "cpu"), draw_input(0), "eigen-cam")
    differentiable = export_small(tmp_path / "g.onnx", head=None)
    with pytest.raises(MasktoolError, match=r'not give the feature map.*expected early, got late.*feature_map="early"'):
        explain(differentiable, draw_input(0), "eigen-cam", feature_map="early")


@pytest.mark.parametrize("masking", ["layer", "fill"])
def test_an_exported_file_gets_its_feature_map_in_the_cache(tmp_path, monkeypatch, masking):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = export_small(tmp_path / "m.onnx", gradient=None, head=None, masking=masking)
    said = []
    for name in ("late", "early"):
        options = {} if name == "late" else {"feature_map": name}
        found = explain(path, draw_input(2), "eigen-cam", say=said.append, **options)
        with_map = export_small(tmp_path / "n.onnx", gradient=None, head=None, masking=masking, feature_map=name)
        expected = explain(with_map, draw_input(2), "eigen-cam")
        assert found.settings["feature_map"] == name
        np.testing.assert_array_equal(found.model_attributions, expected.model_attributions)
        assert "adding it" in said[-1]
    explain(path, draw_input(2), "eigen-cam", say=said.append)
    assert "with feature maps, in" in said[-1]
    with pytest.raises(MasktoolError, match=r"no such feature map \(pooled\).*late"):
        explain(path, draw_input(2), "eigen-cam", feature_map="pooled")


def test_a_quantised_network_is_explained_without_gradients(tmp_path):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self):
            self.left = [{"image": draw_input(seed)[None]} for seed in range(8)]

        def get_next(self):
            return self.left.pop() if self.left else None

    onnx.save(small_network(), tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "q.onnx", Images(), quant_format=QuantFormat.QDQ, **WEIGHT_RANGE
    )
    masktool.export(tmp_path / "q.onnx", tmp_path / "m.onnx", feature_map="last", output_kind="logits")
    masktool.export(small_network(), tmp_path / "f.onnx", feature_map="last", output_kind="logits")
    found, expected = (
        explain(tmp_path / name, draw_input(20), "eigen-cam").model_attributions for name in ("m.onnx", "f.onnx")
    )
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
    assert not np.array_equal(found, expected)


def test_a_plain_model_is_exported_with_its_last_feature_map(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    onnx.save(small_network(), tmp_path / "m.onnx")
    said = []
    found = explain(tmp_path / "m.onnx", draw_input(1), "eigen-cam", output_kind="logits", say=said.append)
    assert "exporting it with feature maps" in said[0]
    assert found.settings["feature_map"] == "late"
