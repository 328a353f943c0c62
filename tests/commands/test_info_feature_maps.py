"""``masktool info --feature-maps``: the feature maps of plain models, of torch's and of exported files."""

import json

import onnx
import pytest
from explainers.small_network import small_network
from networks.small_graphs import parse

import masktool
from masktool import demo
from masktool.cli import run

SHAPES = {"c0": ["N", 6, 14, 16], "early": ["N", 6, 14, 16], "c1": ["N", 8, 7, 8], "late": ["N", 8, 7, 8]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the plain network, its export with gradients of two maps, and one that explains itself."""
    folder = tmp_path_factory.mktemp("maps")
    onnx.save(small_network(), folder / "plain.onnx")
    maps = {"gradient": "logit", "feature_map": ["late", "early"]}
    masktool.export(small_network(), folder / "masked.onnx", output_kind="logits", **maps)
    masktool.export_explained(small_network(), folder / "itself.onnx", "grad-cam", output_kind="logits")
    return folder


def show(capsys, *words):
    assert run(["info", *map(str, words), "--feature-maps"]) == 0
    return capsys.readouterr().out


def test_a_plain_model_lists_names_shapes_and_what_heads_begin_behind(folder, capsys):
    lines = show(capsys, folder / "plain.onnx").splitlines()
    assert lines[0] == f"{folder / 'plain.onnx'}: 4 feature maps, the last one last"
    assert [line.split("\t")[0] for line in lines[1:]] == list(SHAPES)
    assert lines[-1].split("\t")[2] == "Relu; a head may begin behind it"
    found = json.loads(show(capsys, folder / "plain.onnx", "--json"))["feature_maps"]
    assert {each["name"]: each["shape"][1:] for each in found} == {name: shape[1:] for name, shape in SHAPES.items()}
    assert all(each["head"] and each["output"] is None for each in found)


def test_an_exported_file_says_by_which_output_it_gives_a_map(folder, capsys):
    found = json.loads(show(capsys, folder / "masked.onnx", "--json"))["feature_maps"]
    assert {each["name"]: each["output"] for each in found} == {
        "c0": None, "early": "feature_map_2", "c1": None, "late": "feature_map"
    }  # fmt: skip
    assert {each["name"]: each["shape"][1:] for each in found} == {name: shape[1:] for name, shape in SHAPES.items()}
    assert "late\t" in (text := show(capsys, folder / "masked.onnx"))
    assert text.splitlines()[-1].endswith("Relu; output feature_map")


def test_maps_inside_a_residual_block_begin_no_head(tmp_path, capsys):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    residual (float[N, 6, 8, 8] image) => (float[N, 4] logits)
    <float[6, 6, 3, 3] k0, float[6, 4] weight>
    {
        first = Relu(image)
        inner = Conv<pads = [1, 1, 1, 1]>(first, k0)
        joined = Add(inner, first)
        pooled = GlobalAveragePool(joined)
        flat = Flatten(pooled)
        logits = Gemm(flat, weight)
    }
    """
    onnx.save(parse(text), tmp_path / "m.onnx")
    found = json.loads(show(capsys, tmp_path / "m.onnx", "--class-output", "logits", "--json"))["feature_maps"]
    assert {each["name"]: each["head"] for each in found} == {"inner": False, "joined": True}


def test_a_program_of_torchs_is_read_too(capsys):
    pytest.importorskip("torch")
    found = json.loads(show(capsys, demo.program_path(), "--json"))["feature_maps"]
    assert found[-1]["shape"][2:] == [16, 16]
    assert found[-1]["head"]


def test_what_has_no_feature_maps_to_list_is_told(folder, capsys):
    assert run(["info", str(folder / "itself.onnx"), "--feature-maps"]) == 2
    assert "explains itself by grad-cam, and gives no feature maps" in capsys.readouterr().err
    assert run(["info", str(folder / "plain.onnx"), "--arch", "torchvision:resnet18"]) == 2
    assert "add --feature-maps" in capsys.readouterr().err
    assert run(["info", str(folder / "plain.onnx"), "--feature-maps", "--class-output", "none"]) == 2
    assert "the model has none" in capsys.readouterr().err
