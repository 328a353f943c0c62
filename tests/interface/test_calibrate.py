"""Calibrating a file: what is fitted, what is reported, what is refused, and what works with the file afterwards."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from scipy.optimize import check_grad, minimize_scalar

import masktool
from masktool import MasktoolError
from masktool.calibration.choosing import choose_correction, cross_validate, cut_folds, list_attempts, measure_gain
from masktool.calibration.fitting import Attempt, ScoresBehindMasks, fit_correction, loss_of
from masktool.cli import run
from masktool.commands import calibrate as command
from masktool.correction import Space, divergence, keeps_decision, log_shares
from masktool.demo import model_path, shapes
from masktool.explainers.subject import make_subject
from masktool.interface.calibrate import calibrate
from masktool.interface.calibration_scores import RandomCells
from masktool.interface.part_options import PART_OPTIONS

N_PICTURES = 16
METHODS = (("occlusion", {}), ("lime", {"n_samples": 20}), ("grad-cam", {}), ("extremal", {"n_iterations": 3}))
MASKS = 6


def draw_scores(n_images: int, n_masks: int, n_classes: int) -> ScoresBehindMasks:
    """Returns scores whose class 0 is too high behind masks, and all of which are too weak."""
    rng = np.random.default_rng(0)
    whole = 3 * rng.normal(size=(n_images, n_classes))
    noise = rng.normal(size=(n_images, n_masks, n_classes))
    return ScoresBehindMasks(whole, 0.5 * whole[:, None] + noise + 3 * (np.arange(n_classes) == 0), "logits")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index, picture in enumerate(shapes.draw(5, N_PICTURES).images):
        Image.fromarray(picture).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture(scope="module")
def calibrated(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibrated") / "shapes.onnx"
    calibrate(model_path(), pictures, path, masks_per_image=MASKS, providers="cpu")
    return path


def held_out(path: Path, pictures: Path) -> np.ndarray:
    """Returns the divergence of a file's predictions behind other masks, by picture."""
    design = RandomCells(5, (8,), 99)
    with masktool.MaskedSession(path, providers="cpu") as session:
        found = []
        for picture in sorted(pictures.iterdir()):
            array = make_subject(Image.open(picture).convert("RGB"), session).prepared.array
            (masks,) = design.draw((64, 64), picture.name, 5)
            whole, masked = (scores.astype(np.float64) for scores in (session(array), session(array, masks)))
            found.append(divergence(whole, masked, "logits").mean())
    return np.array(found)


def test_other_pictures_gain(calibrated: Path, tmp_path: Path) -> None:
    """The whole way: fitted on some pictures, the file is nearer the whole image's prediction on others."""
    for index, picture in enumerate(shapes.draw(77, 20).images):
        Image.fromarray(picture).save(tmp_path / f"{index:02}.png")
    before, after = held_out(model_path(), tmp_path), held_out(calibrated, tmp_path)
    assert after.mean() < 0.9 * before.mean()


def test_the_record_says_what_was_fitted(calibrated: Path) -> None:
    metadata = masktool.MaskedSession(calibrated).metadata
    found = metadata.calibration
    assert found is not None
    assert (found["n_images"], found["n_masks"], found["seed"], found["n_folds"]) == (N_PICTURES, MASKS, 0, 5)
    assert found["cell_sides"] == [4, 8, 16]
    assert found["divergence_gain"]["low"] > 0
    gain = found["divergence_before"]["value"] - found["divergence_after"]["value"]
    assert found["divergence_gain"]["value"] == pytest.approx(gain)
    assert metadata.parity["uncorrected"] == 0


def test_the_same_seed_gives_the_same_bytes(calibrated: Path, pictures: Path, tmp_path: Path) -> None:
    again = tmp_path / calibrated.name
    calibrate(model_path(), pictures, again, masks_per_image=MASKS, providers="cpu")
    assert again.read_bytes() == calibrated.read_bytes()
    other = calibrate(model_path(), pictures, tmp_path / "b.onnx", masks_per_image=MASKS, providers="cpu", seed=1)
    assert other.metadata.calibration != masktool.MaskedSession(calibrated).metadata.calibration


def test_a_calibrated_file_is_calibrated_from_its_scores_as_they_were(
    calibrated: Path, pictures: Path, tmp_path: Path
) -> None:
    again = calibrate(calibrated, pictures, tmp_path / "again.onnx", masks_per_image=MASKS, providers="cpu")
    with masktool.MaskedSession(calibrated) as first, masktool.MaskedSession(again.path) as second:
        assert dict(first.metadata.calibration or {}) == dict(second.metadata.calibration or {})
        picture, kept = np.zeros((1, 3, 64, 64), np.float32), np.tri(64, dtype=np.float32)[None, None]
        assert np.array_equal(first(picture, kept), second(picture, kept))


def test_explanations_say_that_scores_are_corrected(calibrated: Path, pictures: Path) -> None:
    picture = pictures / "00.png"
    for method, options in METHODS:
        explained = masktool.explain(calibrated, picture, method, providers="cpu", **options)
        assert any("corrected where something is missing" in note for note in explained.notes), method
        assert explained.model["calibration"]["n_images"] == N_PICTURES
        assert np.isfinite(explained.model_attributions).all()
    plain = masktool.explain(model_path(), picture, "occlusion", providers="cpu")
    assert "calibration" not in plain.model
    assert not any("corrected" in note for note in plain.notes)


def test_occlusion_by_windows_alone_is_that_of_the_file(calibrated: Path, pictures: Path) -> None:
    """What windows change alone gives the corrected scores, as whole passes do."""
    picture = pictures / "01.png"
    explained = masktool.explain(calibrated, picture, "occlusion", providers="cpu")
    with masktool.MaskedSession(calibrated, providers="cpu") as session:
        whole = masktool.explain(session, picture, "occlusion")  # a session opened so has no graphs beside it
    np.testing.assert_allclose(explained.model_attributions, whole.model_attributions, atol=2e-6)


def test_missingness_is_measured_with_calibrated_files(calibrated: Path, pictures: Path) -> None:
    from masktool.datasets.reading import read_dataset
    from masktool.evaluation.named_models import NamedModel
    from masktool.evaluation.parts.missingness import Missingness
    from masktool.evaluation.running import run_part

    assert "missingness" in PART_OPTIONS
    with masktool.MaskedSession(model_path()) as before, masktool.MaskedSession(calibrated) as after:
        part = Missingness([NamedModel("layer", before), NamedModel("calibrated", after)], orders=("random",))
        found = run_part(part, read_dataset(pictures, limit=5))
    assert any(note.startswith("calibrated: class scores are corrected") for note in found.findings.notes)
    assert not any(note.startswith("layer:") for note in found.findings.notes)


def test_a_file_that_gains_nothing_is_not_written(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network that does not look at the image says the same behind every mask."""
    text = f"""<ir_version: 10, opset_import: ["" : 18]> blind (float[N, 3, 64, 64] image) => (float[N, 3] logits)
<float[3, 3, 1, 1] kernel = {{{", ".join(["0.0"] * 9)}}}, float[3] bias = {{0.3, 0.2, 0.1}}>
{{ a = Conv(image, kernel, bias) b = GlobalAveragePool(a) logits = Flatten(b) }}"""
    model = onnx.parser.parse_model(text)
    path, target = tmp_path / "blind.onnx", tmp_path / "out.onnx"
    masktool.export(model, path, masking="fill", output_kind="logits", preprocessing="imagenet")
    code = run(["calibrate", str(path), "--images", str(pictures), "-o", str(target), "--masks", "3"])
    said = capsys.readouterr().err
    assert code == 2
    assert "a correction gains nothing on images that it was not fitted on" in said
    assert "0.000 [0.000, 0.000] nats over 16 images, unchanged predictions 1.000 before and 1.000 after" in said
    assert not target.exists()


REFUSED = {
    "no mask yet": ({}, None, "takes no mask yet"),
    "no scores": ({"class_output": "none"}, None, "no class scores"),
    "unknown kind": ({}, "values", "what the class output holds is not known"),
}


@pytest.mark.parametrize(("options", "name", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_corrected_is_refused_by_name(
    options: dict[str, str], name: str | None, message: str, pictures: Path, tmp_path: Path
) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 18]>
small (float[N, 3, 64, 64] image) => (float[N, 3] {name or "logits"})
<float[3, 3, 1, 1] kernel = {{{", ".join(["0.1"] * 9)}}}>
{{ a = Conv(image, kernel) b = GlobalAveragePool(a) {name or "logits"} = Flatten(b) }}"""
    path = tmp_path / "small.onnx"
    if message.endswith("yet"):
        onnx.save(onnx.parser.parse_model(text), path)
    else:
        masktool.export(onnx.parser.parse_model(text), path, preprocessing="imagenet", **options)
    with pytest.raises(MasktoolError, match=message):
        calibrate(path, pictures, tmp_path / "out.onnx")


def test_too_few_images_are_refused_and_few_are_said(pictures: Path, tmp_path: Path) -> None:
    chosen = sorted(pictures.iterdir())
    with pytest.raises(MasktoolError, match=r"too few images.*at least 5, better 30.*got 4"):
        calibrate(model_path(), chosen[:4], tmp_path / "out.onnx")
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no picture")
    found = calibrate(model_path(), [*chosen, damaged], tmp_path / "out.onnx", masks_per_image=MASKS)
    assert any(note.startswith("left out: damaged.png: ") for note in found.notes)
    assert any("fitted on 16 images" in note for note in found.notes)
    with pytest.raises(MasktoolError, match="no such folder"):
        calibrate(model_path(), tmp_path / "nowhere", tmp_path / "out.onnx")


def test_export_calibrates_in_one_go(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from masktool.demo import program_path

    few = tmp_path / "few"
    few.mkdir()
    for picture in sorted(pictures.iterdir())[:8]:
        shutil.copy(picture, few)
    options = {"preprocessing": masktool.MaskedSession(model_path()).metadata.preprocessing, "output_kind": "logits"}
    written = masktool.export(program_path(), tmp_path / "one.onnx", calibrate=few, gradient="logit", **options)
    assert written.metadata.calibration is not None
    assert written.metadata.gradient == "logit"
    assert written.source.name == "shapes.pt2"
    assert not masktool.check_export(written.path, program_path()).failed
    assert run(["info", str(written.path)]) == 0
    assert "fitted on 8 images behind 20 masks each, seed 0" in capsys.readouterr().out


def test_the_command_does_what_the_function_does(
    calibrated: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    parameters = inspect.signature(calibrate).parameters
    assert parameters["masks_per_image"].default == command.N_MASKS
    assert parameters["n_folds"].default == command.N_FOLDS
    arguments = ["--images", str(pictures), "--masks", str(MASKS), "--provider", "cpu", "--json"]
    assert run(["calibrate", str(model_path()), *arguments]) == 0
    printed = capsys.readouterr()
    assert (tmp_path / "shapes.calibrated.onnx").read_bytes() == calibrated.read_bytes()
    assert json.loads(printed.out)["metadata"]["calibration"]["n_images"] == N_PICTURES
    assert "KL divergence from the whole image, nats: " in printed.err
    assert "note: the correction was fitted on 16 images" in printed.err


# The fit alone


@pytest.mark.parametrize("space", ["logits", "log-odds"])
@pytest.mark.parametrize(("form", "count"), [("scale", 1), ("diagonal", 9), ("full", 21)])
def test_the_losss_gradient(space: Space, form: str, count: int) -> None:
    rng = np.random.default_rng(0)
    values, targets = rng.normal(size=(50, 4)), rng.dirichlet(np.ones(4), 50)
    loss = loss_of(values, targets, 1.3, Attempt(form, 0.1), space)  # type: ignore[arg-type]
    assert check_grad(lambda x: loss(x)[0], lambda x: loss(x)[1], rng.normal(size=count)) < 1e-5


def test_a_scale_is_the_temperature_that_a_search_finds() -> None:
    scores = draw_scores(30, 5, 4)
    found = fit_correction(scores, Attempt("scale"))
    assert found is not None
    searched = minimize_scalar(
        lambda scale: divergence(scores.whole[:, None], scale * scores.masked, "logits").mean(), (0.1, 2)
    )
    assert float(found.weight) == pytest.approx(searched.x, abs=1e-4)


@pytest.mark.parametrize("form", ["diagonal", "full"])
def test_the_fit_is_that_of_torchs_optimiser(form: str) -> None:
    """The same scores, loss and penalty, by automatic differentiation and another implementation of L-BFGS."""
    torch = pytest.importorskip("torch")
    scores, penalty = draw_scores(40, 6, 5), 0.03
    found = fit_correction(scores, Attempt(form, penalty))  # type: ignore[arg-type]
    assert found is not None
    values = torch.tensor(scores.masked.reshape(-1, 5))
    targets = torch.softmax(torch.tensor(scores.whole), 1).repeat_interleave(6, 0)
    size = (values - values.mean(1, keepdim=True)).square().mean().sqrt()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    apart = torch.zeros((5, 5) if form == "full" else 5, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    options = {"max_iter": 2000, "tolerance_grad": 1e-10, "tolerance_change": 1e-14, "line_search_fn": "strong_wolfe"}
    optimiser = torch.optim.LBFGS([scale, apart, bias], **options)

    def closure():
        optimiser.zero_grad()
        turned = values @ (scale * torch.eye(5) + apart).T if form == "full" else values * (scale + apart)
        logs = torch.log_softmax(turned + bias, 1)
        loss = (targets * (targets.log() - logs)).sum(1).mean()
        loss = loss + penalty / 2 * ((size * apart).square().sum() + bias.square().sum())
        loss.backward()
        return loss

    optimiser.step(closure)
    weight = (scale * torch.eye(5) + apart if form == "full" else scale + apart).detach().numpy()
    np.testing.assert_allclose(found.weight, weight, atol=1e-4)
    np.testing.assert_allclose(found.bias, bias.detach().numpy(), atol=1e-4)


def test_folds_hold_each_image_out_once() -> None:
    folds = cut_folds(23, 5, 0)
    assert sorted(np.concatenate(folds).tolist()) == list(range(23))
    assert {len(fold) for fold in folds} == {4, 5}


def test_noise_gains_nothing_when_it_is_held_out() -> None:
    """Scores that say nothing of the whole image: what is fitted to some of them must not be said to help."""
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(12, 8))
    scores = ScoresBehindMasks(whole, np.repeat(whole[:, None], 6, 1) + 1e-3 * rng.normal(size=(12, 6, 8)), "logits")
    figures = cross_validate(scores, 4)
    assert (figures.divergence_before - figures.divergence_after).mean() < 1e-4


def test_a_full_matrix_is_tried_where_images_allow_and_classes_compete() -> None:
    forms = {attempt.form for attempt in list_attempts(40, 20, 10, "logits")}
    assert forms == {None, "scale", "diagonal", "full"}
    for n_images, n_classes, space in ((12, 10, "logits"), (5000, 1000, "logits"), (400, 10, "log-odds")):
        assert "full" not in {each.form for each in list_attempts(n_images, 20, n_classes, space)}  # type: ignore[arg-type]


def test_the_form_follows_the_bias() -> None:
    turned = draw_scores(60, 10, 4)
    mixing = np.eye(4) + 0.8 * np.roll(np.eye(4), 1, axis=0)
    mixed = dataclasses.replace(turned, masked=turned.masked @ np.linalg.inv(mixing).T)
    assert choose_correction(turned).attempt.form in ("diagonal", "full")
    assert choose_correction(mixed).attempt.form == "full"
    weak = ScoresBehindMasks(turned.whole, np.repeat(0.5 * turned.whole[:, None], 4, 1), "logits")
    choice = choose_correction(weak)
    assert choice.correction is not None
    assert measure_gain(weak, choice.correction).divergence_after.max() < 1e-4


def test_divergence_and_decisions() -> None:
    rng = np.random.default_rng(0)
    whole, values = rng.normal(size=(2, 7, 3))
    p, q = np.exp(log_shares(whole, "logits")), np.exp(log_shares(values, "logits"))
    np.testing.assert_allclose(divergence(whole, values, "logits"), (p * np.log(p / q)).sum(1))
    p, q = 1 / (1 + np.exp(-whole)), 1 / (1 + np.exp(-values))
    expected = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(1)
    np.testing.assert_allclose(divergence(whole, values, "log-odds"), expected)
    assert np.array_equal(keeps_decision(whole, values, "logits"), whole.argmax(1) == values.argmax(1))
    np.testing.assert_allclose(keeps_decision(whole, values, "log-odds"), ((p > 0.5) == (q > 0.5)).mean(1))


def test_masks_remove_from_one_part_to_everything() -> None:
    design = RandomCells(10, (4,), 0)
    masks = np.concatenate(list(design.draw((32, 32), "a", 3)))
    np.testing.assert_allclose(1 - masks.mean(axis=(1, 2, 3)), np.arange(1, 11) / 10, atol=1 / 64)
    cells = masks.reshape(10, 8, 4, 8, 4)
    assert (cells == cells[:, :, :1, :, :1]).all()
    assert np.array_equal(masks, np.concatenate(list(design.draw((32, 32), "a", 10))))
    assert not np.array_equal(masks, np.concatenate(list(design.draw((32, 32), "b", 10))))
    assert RandomCells(3, (), 0).sides_for((224, 300)) == (14, 28, 56)
