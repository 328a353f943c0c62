"""Every code block of the README and of the site is run, in a folder that holds the files that it speaks of.

The marks behind a fence's language: ``no-run`` for what installs, downloads or is of another language, each listed
here with the reason; ``exit-2`` for a command that is to be refused. What takes long is listed, and runs with the slow
tests.
"""

import json
import re
import shlex
import shutil
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest
from PIL import Image

from masktool import demo
from masktool.cli import run
from masktool.explainers.method import METHODS
from masktool.interface.export import export
from masktool.ops.graph import MASK_RULES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```([\w{}-]*) *([^`\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
NO_CODE = {"", "text", "{image}", "{include}", "{toctree}"}
"""Languages of blocks that show what is printed, and what the site's generator does."""

INSTALLS = "installs packages"
HAS_NO_GPU = "needs a GPU; tests/webgpu does the same with a driver in software"
HAS_NO_DATA = "needs data sets or weights that are not shipped"
TESTS_ITSELF = "sets up the tests or is one of them"
OTHER_LANGUAGE = "is no Python"
OTHER_RUNTIME = "needs a runtime that not everybody has; tests/runtimes does the same"
NEEDS_DOCKER = "needs Docker; tests/deployment holds each line of the Dockerfile to what it promises"
NEEDS_TRITON = "needs a Triton server; tests/deployment goes as far as can be gone without"
SERVES = "runs until it is ended; tests/serving does the same"
HAS_ITS_OWN_TESTS = "takes minutes; tests/test_gpu_benchmark.py runs it on a tiny network"
TAKES_MINUTES = "trains a network or learns masks for minutes"
NEEDS_RAY = "needs Ray; tests/engines runs the example"
NOT_RUN = {
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt . "): INSTALLS,
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e '.[dev]'"): INSTALLS,
    ("README.md", "pip install"): INSTALLS,
    ("README.md", "import * as ort"): OTHER_LANGUAGE,
    ("README.md", "masktool train-masker torchvision:resnet50"): HAS_NO_DATA,
    ("CONTRIBUTING.md", "python3 -m venv"): INSTALLS,
    ("CONTRIBUTING.md", "scripts/webgpu_environment.sh"): INSTALLS,
    ("CONTRIBUTING.md", "scripts/serving_environment.sh"): INSTALLS,
    ("CONTRIBUTING.md", "scripts/engines_environment.sh"): INSTALLS,
    ("CONTRIBUTING.md", ".venv/bin/pytest tests/ops"): TESTS_ITSELF,
    ("CONTRIBUTING.md", ".venv/bin/pytest tests/explainers"): TESTS_ITSELF,
    ("CONTRIBUTING.md", ".venv/bin/pytest tests/evaluation"): TESTS_ITSELF,
    ("docs/start.md", "python3 -m venv"): INSTALLS,
    ("docs/start.md", "pip install"): INSTALLS,
    ("docs/howto/explains-itself.md", "import numpy as np\nimport openvino"): OTHER_RUNTIME,
    ("docs/howto/gpu.md", "masktool explain photo.jpg -m masked.onnx --provider webgpu"): HAS_NO_GPU,
    ("docs/howto/gpu.md", "masktool explain photo.jpg -m masked.onnx --provider cuda"): HAS_NO_GPU,
    ("docs/howto/compare.md", "masktool evaluate compare squeezenet.onnx"): HAS_NO_DATA,
    ("docs/howto/server.md", "pip install 'masktool[serve]'"): SERVES,
    ("docs/howto/server.md", "import numpy as np\nimport tritonclient"): SERVES,
    ("docs/howto/server.md", "curl --data-binary"): SERVES,
    ("docs/howto/server.md", "python -m benchmarks.serving"): SERVES,
    ("docs/howto/service.md", "#include"): OTHER_LANGUAGE,
    ("docs/howto/service.md", "import * as ort"): OTHER_LANGUAGE,
    ("docs/howto/kserve.md", "docker build"): NEEDS_DOCKER,
    ("docs/howto/triton.md", "import tritonclient.http"): NEEDS_TRITON,
    ("docs/performance.md", "scripts/build_wheel.sh wheelhouse"): INSTALLS,
    ("docs/performance.md", "python3.12 -m venv gpu"): INSTALLS,
    ("docs/performance.md", "python -m benchmarks.gpu --small"): HAS_ITS_OWN_TESTS,
    ("docs/performance.md", "python -m venv envs/openvino_xai"): INSTALLS,
    ("docs/calibration.md", "python -m benchmarks.calibration"): HAS_NO_DATA,
    ("docs/scale.md", "import ray"): NEEDS_RAY,
    ("docs/howto/signals-and-volumes.md", "import torchvision"): HAS_NO_DATA,
    ("docs/howto/signals-and-volumes.md", "masktool explain scan.nii.gz"): HAS_NO_DATA,
    ("docs/scale.md", "python examples/ray_folder.py"): NEEDS_RAY,
    ("docs/scale.md", "python -m benchmarks.scale"): HAS_NO_DATA,
    ("docs/evidence.md", "masktool evaluate missingness squeezenet.onnx"): HAS_NO_DATA,
    ("docs/evidence.md", "python -m benchmarks.missingness"): HAS_NO_DATA,
    ("docs/evidence.md", "python -m benchmarks.mask_rules"): HAS_NO_DATA,
    ("docs/evidence.md", "python -m benchmarks.calibration"): HAS_NO_DATA,
    ("docs/evidence.md", "python -m benchmarks.learned_mask_leak"): TAKES_MINUTES,
    ("docs/evidence.md", "python scripts/train_demo_model.py"): TAKES_MINUTES,
    ("docs/evidence.md", "OMP_NUM_THREADS=1 python -m benchmarks.scenes.training"): TAKES_MINUTES,
    ("docs/evidence.md", "python -m benchmarks.scenes.measuring"): TAKES_MINUTES,
    ("docs/evidence.md", "python -m benchmarks.scenes.contrasts"): TAKES_MINUTES,
    ("docs/evidence.md", "masktool evaluate faithfulness mobilenet.onnx"): HAS_NO_DATA,
    ("docs/evidence.md", "masktool evaluate localisation squeezenet.onnx"): HAS_NO_DATA,
    ("docs/evidence.md", "masktool evaluate compare squeezenet.onnx"): HAS_NO_DATA,
    ("docs/evidence.md", "masktool evaluate randomisation mobilenet.onnx"): HAS_NO_DATA,
}
"""By page and the beginning of the block."""
LONG = {"# what does removing parts do", "masktool train-masker shapes.pt2 --data"}
"""Beginnings of blocks that take minutes."""
NEEDS_TORCH = {"docs/start.md", "docs/train-masker.md"}
NEEDS_PYARROW = {"docs/howto/folder.md"}


class Block(NamedTuple):
    """One fenced block: its language, the mark behind that, and its text."""

    language: str
    mark: str
    text: str

    @property
    def is_long(self):
        return any(self.text.startswith(beginning) for beginning in LONG)


def read_blocks(path):
    found = FENCE.findall(path.read_text(encoding="utf-8"))
    return [Block(language, mark, textwrap.dedent(text)) for _, language, mark, text in found]


def name(path):
    return str(path.relative_to(ROOT))


RUN_PAGES = [path for path in PAGES if any(block.language in ("python", "sh") for block in read_blocks(path))]


LONG_PAGES = [path for path in RUN_PAGES if any(block.is_long for block in read_blocks(path))]


def weights(*shape):
    return (np.random.default_rng(0).standard_normal(shape) * 0.2).astype(np.float32)


def save_network(path, inputs, outputs, nodes, **tensors):
    header = '<ir_version: 10, opset_import: ["": 18]>'
    model = onnx.parser.parse_model(f"{header} network ({inputs}) => ({outputs}) {{ {nodes} }}")
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in tensors.items())
    onnx.save(model, path)


def save_yolo(path):
    """A network with YOLOv8's head: boxes around 84 places of three grids, and two classes."""
    strides = (8, 16, 32)
    grids = " ".join(f"c{s} = Conv<strides=[{s},{s}]>(image, w{s}) r{s} = Reshape(c{s}, shape)" for s in strides)
    joined = f"rows = Concat<axis=2>({', '.join(f'r{s}' for s in strides)}) given, raw = Split<axis=1>(rows, sizes)"
    decoded = "boxes = Add(given, around) classes = Sigmoid(raw) output0 = Concat<axis=1>(boxes, classes)"
    places = [
        ((x + 0.5) * s, (y + 0.5) * s, 2 * s, 2 * s) for s in strides for y in range(64 // s) for x in range(64 // s)
    ]
    kernels = {f"w{s}": weights(6, 3, s, s) for s in strides}
    around = np.array(places, np.float32).T[None]
    tensors = {"shape": np.array([0, 6, -1]), "sizes": np.array([4, 2]), "around": around}
    save_network(path, IMAGE, "float[N,6,84] output0", f"{grids} {joined} {decoded}", **kernels, **tensors)
    (path.parent / "animals.txt").write_text("cat\ndog")


IMAGE, SCORES = "float[N,3,64,64] image", "float[N,5] scores"
CONVOLUTION = "a = Conv<pads=[1,1,1,1], strides=[2,2]>(image, w) b = Relu(a)"
HEAD = "e = Flatten(d) scores = Gemm(e, v)"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a file of every name that a page speaks of."""
    folder = tmp_path_factory.mktemp("pages")
    w, v = weights(8, 3, 3, 3), weights(8, 5)
    pooled = f"d = GlobalAveragePool(b) {HEAD}"
    save_network(folder / "model.onnx", IMAGE, SCORES, f"{CONVOLUTION} {pooled}", w=w, v=v)
    summed = f"{CONVOLUTION} c = CumSum(b, axis) d = GlobalAveragePool(c) {HEAD}"
    save_network(folder / "refused.onnx", IMAGE, SCORES, summed, w=w, v=v, axis=np.array(1))
    both = f"image = Add(photo, depth) {CONVOLUTION} {pooled}".replace("image", "i").replace("photo", "image")
    inputs, outputs = f"{IMAGE}, float[N,3,64,64] depth", f"{SCORES}, float[N,5] quality"
    save_network(folder / "two-inputs.onnx", inputs, outputs, f"{both} quality = Gemm(e, v)", w=w, v=v)
    boxes = "a = Conv<strides=[16,16]>(image, w) b = Reshape(a, s) boxes = Transpose<perm=[0,2,1]>(b)"
    shape = np.array([0, 6, -1])
    save_network(folder / "detector.onnx", IMAGE, "float[N,16,6] boxes", boxes, w=weights(6, 3, 3, 3), s=shape)
    e = "d = GlobalAveragePool(b) embedding = Flatten(d)"
    save_network(folder / "embedder.onnx", IMAGE, "float[N,8] embedding", f"{CONVOLUTION} {e}", w=w)
    age = f"{CONVOLUTION} d = GlobalAveragePool(b) e = Flatten(d) f = MatMul(e, v) age = Squeeze(f, x)"
    save_network(folder / "regressor.onnx", IMAGE, "float[N] age", age, w=w, v=weights(8, 1), x=np.array([1]))
    other = "g = Conv<pads=[1,1,1,1], strides=[2,2]>(right, w) h = Relu(g) i = GlobalAveragePool(h) d = Sub(c, i)"
    siamese = f"{CONVOLUTION} c = GlobalAveragePool(b) {other} {HEAD}".replace("image", "left")
    inputs = "float[N,3,64,64] left, float[N,3,64,64] right"
    save_network(folder / "siamese.onnx", inputs, SCORES, siamese, w=w, v=v)
    signal = "a = Conv<pads=[2,2], strides=[2]>(x, w) b = Relu(a) d = GlobalAveragePool(b) e = Flatten(d)"
    save_network(
        folder / "heartbeats.onnx", "float[N,2,120] x", SCORES, f"{signal} scores = Gemm(e, v)", w=weights(8, 2, 5), v=v
    )
    anew = f"{signal} scores = Gemm(e, v)"
    save_network(folder / "any-length.onnx", "float[N,2,L] x", SCORES, anew, w=weights(8, 2, 5), v=v)
    video = "a = Conv<pads=[1,1,1,1,1,1], strides=[2,2,2]>(x, w) b = Relu(a) d = GlobalAveragePool(b) e = Flatten(d)"
    save_network(
        folder / "video.onnx",
        "float[N,3,8,24,24] x",
        SCORES,
        f"{video} scores = Gemm(e, v)",
        w=weights(8, 3, 3, 3, 3),
        v=v,
    )
    np.save(folder / "heartbeat.npy", weights(2, 120))
    np.save(folder / "clip.npy", weights(3, 8, 24, 24))
    places = "scores = Conv<strides=[4,4], pads=[1,1,1,1]>(image, w)"
    save_network(folder / "segmenter.onnx", IMAGE, "float[N,5,16,16] scores", places, w=weights(5, 3, 3, 3))
    save_yolo(folder / "yolo.onnx")
    spectral, scores = "float[N,7,32,32] bands", "d = GlobalAveragePool(b) e = Flatten(d) scores = Gemm(e, v)"
    band_nodes = f"{CONVOLUTION} {scores}".replace("image", "bands")
    save_network(folder / "bands.onnx", spectral, SCORES, band_nodes, w=weights(8, 7, 3, 3), v=v)
    np.save(folder / "field.npy", np.random.default_rng(1).normal(size=(7, 32, 32)).astype(np.float32))
    write_data(folder)
    preset = {"preprocessing": "imagenet", "labels": folder / "classes.txt"}
    export(folder / "model.onnx", folder / "masked.onnx", **preset)
    export(folder / "segmenter.onnx", folder / "segments.onnx", class_output="none", **preset)
    export(folder / "detector.onnx", folder / "detector.masked.onnx", class_output="none", preprocessing="imagenet")
    return folder


def write_data(folder):
    """Photographs with what is known of them, names of classes, the demo's sample, and a network of torch's."""
    names = ("cat", "dog", "bird", "fish", "tree")
    (folder / "classes.txt").write_text("\n".join(names))
    sample = Image.open(demo.sample_path()).convert("RGB")
    sample.save(folder / "photo.jpg")
    sample.rotate(180).save(folder / "other.jpg")
    shutil.copy(demo.sample_mask_path(), folder / "mask.png")
    (folder / "photos").mkdir()
    photos = [f"{number}.jpg" for number in range(2)]
    for number, photo in enumerate(photos):
        sample.rotate(90 * number).save(folder / "photos" / photo)
    rows = [f"{photo},{index}" for index, photo in enumerate(photos)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows]))
    (folder / "boxes.json").write_text(json.dumps({photo: [[200, 60, 380, 240]] for photo in photos}))
    (folder / "masktool-demo").mkdir()
    shutil.copy(demo.sample_path(), folder / "masktool-demo" / "sample.png")
    (folder / "network.py").write_text(
        textwrap.dedent("""
        from torch import nn

        def build():
            head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
            return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), *head)
        """)
    )


@pytest.fixture
def workplace(prepared, tmp_path, monkeypatch):
    """A copy of the folder to work in, and registries that are as before afterwards."""
    shutil.copytree(prepared, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for registry in (METHODS, MASK_RULES):
        monkeypatch.setattr(registry, "_entries", {key: registry[key] for key in registry})
    return tmp_path / "work"


def save_state_dict(folder):
    import torch

    namespace = {}
    exec((folder / "network.py").read_text(), namespace)
    torch.manual_seed(0)
    torch.save(namespace["build"]().state_dict(), folder / "weights.pt")


def run_page(path, folder, *, long):
    if name(path) in NEEDS_TORCH:
        pytest.importorskip("torch")
        save_state_dict(folder)
    if name(path) in NEEDS_PYARROW:
        pytest.importorskip("pyarrow")
    names = {}
    for block in read_blocks(path):
        if block.mark == "no-run" or (block.is_long and not long):
            continue
        if block.language == "python":
            exec(compile(block.text, name(path), "exec"), names)
        if block.language == "sh":
            run_lines(block)


def run_lines(block):
    for line in block.text.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line, comments=True) or ["masktool", "--version"]
        assert program == "masktool", f"mark it no-run, and list it here with the reason: {line}"
        assert run(arguments) == (2 if block.mark == "exit-2" else 0), line


@pytest.mark.parametrize("path", RUN_PAGES, ids=name)
def test_the_blocks_run(path, workplace):
    run_page(path, workplace, long=False)


@pytest.mark.slow
@pytest.mark.parametrize("path", LONG_PAGES, ids=name)
def test_the_long_blocks_run(path, workplace):
    run_page(path, workplace, long=True)


def test_what_is_not_run_is_listed_with_its_reason():
    unmatched = set(NOT_RUN)
    for path in PAGES:
        for block in read_blocks(path):
            listed = {(page, start) for page, start in NOT_RUN if page == name(path) and block.text.startswith(start)}
            assert bool(listed) == (block.mark == "no-run"), f"{name(path)}: {block.text}"
            unmatched -= listed
    assert not unmatched


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_block_is_of_a_kind_that_is_known(path):
    for block in read_blocks(path):
        assert block.language in NO_CODE | {"python", "sh"} or block.mark == "no-run"
        assert block.mark in ("", "no-run", "exit-2") or block.language in NO_CODE
    text = path.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(FENCE.findall(text))


def test_a_block_that_fails_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError):
        run_lines(Block("sh", "", "masktool info missing.onnx\n"))
    with pytest.raises(AssertionError, match="mark it no-run"):
        run_lines(Block("sh", "", "pip install something\n"))
    run_lines(Block("sh", "exit-2", "masktool info missing.onnx\n"))
