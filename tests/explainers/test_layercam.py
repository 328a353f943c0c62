"""LayerCAM against torch's own gradients: one feature map, several fused, and what the file must hold."""

import numpy as np
import onnx
import pytest

import masktool
from explainers.small_network import SMALL_SIZE, draw_input, export_small, small_network
from masktool import MasktoolError, explain, explain_targets, load

EARLY, LATE = 0, 1


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    path = tmp_path_factory.mktemp("layercam") / "small.onnx"
    with load(export_small(path, head=None, feature_map=["late", "early"]), "cpu", threads=1) as session:
        yield session


def expected_maps(image, target):
    """Returns the maps of the early and the late feature map, (h, w), from torch's gradients."""
    pytest.importorskip("torch")
    from explainers.small_network_in_torch import maps_and_gradients

    found = maps_and_gradients(image, target)
    return [np.maximum((np.maximum(gradient, 0) * features).sum(axis=0), 0) for features, gradient in found]


def enlarge(values):
    from explainers.small_network_in_torch import enlarge_in_torch

    return enlarge_in_torch(values, SMALL_SIZE)


@pytest.mark.parametrize(("name", "place"), [("early", EARLY), ("late", LATE)])
@pytest.mark.parametrize("target", [0, 3])
def test_one_map_is_that_of_torch_in_units_of_the_logit(session, name, place, target):
    image = draw_input(3)
    expected = expected_maps(image, target)[place]
    assert expected.max() > 0.001
    for chosen in (name, [name]):
        found = explain(session, image, "layercam", target, feature_map=chosen)
        np.testing.assert_allclose(found.model_attributions, enlarge(expected), atol=1e-5 * expected.max())
        assert found.settings["feature_map"] == [name]
        assert found.forward_passes == 2


@pytest.mark.parametrize("gamma", [2.0, 0.5])
def test_several_maps_are_scaled_and_fused_by_the_maximum(session, gamma):
    image = draw_input(4)
    early, late = expected_maps(image, 1)
    expected = np.maximum(enlarge(np.tanh(gamma * early / early.max())), enlarge(late / late.max()))
    options = {} if gamma == 2 else {"gamma": gamma}
    found = explain(session, image, "layercam", 1, **options)
    np.testing.assert_allclose(found.model_attributions, expected, atol=1e-5)
    assert found.settings["feature_map"] == ["late", "early"]
    assert found.forward_passes == 2  # of the image as it is, and one with the gradients of both maps
    swapped = explain(session, image, "layercam", 1, feature_map=["early", "late"], **options)
    np.testing.assert_array_equal(swapped.model_attributions, found.model_attributions)


def test_a_map_without_a_gradient_stays_0_among_others(tmp_path):
    """No number of a dead early layer may become NaN where it is divided by its largest value."""
    model = small_network()
    (bias,) = (each for each in model.graph.initializer if each.name == "b0")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(6, -1e3, np.float32), "b0"))
    masktool.export(model, tmp_path / "m.onnx", gradient="logit", feature_map=["early", "late"], output_kind="logits")
    found = explain(tmp_path / "m.onnx", draw_input(1), "layercam", 1)
    assert np.isfinite(found.model_attributions).all()


def test_targets_have_maps_of_their_own(session):
    both = explain_targets(session, draw_input(5), [0, 2], "layercam")
    assert not np.array_equal(both[0].model_attributions, both[1].model_attributions)


def test_what_is_no_option_or_no_feature_map_is_told(session):
    for options, told in (
        ({"feature_map": "pooled"}, r"holds another feature map \(pooled\): late, early.*feature_map=.pooled."),
        ({"feature_map": ["late", "late"]}, "names, each of them once"),
        ({"feature_map": []}, None),
        ({"feature_map": [3]}, "names, each of them once"),
        ({"gamma": 0}, "gamma"),
    ):
        if told is None:
            explain(session, draw_input(0), "layercam", **options)
            continue
        with pytest.raises(MasktoolError, match=told):
            explain(session, draw_input(0), "layercam", **options)


def test_a_plain_model_is_exported_with_the_maps_that_are_named(tmp_path, monkeypatch, capsys):
    from masktool.cli import run

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    onnx.save(small_network(), tmp_path / "m.onnx")
    np.save(tmp_path / "image.npy", draw_input(3))
    asked = [
        "explain",
        str(tmp_path / "image.npy"),
        "-m",
        str(tmp_path / "m.onnx"),
        "--output-kind",
        "logits",
        "--json",
    ]
    assert run([*asked, "--method", "layercam", "--set", 'feature_map=["late", "early"]']) == 0
    assert '"feature_map":["late","early"]' in capsys.readouterr().out.replace(" ", "")
    assert run([*asked, "--method", "layercam"]) == 0
    assert '"feature_map":["late"]' in capsys.readouterr().out.replace(" ", "")
