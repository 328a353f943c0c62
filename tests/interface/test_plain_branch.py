"""Whatever reads a masked file reads one that holds the plain network beside the masked one, with the same results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks.small_graphs import parse

import masktool
from masktool.cli import run
from masktool.embedding.incremental.write import write_incremental
from masktool.explainers.incremental import WindowGraphs
from masktool.exporters.precision_source import computes_in
from masktool.exporters.randomise import find_layers, randomise, read_exported
from masktool.exporters.storage import open_session, weights_path
from masktool.runtime.measured_batch import measure_batch_size

NETWORK = """<ir_version: 10, opset_import: ["" : 18]>
network (float[N, 3, 32, 32] image) => (float[N, 600] logits)
<float[8, 3, 3, 3] a, float[8] d, float[512, 8, 3, 3] b, float[512, 600] c>
{ h = Conv<pads = [1, 1, 1, 1]>(image, a, d) g = Relu(h) p = MaxPool<kernel_shape = [4, 4], strides = [4, 4]>(g)
  k = Conv<pads = [1, 1, 1, 1]>(p, b) r = Relu(k) m = GlobalAveragePool(r) f = Flatten(m) logits = MatMul(f, c) }"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plain network, its masked file, the file of both networks, and an image."""
    folder = tmp_path_factory.mktemp("work")
    onnx.save(parse(NETWORK), folder / "plain.onnx")
    options = {"preprocessing": "imagenet", "output_kind": "logits"}
    masktool.export(folder / "plain.onnx", folder / "masked.onnx", **options)  # type: ignore[arg-type]
    masktool.export(folder / "plain.onnx", folder / "both.onnx", plain_branch=True, **options)  # type: ignore[arg-type]
    np.save(folder / "image.npy", np.random.default_rng(1).standard_normal((3, 32, 32)).astype(np.float32))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("occlusion", {}),
        ("lime", {"n_samples": 30, "n_segments": 9}),
        ("rise", {"n_samples": 30}),
        ("kernel-shap", {"n_samples": 30, "n_segments": 9}),
        ("neuromask", {"n_iterations": 3}),
        ("grad-cam", {}),
        ("integrated-gradients", {"n_steps": 4}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_methods_explain_it_as_the_masked_file(work: Path, method: str, options: dict[str, int]) -> None:
    maps = [
        masktool.explain(work / name, work / "image.npy", method=method, providers="cpu", threads=1, **options)
        for name in ("masked.onnx", "both.onnx")
    ]
    np.testing.assert_array_equal(maps[1].attributions, maps[0].attributions)
    assert maps[1].score == maps[0].score


def test_incremental_occlusion_reads_the_masked_network(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def write(*arguments: object) -> object:
        written.append(write_incremental(*arguments))  # type: ignore[arg-type]
        return written[-1]

    whole = masktool.explain(work / "masked.onnx", work / "image.npy", method="occlusion", providers="cpu", threads=1)
    monkeypatch.setattr("masktool.interface.explain.graphs_for", lambda _: WindowGraphs(write, 0, 0, 0))
    alone = masktool.explain(work / "both.onnx", work / "image.npy", method="occlusion", providers="cpu", threads=1)
    assert len(written) == 1
    largest = np.abs(whole.attributions).max()
    np.testing.assert_allclose(alone.attributions, whole.attributions, atol=1e-5 * largest)


def test_gradients_are_added_to_its_masked_network(work: Path, tmp_path: Path) -> None:
    expected = masktool.add_gradients_to(work / "masked.onnx", tmp_path / "expected.onnx")
    found = masktool.add_gradients_to(work / "both.onnx", tmp_path / "found.onnx")
    assert [note for note in found.notes if "plain network beside the masked one is left out" in note]
    assert not [note for note in expected.notes if "plain network" in note]
    assert found.metadata.plain_branch is False
    assert sorted(path.name for path in tmp_path.glob("*.onnx*")) == ["expected.onnx", "found.onnx"]
    image = np.load(work / "image.npy")[None]
    feed = {"image": image, "target": np.array([3]), "mask": np.ones((1, 1, 32, 32), np.float32)}
    feed["mask"][..., 4:9, 4:9] = 0
    runs = [open_session(str(tmp_path / name)).run(None, feed) for name in ("expected.onnx", "found.onnx")]
    for mine, theirs in zip(*runs, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_info_says_it(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(work / "both.onnx"), "--provider", "webgpu"]) == 0
    text = capsys.readouterr().out
    assert "plain branch  the plain network runs where the mask is left out, or 1 everywhere" in text
    assert run(["info", str(work / "both.onnx"), "--json", "--rules"]) == 0
    document = json.loads(capsys.readouterr().out)
    beside = weights_path(work / "both.onnx")
    assert document["bytes"] == (work / "both.onnx").stat().st_size + beside.stat().st_size
    assert document["nodes"]["Conv"] >= 4
    assert {rule["rule"] for rule in document["rules"] if rule["name"].startswith("plain/")} == {None}
    assert run(["info", str(work / "masked.onnx")]) == 0
    assert "plain branch" not in capsys.readouterr().out


def test_the_command_writes_and_checks_it(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "both.onnx"
    assert run(["export", str(work / "plain.onnx"), "-o", str(target), "--plain-branch", "--labels", "none"]) != 0
    capsys.readouterr()
    assert run(["export", str(work / "plain.onnx"), "-o", str(target), "--plain-branch"]) == 0
    assert "plain branch: the plain network runs where the mask is left out" in capsys.readouterr().err
    assert run(["export", "--check", str(target), str(work / "plain.onnx")]) == 0
    assert "plain_branch" in capsys.readouterr().out
    assert (
        run(["explain", str(work / "image.npy"), "-m", str(target), "--method", "occlusion", "-o", str(tmp_path)]) == 0
    )


def test_the_command_refuses_it_with_an_explanation(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["export", str(work / "plain.onnx"), "-o", str(tmp_path / "both.onnx"), "--plain-branch"]
    assert run([*given, "--explain", "occlusion"]) != 0
    assert "takes no mask and gives no gradients: --plain-branch" in capsys.readouterr().err
    assert run([*given, "--gradient", "logit"]) != 0
    assert "leave that or --gradient logit out" in capsys.readouterr().err
    with pytest.raises(masktool.MasktoolError, match="plain_branch"):
        masktool.export_explained(work / "plain.onnx", tmp_path / "both.onnx", plain_branch=True)


def test_its_masked_network_is_randomised(work: Path, tmp_path: Path) -> None:
    layers = [layer.name for layer in find_layers(read_exported(work / "both.onnx")[0])]
    assert layers == [layer.name for layer in find_layers(read_exported(work / "masked.onnx")[0])]
    for name in ("masked.onnx", "both.onnx"):
        randomise(work / name, tmp_path / name, layers[:1], seed=3)
    assert sorted(path.name for path in tmp_path.glob("*.onnx*")) == ["both.onnx", "masked.onnx"]
    feed = {"image": np.load(work / "image.npy")[None]}
    found, expected = (open_session(str(tmp_path / name)).run(None, feed)[0] for name in ("both.onnx", "masked.onnx"))
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, open_session(str(work / "masked.onnx")).run(None, feed)[0])


def test_bench_measures_the_mask_left_out(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["bench", str(work / "both.onnx"), "--plain", str(work / "plain.onnx"), "--quick", "--part", "passes"]
    assert run([*given, "--threads", "1", "--provider", "cpu", "--json"]) == 0
    passes = json.loads(capsys.readouterr().out)["passes"]
    assert {"left_out", "masked"} <= set(passes["ratios"])


def test_the_precision_of_a_file_is_that_of_its_masked_network(work: Path, tmp_path: Path) -> None:
    masktool.export(work / "plain.onnx", tmp_path / "both.onnx", plain_branch=True, precision="fp16")
    assert computes_in(tmp_path / "both.onnx", masktool.describe(tmp_path / "both.onnx").metadata) == "fp16"
    checked = masktool.check_export(tmp_path / "both.onnx", work / "plain.onnx")
    assert not checked.failed


def test_evaluations_choose_batches_by_masks_that_hide_something(work: Path) -> None:
    with masktool.load(work / "both.onnx", providers="cpu", threads=1) as session:
        seen = []
        own = session.run

        def spy(images: object, masks: np.ndarray, *others: object) -> object:
            seen.append(float(masks.min()))
            return own(images, masks, *others)  # type: ignore[arg-type]

        session.run = spy  # type: ignore[method-assign, assignment]
        measure_batch_size(session, np.load(work / "image.npy")[None])
    assert set(seen) == {0.0}
