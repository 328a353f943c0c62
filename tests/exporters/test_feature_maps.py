"""Feature maps that a file gives: several from one backward pass, some without gradients, and files of before."""

import json

import numpy as np
import onnx
import pytest
from explainers.small_network import draw_input, small_network
from networks.small_graphs import parse

import masktool
from masktool import MasktoolError, load
from masktool.contract import FEATURE_MAP_OUTPUTS, METADATA_PREFIX, MOST_FEATURE_MAPS, Metadata

KIND = {"output_kind": "logits"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the network's file with both feature maps: with gradients, and without."""
    folder = tmp_path_factory.mktemp("maps")
    for name, gradient in (("gradient", "logit"), ("plain", None)):
        masktool.export(
            small_network(), folder / f"{name}.onnx", gradient=gradient, feature_map=["late", "early"], **KIND
        )
    return folder


def test_gradients_of_several_maps_are_those_of_torch(folder):
    pytest.importorskip("torch")
    from explainers.small_network_in_torch import maps_and_gradients

    image = draw_input(1)
    with load(folder / "gradient.onnx", "cpu", threads=1) as session:
        assert session.metadata.feature_maps == ("late", "early")
        found = session.gradient(image[None], target=2, of=("feature_maps", "image"))
        first = session.gradient(image[None], target=2, of=("feature_map",))
    expected = maps_and_gradients(image, 2)[::-1]
    for features, gradient, (own, own_gradient) in zip(
        found.feature_maps, found.gradient_feature_maps, expected, strict=True
    ):
        np.testing.assert_allclose(features[0], own, atol=1e-5)
        np.testing.assert_allclose(gradient[0], own_gradient, atol=1e-6)
    assert first.feature_maps == ()
    assert first.image is None
    np.testing.assert_array_equal(first.feature_map, found.feature_maps[0])
    np.testing.assert_array_equal(first.gradient_feature_map, found.gradient_feature_maps[0])


def test_without_gradients_the_activations_are_outputs(folder):
    image = draw_input(2)
    with load(folder / "plain.onnx", "cpu", threads=1) as plain, load(folder / "gradient.onnx", "cpu") as other:
        assert plain.output_names == ["logits", "feature_map", "feature_map_2"]
        assert other.output_names == ["logits"]
        assert not plain.has_gradient
        given = plain.run(image[None])
        expected = other.gradient(image[None], target=0, of=("feature_maps",)).feature_maps
        asked = other.run(image[None], outputs=["feature_map_2"])
    np.testing.assert_allclose(given["feature_map"], expected[0], atol=1e-5)
    np.testing.assert_allclose(given["feature_map_2"], expected[1], atol=1e-5)
    np.testing.assert_array_equal(asked["feature_map_2"], expected[1])


def test_gradients_that_are_added_are_of_the_maps_that_the_file_gives(folder, tmp_path):
    added = masktool.add_gradients_to(folder / "plain.onnx", tmp_path / "g.onnx")
    assert added.metadata.feature_maps == ("late", "early")
    names = [each.name for each in onnx.load(tmp_path / "g.onnx").graph.output]
    assert sorted(name for name in names if "feature_map" in name) == [
        "feature_map", "feature_map_2", "gradient_feature_map", "gradient_feature_map_2"
    ]  # fmt: skip
    other = masktool.add_gradients_to(folder / "plain.onnx", tmp_path / "h.onnx", feature_map="early")
    assert other.metadata.feature_maps == ("early",)


@pytest.mark.parametrize(
    "options", [{"portable": True}, {"masking": "fill"}, {"head": "early", "feature_map": ["late", "early"]}]
)
def test_other_kinds_of_files_give_them_too(tmp_path, options):
    exported = masktool.export(small_network(), tmp_path / "m.onnx", **{"feature_map": "last", **KIND, **options})
    first = options.get("head", "late")  # the one in front of a head comes first
    assert exported.metadata.feature_map == first
    with load(tmp_path / "m.onnx", "cpu", threads=1) as session:
        found = session.run(draw_input(0)[None])["feature_map"]
    assert found.shape[1:] == {"early": (6, 14, 16), "late": (8, 7, 8)}[first]


def test_a_file_of_before_is_read(folder, tmp_path):
    """Files say the further maps in an entry of their own, which those of earlier versions lack."""
    model = onnx.load(folder / "gradient.onnx")
    kept = [each for each in model.metadata_props if each.key != METADATA_PREFIX + "more_feature_maps"]
    assert len(kept) == len(model.metadata_props) - 1
    properties = {each.key: each.value for each in kept}
    metadata = Metadata.from_properties(properties)
    assert (metadata.feature_map, metadata.more_feature_maps) == ("late", None)
    assert metadata.feature_maps == ("late",)
    assert Metadata.from_properties({**properties, METADATA_PREFIX + "feature_map": "null"}).feature_maps == ()
    with pytest.raises(MasktoolError, match=r"more_feature_maps.*a list of texts"):
        Metadata.from_properties({**properties, METADATA_PREFIX + "more_feature_maps": json.dumps([1])})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"feature_map": "nothing"}, r"no such feature map \(nothing\).*late"),
        ({"feature_map": ["late", "nothing"], "gradient": "logit"}, r"no such feature map \(nothing\).*late"),
        ({"feature_map": ["late", "late"]}, r"names, each of them once.*late"),
        ({"feature_map": [""]}, "names, each of them once"),
        ({"feature_map": [f"m{n}" for n in range(MOST_FEATURE_MAPS + 1)]}, r"too many feature maps.*at most 8, got 9"),
        ({"feature_map": "late", "plain_branch": True}, r"and no feature map.*plain_branch"),
        ({"feature_map": "late", "class_output": "none", "output_kind": None}, "the model has none"),
        ({"feature_map": "late", "head": "early"}, r"behind one of the feature maps.*late.*early"),
    ],
)
def test_what_no_file_can_give_is_refused(tmp_path, options, told):
    with pytest.raises(MasktoolError, match=told):
        masktool.export(small_network(), tmp_path / "m.onnx", **{**KIND, **options})
    assert list(tmp_path.iterdir()) == []


def test_outputs_of_the_network_keep_their_names(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    named (float[N, 3, 16, 16] image) => (float[N, 4] logits, float[N, 6, 16, 16] feature_map_2)
    <float[6, 3, 3, 3] k0, float[6, 4] weight>
    {
        feature_map_2 = Conv<pads = [1, 1, 1, 1]>(image, k0)
        active = Relu(feature_map_2)
        pooled = GlobalAveragePool(active)
        flat = Flatten(pooled)
        logits = Gemm(flat, weight)
    }
    """
    options = {**KIND, "class_output": "logits"}
    exported = masktool.export(parse(text), tmp_path / "one.onnx", feature_map="active", **options)
    assert [each.name for each in onnx.load(exported.path).graph.output] == ["logits", "feature_map_2", "feature_map"]
    with pytest.raises(MasktoolError, match=r"an output of the name.*feature_map_2"):
        masktool.export(parse(text), tmp_path / "two.onnx", feature_map=["active", "feature_map_2"], **options)
    exported = masktool.export(parse(text), tmp_path / "g.onnx", gradient="logit", **options)
    assert exported.metadata.renamed == {"feature_map_2": "model_feature_map_2"}
    assert len(FEATURE_MAP_OUTPUTS) == MOST_FEATURE_MAPS


def test_the_command_line_names_several(tmp_path, capsys):
    from masktool.cli import run

    onnx.save(small_network(), tmp_path / "m.onnx")
    asked = ["export", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "o.onnx"), "--output-kind", "logits"]
    maps = ["--feature-map", "late", "--feature-map", "early"]
    assert run([*asked, *maps, "--gradient", "logit"]) == 0
    assert "gradients: of the logit; feature map late, early" in capsys.readouterr().err
    assert run([*asked, *maps]) == 0
    assert "feature map: late, early" in capsys.readouterr().err
    assert run(["info", str(tmp_path / "o.onnx")]) == 0
    assert "feature map   late, early" in capsys.readouterr().out
    assert run([*asked, *maps, "--head", "c1"]) == 2
    assert "--feature-map late --feature-map early" in capsys.readouterr().err
