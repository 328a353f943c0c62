"""Score-CAM against torch: the published product, torch's independent mask rules, and the choice of channels."""

import numpy as np
import onnx
import pytest

import masktool
from explainers.small_network import SMALL_SIZE, draw_input, export_small, small_network
from masktool import MasktoolError, explain, explain_targets, load
from masktool.explainers.methods.grad_cam import enlarge
from masktool.explainers.methods.score_cam import FLAT, MOST_CHANNELS, choose_channels, scale_mask, weigh_scored


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The network's file by masking mode, with both feature maps."""
    folder, maps = tmp_path_factory.mktemp("score"), {"gradient": None, "head": None, "feature_map": ["late", "early"]}
    return {mode: export_small(folder / f"{mode}.onnx", masking=mode, **maps) for mode in ("fill", "layer")}


def softmax(values, axis):
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def expected_map(image, target, mode, name, log_odds=False):
    """Returns the map (h, w) at the input, by torch: its activations, its enlargement, its masks, its scores."""
    torch = pytest.importorskip("torch")
    from reference.layer_masking import MaskedReference

    from explainers.small_network_in_torch import SmallNetwork, enlarge_in_torch

    network, given = SmallNetwork(), torch.from_numpy(image[None])
    features = getattr(network.activations(given), name)[0].numpy()
    large = np.stack([enlarge_in_torch(each, SMALL_SIZE) for each in features])
    spans = np.ptp(large, axis=(1, 2))
    features, large, spans = features[spans > 0], large[spans > 0], spans[spans > 0]
    masks = torch.from_numpy((large - large.min(axis=(1, 2), keepdims=True)) / spans[:, None, None])[:, None]
    if mode == "fill":
        logits = network(given * masks).numpy()
    else:
        logits = MaskedReference(network, given, len(masks))(given, masks).numpy()
    scores = softmax(logits.astype(np.float64), 1)[:, target]
    if log_odds:
        scores = np.log(scores) - np.log(1 - scores)
    coarse = np.maximum(np.einsum("k,khw->hw", softmax(scores, 0), features), 0)
    return enlarge_in_torch(coarse, SMALL_SIZE)


@pytest.mark.parametrize("mode", ["fill", "layer"])
@pytest.mark.parametrize("name", ["late", "early"])
def test_it_is_what_torch_gives_behind_its_own_masks(files, mode, name):
    """Under ``fill`` these are products with the image, as published; under ``layer`` rules written without ours."""
    image = draw_input(6)
    with load(files[mode], "cpu", threads=1) as session:
        for target in (0, 3):
            found = explain(session, image, "score-cam", target, feature_map=name)
            expected = expected_map(image, target, mode, name)
            np.testing.assert_allclose(found.model_attributions, expected, atol=1e-5 * expected.max())
        odds = explain(session, image, "score-cam", 1, feature_map=name, score="log-odds")
    expected = expected_map(image, 1, mode, name, log_odds=True)
    np.testing.assert_allclose(odds.model_attributions, expected, atol=1e-4 * expected.max())
    assert odds.forward_passes == 1 + odds.settings["n_channels"]


def test_the_channels_of_the_largest_variance_are_scored():
    features = np.zeros((5, 2, 2), np.float32)
    features[0, 0, 0], features[1], features[2, 1, 1], features[3, 0, 1] = 1, 7, 3, -2  # 1 and 4 are flat
    assert choose_channels(features, 10).tolist() == [2, 3, 0]
    assert choose_channels(features, 2).tolist() == [2, 3]
    equal = np.tile(features[:1], (4, 1, 1))
    assert choose_channels(equal, 3).tolist() == [0, 1, 2]  # of equal ones the first


def test_masks_reach_from_0_to_1_and_weights_make_a_mean():
    values = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    mask = scale_mask(enlarge(values, (32, 40)))
    assert (mask.min(), mask.max()) == (0, 1)
    features = np.abs(np.random.default_rng(1).normal(size=(6, 3, 3))).astype(np.float32)
    np.testing.assert_allclose(weigh_scored(features, np.full(6, 0.3)), features.mean(axis=0), rtol=1e-6)
    one = weigh_scored(features, np.array([0, 0, 900.0, 0, 0, 0]))
    np.testing.assert_allclose(one, features[2], rtol=1e-6)
    assert not weigh_scored(-features, np.zeros(6)).any()


def test_fewer_channels_and_budgets_take_fewer_passes_and_say_so(files):
    image = draw_input(7)
    with load(files["layer"], "cpu", threads=1) as session:
        whole = explain(session, image, "score-cam", 1)
        few = explain(session, image, "score-cam", 1, n_channels=3)
        budget = explain(session, image, "score-cam", 1, budget=4)
        cut = explain(session, image, "score-cam", 1, n_channels=7, budget=4)
    assert (few.forward_passes, budget.forward_passes, cut.forward_passes) == (4, 4, 4)
    assert few.settings["n_channels"] == budget.settings["n_channels"] == 3
    assert np.array_equal(few.model_attributions, budget.model_attributions)
    assert any("3 of 8 channels were scored" in note for note in few.notes)
    flat = 8 - whole.settings["n_channels"]
    assert any("channels were scored" in note for note in whole.notes) == (flat > 0)
    assert MOST_CHANNELS + 1 <= 250


def test_targets_share_the_passes(files):
    with load(files["layer"], "cpu", threads=1) as session:
        both = explain_targets(session, draw_input(8), [0, 2], "score-cam")
        alone = explain(session, draw_input(8), "score-cam", 2)
    assert both[0].forward_passes == alone.forward_passes
    np.testing.assert_array_equal(both[1].model_attributions, alone.model_attributions)


def test_a_flat_feature_map_is_noted(tmp_path):
    model = small_network()
    for each in model.graph.initializer:
        if each.name == "k1":
            each.CopyFrom(onnx.numpy_helper.from_array(np.zeros((8, 6, 3, 3), np.float32), "k1"))
    masktool.export(model, tmp_path / "m.onnx", feature_map="last", output_kind="logits")
    found = explain(tmp_path / "m.onnx", draw_input(0), "score-cam", 0)
    assert not found.model_attributions.any()
    assert FLAT in found.notes
    assert found.forward_passes == 1


def test_no_number_of_channels_is_refused(files):
    with pytest.raises(MasktoolError, match="n_channels"):
        explain(files["layer"], draw_input(0), "score-cam", n_channels=0)
