"""The correction of class scores in a file: where it applies, what it gives, and that nothing else changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from combinations import every_value
from exporters.corrected_files import correct_file, draw_correction, record_of, space_of
from networks.small_graphs import CLASSIFIER, classifier, parse
from ops.emitted_nodes import Leaving, note_leaving

import masktool
from masktool import MasktoolError
from masktool.contract import DEVICE_PROVIDERS, Metadata
from masktool.correction import Correction, Form
from masktool.exporters.calibration import CHOSEN, read_correction, without_correction
from masktool.exporters.sources import load_source
from masktool.exporters.storage import open_session
from masktool.exporters.write_calibrated import write_calibrated

FORMS: tuple[Form, ...] = ("scale", "diagonal", "full")
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 3, 8, 8)).astype(np.float32)
COLUMN = """<ir_version: 10, opset_import: ["" : 20]>
column (float[N, 3, 8, 8] image) => (float[N{width}] scores)
<float[6, 3, 3, 3] kernel, float[6, 1] weight, int64[1] one = {{1}}>
{{ a = Conv<pads = [1, 1, 1, 1]>(image, kernel) b = Relu(a) c = GlobalAveragePool(b) d = Flatten(c)
  z = MatMul(d, weight) {end} }}"""
PLACES = """<ir_version: 10, opset_import: ["" : 20]>
places (float[N, 3, 8, 8] image) => (float[N, 4, 1, 1] scores)
<float[6, 3, 3, 3] kernel, float[4, 6, 1, 1] weight>
{{ a = Conv<pads = [1, 1, 1, 1]>(image, kernel) b = Relu(a) c = GlobalAveragePool(b) {end} }}"""
TWO = """<ir_version: 10, opset_import: ["" : 20]>
two (float[N, 3, 8, 8] image) => (float[N, 4] logits, float[N, 4] scores, int64[N, 1] best)
<float[6, 3, 3, 3] kernel, float[6, 4] weight>
{ a = Conv<pads = [1, 1, 1, 1]>(image, kernel) b = Relu(a) c = GlobalAveragePool(b) d = Flatten(c)
  logits = MatMul(d, weight) scores = Softmax(logits) best = ArgMax<axis = 1>(scores) }"""


def ending(end: str) -> str:
    return CLASSIFIER.format(batch="N", classify=end)


PROBABILITY = {"output_kind": "binary-probability"}
NETWORKS = {
    "logits": (ending("scores = Gemm(flat, weight)"), {"output_kind": "logits"}),
    "softmax": (ending("z = Gemm(flat, weight) scores = Softmax(z)"), {}),
    "softmax, moved": (ending("z = Gemm(flat, weight) p = Softmax(z) scores = Identity(p)"), {}),
    "log-softmax": (ending("z = Gemm(flat, weight) scores = LogSoftmax(z)"), {}),
    "softmax written out": (
        ending("z = Gemm(flat, weight) e = Exp(z) axes = Constant<value_ints = [1]>() t = ReduceSum(e, axes)").replace(
            "t = ReduceSum(e, axes)", "t = ReduceSum(e, axes) scores = Div(e, t)"
        ),
        {},
    ),
    "sigmoids": (ending("z = Gemm(flat, weight) scores = Sigmoid(z)"), {}),
    "places": (PLACES.format(end="scores = Conv(c, weight)"), {"output_kind": "logits"}),
    "softmax of places": (PLACES.format(end="z = Conv(c, weight) scores = Softmax<axis = 1>(z)"), {}),
    "binary": (COLUMN.format(width=", 1", end="scores = Identity(z)"), {"output_kind": "binary"}),
    "binary probability": (
        COLUMN.format(width=", 1", end="scores = Sigmoid(z)"),
        PROBABILITY,
    ),
    "one axis": (
        COLUMN.format(width="", end="s = Sigmoid(z) scores = Squeeze(s, one)"),
        PROBABILITY,
    ),
    "two outputs": (TWO, {"class_output": "scores"}),
}
COUNTS = {"binary": 1, "binary probability": 1, "one axis": 1}


def masks(*rows: float) -> np.ndarray:
    """Returns masks that keep the left half, and of the right half so much; 1 keeps everything."""
    found = np.ones((len(rows), 1, 8, 8), np.float32)
    found[:, :, :, 4:] = np.asarray(rows, np.float32)[:, None, None, None]
    return found


def write_masked(folder: Path, name: str, **options: object) -> Path:
    text, own = NETWORKS[name]
    path = folder / "masked.onnx"
    masktool.export(parse(text), path, **{**own, **options})
    return path


def forms_of(name: str) -> tuple[Form, ...]:
    return FORMS[:2] if name in COUNTS else FORMS


CASES = [(name, form) for name in NETWORKS for form in forms_of(name)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: ", ".join(case))
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Correction]:
    """A masked file, the corrected one, and the correction."""
    name, form = request.param
    tmp_path = tmp_path_factory.mktemp("files")
    path, target = write_masked(tmp_path, name), tmp_path / "corrected.onnx"
    correction, _ = correct_file(path, target, form, COUNTS.get(name, 4))
    return path, target, correction


def test_rows_are_corrected_where_something_is_missing_and_nowhere_else(files: tuple[Path, Path, Correction]) -> None:
    path, target, correction = files
    with masktool.MaskedSession(path) as before, masktool.MaskedSession(target) as after:
        kept = masks(1, 0, 1, 0.5, 0.999)
        given, found = before(IMAGES, kept), after(IMAGES, kept)
        whole = [0, 2]
        assert np.array_equal(found[whole], given[whole])
        kind = before.metadata.output_kind
        assert kind is not None
        expected = correction.corrected_output(given, kind)[[1, 3, 4]]
        np.testing.assert_allclose(found[[1, 3, 4]], expected, rtol=2e-5, atol=2e-6)
        assert np.abs(found - given)[[1, 3, 4]].max() > 1e-4
        assert np.array_equal(after(IMAGES), before(IMAGES))
        assert np.array_equal(after(IMAGES, np.ones_like(kept)), before(IMAGES))


def test_one_image_under_many_masks_and_many_images_under_one(files: tuple[Path, Path, Correction]) -> None:
    path, target, _ = files
    with masktool.MaskedSession(path) as before, masktool.MaskedSession(target) as after:
        rows = after(IMAGES[:1], masks(1, 0, 0.5))
        for row, kept in zip(rows, (1, 0, 0.5), strict=True):
            np.testing.assert_allclose(row, after(IMAGES[:1], masks(kept))[0], rtol=1e-5, atol=1e-6)
        assert np.array_equal(rows[0], before(IMAGES[:1])[0])
        assert np.array_equal(after(IMAGES, masks(1)), before(IMAGES))
        assert not np.array_equal(after(IMAGES, masks(0)), before(IMAGES, masks(0)))


def test_what_is_hidden_never_matters(files: tuple[Path, Path, Correction]) -> None:
    _, target, _ = files
    poisoned = IMAGES.copy()
    poisoned[:, :, :, 4:] = np.nan
    with masktool.MaskedSession(target) as after:
        assert np.array_equal(after(poisoned, masks(0)), after(IMAGES, masks(0)))


def test_the_correction_is_taken_out_and_read_back(files: tuple[Path, Path, Correction]) -> None:
    path, target, correction = files
    model = ir.load(target)
    found = read_correction(model, correction.space)
    assert found is not None
    assert found.form == correction.form
    np.testing.assert_allclose(found.weight, correction.weight, rtol=1e-6)
    metadata = Metadata.from_properties(model.metadata_props)
    assert metadata is not None
    bare, left = without_correction(model, metadata)
    assert left.calibration is None
    assert [value.name for value in bare.graph.outputs] == [value.name for value in ir.load(path).graph.outputs]
    assert [node.op_type for node in bare.graph] == [node.op_type for node in ir.load(path).graph]
    with masktool.MaskedSession(path) as before:
        again = open_session(ir.to_proto(bare).SerializeToString())
        (scores,) = again.run([left.class_output], {"image": IMAGES, "mask": masks(0)})
        assert np.array_equal(scores.reshape(5, -1), before(IMAGES, masks(0)))


def test_a_corrected_file_is_corrected_anew_from_the_scores_as_they_were(tmp_path: Path) -> None:
    path = write_masked(tmp_path, "softmax")
    first, second, direct = (tmp_path / f"{name}.onnx" for name in ("first", "second", "direct"))
    correct_file(path, first, "full", 4, seed=1)
    correct_file(first, second, "diagonal", 4, seed=2)
    correct_file(path, direct, "diagonal", 4, seed=2)
    with masktool.MaskedSession(second) as twice, masktool.MaskedSession(direct) as once:
        assert np.array_equal(twice(IMAGES, masks(0)), once(IMAGES, masks(0)))
    assert sum(node.name == CHOSEN for node in ir.load(second).graph) == 1


def test_whatever_reads_the_scores_reads_the_corrected_ones(tmp_path: Path) -> None:
    path, target = write_masked(tmp_path, "two outputs"), tmp_path / "corrected.onnx"
    correct_file(path, target, "full", 4)
    with masktool.MaskedSession(target) as session:
        found = session.run(IMAGES, masks(0, 1, 0, 0, 1))
    powers = np.exp(found["logits"] - found["logits"].max(axis=1, keepdims=True))
    np.testing.assert_allclose(found["scores"], powers / powers.sum(axis=1, keepdims=True), rtol=1e-5)
    assert np.array_equal(found["best"][:, 0], found["scores"].argmax(axis=1))


def test_an_output_around_the_correction_is_refused(tmp_path: Path) -> None:
    text = TWO.replace("float[N, 4] logits", "float[N, 4, 1] logits").replace(
        "logits = MatMul(d, weight) scores = Softmax(logits)",
        "y = MatMul(d, weight) axes = Constant<value_ints = [2]>() logits = Unsqueeze(y, axes) "
        "x = Squeeze(logits, axes) scores = Softmax(x)",
    )
    path = tmp_path / "masked.onnx"
    masktool.export(parse(text), path, class_output="scores")
    with pytest.raises(MasktoolError, match=r"around the place.*output 'logits'"):
        space_of(path)


def test_figures_are_measured_anew(tmp_path: Path) -> None:
    path, target = write_masked(tmp_path, "logits"), tmp_path / "corrected.onnx"
    _, written = correct_file(path, target, "diagonal", 4)
    figures = written.metadata.parity
    assert figures["uncorrected"] == figures["invariance"] == figures["left_out"] == 0
    assert 0 <= figures["correction"] < 1e-5
    before = masktool.MaskedSession(path).metadata.parity
    assert figures["ones"] == before["ones"]
    assert figures["response"] != before["response"]


def test_a_check_measures_the_correction_and_notices_another_one(tmp_path: Path) -> None:
    path, target = write_masked(tmp_path, "logits"), tmp_path / "corrected.onnx"
    correct_file(path, target, "diagonal", 4)
    check = masktool.check_export(target, parse(NETWORKS["logits"][0]))
    assert not check.failed
    assert {"uncorrected", "correction"} <= {each.figure for each in check.verdicts}
    model = onnx.load(target)
    (node,) = [each for each in model.graph.node if each.name == CHOSEN]
    (least,) = [each for each in model.graph.node if each.output[0] == node.input[0]]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(2), "two"))
    least.input[1] = "two"  # what is whole is corrected too
    onnx.save(model, target)
    assert {each.figure for each in masktool.check_export(target).failed} >= {"uncorrected"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("logits", {"plain_branch": True}),
        ("softmax", {"plain_branch": True}),
        ("sigmoids", {"portable": True}),
        ("log-softmax", {"masking": "fill"}),
        ("softmax", {"masking": "fill"}),
        ("sigmoids", {"masking": "partial"}),
        ("log-softmax", {"precision": "fp16"}),
        ("logits", {"mask_required": True}),
    ],
)
def test_every_kind_of_file(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    path, target = write_masked(tmp_path, name, **options), tmp_path / "corrected.onnx"
    correction, written = correct_file(path, target, "full", 4)
    assert written.metadata.parity["uncorrected"] == 0
    with masktool.MaskedSession(path) as before, masktool.MaskedSession(target) as after:
        kept = masks(1, 0, 1, 0.5, 0)
        given, found = before(IMAGES, kept), after(IMAGES, kept)
        assert np.array_equal(found[[0, 2]], given[[0, 2]])
        kind = before.metadata.output_kind
        assert kind is not None
        tolerance = 1e-2 if "precision" in options else 2e-5
        expected = correction.corrected_output(given, kind)[[1, 3, 4]]
        np.testing.assert_allclose(found[[1, 3, 4]], expected, rtol=tolerance, atol=tolerance)
        assert [each.name for each in after.other_inputs] == []
    assert not masktool.check_export(target).failed


def test_a_network_of_one_image_at_a_time(tmp_path: Path) -> None:
    path, target = tmp_path / "masked.onnx", tmp_path / "corrected.onnx"
    masktool.export(
        classifier(2, "m = ReduceMean<keepdims = 1>(flat) d = Sub(flat, m) scores = Gemm(d, weight)"),
        path,
        output_kind="logits",
    )
    assert masktool.MaskedSession(path).metadata.batching == "one"
    correction, _ = correct_file(path, target, "diagonal", 4)
    with masktool.MaskedSession(path) as before, masktool.MaskedSession(target) as after:
        kept = masks(1, 0, 1, 0.5, 0)
        given, found = before(IMAGES, kept), after(IMAGES, kept)
        assert np.array_equal(found[[0, 2]], given[[0, 2]])
        np.testing.assert_allclose(found[[1, 3, 4]], correction.apply(given)[[1, 3, 4]], rtol=1e-5, atol=1e-5)


@every_value(
    name=["logits", "softmax", "log-softmax", "sigmoids", "places", "softmax written out"],
    order=["gradients first", "correction first"],
)
def test_gradients_are_those_of_the_corrected_scores(tmp_path: Path, name: str, order: str) -> None:
    target, form = tmp_path / "corrected.onnx", "full"
    if order == "gradients first":
        path = write_masked(tmp_path, name, gradient="logit")
        correction, written = correct_file(path, target, form, 4)
        assert written.metadata.gradient == "logit"
    else:
        path, between = write_masked(tmp_path, name), tmp_path / "between.onnx"
        correction, _ = correct_file(path, between, form, 4)
        masktool.add_gradients_to(between, target)
    step, kept = 1e-2, masks(0, 1, 0.5)
    direction = RNG.normal(size=IMAGES[:3].shape).astype(np.float32)
    direction /= np.abs(direction).max() * 20
    with masktool.MaskedSession(target) as session:
        for loss in ("logit", "softmax"):
            found = session.gradient(IMAGES[:3], kept, target=2, loss=loss)
            ahead, behind = (
                session.gradient(IMAGES[:3] + sign * step * direction, kept, target=2, loss=loss).objective
                for sign in (1, -1)
            )
            slope = (ahead - behind) / (2 * step)
            along = (found.image * direction).sum(axis=(1, 2, 3))
            np.testing.assert_allclose(along, slope, rtol=2e-2, atol=2e-3)
        plain = write_masked(tmp_path, name, gradient="logit")
        with masktool.MaskedSession(plain) as uncorrected:
            whole = uncorrected.gradient(IMAGES[:3], masks(1, 1, 1), target=2).image
            mine = session.gradient(IMAGES[:3], kept, target=2).image
            assert np.array_equal(mine[1], whole[1])
            assert not np.allclose(mine[0], uncorrected.gradient(IMAGES[:3], kept, target=2).image[0], rtol=1e-2)
    assert correction.form == form


def test_a_file_keeps_its_head(tmp_path: Path) -> None:
    path, target = write_masked(tmp_path, "logits", head="active"), tmp_path / "other" / "corrected.onnx"
    correct_file(path, target, "diagonal", 4)
    assert (tmp_path / "other" / "corrected.head.onnx").is_file()
    assert not masktool.check_export(target).failed
    picture = (RNG.random((20, 30, 3)) * 255).astype(np.uint8)
    with masktool.MaskedSession(target) as session:
        assert session.metadata.head == "corrected.head.onnx"
        explained = masktool.explain(session, IMAGES[0], "recipro-cam")
    assert any("behind the feature map are as they are" in note for note in explained.notes)
    assert explained.model["calibration"]["form"] == "diagonal"
    assert picture.size


def test_the_correction_stays_on_the_device(tmp_path: Path) -> None:
    before: Leaving = {provider: set() for provider in DEVICE_PROVIDERS}
    after: Leaving = {provider: set() for provider in DEVICE_PROVIDERS}
    for number, (name, form) in enumerate((name, form) for name in ("logits", "softmax", "sigmoids") for form in FORMS):
        folder = tmp_path / str(number)
        folder.mkdir()
        path, target = write_masked(folder, name), folder / "corrected.onnx"
        correct_file(path, target, form, 4)
        note_leaving(ir.load(path), before)
        note_leaving(ir.load(target), after)
    new = {provider: after[provider] - before[provider] for provider in DEVICE_PROVIDERS}
    assert {provider: found for provider, found in new.items() if found} == {
        "coreml": {"GreaterOrEqual", "Less", "Log", "ReduceMin"}
    }


def test_damaged_metadata_are_told(tmp_path: Path) -> None:
    path, target = write_masked(tmp_path, "logits"), tmp_path / "corrected.onnx"
    correct_file(path, target, "diagonal", 4)
    model = onnx.load(target)
    (entry,) = [each for each in model.metadata_props if each.key == "masktool.calibration"]
    entry.value = '{"form": 3}'
    onnx.save(model, target)
    with pytest.raises(MasktoolError, match="calibration, form"):
        masktool.MaskedSession(target)


def test_a_class_output_of_integers_is_refused(tmp_path: Path) -> None:
    path = write_masked(tmp_path, "logits")
    source = load_source(path)
    correction = draw_correction("scale", "logits", 4)
    written = write_calibrated(source, tmp_path / "a.onnx", correction, record_of(correction))
    assert dataclasses.asdict(written.metadata)["calibration"]["form"] == "scale"
