"""Files with gradients: made at once or from a file that was exported before, refused, and measured again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks.small_graphs import classifier

import masktool
from masktool import MasktoolError
from masktool.cli import run
from masktool.exporters.check import check_file


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
    metadata = masktool.export(tmp_path / "masked.onnx", tmp_path / "later.onnx", gradient="log-softmax").metadata
    assert (metadata.gradient, metadata.source_sha256, metadata.parity) == (
        "log-softmax", former.source_sha256, former.parity,
    )  # fmt: skip
    first, second = (masktool.load(tmp_path / name) for name in ("at_once.onnx", "later.onnx"))
    expected = first.gradient(images, masks, target=[0, 1, 2], of=("image", "mask"))
    found = second.gradient(images, masks, target=[0, 1, 2], of=("image", "mask"))
    assert np.abs(expected.image).max() > 0.01
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.mask, expected.mask)


@pytest.mark.parametrize(
    "options", [{"masking": "fill"}, {"mask_required": True}, {"labels": list("abcd")}, {"output_kind": "sigmoid"}]
)
def test_what_the_file_has_settled_is_refused_not_ignored(plain: Path, tmp_path: Path, options: dict) -> None:
    masktool.export(plain, tmp_path / "masked.onnx")
    with pytest.raises(MasktoolError, match=f"settled: .*{next(iter(options))}"):
        masktool.export(tmp_path / "masked.onnx", tmp_path / "later.onnx", gradient="logit", **options)
    assert not (tmp_path / "later.onnx").exists()


def test_gradients_are_added_once(plain: Path, tmp_path: Path) -> None:
    masktool.export(plain, tmp_path / "once.onnx", gradient="logit")
    with pytest.raises(MasktoolError, match="holds gradients already"):
        masktool.export(tmp_path / "once.onnx", tmp_path / "twice.onnx", gradient="logit")


def test_the_session_says_how_to_get_gradients(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    masktool.export(plain, "masked.onnx")
    images, _ = draw()
    with pytest.raises(MasktoolError, match=r"add them: masktool export masked\.onnx -o NEW\.onnx --gradient logit"):
        masktool.load("masked.onnx").gradient(images, target=0)
    assert run(["export", "masked.onnx", "-o", "NEW.onnx", "--gradient", "logit"]) == 0
    assert masktool.load("NEW.onnx").gradient(images, target=0).image is not None


def test_a_file_with_gradients_is_measured_as_any_other(plain: Path, tmp_path: Path) -> None:
    masktool.export(plain, tmp_path / "masked.onnx", gradient="logit")
    check = check_file(tmp_path / "masked.onnx")
    assert not check.failed
    figures = {verdict.figure: verdict.value for verdict in check.verdicts}
    assert figures["invariance"] == 0
    assert figures["response"] == masktool.load(tmp_path / "masked.onnx").metadata.parity["response"]
