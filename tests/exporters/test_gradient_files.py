"""Files with gradients: made at once or from a file that was exported before, refused, and measured again."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks.small_graphs import classifier, parse

import masktool
from masktool import MasktoolError
from masktool.cli import run
from masktool.interface.check import check_export
from masktool.option_names import for_command_line


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(classifier(), path)
    return path


def draw() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((3, 3, 8, 8)).astype(np.float32)
    return images, (0.05 + 0.9 * rng.random((3, 1, 8, 8))).astype(np.float32)


def test_a_file_exported_before_gets_the_same_gradients(plain: Path, tmp_path: Path) -> None:
    images, masks = draw()
    masktool.export(plain, tmp_path / "at_once.onnx", gradient="log-softmax")
    masktool.export(plain, tmp_path / "masked.onnx")
    former = masktool.load(tmp_path / "masked.onnx").metadata
    metadata = masktool.add_gradients_to(tmp_path / "masked.onnx", tmp_path / "later.onnx", loss="log-softmax").metadata
    assert (metadata.gradient, metadata.source_sha256, metadata.parity) == (
        "log-softmax", former.source_sha256, former.parity,
    )  # fmt: skip
    first, second = (masktool.load(tmp_path / name) for name in ("at_once.onnx", "later.onnx"))
    expected = first.gradient(images, masks, target=[0, 1, 2], of=("image", "mask"))
    found = second.gradient(images, masks, target=[0, 1, 2], of=("image", "mask"))
    assert np.abs(expected.image).max() > 0.01
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.mask, expected.mask)


ROUNDING = 1e-6
"""Relative to the largest number: the same sums in another order."""
POOLED = """
<ir_version: 10, opset_import: ["" : 20]>
pooled (float[N, 3, 8, 8] image) => (float[N, 4] scores)
<float[6, 3, 3, 3] kernel, float[6, 4] weight>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    largest = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(features)
    pooled = GlobalAveragePool(largest)
    flat = Flatten(pooled)
    scores = Gemm(flat, weight)
}
"""


@pytest.mark.parametrize(("provider", "scatters"), [("webgpu", False), ("tensorrt", False), ("cuda", True)])
def test_gradients_for_a_provider_are_the_same_in_other_operators(
    tmp_path: Path, provider: str, scatters: bool
) -> None:
    images, masks = draw()
    found = {}
    for name in (None, provider):
        path = tmp_path / f"{name}.onnx"
        metadata = masktool.export(parse(POOLED), path, gradient="logit", for_provider=name).metadata
        assert metadata.for_provider == name
        with masktool.load(path) as session:
            assert session.metadata.for_provider == name
            found[name] = session.gradient(images, masks, target=[0, 1, 2], of=("image", "mask"))
    for ours, usual in ((found[provider].image, found[None].image), (found[provider].mask, found[None].mask)):
        np.testing.assert_allclose(ours, usual, rtol=0, atol=ROUNDING * np.abs(usual).max())
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert ("ScatterElements" in operators) == scatters


def test_the_command_writes_for_a_provider_and_info_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    onnx.save(parse(POOLED), tmp_path / "network.onnx")
    output = tmp_path / "masked.onnx"
    assert (
        run(["export", str(tmp_path / "network.onnx"), "-o", str(output), "--gradient", "logit", "--for", "webgpu"])
        == 0
    )
    assert run(["info", str(output)]) == 0
    assert "written for   webgpu" in capsys.readouterr().out
    with pytest.raises(MasktoolError, match="provider"):
        masktool.export(parse(POOLED), output, for_provider="metal")


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize("loss", ["logit", "entropy"])
def test_the_command_and_the_function_write_the_same_bytes(
    plain: Path, tmp_path: Path, masking: str, loss: str
) -> None:
    masktool.export(plain, tmp_path / "masked.onnx", masking=masking)
    exported = masktool.add_gradients_to(tmp_path / "masked.onnx", tmp_path / "function.onnx", loss=loss)
    assert run(["export", str(tmp_path / "masked.onnx"), "-o", str(tmp_path / "command.onnx"), "--gradient", loss]) == 0
    assert exported.metadata == masktool.load(tmp_path / "command.onnx").metadata
    assert (tmp_path / "function.onnx").read_bytes() == (tmp_path / "command.onnx").read_bytes()


@pytest.mark.parametrize(
    "typed",
    [["--masking", "fill"], ["--mask", "required"], ["--labels", "labels.txt"], ["--output-kind", "sigmoid"]],
    ids=lambda typed: typed[0],
)
def test_what_the_file_has_settled_is_refused_not_ignored(
    plain: Path, tmp_path: Path, typed: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd")
    masktool.export(plain, tmp_path / "masked.onnx")
    assert run(["export", "masked.onnx", "-o", "later.onnx", "--gradient", "logit", *typed]) == 2
    assert f"has this settled: {typed[0]}; leave that out" in capsys.readouterr().err
    assert not (tmp_path / "later.onnx").exists()


@pytest.mark.parametrize("options", [{}, {"gradient": "logit"}, {"masking": "fill"}], ids=str)
def test_an_exported_file_is_not_exported_again(plain: Path, tmp_path: Path, options: dict) -> None:
    masktool.export(plain, tmp_path / "masked.onnx")
    with pytest.raises(MasktoolError, match=r"takes a mask already.*masktool\.add_gradients_to"):
        masktool.export(tmp_path / "masked.onnx", tmp_path / "later.onnx", **options)
    assert run(["export", str(tmp_path / "masked.onnx"), "-o", str(tmp_path / "later.onnx")]) == 2
    assert not (tmp_path / "later.onnx").exists()


def test_gradients_are_for_exported_files_alone(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(MasktoolError, match=r"takes no mask yet.*small\.onnx.*masktool\.export"):
        masktool.add_gradients_to(plain, tmp_path / "later.onnx")
    with pytest.raises(MasktoolError, match=r"unknown loss: expected logit .*got cosine"):
        masktool.add_gradients_to(plain, tmp_path / "later.onnx", loss="cosine")
    assert not (tmp_path / "later.onnx").exists()


def test_gradients_are_added_once(plain: Path, tmp_path: Path) -> None:
    masktool.export(plain, tmp_path / "once.onnx", gradient="logit")
    with pytest.raises(MasktoolError, match="holds gradients already"):
        masktool.add_gradients_to(tmp_path / "once.onnx", tmp_path / "twice.onnx")


def test_the_session_says_how_to_get_gradients(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    masktool.export(plain, "masked.onnx")
    images, _ = draw()
    with pytest.raises(MasktoolError, match="add them: ") as caught:
        masktool.load("masked.onnx").gradient(images, target=0)
    call = str(caught.value).partition("add them: ")[2]
    typed = for_command_line(caught.value.message).partition("add them: masktool ")[2]
    for advised in (lambda: eval(call), lambda: run(shlex.split(typed))):  # what is advised does it, either way
        advised()
        assert masktool.load("NEW.onnx").gradient(images, target=0).image is not None
        Path("NEW.onnx").unlink()


def test_a_file_with_gradients_is_measured_as_any_other(plain: Path, tmp_path: Path) -> None:
    masktool.export(plain, tmp_path / "masked.onnx", gradient="logit")
    check = check_export(tmp_path / "masked.onnx")
    assert not check.failed
    figures = {verdict.figure: verdict.value for verdict in check.verdicts}
    assert figures["invariance"] == 0
    assert figures["response"] == masktool.load(tmp_path / "masked.onnx").metadata.parity["response"]
