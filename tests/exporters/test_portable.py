"""Files for other runtimes: what they hold, and that they give what every other export gives."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks.small_graphs import OPEN_SIZE, classifier, parse

import masktool
from masktool.cli import masktool as command_line
from masktool.contract import Metadata
from masktool.errors import MasktoolError
from masktool.exporters.opset import lower_opset
from masktool.exporters.portable import TINY_BETA
from masktool.interface.check import check_export

NEWER = OPEN_SIZE.replace("ir_version: 10", "ir_version: 11").replace('"" : 20', '"" : 23').replace("H, W", "12, 10")
HARD = OPEN_SIZE.replace("H, W", "12, 10").replace(
    "pooled = GlobalAveragePool(features)",
    "gated = HardSigmoid<alpha = 0.2, beta = 0.0>(features) pooled = GlobalAveragePool(gated)",
)
"""Its own activation has the beta that other runtimes read as another."""


OTHERS = HARD.replace('"" : 20', '"" : 20, "com.microsoft" : 1').replace(
    "logits = Flatten(pooled)",
    "flat = Flatten(pooled) logits = com.microsoft.UnfoldTensor<dim = -1, size = 1, step = 1>(flat)",
)


def graphs_of(graph):
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs_of(attribute.g)


def assert_portable(path):
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert not model.functions
    assert [entry.domain for entry in model.opset_import] == [""]
    assert not {value.name for value in model.graph.input} & {value.name for value in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        assert all(axis.HasField("dim_value") for axis in value.type.tensor_type.shape.dim), value.name
    for graph in graphs_of(model.graph):
        assert not graph.value_info
        assert all(weight.name in names_read(graph) for weight in graph.initializer)
        for node in graph.node:
            assert node.domain == ""
            betas = [each.f for each in node.attribute if node.op_type == "HardSigmoid" and each.name == "beta"]
            assert 0 not in betas
    return model


def names_read(graph):
    read = {name for inner in graphs_of(graph) for node in inner.node for name in node.input}
    return read | {value.name for value in graph.output}


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def masks():
    return (np.random.default_rng(1).random((3, 1, 8, 8)) < 0.6).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"masking": "partial"}, {"masking": "fill", "baseline": "image-mean"}])
def test_it_gives_what_any_other_export_gives(tmp_path, images, masks, options):
    masktool.export(classifier(), tmp_path / "any.onnx", **options)
    masktool.export(classifier(), tmp_path / "portable.onnx", portable=True, **options)
    assert_portable(tmp_path / "portable.onnx")
    with (
        masktool.load(tmp_path / "any.onnx", "cpu") as any_file,
        masktool.load(tmp_path / "portable.onnx", "cpu") as portable,
    ):
        expected = any_file(images, masks)
        assert np.abs(portable(images, masks) - expected).max() <= 1e-6 * np.ptp(expected)
        assert np.abs(portable(images) - any_file(images)).max() <= 1e-6 * np.ptp(expected)


def test_gradients_of_one_loss(tmp_path, images, masks):
    for name, portable in (("any", False), ("portable", True)):
        masktool.export(
            classifier(), tmp_path / f"{name}.onnx", gradient="softmax", output_kind="logits", portable=portable
        )
    model = assert_portable(tmp_path / "portable.onnx")
    assert [value.name for value in model.graph.input] == ["image", "mask", "target"]
    assert any(
        each.f == np.float32(TINY_BETA)
        for node in model.graph.node
        if node.op_type == "HardSigmoid"
        for each in node.attribute
    )
    with (
        masktool.load(tmp_path / "any.onnx", "cpu") as any_file,
        masktool.load(tmp_path / "portable.onnx", "cpu") as portable,
    ):
        of = ("image", "mask", "feature_map")
        expected = any_file.gradient(images, masks, target=[1, 0, 3], of=of)
        found = portable.gradient(images, masks, target=[1, 0, 3], loss="softmax", of=of)
        for name in ("objective", "image", "mask", "gradient_feature_map"):
            own, other = getattr(found, name), getattr(expected, name)
            assert np.abs(own - other).max() <= 1e-6 * np.abs(other).max(), name
        with pytest.raises(MasktoolError, match=r'gradients of one loss.*gradient="logit"'):
            portable.gradient(images, target=1, loss="logit")


def test_gradients_are_added_later_too(tmp_path, images):
    masktool.export(classifier(), tmp_path / "masked.onnx", portable=True, output_kind="logits")
    masktool.add_gradients_to(tmp_path / "masked.onnx", tmp_path / "gradient.onnx", loss="logit")
    masktool.export(classifier(), tmp_path / "at_once.onnx", portable=True, output_kind="logits", gradient="logit")
    assert_portable(tmp_path / "gradient.onnx")
    with (
        masktool.load(tmp_path / "gradient.onnx", "cpu") as later,
        masktool.load(tmp_path / "at_once.onnx", "cpu") as at_once,
    ):
        expected = at_once.gradient(images, target=2).image
        assert np.abs(later.gradient(images, target=2).image - expected).max() <= 1e-6 * np.abs(expected).max()


def test_the_networks_own_hard_sigmoid(tmp_path):
    masktool.export(parse(HARD), tmp_path / "portable.onnx", portable=True)
    assert_portable(tmp_path / "portable.onnx")


def test_remainders_of_whole_numbers_keep_their_values(tmp_path):
    rest = "whole = Cast<to = 7>(flat) rest = Mod(whole, seven) logits = Cast<to = 1>(rest)"
    network = parse(
        HARD.replace("<float[4", "<int64[1] seven, float[4").replace(
            "logits = Flatten(pooled)", "flat = Flatten(pooled) " + rest
        ),
        seven=7,
        kernel=np.random.default_rng(0).normal(size=(4, 3, 3, 3)) * 1e4,
    )
    pictures = np.random.default_rng(0).normal(size=(2, 3, 12, 10)).astype(np.float32)
    for name, portable in (("any", False), ("portable", True)):
        masktool.export(network, tmp_path / f"{name}.onnx", masking="fill", class_output="logits", portable=portable)
    assert_portable(tmp_path / "portable.onnx")
    found = [masktool.load(tmp_path / f"{name}.onnx", "cpu").run(pictures)["logits"] for name in ("any", "portable")]
    assert np.array_equal(*found)


def test_a_newer_opset_is_declared_as_one_that_means_the_same(tmp_path):
    masktool.export(parse(NEWER), tmp_path / "portable.onnx", portable=True)
    model = assert_portable(tmp_path / "portable.onnx")
    assert (model.opset_import[0].version, model.ir_version) == (21, 10)


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        ("Cast<to = 10>(image)", 21),  # the attribute that a later version added is left out
        ('Cast<to = 10, round_mode = "down">(image)', 25),
        ("Swish(image)", 25),
    ],
)
def test_an_operator_that_came_later_keeps_its_opset(node, opset):
    kind = "float16" if "Cast" in node else "float"
    text = f'<ir_version: 11, opset_import: ["" : 25]> one (float[2] image) => ({kind}[2] y) {{ y = {node} }}'
    model = ir.from_onnx_text(text)
    lower_opset(model)
    assert (model.opset_imports[""], model.ir_version) == (opset, 10 if opset == 21 else 11)


def test_the_file_says_so_and_is_measured_again(tmp_path):
    exported = masktool.export(classifier(), tmp_path / "portable.onnx", portable=True)
    assert exported.metadata.portable
    assert exported.metadata.one_by_one
    assert exported.metadata.parity["ones"] <= 1e-6
    properties = {each.key: each.value for each in onnx.load(exported.path).metadata_props}
    assert Metadata.from_properties(properties) == exported.metadata
    assert not check_export(exported.path, classifier()).failed
    del properties["masktool.portable"]  # as in files written before there was the field
    assert Metadata.from_properties(properties).portable is False


def test_an_open_size_is_refused_with_what_fixes_it(tmp_path):
    with pytest.raises(MasktoolError, match=r"leaves lengths open.*input_size"):
        masktool.export(parse(OPEN_SIZE), tmp_path / "x.onnx", portable=True)
    assert not list(tmp_path.iterdir())
    masktool.export(parse(OPEN_SIZE), tmp_path / "x.onnx", portable=True, input_size=(12, 10))
    assert_portable(tmp_path / "x.onnx")


def test_a_mask_that_may_be_left_out_is_refused(tmp_path):
    with pytest.raises(MasktoolError, match="every input of a portable file is required"):
        masktool.export(classifier(), tmp_path / "x.onnx", portable=True, mask_required=False)


def test_operators_of_others_are_refused(tmp_path):
    network = parse(OTHERS)
    with pytest.raises(MasktoolError, match=r"ONNX's own operators alone.*com.microsoft::UnfoldTensor"):
        masktool.export(network, tmp_path / "x.onnx", masking="fill", portable=True)


def test_the_command_line(tmp_path):
    from click.testing import CliRunner

    onnx.save(classifier(), tmp_path / "network.onnx")
    target = tmp_path / "portable.onnx"
    done = CliRunner().invoke(command_line, ["export", str(tmp_path / "network.onnx"), "-o", str(target), "--portable"])
    assert done.exit_code == 0, done.output
    assert_portable(target)
    text = CliRunner().invoke(command_line, ["info", str(target)]).output
    assert "; portable" in text
    assert "image  float32 (1, 3, 8, 8)  required" in text
    assert "one image at a time: the file is portable" in text
