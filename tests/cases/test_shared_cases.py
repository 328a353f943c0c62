"""The collected cases of other people's problems, one folder each: every command, and the right value or one line.

They stand beside the checkout, in ``../shared/cases``, and are skipped elsewhere. A file that was written is held to
the plain model; hostile inputs run in a process of their own, within bounds of time and memory.
"""

from __future__ import annotations

import dataclasses
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from combinations import quickly
from PIL import Image

import masktool
from masktool.cli import run

DATA = Path(os.environ.get("MASKTOOL_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
FOLDER = DATA.parent / "cases"
SECONDS = 100
"""What a hostile input may take on a busy core."""
MEMORY = 6 * 2**30
"""Address space that it may take, ONNX Runtime's libraries included."""
TOLERANCE = 1e-5
HALF = 1e-2
"""Of what is computed in float16."""
SIDE = 32
"""Of open heights and widths."""
CUT = "p"
"""The output of the network whose tail is cut off."""
WROTE = r"^wrote out.onnx"
LABELS = "--output-kind binary --preprocess pre.json --labels"
OCCLUSION = "--method occlusion --target"


@dataclasses.dataclass(frozen=True)
class Step:
    """One command line behind ``masktool``, what a line of its output must be like, and the exit code.

    With ``alone`` the error is the only line.
    """

    command: str
    said: str
    code: int = 0
    alone: bool = False


def refused(command: str, said: str) -> Step:
    """Returns a step that ends in one line."""
    return Step(command, rf"^masktool: error: .*{said}", 2, alone=True)


def attack(said: str = WROTE, options: str = "") -> tuple[Step, ...]:
    """Returns the step of a hostile graph: refused so, or exported."""
    command = f"export in.onnx -o out.onnx {options}"
    return (Step(command, said) if said == WROTE else refused(command, said),)


ATTACKS = {
    "attack_onnx-abort-split": attack("a Split with another number of outputs than it says"),
    "attack_onnx-bomb-5000": attack("--limit values=25000000 "),
    "attack_onnx-cast-to-fold": attack("what depends on constants alone cannot be computed"),
    "attack_onnx-features-and-logits": attack(),
    "attack_onnx-fixed-batch-1000": attack(),
    "attack_onnx-gradient-unusable-201354": attack(options="--gradient logit"),
    "attack_onnx-gradient-unusable-203065": attack(options="--gradient logit"),
    "attack_onnx-hang-huge-kernel": attack(r"an image of 8 x 8 is too small for this node .*Conv 'c'"),
    "attack_onnx-inferenceerror-check": attack(options="--masking partial"),
    "attack_onnx-no-nodes-fill": attack("a graph that computes nothing", "--masking fill"),
    "attack_onnx-opset-inline": attack(),
    "attack_onnx-serdeerror": attack("a name that is no text", "--masking partial"),
    "attack_onnx-slow-dilation-1200": attack(),
    "attack_onnx-validationerror-two-values": attack("a tensor with two sets of numbers"),
    "attack_onnx-zero-division-reshape": attack("224 x 11.*give --input-size H W"),
    "attack_zip-detect": (refused("export bad.pt -o o.onnx", "truncated or damaged archive"),),
    "attack_eof-is-interrupted": (refused("explain p.png --segments z.npy", "empty file .z.npy."),),
    "attack_label-map-bomb": (refused("explain p.png --method lime --segments z.npy", "empty file .z.npy."),),
    "attack_image-bomb-png": (
        Step("explain b.png --method occlusion", r"^masktool: error: .*--limit pixels=169000000 ", 2),
        Step("explain strip.png --method occlusion", r"^masktool: error: .*--limit pixels=170000000 ", 2),
    ),
    "attack_npy-aborts-folder": (
        Step("explain folder --method occlusion -o o", r"^masktool: error: .*\(folder/memory.npy\)", 2),
    ),
}
LONGEST_ATTACKS = {
    *("attack_onnx-features-and-logits", "attack_onnx-fixed-batch-1000", "attack_onnx-gradient-unusable-201354"),
    *("attack_onnx-gradient-unusable-203065", "attack_onnx-inferenceerror-check", "attack_onnx-no-nodes-fill"),
    *("attack_onnx-opset-inline", "attack_onnx-slow-dilation-1200", "attack_onnx-zero-division-reshape"),
}
USED = {
    "attention_opset_23": (
        Step("export opset22.onnx -o out.onnx", WROTE),
        Step("export opset23.onnx -o out.onnx", WROTE),
    ),
    "batch_of_zero": (Step("export model.onnx -o out.onnx", WROTE),),
    "batch_threshold_silent": (
        Step("export model.onnx -o out.onnx --output-kind probabilities", "^batch: one .*takes the maximum over the"),
    ),
    "binary_label_inverted": (
        Step(f"export model.onnx -o out.onnx {LABELS} two.txt", "2 labels for 1 column"),
        Step(f"explain disc.png -m out.onnx {OCCLUSION} healthy", "Occlusion of healthy, probability 0.0477"),
        Step(f"export model.onnx -o out.onnx {LABELS} one.txt", "1 label for 1 column"),
        Step(f"explain disc.png -m out.onnx {OCCLUSION} tumour", "Occlusion of tumour, probability 0.952"),
        Step("explain disc.png -m out.onnx --method occlusion", "Occlusion of tumour, probability 0.952"),
    ),
    "custom_vision_zipmap": (
        Step("export model.onnx -o out.onnx", "cut off behind the network: .*ZipMap.*5 names of classes"),
        Step("export model.onnx -o out.onnx --masking fill", "cut off behind the network: .*ZipMap"),
    ),
    "features_before_logits": (
        Step("export model.onnx -o out.onnx --preprocess pre.json", "^output: 'logits' holds logits"),
        Step("explain disc.png -m out.onnx --method occlusion", "Occlusion of class 2, probability 0.24"),
        Step("export model.onnx -o out.onnx --preprocess pre.json --labels five.txt", "5 labels for 5 columns"),
    ),
    "fp16_keep_io_types": (
        Step("export gem.onnx -o out.onnx", WROTE),
        Step("export attend.onnx -o out.onnx", WROTE),
    ),
    "if_with_identity": (
        Step("export model.onnx -o out.onnx --masking fill", "^measured on: .*32 x 32: at the usual size the source"),
        refused("export model.onnx -o out2.onnx", "If.*a fixed size settles it: add --input-size H W"),
        Step("export model.onnx -o out2.onnx --input-size 32 100", "^parity: ones 0"),
    ),
    "input_named_mask": (
        Step("export fixed.onnx -o out.onnx --image-input image", "'mask' is called 'model_mask'"),
        Step("export open.onnx -o out.onnx --image-input image", "'mask' is called 'model_mask'"),
    ),
    "nms_in_the_graph": (
        Step("export fixed.onnx -o out.onnx --masking fill", "^batch: one image .*NonMaxSuppression"),
        Step("export open.onnx -o out.onnx --masking fill", "^batch: one image .*NonMaxSuppression"),
        Step("export open.onnx -o out2.onnx", "left out: 'selected', which NonMaxSuppression chose"),
    ),
    "odd_files": (
        Step("explain loop1.png plain.png --method occlusion", "a symbolic link that leads back .*loop1.png", 2),
        Step("explain phone.heic --method occlusion", r"pip install 'masktool\[heif\]'|phone.occlusion", -1),
        Step("explain twelve_bits.png --method occlusion", "reach only 4,095 of 65,535"),
        Step("explain https://example.org/a.png --method occlusion", "download it first", 2),
    ),
    "output_named_mask": (
        Step("export model.onnx -o out.onnx", "output 'mask' is called 'model_mask'"),
        Step("export model.onnx -o out.onnx --masking fill", "output 'mask' is called 'model_mask'"),
    ),
    "rearranging_stem_from_torch": (
        refused("export script.pt -o out.onnx --input-size 64 64", "--trust-code"),
        Step("export script.pt -o out.onnx --input-size 64 64 --trust-code", "framework [0-9.]+e-0[789]"),
        Step("export state.pth --arch make.py:build -o out.onnx --input-size 64 64", "framework [0-9.]+e-0[789]"),
    ),
    "shufflenet_v2_fixed_batch": (
        Step("export fixed.onnx -o out.onnx", WROTE),
        Step("export fixed.onnx -o out.onnx --masking fill", WROTE),
        Step("export open.onnx -o out.onnx", WROTE),
    ),
    "sparse_initializer": (Step("export model.onnx -o out.onnx", WROTE),),
    "uint8_input": (
        Step("export model.onnx -o out.onnx", "takes uint8: photographs are assumed to go in as pixels 0..255"),
        Step("export model.onnx -o out.onnx --masking fill", WROTE),
        Step("export model.onnx -o out.onnx --image-input image", WROTE),
    ),
    "view_after_permute": (refused("export model.onnx -o out.onnx", "no mask rule for 1 node: Reshape"),),
}
ELSEWHERE = frozenset(
    {"attack_cache-poisoned", "attack_stale-cache-arch-helper", "attack_stale-cache-external-weights"}
)
"""More than one process and file each: tests/cases/test_identity.py."""


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder of a case, which is the working directory."""
    source, copy = FOLDER / request.param, tmp_path / request.param
    if not source.is_dir():
        pytest.skip(f"needs the collected cases: {source}")
    shutil.copytree(source, copy, copy_function=shutil.copyfile)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(copy)
    PREPARATIONS.get(request.param, lambda: None)()
    return copy


def make_missing() -> None:
    """Writes what a case's own script makes."""
    subprocess.run([sys.executable, "make.py"], check=True, capture_output=True, timeout=SECONDS)


def make_loop() -> None:
    """Makes two links that lead to each other: copies of the case hold files in their place."""
    for here, there in (("loop1.png", "loop2.png"), ("loop2.png", "loop1.png")):
        Path(here).unlink(missing_ok=True)
        Path(here).symlink_to(there)


def make_photograph() -> None:
    """Draws a photograph of our own, as the cases ask for, and an empty array."""
    Image.fromarray(np.full((48, 64, 3), 120, np.uint8)).save("p.png")
    Path("z.npy").write_bytes(b"")


def make_folder() -> None:
    """Puts the damaged arrays between two photographs."""
    make_photograph()
    Path("z.npy").unlink()
    Path("folder").mkdir()
    for name in ("a.png", "z.png"):
        shutil.copyfile("p.png", Path("folder") / name)
    for array in Path().glob("*.npy"):
        shutil.move(array, "folder")


PREPARATIONS: dict[str, Callable[[], None]] = {
    "attention_opset_23": make_missing,
    "odd_files": make_loop,
    "attack_eof-is-interrupted": make_photograph,
    "attack_label-map-bomb": make_photograph,
    "attack_npy-aborts-folder": make_folder,
}


@pytest.mark.parametrize("case", quickly({*ATTACKS} - LONGEST_ATTACKS, ATTACKS), indirect=True)
def test_attacks_end_within_bounds(case: Path) -> None:
    for step in ATTACKS[case.name]:
        done = run_bounded(step.command)
        check_step(step, done.returncode, done.stdout + done.stderr)
        assert "Traceback" not in done.stderr
        if step.code == 0:
            check_right("in.onnx", "out.onnx")
    if case.name == "attack_npy-aborts-folder":
        assert {path.name for path in Path("o").glob("*.png")} == {"a.occlusion.png", "z.occlusion.png"}


@pytest.mark.parametrize("case", USED, indirect=True)
def test_cases_give_what_is_right(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in USED[case.name]:
        code = run(shlex.split(step.command))
        streams = capsys.readouterr()
        check_step(step, code, streams.out + streams.err)
        words = shlex.split(step.command)
        if words[0] == "export" and code == 0 and words[1].endswith(".onnx"):
            check_right(words[1], words[3])
    if case.name == "batch_threshold_silent":
        check_threshold()


def test_every_case_is_here() -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"needs the collected cases: {FOLDER}")
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} <= {*ATTACKS, *USED, *ELSEWHERE}


def run_bounded(command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command line in a process of its own, within bounds."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    return subprocess.run(
        [sys.executable, "-m", "masktool", *shlex.split(command)],
        env={**os.environ, "PYTHONPATH": str(Path(masktool.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def check_step(step: Step, code: int, output: str) -> None:
    """Holds what a step printed to what it should have; a code of -1 leaves the code open."""
    assert step.code in (code, -1), output
    lines = output.splitlines()
    assert any(re.search(step.said, line) for line in lines), output
    if step.alone:
        assert len(lines) == 1, output


def check_right(source: str, target: str) -> None:
    """Holds a written file, under a mask of ones, to the plain model."""
    plain = open_plain(source)
    with masktool.load(target) as session:
        renamed, image_input = session.metadata.renamed or {}, session.metadata.image_input
        measured = str(session.metadata.parity.get("size", f"{SIDE} x {SIDE}")).split(" x ")
        open_sides = iter(map(int, measured))
        shape = [1, *(side or next(open_sides, SIDE) for side in session.input_shape[1:])]
        feed = {node.name: draw(node, shape if node.name == image_input else node.shape) for node in plain.get_inputs()}
        image = feed.pop(image_input)
        mask = np.ones((1, 1, *(image.shape[1:3] if session.layout == "NHWC" else image.shape[2:])), "f")
        got = session.run(image, mask, {renamed.get(name, name): value for name, value in feed.items()} or None)
    batch = plain_batch(plain, image_input)
    copies = {image_input: np.repeat(image, batch, axis=0)} | feed
    expected = dict(zip([node.name for node in plain.get_outputs()], plain.run(None, copies), strict=True))
    known = {name: value for name, value in expected.items() if renamed.get(name, name) in got}
    assert known or CUT in got
    for name, value in known.items():
        first = value[: len(value) // batch]
        mine = got[renamed.get(name, name)]
        tolerance = (HALF if is_half(source) else TOLERANCE) * np.abs(first).max(initial=1e-9)
        np.testing.assert_allclose(mine.reshape(first.shape), first, atol=tolerance)


def open_plain(source: str) -> onnxruntime.InferenceSession:
    """Opens a plain model; a batch of 0 stands for an open one."""
    model = onnx.load(source)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ():
            if dim.HasField("dim_value") and dim.dim_value == 0:
                dim.dim_param = "open"
    return onnxruntime.InferenceSession(model.SerializeToString())


def plain_batch(plain: onnxruntime.InferenceSession, image_input: str) -> int:
    """Returns how many images a plain model takes, 1 where their number is open."""
    shape = next(node.shape for node in plain.get_inputs() if node.name == image_input)
    return shape[0] if isinstance(shape[0], int) else 1


def draw(node: onnxruntime.NodeArg, shape: Sequence[int | str | None]) -> np.ndarray:
    """Draws a value for an input of a plain model, open lengths 1."""
    sides = [side if isinstance(side, int) else 1 for side in shape]
    rng = np.random.default_rng(0)
    if "int" in node.type:
        return rng.integers(0, 256, sides).astype(np.uint8)
    return rng.random(sides).astype(np.float32)


def is_half(source: str) -> bool:
    """Whether a model computes in float16."""
    weights = onnx.load(source).graph.initializer
    return any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in weights)


def check_threshold() -> None:
    """Row 0 is what the plain model gives, whatever mask stands beside the mask of ones."""
    image = np.full((1, 3, 32, 32), 0.1, "f")
    image[:, :, 8:24, 8:24] = 1
    masks = np.ones((2, 1, 32, 32), "f")
    masks[1] = 0
    expected = onnxruntime.InferenceSession("model.onnx").run(None, {"x": image})[0]
    with masktool.load("out.onnx") as session:
        np.testing.assert_array_equal(session(image, masks)[:1], expected)
