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
from masktool.errors import MasktoolError
from masktool.explainers.method import build_method


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


@pytest.mark.parametrize(
    ("method", "advice"),
    [
        ("gradient", "Gradient draws no samples (samples=5); leave it out: it has no options"),
        ("occlusion", "Occlusion draws no samples (samples=5); set sliding_window_shapes or strides instead"),
    ],
)
def test_samples_for_a_method_that_draws_none(method: str, advice: str):
    with pytest.raises(MasktoolError) as caught:
        build_method(method, {}, 5)
    assert advice in str(caught.value)
    with pytest.raises(
        MasktoolError, match=r"unknown option of .* expected (some of sliding_window_shapes|none: it has no options)"
    ):
        build_method(method, {"speed": 5})


@pytest.mark.parametrize("text", ['{"mean": [0, 0, 0]}', '{"resize": "shortest"}', '{"resize_to": null}'])
def test_preprocessing_that_leaves_its_resize_out(text: str, folder: Path, capsys):
    Path("pre.json").write_text(text)
    network = """<ir_version: 10, opset_import: ["" : 20]> g (float[N, 3, 12, 16] x) => (float[N, 3] logits)
        { p = GlobalMaxPool (x) logits = Flatten (p) }"""
    onnx.save(onnx.parser.parse_model(network), "m.onnx")
    assert run(["export", "m.onnx", "--preprocess", "pre.json", "--masking", "fill", "-o", "out.onnx"]) == 2
    needed = (
        'bad preprocessing (resize_to): expected a length in pixels, which "resize": "shortest" (the default) needs'
    )
    assert needed in capsys.readouterr().err
    for resize in ("exact", "none"):
        Path("pre.json").write_text(json.dumps({"resize": resize}))
        assert run(["export", "m.onnx", "--preprocess", "pre.json", "--masking", "fill", "-o", "out.onnx"]) == 0


@pytest.mark.parametrize("batch", [2, 3])
def test_grad_cam_on_copies_of_a_fixed_batch_says_why_not(batch: int, folder: Path, capsys):
    text = f"""<ir_version: 10, opset_import: ["" : 20]> g (float[{batch}, 3, 12, 16] x) => (float[{batch}, 4] logits)
        <float[4, 3, 3, 3] w>
        {{ c = Conv (x, w) p = GlobalAveragePool (c) f = Flatten (p) logits = Softmax <axis = 0> (f) }}"""
    model = onnx.parser.parse_model(text)
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, "m.onnx")
    explain = ["explain", "p.png", "-m", "m.onnx", "--preprocess", "pre.json", "--class-output", "logits"]
    assert run([*explain, "--method", "grad-cam"]) == 2
    assert f"every map is of {batch} copies of the image, which fill its fixed batch" in capsys.readouterr().err
    assert run([*explain, "--method", "occlusion"]) == 0


MODULES = """
import torch
class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
    def forward(self, photo, depth):
        return self.conv(photo).mean((2, 3)) + depth.mean((2, 3))[:, :1]
class Conditioned(Two):
    def forward(self, photo, *, age):
        return self.conv(photo).mean((2, 3)) * age
class Last(Two):
    def forward(self, photo):
        return self.conv(photo.permute(0, 3, 1, 2)).mean((2, 3))
class Checked(Two):
    def forward(self, photo):
        if photo.shape[-1] != 3:
            raise ValueError("channels last, please")
        return self.conv(photo.movedim(-1, 1)).mean((2, 3))
class Fixed(Two):
    def forward(self, photo):
        return self.conv(photo).reshape(-1, 4 * 9 * 9)
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "Two",
            "the model takes more than the image (Two): expected forward(image), got a forward that needs depth too",
        ),
        ("Conditioned", "the model takes more than the image (Conditioned): expected forward(image), got a forward"),
        ("Last", "the model takes images with the channels last (Last): expected (N, C, H, W), got (N, H, W, C)"),
        ("Checked", "the model takes images with the channels last (Checked)"),
        ("Fixed", "the model does not run on an image (input (2, 3, 12, 16))"),
    ],
)
def test_a_module_that_is_no_function_of_one_image_says_so(name: str, said: str, folder: Path, capsys):
    torch = pytest.importorskip("torch")
    Path("net.py").write_text(MODULES)
    torch.save(torch.nn.ModuleDict({"conv": torch.nn.Conv2d(3, 4, 3)}).state_dict(), "w.pt")
    assert run(["export", "w.pt", "--arch", f"net.py:{name}", "--input-size", "12", "16", "-o", "out.onnx"]) == 2
    error = capsys.readouterr().err
    assert said in error
    if name == "Fixed":
        assert "check --input-size and --channels" in error
    else:
        assert "export it to ONNX first, with torch.onnx.export, and give masktool the .onnx file" in error
        assert "--channels" not in error
