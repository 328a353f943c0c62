"""Randomised copies of exported files: the chosen layers' weights and nothing else, gradients included."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks.small_graphs import parse
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

import masktool
from masktool import MasktoolError
from masktool.cli import run
from masktool.exporters.randomise import (
    RANDOMISED_KEY,
    Layer,
    choose_layers,
    find_layers,
    randomise,
    read_exported,
    redraw,
)

GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
small (float[N, 3, 16, 16] image) => (float[N, 4] scores)
<float[8, 3, 3, 3] kernel, float[8] bias, float[8] scale, float[8] shift, float[8] mean, float[8] variance,
 float[8, 8, 3, 3] second, float[8, 4] weight, float[4] offset>
{
    [stem] features = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, kernel, bias)
    [normalise] normal = BatchNormalization(features, scale, shift, mean, variance)
    [activate] active = Relu(normal)
    [body] deeper = Conv<pads = [1, 1, 1, 1]>(active, second)
    [again] again = Relu(deeper)
    [pool] pooled = GlobalAveragePool(again)
    [flatten] flat = Flatten(pooled)
    [head] scores = Gemm(flat, weight, offset)
}
"""
LAYERS = ("stem", "body", "head")
WEIGHTS = {"stem": ("kernel", "bias"), "body": ("second",), "head": ("weight", "offset")}
MODES = {
    "layer": {},
    "partial": {"masking": "partial"},
    "fill": {"masking": "fill", "baseline": "blur"},
    "layer with gradients": {"gradient": "logit"},
    "fill with gradients": {"masking": "fill", "baseline": "blur", "gradient": "logit"},
}


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    variance = np.linspace(0.5, 2, 8, dtype=np.float32)
    onnx.save(parse(GRAPH, variance=variance), tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


@pytest.fixture(params=list(MODES))
def exported(request: pytest.FixtureRequest, plain: Path, tmp_path: Path) -> Path:
    masktool.export(plain, tmp_path / "exported.onnx", **MODES[request.param])
    return tmp_path / "exported.onnx"


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


def names_of(path: Path) -> tuple[str, ...]:
    return tuple(layer.name for layer in find_layers(read_exported(path)[0]))


def draw(size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((2, 3, size, size)).astype(np.float32)
    return images, (rng.random((2, 1, size, size)) > 0.4).astype(np.float32)


def test_layers_are_the_network_s_own_in_every_mode(exported: Path) -> None:
    layers = find_layers(read_exported(exported)[0])
    assert {layer.name: layer.weights for layer in layers} == WEIGHTS
    assert [layer.name for layer in layers] == list(LAYERS)
    assert [layer.n_weights for layer in layers] == [8 * 3 * 9 + 8, 8 * 8 * 9, 8 * 4 + 4]


@pytest.mark.parametrize("chosen", [("head",), ("head", "body"), ("head", "body", "stem"), ("stem",)])
def test_the_chosen_weights_change_and_nothing_else(exported: Path, tmp_path: Path, chosen: tuple[str, ...]) -> None:
    before = exported.read_bytes()
    randomise(exported, tmp_path / "copy.onnx", chosen)
    assert exported.read_bytes() == before
    old, new = weights_of(exported), weights_of(tmp_path / "copy.onnx")
    assert old.keys() == new.keys()
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed == {weight for layer in chosen for weight in WEIGHTS[layer]}
    graphs = [onnx.load(path) for path in (exported, tmp_path / "copy.onnx")]
    assert [node.SerializeToString() for node in graphs[0].graph.node] == [
        node.SerializeToString() for node in graphs[1].graph.node
    ]
    assert [each.SerializeToString() for each in graphs[0].functions] == [
        each.SerializeToString() for each in graphs[1].functions
    ]


def with_weights(plain: Path, weights: dict[str, np.ndarray], target: Path) -> Path:
    """Puts weights into the plain model by name."""
    model = onnx.load(plain)
    for initializer in model.graph.initializer:
        if initializer.name in weights:
            initializer.CopyFrom(numpy_helper.from_array(weights[initializer.name], initializer.name))
    onnx.save(model, target)
    return target


def test_a_copy_is_what_the_randomised_plain_network_would_have_been_exported_as(
    request: pytest.FixtureRequest, exported: Path, plain: Path, tmp_path: Path
) -> None:
    """Gradients too: whatever the backward pass reads of the weights has changed with them."""
    randomise(exported, tmp_path / "copy.onnx", LAYERS, seed=1)
    again = with_weights(plain, weights_of(tmp_path / "copy.onnx"), tmp_path / "again.onnx")
    mode = request.node.callspec.params["exported"]
    masktool.export(again, tmp_path / "expected.onnx", **MODES[mode])
    copy, expected = (masktool.load(tmp_path / name, "cpu") for name in ("copy.onnx", "expected.onnx"))
    images, masks = draw()
    np.testing.assert_array_equal(copy(images, masks), expected(images, masks))
    assert np.abs(copy(images, masks) - masktool.load(exported, "cpu")(images, masks)).max() > 0.01
    if "gradients" in mode:
        found, wanted = (each.gradient(images, masks, target=[1, 3], of=("image", "mask")) for each in (copy, expected))
        assert np.abs(wanted.image).max() > 1e-4
        np.testing.assert_array_equal(found.image, wanted.image)
        np.testing.assert_array_equal(found.mask, wanted.mask)


def test_a_real_network_s_copy_is_the_randomised_network_s_export(data_dir: Path, tmp_path: Path) -> None:
    plain = data_dir / "weights" / "cifar_resnet20_ts_op13.onnx"
    masktool.export(plain, tmp_path / "exported.onnx")
    names = names_of(tmp_path / "exported.onnx")
    assert len(names) == 20  # 19 convolutions and the classifier; the shortcuts have no weights
    randomise(tmp_path / "exported.onnx", tmp_path / "copy.onnx", names[-7:])
    again = with_weights(plain, weights_of(tmp_path / "copy.onnx"), tmp_path / "again.onnx")
    masktool.export(again, tmp_path / "expected.onnx")
    copy, expected = (masktool.load(tmp_path / name, "cpu") for name in ("copy.onnx", "expected.onnx"))
    images, masks = draw(32)
    np.testing.assert_array_equal(copy(images, masks), expected(images, masks))


def test_masks_still_hide_whatever_is_under_them_and_ones_change_nothing(exported: Path, tmp_path: Path) -> None:
    randomise(exported, tmp_path / "copy.onnx", LAYERS)
    copy = masktool.load(tmp_path / "copy.onnx", "cpu")
    images, masks = draw()
    hidden = np.where(masks == 0, np.float32("nan"), images)
    np.testing.assert_array_equal(copy(hidden, masks), copy(images, masks))
    np.testing.assert_array_equal(copy(images, np.ones_like(masks)), copy(images))


def test_weights_are_redrawn_with_their_own_mean_and_deviation() -> None:
    import onnx_ir as ir

    trained = np.random.default_rng(5).normal(0.3, 0.02, (100, 50)).astype(np.float32)
    value = ir.Value(name="w", const_value=ir.tensor(trained))
    redraw(value, np.random.default_rng(0))
    drawn = value.const_value.numpy()
    n = trained.size
    assert drawn.dtype == np.float32
    assert abs(drawn.mean() - trained.mean()) < 5 * trained.std() / n**0.5
    assert drawn.std() == pytest.approx(trained.std(), rel=5 / (2 * n) ** 0.5)
    assert abs(np.corrcoef(drawn.reshape(-1), trained.reshape(-1))[0, 1]) < 5 / n**0.5


def test_the_same_seed_gives_the_same_weights_whichever_layers_go_along(exported: Path, tmp_path: Path) -> None:
    for name, layers, seed in (("a", ("head",), 3), ("b", ("stem", "head"), 3), ("c", ("head",), 4)):
        randomise(exported, tmp_path / f"{name}.onnx", layers, seed)
    a, b, c = (weights_of(tmp_path / f"{name}.onnx")["weight"] for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_the_copy_says_that_it_is_none_of_the_real_ones(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    former = masktool.load(exported).metadata
    written = randomise(exported, tmp_path / "copy.onnx", ("head", "body"), seed=7)
    found = masktool.load(tmp_path / "copy.onnx").metadata
    assert found == written
    assert found.source == "small.onnx (weights of 2 layers randomised, seed 7)"
    assert found.parity == {} != former.parity
    assert found.source_sha256 == former.source_sha256
    assert found.masking == former.masking
    copy = onnx.load(tmp_path / "copy.onnx")
    properties = {each.key: each.value for each in copy.metadata_props}
    assert json.loads(properties[RANDOMISED_KEY]) == {"layers": ["head", "body"], "seed": 7}
    assert "NOT A REAL MODEL" in copy.doc_string
    assert run(["info", str(tmp_path / "copy.onnx")]) == 0
    assert "randomised" in capsys.readouterr().out


def test_a_quantised_network_keeps_its_scales_and_types(plain: Path, tmp_path: Path) -> None:
    class Images(CalibrationDataReader):
        feeds = iter([{"image": draw()[0]}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    quantize_static(plain, tmp_path / "quantised.onnx", Images(), quant_format=QuantFormat.QOperator)
    masktool.export(tmp_path / "quantised.onnx", tmp_path / "exported.onnx")
    layers = find_layers(read_exported(tmp_path / "exported.onnx")[0])
    assert len(layers) == len(LAYERS)
    randomise(tmp_path / "exported.onnx", tmp_path / "copy.onnx", [layer.name for layer in layers])
    old, new = (weights_of(tmp_path / name) for name in ("exported.onnx", "copy.onnx"))
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed <= {weight for layer in layers for weight in layer.weights}
    kernels = [name for name in changed if old[name].ndim > 1]
    assert len(kernels) == len(LAYERS)
    for name in kernels:
        assert old[name].dtype == new[name].dtype == np.int8
        assert new[name].std() == pytest.approx(old[name].std(), rel=0.3)  # the smallest has 32 weights
    assert np.isfinite(masktool.load(tmp_path / "copy.onnx", "cpu")(*draw())).all()


def test_stages() -> None:
    layers = [Layer(name, "Conv", (f"{name}.weight",), 9) for name in LAYERS]
    assert choose_layers(layers, "cascading") == (("head",), ("head", "body"), ("head", "body", "stem"))
    assert choose_layers(layers, "independent") == (("head",), ("body",), ("stem",))
    assert choose_layers(layers, "cascading", 2) == (("head",), ("head", "body", "stem"))
    assert choose_layers(layers, "independent", 2) == (("head",), ("stem",))
    assert choose_layers(layers, "independent", 99) == choose_layers(layers, "independent")
    assert choose_layers(layers, "cascading", 1) == (("head", "body", "stem"),)


def test_what_cannot_be_randomised_is_one_line(plain: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(MasktoolError, match=r"not a masktool file .*small\.onnx"):
        randomise(plain, tmp_path / "copy.onnx", LAYERS)
    with pytest.raises(MasktoolError, match=r"no such layer \(neck\): expected some of stem, body, head"):
        randomise(exported, tmp_path / "copy.onnx", ["stem", "neck"])
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    with pytest.raises(MasktoolError, match="cannot read the model"):
        randomise(tmp_path / "damaged.onnx", tmp_path / "copy.onnx", LAYERS)
    assert not (tmp_path / "copy.onnx").exists()


def test_a_network_without_weights_is_refused(plain: Path, tmp_path: Path) -> None:
    """Its kernel is computed by a node: there is nothing in the file to redraw."""
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    empty (float[N, 3, 8, 8] image) => (float[N, 2, 6, 6] maps)
    <int64[4] shape = {2, 3, 3, 3}>
    {
        kernel = ConstantOfShape(shape)
        maps = Conv(image, kernel)
    }
    """
    model = onnx.parser.parse_model(text)
    for key, value in masktool.export(plain, tmp_path / "any.onnx").metadata.to_properties().items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, tmp_path / "empty.onnx")
    with pytest.raises(MasktoolError, match="no weights to randomise"):
        find_layers(read_exported(tmp_path / "empty.onnx")[0])
