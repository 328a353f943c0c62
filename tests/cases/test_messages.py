"""Messages that named what nobody gave, or asked for what had been said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image

import masktool
from masktool.cli import run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)).save("p.png")
    Path("pre.json").write_text('{"size": [12, 16], "resize": "exact"}')
    return tmp_path


@pytest.mark.parametrize("method", ["grad-cam", "gradient"])
def test_a_gradient_method_on_a_detector_says_what_it_needs(method: str, folder: Path, capsys):
    text = """<ir_version: 10, opset_import: ["" : 20]> g (float[N, 3, 12, 16] x) => (float[N, 4, 48] boxes)
        { p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x) c = Concat<axis = 1>(p, p)
        s = Constant<value_ints = [-1, 6, 48]>() q = Reshape(c, s) f = Constant<value_ints = [0]>()
        t = Constant<value_ints = [4]>() a = Constant<value_ints = [1]>() boxes = Slice(q, f, t, a) }"""
    onnx.save(onnx.parser.parse_model(text), "m.onnx")
    explain = ["explain", "p.png", "-m", "m.onnx", "--preprocess", "pre.json", "--masking", "fill"]
    assert run([*explain, "--method", method]) == 2
    error = capsys.readouterr().err
    assert "gradients are of class scores (N, K), and the model has none: 'boxes' float" in error
    assert "methods without gradients (lime, occlusion, rise) explain one value of any output" in error
    assert "leave --gradient out" not in error
    assert run([*explain, "--method", "occlusion", "--output", "boxes", "--target", "0,0"]) == 0


FACTORY = """
import torch
def make():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(4, 5))
"""


def test_the_size_in_a_preprocessing_file_counts_for_weights(folder: Path, capsys):
    torch = pytest.importorskip("torch")
    Path("net.py").write_text(FACTORY)
    namespace: dict = {}
    exec(FACTORY, namespace)
    torch.save(namespace["make"]().state_dict(), "w.pt")
    assert run(["export", "w.pt", "--arch", "net.py:make", "--preprocess", "pre.json", "-o", "out.onnx"]) == 0
    with masktool.load("out.onnx") as session:
        assert session.spatial_shape == (12, 16)
        assert session.metadata.preprocessing.size == (12, 16)
    explain = ["explain", "p.png", "-m", "w.pt", "--arch", "net.py:make", "--method", "occlusion", "--json"]
    capsys.readouterr()
    assert run([*explain, "--preprocess", "pre.json"]) == 0
    assert np.shape(json.loads(capsys.readouterr().out)["model_attributions"]) == (12, 16)
    for unsaid in ("imagenet", "sizeless.json"):
        Path("sizeless.json").write_text('{"resize": "exact"}')
        assert run([*explain, "--preprocess", unsaid]) == 2
        assert "input size unknown (w.pt); add --input-size H W" in capsys.readouterr().err
