"""Preprocessing and labels from the options: the right numbers, and one line for every wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir
import pytest
from networks.small_graphs import classifier, parse

from masktool.contract import Preprocessing
from masktool.errors import MasktoolError
from masktool.exporters.presets import labels_from, preprocessing_for, preprocessing_preset

SIZE = (224, 224)


def test_imagenet():
    preset = preprocessing_preset("imagenet", SIZE)
    assert preset == Preprocessing(
        size=SIZE, resize_to=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), channel_order="RGB"
    )


def test_caffe_takes_blue_first_and_plain_pixels():
    preset = preprocessing_preset("caffe", SIZE)
    assert (preset.channel_order, preset.scale, preset.mean, preset.std) == ("BGR", 1.0, (104, 117, 123), (1, 1, 1))


def test_tf_gives_minus_one_to_one():
    preset = preprocessing_preset("tf", (96, 96), layout="NHWC")
    ends = [(pixel * preset.scale - preset.mean[0]) / preset.std[0] for pixel in (0, 255)]
    assert ends == pytest.approx([-1, 1])
    assert (preset.layout, preset.resize_to) == ("NHWC", 110)


def test_mean_and_std_replace_the_presets():
    preset = preprocessing_preset("imagenet", SIZE, mean=(0.5, 0.4, 0.3))
    assert (preset.mean, preset.std) == ((0.5, 0.4, 0.3), (0.229, 0.224, 0.225))
    plain = preprocessing_preset(None, SIZE, mean=(0.5, 0.4, 0.3), std=(1, 2, 3))
    assert (plain.scale, plain.mean, plain.std) == (1 / 255, (0.5, 0.4, 0.3), (1, 2, 3))


def test_grey_images_need_their_own_mean():
    with pytest.raises(
        MasktoolError, match=r"preset for colour images .preprocessing=.imagenet..: expected 3 channels"
    ):
        preprocessing_preset("imagenet", SIZE, channels=1)
    grey = preprocessing_preset(None, (28, 28), mean=(0.1307,), std=(0.3081,), channels=1)
    assert (grey.channel_order, grey.mean, grey.std) == ("L", (0.1307,), (0.3081,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [1, 2]}, "bad preprocessing .mean.: expected 3 numbers"),
        ({"mean": [124, 116, 104]}, "bad preprocessing .mean.: expected at most 1"),
        ({"std": [1, 0, 1]}, "bad preprocessing .std.: expected numbers other than 0"),
        ({"std": "one"}, "bad preprocessing .std.: expected numbers other than 0, one per channel, got .one"),
        ({"mean": [0, float("nan"), 0]}, "bad preprocessing .mean.: expected numbers, one per channel"),
        ({"resize": "longest"}, "preprocessing .resize.: expected shortest . exact . letterbox . none, got longest"),
        ({"interpolation": "cubic"}, "preprocessing .interpolation."),
        ({"channel_order": "L"}, "bad preprocessing .channel_order.: expected one for 3 channels"),
        ({"scale": 0}, "bad preprocessing .scale.: expected a positive number"),
        ({"size": [299, 299]}, "bad preprocessing .size.: expected .224, 224., the model's input"),
        ({"resize": "shortest", "resize_to": None}, "bad preprocessing .resize_to.: expected a length in pixels"),
        ({"means": [0, 0, 0]}, "unknown preprocessing key .means."),
    ],
)
def test_a_file_with_a_wrong_field_is_refused_by_its_name(tmp_path: Path, changes: dict, message: str):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"resize": "exact", **changes}))
    with pytest.raises(MasktoolError, match=message):
        preprocessing_preset(str(path), SIZE)


def test_a_file_keeps_what_it_says(tmp_path: Path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"resize": "none", "scale": 1, "mean": [104, 117, 123], "channel_order": "BGR"}))
    preset = preprocessing_preset(str(path), SIZE)
    assert (preset.size, preset.resize, preset.scale) == (SIZE, "none", 1)
    assert (preset.mean, preset.channel_order) == ((104, 117, 123), "BGR")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file .preprocessing=.*expected imagenet, caffe, tf, yolo or a JSON file"),
        (b"mean: 1", "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b"\xff\xfe\x00", "not UTF-16 text"),
    ],
)
def test_a_file_that_is_no_preprocessing(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "imagnet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MasktoolError, match=message):
        preprocessing_preset(str(path), SIZE)


def test_size_channels_and_layout_come_from_the_model():
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[N, 32, 48, 3] image) => (float[N, 3, 32, 48] y) { y = Transpose<perm = [0, 3, 1, 2]>(image) }"""
    preset = preprocessing_for(onnx_ir.from_proto(parse(text)), "tf")
    assert (preset.size, preset.layout, preset.channel_order) == ((32, 48), "NHWC", "RGB")
    assert preprocessing_for(onnx_ir.from_proto(classifier()), None, mean=(0, 0, 0)).size == (8, 8)


def test_an_open_size_is_the_files_else_the_usual_one(tmp_path: Path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[N, 3, {height}, W] image) => (float[N, 3, {height}, W] y) {{ y = Relu(image) }}"""
    (tmp_path / "size.json").write_text('{"size": [48, 192], "resize": "exact"}')
    model = onnx_ir.from_proto(parse(text.format(height="H")))
    assert preprocessing_for(model, "imagenet").size == (224, 224)
    assert preprocessing_for(model, str(tmp_path / "size.json")).size == (48, 192)
    assert preprocessing_for(onnx_ir.from_proto(parse(text.format(height="48"))), "imagenet").size == (48, 224)


def test_open_channels_are_refused():
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[N, C, 8, 8] image) => (float[N, C, 8, 8] y) { y = Relu(image) }"""
    with pytest.raises(MasktoolError, match=r"number of channels unknown.*'image' float \(N, C, 8, 8\)"):
        preprocessing_for(onnx_ir.from_proto(parse(text)), "imagenet")


def test_another_size_keeps_the_share_that_is_cropped():
    base = Preprocessing(size=SIZE, resize="shortest", resize_to=232)
    assert base.scaled_to((448, 448)).resize_to == 464
    assert base.scaled_to(SIZE) == base
    exact = Preprocessing(size=SIZE, resize="exact")
    assert exact.scaled_to((96, 128)).size == (96, 128)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "cat\n dog \n\n"),
        ("labels.json", '["cat", "dog"]'),
        ("labels.json", '[["n01", "cat"], ["n02", "dog"]]'),
        ("labels.json", '{"1": "dog", "0": "cat"}'),
        ("labels.JSON", '{"0": ["n01", "cat"], "1": ["n02", "dog"]}'),
    ],
)
def test_labels(tmp_path: Path, name: str, content: str):
    path = tmp_path / name
    path.write_text(content)
    assert labels_from(path) == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.txt", None, "file not found .*labels.txt"),
        ("labels.txt", "cat\n\ndog\n", "an empty label"),
        ("labels.txt", "", "empty file .*labels.txt.: expected a file of labels"),
        ("labels.json", "{", "not JSON .*labels.json, line 1"),
        ("labels.json", "3", "not labels .*expected a JSON list or object"),
        ("labels.json", "[]", "no labels"),
        ("labels.json", '{"0": "cat", "2": "dog"}', "labels without an order .*expected keys 0 to K-1"),
        ("labels.json", '{"cat": 0}', "labels without an order"),
        ("labels.json", '["cat", 3]', "not a class name .*class 1.: 3"),
        ("labels.json", '["cat", []]', r"not a class name .*class 1.: \[\]"),
    ],
)
def test_files_that_hold_no_labels(tmp_path: Path, name: str, content: str | None, message: str):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(MasktoolError, match=message):
        labels_from(path)


def test_the_labels_of_the_test_data(data_dir: Path):
    labels = labels_from(data_dir / "imagenet_classes.json")
    assert len(labels) == 1000
    assert labels[0] == "tench, Tinca tinca"
