"""Missingness: records and figures by hand on a model whose answers are known, and what must hold on a trained one."""

import contextlib
import json
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from explainers.models import write_region_model
from PIL import Image

from evaluation.shapes_modes import draw_dataset, open_shapes_modes
from masktool import MasktoolError, load
from masktool.cli import run
from masktool.datasets.dataset import Dataset, DatasetImage
from masktool.demo import shapes
from masktool.evaluation.bootstrap import interval_of_mean, resample
from masktool.evaluation.metrics.missingness.class_entropy import class_entropy, entropy_intervals
from masktool.evaluation.metrics.missingness.reference_scope import mean_over_shares
from masktool.evaluation.metrics.missingness.removal_measures import Answers, measure_similarity
from masktool.evaluation.metrics.missingness.shape_leak import Leak
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.parts.missingness import FRACTIONS, Missingness
from masktool.evaluation.removal import SegmentChoice
from masktool.evaluation.running import run_part
from masktool.explainers.subject import make_subject, read_subject

HEIGHT, WIDTH = SIZE = (16, 24)
HALVES = np.repeat([[0, 1]], WIDTH // 2, axis=1).repeat(HEIGHT, axis=0)
"""The left half holds all that class 0 reads, the right half all that class 1 reads; class 2 reads nothing."""
GIVEN = SegmentChoice("given")
MOST = {0: [0, 1, 0], 1: [1, 0, 0]}
"""Predictions at 0, half and all of the segments removed, the brighter half first; all scores equal give class 0."""


def write_picture(path, left, right):
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:, : WIDTH // 2], pixels[:, WIDTH // 2 :] = left, right
    Image.fromarray(pixels).save(path)


@pytest.fixture
def data(tmp_path):
    """Two pictures: class 0 and then 1 without a label; the first one's object is all that class 0 reads."""
    np.save(tmp_path / "halves.npy", HALVES)
    (tmp_path / "pictures").mkdir()
    write_picture(tmp_path / "pictures" / "a.png", 200, 100)
    write_picture(tmp_path / "pictures" / "b.png", 50, 90)
    object_mask = np.zeros(SIZE, bool)
    object_mask[: HEIGHT // 2, : WIDTH // 2] = True
    samples = (
        DatasetImage(
            "a.png", tmp_path / "pictures" / "a.png", 0, object_mask=object_mask, segments=tmp_path / "halves.npy"
        ),
        DatasetImage("b.png", tmp_path / "pictures" / "b.png", segments=tmp_path / "halves.npy"),
    )
    return Dataset(samples)


@pytest.fixture
def modes(tmp_path):
    """The same model under two names, as if exported in two modes."""
    write_region_model(tmp_path / "model.onnx")
    with load(tmp_path / "model.onnx", "cpu", threads=1) as first, load(tmp_path / "model.onnx", "cpu") as second:
        yield [NamedModel("layer", first), NamedModel("black", second)]


def records_of(part, dataset, path):
    run_part(part, dataset, path)
    entries = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return {entry["image"]: entry["record"] for entry in entries}


def values(table):
    return {row[0]: [cell.value for cell in row[1:]] for row in table.rows}


def test_entropy_is_scipys():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 9, 50)
    weights = resample(50, 1, 20)
    expected = [scipy.stats.entropy(np.bincount(classes, row, minlength=9)) for row in weights]
    np.testing.assert_allclose(class_entropy(weights, classes), expected, atol=9 * 1e-7)  # of the logarithm's epsilon
    halves = class_entropy(np.full((1, 4), 0.25), np.array([7, 7, 0, 0]))[0]
    assert halves == pytest.approx(math.log(2), abs=1e-6)
    assert class_entropy(np.full((1, 4), 0.25), np.full(4, 3))[0] == pytest.approx(0, abs=1e-6)


def test_an_entropys_interval_holds_it():
    """Every image of its own class: resamples miss a third of them, so that their entropies are all lower."""
    distinct, same = np.arange(40), np.zeros(40, np.int64)
    mean, (first, second) = entropy_intervals(np.stack([distinct, same], axis=1))
    assert first.value == pytest.approx(math.log(40), abs=1e-5)
    assert class_entropy(resample(40), distinct).max() < first.value
    assert first.low < first.value < first.high
    assert (second.value, second.low, second.high) == pytest.approx((0, 0, 0), abs=1e-6)
    assert mean.value == pytest.approx(first.value / 2, abs=1e-6)
    assert mean.n == 40


def test_predictions_by_hand(modes, data, tmp_path):
    part = Missingness(modes, GIVEN, fractions=(0, 0.5, 1))
    records = records_of(part, data, tmp_path / "journal.jsonl")
    for name, top in (("a.png", 0), ("b.png", 1)):
        found = records[name]["modes"]["layer"]
        assert found["unmasked"] == top
        assert found["predicted"]["most-salient"] == MOST[top]
        assert found["predicted"]["least-salient"] == [top, top, 0]
        assert found["predicted"]["random"] in (MOST[top], [top, top, 0])
        assert records[name]["modes"]["black"] == found  # one order for all modes
        assert records[name]["n_segments"] == 2
    assert (records["a.png"]["label"], records["b.png"]["label"]) == (0, None)
    leaks = [(r["modes"]["layer"]["object_removed"], r["modes"]["layer"]["hole_elsewhere"]) for r in records.values()]
    assert leaks == [(1, 0), (None, None)]  # b.png has no object


def test_each_set_of_segments_runs_once_per_mode(modes, data):
    before = modes[1].session.forward_passes
    part = Missingness(modes, GIVEN, fractions=(0, 0.5, 1))
    run_part(part, Dataset(data.images[:1]))
    assert (
        modes[1].session.forward_passes - before == 4 + 2
    )  # nothing, left, right, all; the object, and its shape elsewhere


def test_figures_by_hand(modes, data):
    part = Missingness(modes, GIVEN, ("most-salient", "least-salient"), (0, 0.5, 1), hierarchy=TwoKinds())
    evaluation = run_part(part, data)
    tables = {table.name: values(table) for table in evaluation.findings.tables}
    assert list(tables) == ["class-entropy", "unchanged", "r-oms", "accuracy", "class-similarity", "shape-leak"]
    half = math.log(2)  # a.png and b.png differ at 0 and at half; with all removed both are class 0
    assert tables["class-entropy"]["layer"] == pytest.approx([2 * half / 3, 2 * half / 3], abs=1e-6)
    assert tables["unchanged"]["layer"] == pytest.approx([(2 / 3 + 1 / 3) / 2, (1 + 2 / 3) / 2])
    assert tables["accuracy"]["layer"] == pytest.approx([2 / 3, 1])  # a.png alone has a label
    assert tables["class-similarity"]["layer"] == pytest.approx([(2.25 / 3 + 1.5 / 3) / 2, (1 + 2.25 / 3) / 2])
    assert tables["shape-leak"]["layer"] == [0, 1, 1]  # one label: chance is 1
    assert evaluation.findings.tables[3].rows[0][1].n == 1
    assert all(table["layer"] == table["black"] for table in tables.values())
    chart = next(each for each in evaluation.findings.charts if each.name == "unchanged-most-salient")
    assert chart.x == (0, 0.5, 1)
    assert [point.value for point in chart.lines[0].y] == [1, 0, 0.5]
    assert len(evaluation.findings.charts) == 5 * 2 + 1
    assert "class entropy is 0.693" in evaluation.findings.notes[0]
    assert "1 of 1 labelled images are right" in evaluation.findings.notes[1]


def test_reference_scope_is_the_area_under_the_whole_images_class(modes, data):
    """Against the session under masks made by hand, and scipy's trapezoid rule over uneven fractions."""
    fractions = (0.0, 0.5, 1.0)
    part = Missingness(modes, GIVEN, ("most-salient",), fractions)
    found = run_part(part, data)
    areas = []
    for image, brighter in zip(data.images, (HALVES == 0, HALVES == 1), strict=True):
        masks = [np.ones(SIZE), ~brighter, np.zeros(SIZE)]
        subject = make_subject(read_subject(image.path), modes[0].session)
        scores = modes[0].session.scores(subject.prepared.array, np.array(masks, np.float32)[:, None])
        left = scores[:, scores[0].argmax()]
        assert found.images[image.name]["modes"]["layer"]["confidence"]["most-salient"] == pytest.approx(left, abs=1e-6)
        areas.append(scipy.integrate.trapezoid(left, fractions))
    table = next(each for each in found.findings.tables if each.name == "r-oms")
    assert table.rows[0][1].value == pytest.approx(np.mean(areas), abs=1e-6)
    assert "area over the fractions removed" in table.caption


def test_an_area_over_part_of_the_fractions_is_a_mean_probability():
    scores = np.array([[1, 0.5, 0.2], [0.3, 0.3, 0.3]])
    expected = [scipy.integrate.trapezoid(row, [0.2, 0.3, 0.8]) / 0.6 for row in scores]
    assert mean_over_shares(scores, (0.2, 0.3, 0.8)) == pytest.approx(expected)
    assert mean_over_shares(scores, (0.2, 0.3, 0.8))[1] == pytest.approx(0.3)
    assert mean_over_shares(scores[:, :1], (0.4,)).tolist() == [1, 0.3]


class TwoKinds:
    """Any two classes are alike by a quarter."""

    def similarity(self, a, b):
        return 1.0 if a == b else 0.25


class Unknown:
    """Does not know class 2."""

    def similarity(self, a, b):
        return None if 2 in (a, b) else float(a == b)


def test_similarity_is_undefined_where_a_class_is_unknown():
    predicted = np.array([[0, 1], [1, 2], [1, 1]])
    answers = Answers(predicted, np.array([0, 1, 1]), np.full(3, np.nan), np.ones((3, 2)), (0, 1))
    figures = measure_similarity(answers, 0, Unknown())
    assert (figures.mean.value, figures.mean.n) == (0.75, 2)
    assert [(each.value, each.n) for each in figures.by_fraction] == [(1, 3), (0.5, 2)]


def test_without_labels_there_is_neither_accuracy_nor_leak(modes, data):
    findings = run_part(Missingness(modes, GIVEN, ("random",)), Dataset(data.images[1:])).findings
    assert [table.name for table in findings.tables] == ["class-entropy", "unchanged", "r-oms"]
    assert len(findings.notes) == 1


def test_records_depend_on_the_image_and_the_seed_alone(modes, data, tmp_path):
    settings = {"segments": SegmentChoice("grid", side=3), "fractions": (0.2, 0.6)}
    one = records_of(Missingness(modes, **settings), data, tmp_path / "1.jsonl")
    other = records_of(Missingness(modes, batch=1, **settings), Dataset(data.images[::-1]), tmp_path / "2.jsonl")
    alone = records_of(Missingness(modes[1:], orders=("random",), **settings), data, tmp_path / "3.jsonl")
    assert one == other
    for name, record in one.items():
        assert record["n_segments"] == 6 * 8
        assert record["modes"]["black"]["predicted"]["random"] == alone[name]["modes"]["black"]["predicted"]["random"]
    seeds = [Missingness(modes, seed=seed, **settings).settings()["seed"] for seed in (0, 1)]
    assert seeds == [0, 1]


def test_scores_that_are_no_numbers_are_reported(data, tmp_path):
    write_region_model(tmp_path / "nan.onnx", nan_when_empty=True)
    with load(tmp_path / "nan.onnx", "cpu", threads=1) as session:
        part = Missingness([NamedModel("layer", session)], GIVEN, ("random",))
        with pytest.raises(MasktoolError, match=r"no image could be measured.*not finite"):
            run_part(part, data)


def test_wrong_options_are_refused(modes):
    for wrong in (
        {"fractions": (0.5, 1.1)},
        {"fractions": ()},
        {"fractions": ("a",)},
        {"orders": ("upwards",)},
        {"orders": ()},
    ):
        with pytest.raises(MasktoolError, match="option out of range"):
            Missingness(modes, **wrong)


def test_the_command_compares_exported_files(data, tmp_path, capsys):
    write_region_model(tmp_path / "layer.onnx")
    write_region_model(tmp_path / "partial.onnx", masking="partial")
    (tmp_path / "labels.csv").write_text("image,label\na.png,0\nb.png,1\n")
    arguments = [
        *(
            "evaluate",
            "missingness",
            tmp_path / "layer.onnx",
            tmp_path / "pictures",
            "--also",
            tmp_path / "partial.onnx",
        ),
        *("--labels", tmp_path / "labels.csv", "--side", 8, "--order", "random", "--fraction", 0, "--fraction", 1),
        *("--provider", "cpu", "--threads", 1, "-o", tmp_path / "out", "--json"),
    ]
    assert run(list(map(str, arguments))) == 0
    found = json.loads(capsys.readouterr().out)
    tables = {table["name"]: table["rows"] for table in found["tables"]}
    assert [row[0] for row in tables["accuracy"]] == ["layer", "partial"]
    assert tables["accuracy"][0][1]["value"] == pytest.approx((1 + 1 + 1 + 0) / 4)  # b.png fails once all is removed
    assert found["settings"]["fractions"] == [0, 1]
    assert (tmp_path / "out" / "missingness.json").is_file()
    twice = [*arguments, "--also", tmp_path / "partial.onnx"]
    assert run(list(map(str, twice))) == 2
    assert "one masking mode twice" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The demo network in three modes."""
    pytest.importorskip("torch")
    with contextlib.ExitStack() as stack:
        yield open_shapes_modes(stack, tmp_path_factory.mktemp("modes"), ("layer", "grey", "black"))


@pytest.mark.slow
def test_layer_masking_keeps_more_than_grey_and_grey_more_than_black(trained, tmp_path):
    """The paper's order, random removal at 0, .1 ... 1. Of the unchanged rate each image's own difference is judged."""
    assert len(FRACTIONS) == 11
    part = Missingness(trained, orders=("random",))
    dataset = draw_dataset(tmp_path, 555, 80)
    records = records_of(part, dataset, tmp_path / "journal.jsonl").values()
    entropy = part.summarise(dict(enumerate(records))).tables[0]
    layer, grey, black = (row[1] for row in entropy.rows)
    assert layer.low > grey.high
    assert grey.low > black.high
    kept = {}
    for model in trained:
        answers = [(record["modes"][model.name], record["modes"]["layer"]["unmasked"]) for record in records]
        kept[model.name] = np.array([np.mean(np.equal(own["predicted"]["random"], top)) for own, top in answers])
    assert interval_of_mean(kept["layer"] - kept["grey"]).low > 0
    assert interval_of_mean(kept["grey"] - kept["black"]).low > 0


@pytest.mark.slow
def test_the_shape_leaks_least_through_layer_masking(trained):
    """1,500 pictures: with 80 an accuracy near chance is known to .07 either way, and grey's leak is .03."""
    pictures = shapes.draw(1_000_000, 1500)
    images = ((pictures.images / 255 - shapes.MEAN) / shapes.STD).transpose(0, 3, 1, 2).astype(np.float32)
    masks = (~pictures.object_masks[:, None]).astype(np.float32)
    distances = {}
    for model in trained:
        pieces = [model.session(images[at : at + 50], masks[at : at + 50]) for at in range(0, len(images), 50)]
        right = (np.concatenate(pieces).argmax(axis=1) == pictures.labels).astype(np.float64)
        distances[model.name] = Leak(right, right).figures(1 / len(shapes.LABELS), 0)[2]
    assert distances["layer"].value < distances["grey"].value < distances["black"].value
    assert distances["layer"].high < 0.05
    assert distances["black"].low > 0.5
