"""``masktool export``: what it writes, what it says on which stream, what it refuses without leaving a file behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.small_graphs import classifier, parse
from PIL import Image

from masktool.cli import run
from masktool.commands.export import SUFFIX
from masktool.commands.source_options import choose_output
from masktool.contract import Metadata
from masktool.files import sha256_of


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a small model in it."""
    monkeypatch.chdir(tmp_path)
    onnx.save(classifier(), tmp_path / "small.onnx")
    return tmp_path


def read_metadata(path: Path) -> Metadata:
    metadata = Metadata.from_properties({entry.key: entry.value for entry in onnx.load(path).metadata_props})
    assert metadata is not None
    return metadata


def refuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command line that must fail; returns its one line on stderr."""
    before = sorted(Path.cwd().rglob("*"))
    assert run(["export", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("masktool: error: ")
    assert sorted(Path.cwd().rglob("*")) == before
    return err


def test_the_path_goes_to_stdout_and_the_rest_to_stderr(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["export", "small.onnx"]) == 0
    out, err = capsys.readouterr()
    assert out == "small.masked.onnx\n"
    digest = sha256_of(folder / "small.onnx")
    assert err.splitlines()[0] == f"source: small.onnx, sha256 {digest[:12]}, 5 nodes"
    assert "masked: 3 nodes (" in err
    assert "parity: ones 0, " in err
    assert "output: 'scores' is taken for the class scores; what it holds is not known\n" in err
    assert "evidence: ends in Gemm" in err
    assert "assumed, not known: nothing says that these are class scores" in err
    assert "missing: preprocessing" in err
    assert "missing: labels; add --labels FILE" in err
    assert err.splitlines()[-1].startswith("wrote small.masked.onnx (")
    metadata = read_metadata(folder / "small.masked.onnx")
    assert (metadata.source, metadata.source_sha256) == ("small.onnx", digest)
    assert (metadata.preprocessing, metadata.labels, metadata.output_kind) == (None, None, None)


def test_every_option_reaches_the_file(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "names.txt").write_text("cat\ndog\ncow\nhen\n")
    arguments = ["small.onnx", "-o", "out/deep.onnx", "--preprocess", "caffe", "--mean", "1, 2, 3", "--std", "4,5,6"]
    arguments += ["--labels", "names.txt", "--output-kind", "sigmoid", "--mask", "required", "--input-size", "8", "8"]
    assert run(["export", *arguments]) == 0
    out, err = capsys.readouterr()
    assert out == f"{Path('out/deep.onnx')}\n"
    assert "missing" not in err
    assert "output: 'scores' holds sigmoid\n" in err
    assert (
        "preprocessing: shorter side to 9 (bilinear), crop 8 x 8, BGR, times 1, mean 1, 2, 3, std 4, 5, 6, NCHW" in err
    )
    metadata = read_metadata(folder / "out" / "deep.onnx")
    assert (metadata.labels, metadata.output_kind) == (("cat", "dog", "cow", "hen"), "sigmoid")
    assert (metadata.preprocessing.mean, metadata.preprocessing.std) == ((1, 2, 3), (4, 5, 6))
    graph = onnx.load(folder / "out" / "deep.onnx").graph
    assert "mask" in {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["export", "small.onnx", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    written = folder / "small.masked.onnx"
    assert (document["path"], document["bytes"]) == ("small.masked.onnx", written.stat().st_size)
    assert sum(document["rules"].values()) == 3
    assert document["notes"] == []
    assert document["metadata"]["parity"]["ones"] == 0
    assert document["metadata"]["source_sha256"] == read_metadata(written).source_sha256


def test_a_model_without_class_output_says_so(capsys: pytest.CaptureFixture[str]):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[N, 3, 8, 8] image) => (float[N, 6, 8, 8] map) <float[6, 3, 3, 3] kernel>
    { map = Conv<pads = [1, 1, 1, 1]>(image, kernel) }"""
    onnx.save(parse(text), "segment.onnx")
    assert run(["export", "segment.onnx"]) == 0
    told = capsys.readouterr().err
    assert "missing: a class output (N, K)" in told
    assert "outputs: 'map' float (N, 6, 8, 8); `masktool explain` asks for --output NAME and --target I,J" in told


def test_a_state_dict_through_a_factory_file(folder: Path, capsys: pytest.CaptureFixture[str]):
    torch = pytest.importorskip("torch")
    (folder / "net.py").write_text(
        "from torch import nn\n\ndef build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))\n"
    )
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 5)
    torch.save(torch.nn.Sequential(*layers).state_dict(), "weights.pt")
    assert run(["export", "weights.pt", "--arch", "net.py:build", "--input-size", "8", "8"]) == 0
    out, err = capsys.readouterr()
    assert out == "weights.masked.onnx\n"
    assert "framework " in err
    assert "Traceback" not in err
    assert "Warning" not in err
    assert read_metadata(folder / "weights.masked.onnx").parity["framework"] < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.onnx"], "no such model file (absent.onnx); check the path"),
        (
            ["small.onnx", "-o", "small.onnx"],
            "the output would overwrite the model (small.onnx); choose another with -o",
        ),
        (["small.onnx", "-o", "."], "the output is a directory (.): expected a file"),
        (
            ["small.onnx", "--preprocess", "imagnet"],
            "no such file (--preprocess imagnet): expected imagenet, caffe, tf",
        ),
        (["small.onnx", "--mean", "1,x"], "'1,x' is not a list of numbers such as 0.485,0.456,0.406"),
        (["small.onnx", "--mean", "0.1,0.2"], "bad preprocessing (mean): expected 3 numbers"),
        (["small.onnx", "--labels", "absent.txt"], "file not found (absent.txt)"),
        (["small.onnx", "--input-size", "9", "9"], "input size fixed by the model (input 'image'): expected 8 x 8"),
        (["small.onnx", "--input-size", "0", "9"], "0 is not in the range x>=1"),
        (["small.onnx", "--masking", "none"], "'none' is not"),
        (
            ["small.onnx", "--masking", "fill", "--rule", "cell"],
            "only layer masking has a rule for samplers narrower than their stride (--masking fill): --rule cell",
        ),
        (["timm:no_such_net"], "unknown timm model (timm:no_such_net)"),
    ],
)
def test_bad_use_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
):
    if arguments[0].startswith("timm:"):
        request.getfixturevalue("torchvision_models")
    assert message in refuse(arguments, capsys)


def test_labels_that_do_not_fit_the_model(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "two.txt").write_text("cat\ndog\n")
    assert "expected 4 names, got 2" in refuse(["small.onnx", "--labels", "two.txt"], capsys)


@pytest.mark.parametrize(
    ("inputs", "nodes", "message"),
    [
        (
            "float[N, 3, 8, 8] a, float[N, 3, 8, 8] b",
            "c = Conv(a, k) d = Conv(b, k) y = Add(c, d)",
            "2 inputs may be the image: 'a' float (N, 3, 8, 8)",
        ),
        ("float[N, 3, 8, 8] a", "y = Relu(a)", "not a convolutional network (net.onnx): expected at least one Conv"),
        ("float[N, 3, 8, 8] a", "c = Conv(a, k) y = Trilu(c)", "no mask rule for 1 node: Trilu-20"),
    ],
)
def test_models_that_cannot_be_masked(inputs: str, nodes: str, message: str, capsys: pytest.CaptureFixture[str]):
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g ({inputs}) => (float[N, C, H, W] y) <float[3, 3, 3, 3] k> {{ {nodes} }}"""
    onnx.save(parse(text), "net.onnx")
    assert message in refuse(["net.onnx", "-o", "deep/er/out.onnx"], capsys)


def test_an_output_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "file").write_text("")
    assert "cannot write (file/out.onnx)" in refuse(["small.onnx", "-o", "file/out.onnx"], capsys)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("a/b/net.v2.pt", "net.v2.masked.onnx"),
        ("torchvision:resnet50", "resnet50.masked.onnx"),
        ("timm:hf-hub:timm/resnet18.a1_in1k", "resnet18.a1_in1k.masked.onnx"),
    ],
)
def test_the_default_output_lies_in_the_current_directory(model: str, name: str):
    assert choose_output(model, None, SUFFIX) == Path(name)


def count_agreement(plain: Path, masked: Path, images: np.ndarray) -> int:
    """Runs two ONNX files, without a mask, image by image; returns on how many their first choices agree."""
    choices = []
    for path in (plain, masked):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        choices.append([int(session.run(None, {name: image[None]})[0].argmax()) for image in images])
    return sum(left == right for left, right in zip(*choices, strict=True))


@pytest.mark.slow
def test_squeezenet_predicts_as_before_on_every_photograph(data_dir: Path, folder: Path):
    plain = data_dir / "weights" / "squeezenet11_caffe2_fp32.onnx"
    labels = str(data_dir / "imagenet_classes.json")
    assert run(["export", str(plain), "-o", "squeezenet.onnx", "--preprocess", "caffe", "--labels", labels]) == 0
    photographs = sorted((data_dir / "acuity227").glob("*.JPEG"))
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB"))[1:225, 1:225, ::-1] for path in photographs])
    images = (pixels - np.array([104, 117, 123])).transpose(0, 3, 1, 2).astype(np.float32)
    assert len(images) >= 30
    assert count_agreement(plain, folder / "squeezenet.onnx", images) == len(images)
    metadata = read_metadata(folder / "squeezenet.onnx")
    assert (metadata.class_output, metadata.output_kind, len(metadata.labels)) == (
        "softmaxout_1",
        "probabilities",
        1000,
    )


def test_the_cifar_resnet_predicts_as_before_on_every_image(data_dir: Path, folder: Path):
    pytest.importorskip("torch")
    weights = data_dir / "weights"
    factory = f"{Path(__file__).parents[1] / 'networks' / 'cifar_resnet.py'}:resnet20"
    options = ["--arch", factory, "--input-size", "32", "32", "-o", "resnet20.onnx", "--preprocess", "imagenet"]
    assert run(["export", str(weights / "cifar_resnet20.th"), *options]) == 0
    pixels = np.load(data_dir / "cifar" / "cifar10_test_lossless.npz")["images"] / 255
    images = (pixels - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    images = images.transpose(0, 3, 1, 2).astype(np.float32)
    published = weights / "cifar_resnet20_ts_op13.onnx"  # the same weights, exported by their own repository's code
    assert count_agreement(published, folder / "resnet20.onnx", images) == len(images)


def test_precision_is_told_by_export_check_and_info(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["export", "small.onnx", "--precision", "fp16", "-o", "half.onnx"]) == 0
    said = capsys.readouterr().err
    assert "note: in float32 stay 1 node with sums of many numbers (pool)\n" in said
    line = next(each for each in said.splitlines() if each.startswith("precision: "))
    assert line.startswith("precision: fp16; against the float32 file, scores differ by ")
    assert "100% of 8 images keep their first choice; rank correlation of maps: occlusion " in line
    assert run(["info", "half.onnx"]) == 0
    shown = capsys.readouterr().out
    assert "\nprecision     fp16, with float32 at the ends\n" in shown
    assert line.partition("float32 file, ")[2] in shown
    assert run(["export", "--check", "half.onnx", "small.onnx"]) == 0
    table = capsys.readouterr().out
    assert "the outputs against small.onnx in float32" in table
    assert "rank correlation of the maps of rise with those of small.onnx, at least" in table
    assert refuse(["small.onnx", "--precision", "bf16"], capsys).endswith("; take --precision fp16\n")
    assert "nothing to compare (--against); add --check FILE" in refuse(
        ["small.onnx", "--against", "small.onnx"], capsys
    )
