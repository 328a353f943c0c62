"""Messages that named what nobody gave, or asked for what had been said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from networks import small_graphs
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
    assert "name the output whose values are explained, --output NAME, or where a file is exported, --grad" in error
    assert "leave --gradient out" not in error
    for able in ("occlusion", "gradient"):
        assert run([*explain, "--method", able, "--output", "boxes", "--target", "0,0"]) == 0


SEGMENTER = """<ir_version: 10, opset_import: ["" : 20]> g (float[N, 3, 12, 16] x) => (float[N, 2, 11, 15] scores)
    <float[2, 3, 2, 2] w> { scores = Conv(x, w) }"""


@pytest.mark.parametrize(("method", "title"), [("score-cam", "Score-CAM"), ("recipro-cam", "Recipro-CAM")])
def test_a_method_of_class_scores_says_that_a_region_is_not_for_it(method: str, title: str, folder: Path, capsys):
    onnx.save(small_graphs.parse(SEGMENTER), "m.onnx")
    explain = ["explain", "p.png", "-m", "m.onnx", "--preprocess", "pre.json", "--class-output", "none"]
    ends = "take a method of masks, such as rise, occlusion or lime\n"
    reason = f"{title} explains classes only, by the layers that lead to their scores"
    for words, where in (["--region", "auto", "--target", "1"], "--region"), (["--target", "box:0"], "target 'box:0'"):
        assert run([*explain, "--method", method, *words]) == 2
        assert capsys.readouterr().err == f"masktool: error: {reason} ({where}); {ends}"
    with pytest.raises(MasktoolError, match=rf"{reason} \(region\)"):
        masktool.explain("m.onnx", "p.png", method, 1, region="auto")
    for words in ([], ["--output", "scores", "--target", "0,0,0"]):
        assert run([*explain, "--method", method, *words]) == 2
        assert "the model has none (m.onnx); leave out --" in (error := capsys.readouterr().err)
        assert ", or the method that " in error
    assert run([*explain, "--method", "occlusion", "--region", "0,0,20,20", "--target", "1"]) == 0


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
        ("gradient", "Gradient draws no samples (n_samples=5); leave it out: it has no options"),
        ("occlusion", "Occlusion draws no samples (n_samples=5); set sliding_window_shapes or strides instead"),
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


DOMAIN = """<ir_version: 8, opset_import: ["" : 18]> g ({dtype}[N, {shape}] image) => (float[N, 5] y)
    <float[8, 3, 3, 3] k, float[8, 5] w, float one> {{ {before} c = Conv(l, k) r = Relu(c)
    m = GlobalAveragePool(r) f = Flatten(m) y = MatMul(f, w) }}"""


def network_behind(before: str, dtype: str = "float", shape: str = "3, 16, 16") -> onnx.ModelProto:
    return small_graphs.parse(DOMAIN.format(before=before, dtype=dtype, shape=shape), one=1)


@pytest.mark.parametrize("before", ["l = Reciprocal(image)", "q = Abs(image) l = Log(q)", "l = Div(one, image)"])
def test_only_baselines_that_the_network_has_an_answer_to_are_offered(before: str, folder: Path, capsys):
    onnx.save(network_behind(before), "m.onnx")
    export = ["export", "m.onnx", "--masking", "fill", "-o", "out.onnx"]
    assert run(export) == 2
    error = capsys.readouterr().err
    assert "it has no answer to the baseline mean, and one to --baseline image-mean | blur" in error
    for offered in ("image-mean", "blur"):
        assert run([*export, "--baseline", offered]) == 0
    capsys.readouterr()
    assert run([*export, "--baseline", "grey"]) == 2
    assert "or take the baseline mean, image-mean or blur" in capsys.readouterr().err


def test_colours_are_offered_where_the_preprocessing_is_known(folder: Path, capsys):
    onnx.save(network_behind("l = Reciprocal(image)", shape="3, 12, 16"), "m.onnx")
    Path("pre.json").write_text('{"size": [12, 16], "resize": "exact", "mean": [-0.1, -0.1, -0.1], "std": [1, 1, 1]}')
    export = ["export", "m.onnx", "--masking", "fill", "--preprocess", "pre.json", "-o", "out.onnx"]
    assert run(export) == 2
    assert "and one to --baseline black | grey | image-mean | blur | noise" in capsys.readouterr().err
    assert run([*export, "--baseline", "black"]) == 0


def test_a_network_that_no_baseline_helps_is_said_to_be_one(folder: Path, capsys):
    wild = """s = Mul(image, image) ax = Constant<value_ints = [1, 2, 3]>() v = ReduceMean(s, ax)
        e = Constant<value_float = 0.75>() d = Sub(v, e) g = Log(d) l = Add(image, g)"""
    onnx.save(network_behind(wild), "m.onnx")
    assert run(["export", "m.onnx", "--masking", "fill", "-o", "out.onnx"]) == 2
    error = capsys.readouterr().err
    assert "it has no answer to the baseline mean, nor to any other that was tried" in error
    assert "where --preprocess is given, colours can be tried too" in error


@pytest.mark.parametrize(
    ("dtype", "before"),
    [
        ("uint8", "q = Cast<to = 1>(image) l = Log(q)"),
        ("uint8", "q = Cast<to = 1>(image) l = Reciprocal(q)"),
        ("int32", "q = Cast<to = 1>(image) l = Log(q)"),
        ("int64", "q = Cast<to = 1>(image) l = Sqrt(q)"),
    ],
)
def test_integers_on_which_a_network_has_no_answer_are_named(dtype: str, before: str, folder: Path, capsys):
    onnx.save(network_behind(before, dtype), "m.onnx")
    for more in ([], ["--masking", "fill"]):
        assert run(["export", "m.onnx", "-o", "out.onnx", *more]) == 2
        error = capsys.readouterr().err
        low = 0 if dtype == "uint8" else -255
        assert f"gives no numbers (images of integers, {low} to 255): NaN or infinity in every place" in error
        assert "though numbers on 1 to 255; export it so that it gives numbers on all of these" in error
        assert "--preprocess" not in error


def test_a_preprocessing_that_does_not_fit_integers_is_named_first(folder: Path, capsys):
    onnx.save(network_behind("q = Cast<to = 1>(image) l = Log(q)", "uint8", "3, 224, 224"), "m.onnx")
    assert run(["export", "m.onnx", "-o", "out.onnx", "--preprocess", "tf"]) == 2
    assert "the preprocessing does not give the integers that the image input takes" in capsys.readouterr().err


OPEN = {
    "max pool": ("N, 3, H, W", "r = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(c)", []),
    "max pool, then a ReLU": ("N, 3, H, W", "p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(c) r = Relu(p)", []),
    "max pool, partial": (
        "N, 3, H, W", "r = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(c)", ["--masking", "partial"],
    ),
    "max pool, width alone": ("N, 3, 16, W", "r = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(c)", []),
}  # fmt: skip


@pytest.mark.parametrize("name", OPEN)
def test_gradients_that_a_fixed_size_settles_say_so(name: str, folder: Path, capsys):
    shape, nodes, more = OPEN[name]
    text = f"""<ir_version: 8, opset_import: ["" : 18]> g (float[{shape}] x) => (float[N, 5] y)
        <float[8, 3, 3, 3] k, float[8, 5] w> {{ c = Conv(x, k) {nodes} m = GlobalAveragePool(r) f = Flatten(m)
        y = MatMul(f, w) }}"""
    onnx.save(small_graphs.parse(text), "m.onnx")
    export = ["export", "m.onnx", "-o", "out.onnx", "--gradient", "logit", *more]
    assert run(export) == 2
    error = capsys.readouterr().err
    assert "no gradient rule for 1 node: GlobalAveragePool-18 (node 'node_" in error
    assert "masktool/" not in error
    assert "unk__" not in error
    assert "; a fixed size settles it: add --input-size H W" in error
    assert run([*export, "--input-size", "16", "14"]) == 0


def test_gradients_that_a_fixed_size_does_not_settle_do_not_say_so(folder: Path, capsys):
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[N, 3, H, W] x) => (float[N, 5] y)
        <float[8, 3, 3, 3] k, float[8, 5] w> { c = Conv(x, k) r = Floor(c) m = GlobalAveragePool(r) f = Flatten(m)
        y = MatMul(f, w) }"""
    onnx.save(small_graphs.parse(text), "m.onnx")
    assert run(["export", "m.onnx", "-o", "out.onnx", "--gradient", "logit", "--masking", "fill"]) == 2
    assert "--input-size" not in capsys.readouterr().err


def save_program(path: str, dynamic: bool) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    module = torch.nn.Sequential(*layers, torch.nn.Linear(4, 5)).eval()
    names = {0: "n", 2: "h", 3: "w"} if dynamic else {0: "n"}
    shapes = {axis: torch.export.Dim(name, min=1 if axis == 0 else 8, max=64) for axis, name in names.items()}
    torch.export.save(torch.export.export(module, (torch.rand(2, 3, 12, 16),), dynamic_shapes=(shapes,)), path)


def test_the_size_in_a_preprocessing_file_counts_for_open_programs(folder: Path, capsys):
    save_program("open.pt2", dynamic=True)
    assert run(["export", "open.pt2", "--preprocess", "pre.json", "-o", "out.onnx"]) == 0, capsys.readouterr().err
    assert [dim.dim_value for dim in onnx.load("out.onnx").graph.input[0].type.tensor_type.shape.dim][2:] == [12, 16]
    assert run(["explain", "p.png", "-m", "open.pt2", "--preprocess", "pre.json", "--method", "occlusion"]) == 0


def test_a_preprocessing_file_of_another_size_is_blamed_for_it(folder: Path, capsys):
    save_program("fixed.pt2", dynamic=False)
    assert run(["export", "fixed.pt2", "--preprocess", "pre.json", "-o", "out.onnx"]) == 0, capsys.readouterr().err
    Path("other.json").write_text('{"size": [20, 20], "resize": "exact"}')
    capsys.readouterr()
    assert run(["export", "fixed.pt2", "--preprocess", "other.json", "-o", "out.onnx"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "expected 12 x 16, got 20 x 20; give that size (--input-size, or in the file of --preprocess)" in error
