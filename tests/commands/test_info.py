"""``masktool info`` on masked files, plain files and files that are none."""

import json

import numpy as np
import onnx
import onnx.parser
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper
from runtime.models import make_metadata, write_model

from masktool.cli import masktool
from masktool.contract import RULE_PROPERTY
from masktool.errors import MasktoolError
from masktool.exporters.derivatives.write import differentiate
from masktool.exporters.description import list_rules


def run(*arguments):
    return CliRunner().invoke(masktool, ["info", *map(str, arguments)], catch_exceptions=False)


def test_json_of_a_masked_file(tmp_path):
    path = write_model(tmp_path / "model.onnx")
    document = json.loads(run(path, "--json").stdout)
    assert document["masked"] is True
    assert document["bytes"] == path.stat().st_size
    assert document["opsets"] == {"ai.onnx": 18}
    assert document["inputs"] == [
        {"name": "image", "dtype": "float32", "shape": ["N", 3, 8, 10], "required": True},
        {"name": "mask", "dtype": "float32", "shape": ["M", 1, 8, 10], "required": False},
    ]
    assert document["outputs"] == [
        {"name": "logits", "dtype": "float32", "shape": None},
        {"name": "twice", "dtype": "float32", "shape": None},
    ]
    assert document["nodes"] == {"Add": 1, "Identity": 1, "Mul": 1, "ReduceSum": 1, "Transpose": 1}
    assert document["metadata"]["labels"] == list(make_metadata().labels)
    assert document["metadata"]["preprocessing"]["resize"] == "exact"
    assert "rules" not in document


def test_text_of_a_masked_file(tmp_path):
    text = run(write_model(tmp_path / "model.onnx")).stdout
    for words in (
        "masked by masktool (layer)",
        "image  float32 (N, 3, 8, 10)  required",
        "mask  float32 (M, 1, 8, 10)  optional; 1=kept, 0=missing",
        "logits  float32 of any shape  class output, logits",
        "sums.onnx (sha256 000000",
        "resize (bilinear), crop 8 x 10, RGB, times 0.00392157, mean 0, 0, 0, std 1, 1, 1, NCHW",
        "3: red, green, blue",
        "ones_max_abs_difference: 0.0",
        "Add 1, Identity 1, Mul 1",
    ):
        assert words in text


def test_where_a_provider_has_the_nodes_run(tmp_path):
    path = tmp_path / "plain.onnx"
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[N, 3] x) => (float[N, 3] y) {'
    text += " a = Sign (x) b = Sign (a) c = Sign (b) d = Sign (c) e = Relu (d) y = Min (e, x) }"
    onnx.save(onnx.parser.parse_model(text), path)
    placement = json.loads(run(path, "--provider", "webgpu", "--json").stdout)["placement"]
    assert placement["provider"] == "webgpu"
    assert (placement["on_device"], placement["unknown"]) == (1, [])
    (sign, least) = placement["on_cpu"]
    assert (sign["operator"], sign["count"], sign["nodes"]) == ("Sign", 4, ["a", "b", "c", "d"])
    assert (least["operator"], least["reason"]) == ("Min", "no kernel")
    lines = [line[14:] for line in run(path, "--provider", "webgpu").stdout.splitlines()]
    at = lines.index("webgpu: 1 node has a kernel there, 5 fall back to the CPU")
    assert lines[at + 1 : at + 3] == ["Sign 4: no kernel (a, b, c, ...)", "Min 1: no kernel (y)"]
    assert lines[at + 3].startswith(f"from {placement['source']}; this is what tables say, not a run")
    assert "placement" not in json.loads(run(path, "--json").stdout)


def test_how_a_masking_model_was_trained(tmp_path):
    masker = {
        "settings": {"objective": "both", "learning_rate": 0.001, "flip": True, "target_area": None, "seed": 0},
        "stages": ["layer3", "layer4"],
        "data": {"pictures": 800, "sizes": [32, 32]},
        "figures": {},
    }
    path = write_model(tmp_path / "model.onnx", masker=masker)
    assert json.loads(run(path, "--json").stdout)["metadata"]["masker"] == masker
    lines = run(path).stdout.splitlines()
    first = lines.index(
        "masker        settings: objective both, learning_rate 0.001, flip true, target_area none, seed 0"
    )
    assert [line.strip() for line in lines[first + 1 : first + 4]] == [
        "stages: layer3 layer4",
        "data: pictures 800, sizes 32 32",
        "figures: none",
    ]
    assert "masker" not in run(write_model(tmp_path / "other.onnx")).stdout


def test_required_mask_and_unknown_metadata(tmp_path):
    changes = {"preprocessing": None, "labels": None, "output_kind": None, "parity": {}}
    text = run(write_model(tmp_path / "model.onnx", mask_required=True, **changes)).stdout
    assert "mask  float32 (M, 1, 8, 10)  required; 1=kept, 0=missing" in text
    assert "class output, of unknown kind" in text
    assert "preprocessing unknown; `masktool explain` needs it" in text
    assert "labels        unknown" in text


def test_rules(tmp_path):
    path = write_model(tmp_path / "model.onnx", rules={RULE_PROPERTY: "multiply by the mask"})
    rules = json.loads(run(path, "--json", "--rules").stdout)["rules"]
    assert rules[1] == {"name": "multiply", "op_type": "Mul", "rule": "multiply by the mask"}
    assert len(rules) == 5
    assert "multiply\tMul\tmultiply by the mask" in run(path, "--rules").stdout


def test_nodes_without_a_rule_and_of_functions_and_bodies():
    inner = helper.make_graph([helper.make_node("NeighborFill", ["x"], ["y"], domain="masktool")], "inner", [], [])
    node = helper.make_node("If", ["c"], ["z"], name="choose", then_branch=inner, else_branch=inner)
    rules = list_rules(helper.make_graph([node], "outer", [], []))
    assert [(rule.op_type, rule.rule) for rule in rules] == [
        ("If", None),
        ("masktool::NeighborFill", None),
        ("masktool::NeighborFill", None),
    ]


def test_plain_file(tmp_path):
    path = write_model(tmp_path / "plain.onnx", masked=False)
    assert "not masked; `masktool export` makes it so" in run(path).stdout
    document = json.loads(run(path, "--json").stdout)
    assert (document["masked"], document["metadata"]) == (False, None)
    assert [value["name"] for value in document["inputs"]] == ["image"]


def test_weights_beside_the_file_are_counted_but_not_read(tmp_path):
    path = write_model(tmp_path / "model.onnx", masked=False)
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(5_000, np.float32), "weights"))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    weights = (tmp_path / "weights.bin").stat().st_size
    assert weights >= 20_000
    assert json.loads(run(path, "--json").stdout)["bytes"] == path.stat().st_size + weights
    (tmp_path / "weights.bin").unlink()
    assert run(path).exit_code == 0


def test_weights_of_a_constant_node_beside_the_file_count(tmp_path):
    path = write_model(tmp_path / "model.onnx", masked=False)
    model = onnx.load(path)
    tensor = onnx.TensorProto(name="far", data_type=onnx.TensorProto.FLOAT, dims=[2])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    model.graph.node.append(helper.make_node("Constant", [], ["far"], value=tensor))
    onnx.save(model, path)
    (tmp_path / "weights.bin").write_bytes(bytes(8))
    assert json.loads(run(path, "--json").stdout)["bytes"] == path.stat().st_size + 8
    model.graph.node[-1].attribute[0].t.external_data[0].value = "a" * 300  # no file system holds such a name
    onnx.save(model, path)
    assert json.loads(run(path, "--json").stdout)["bytes"] == path.stat().st_size


def test_values_of_other_kinds_and_types(tmp_path):
    model = onnx.load(write_model(tmp_path / "model.onnx", masked=False))
    model.graph.input[0].type.tensor_type.elem_type = 99
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("parts", onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "model.onnx")
    text = run(tmp_path / "model.onnx").stdout
    assert "image  of unknown type (" in text
    assert "parts  of unknown type, of any shape" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"file not found \(.*file.onnx\)"),
        (b"", r"empty file \(.*file.onnx\): expected an ONNX model"),
        (b"some notes\n" * 20, r"not an ONNX model \(.*file.onnx\)"),
        (b"\x08\x08", r"not an ONNX model \(.*file.onnx\): expected a graph, got none"),
    ],
)
def test_files_that_are_none(tmp_path, content, message):
    path = tmp_path / "file.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MasktoolError, match=message):
        run(path)


def test_truncated_file(tmp_path):
    path = write_model(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(MasktoolError, match="not an ONNX model"):
        run(path)


def test_is_the_command_of_its_name():
    assert masktool.get_command(None, "info").name == "info"


PRICES = """<ir_version: 10, opset_import: ["": 18]> prices (float[N, 3] x, float[N, 3] y) => (float[N, 3] p)
{ a = Mul(x, y)  p = Tanh(a) }"""


def test_a_file_with_a_gradient_says_what_it_is_the_gradient_of(tmp_path):
    onnx.save(onnx.parser.parse_model(PRICES), tmp_path / "prices.onnx")
    path = tmp_path / "gradient.onnx"
    words = {"2": "number (2)", "top": "the largest number", "weights": "the sum, weighed by 'p_weights',"}
    for target, number in words.items():
        written = differentiate(tmp_path / "prices.onnx", path, of=["x", "y"], output="p", target=target)
        lines = run(path).stdout.splitlines()
        assert lines[0].startswith(f"{path}: with gradients by `masktool gradient`, takes no mask; ")
        assert f"objective     {number} of each row of 'p', in 'objective'" in lines
        for name in ("x", "y"):
            assert f"gradient      with respect to '{name}', in 'gradient_{name}'" in lines
        assert any(line.startswith("measured      outputs 0, gradient_x ") for line in lines)
        assert any(line.startswith("against       central differences in float64, at random numbers") for line in lines)
        assert any(line.startswith("added to      prices.onnx (sha256 ") for line in lines)
        found = json.loads(run(path, "--json").stdout)["derivative"]
        assert found["gradients"] == dict(written.gradients)
        assert found["figures"] == dict(written.figures)
    assert json.loads(run(tmp_path / "prices.onnx", "--json").stdout)["derivative"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "masktool.derivative): expected JSON"),
        ("[]", "masktool.derivative): expected an object, got list"),
        ({"target": "mean"}, "masktool.derivative, target): expected top | sum | weights or"),
        ({"gradients": {"x": 3}}, "masktool.derivative, gradients)"),
        ({"figures": {"points": "unit"}}, "masktool.derivative, figures, against): expected a text, got null"),
        ({"figures": {"points": "unit", "against": "float64", "x": "1"}}, "masktool.derivative, figures, x)"),
    ],
)
def test_damaged_words_on_a_gradient_are_one_line(tmp_path, change, message):
    whole = {
        "source": "a.onnx", "gradients": {"x": "gradient_x"}, "output": "p", "target": [0], "batched": True,
        "objective": "objective", "weights": None, "figures": {"against": "float64", "points": "unit"},
        "tool_version": "0.2.0",
    }  # fmt: skip
    model = onnx.parser.parse_model(PRICES)
    for name, text in (("sound", json.dumps(whole)), ("damaged", change)):
        del model.metadata_props[:]
        model.metadata_props.add(
            key="masktool.derivative", value=text if isinstance(text, str) else json.dumps(whole | text)
        )
        onnx.save(model, tmp_path / f"{name}.onnx")
    assert "in 'gradient_x'" in run(tmp_path / "sound.onnx").stdout
    with pytest.raises(MasktoolError) as caught:
        run(tmp_path / "damaged.onnx")
    assert f"damaged masktool metadata (metadata {message}" in str(caught.value)
