"""Faithfulness on the demo network, whose objects are known: maps of the object beat maps that know nothing."""

import contextlib
import dataclasses
import json
import math

import numpy as np
import pytest
import scipy.stats

from evaluation.shapes_modes import draw_dataset, open_shapes_modes
from masktool import MasktoolError, demo, load
from masktool.cli import run
from masktool.datasets.dataset import Dataset
from masktool.evaluation.bootstrap import interval_of_mean
from masktool.evaluation.maps import BASELINE_MAPS, MethodChoice
from masktool.evaluation.metrics.faithfulness.confidence import Confidence
from masktool.evaluation.metrics.faithfulness.infidelity import Infidelity
from masktool.evaluation.metrics.faithfulness.insertion_deletion import InsertionDeletion
from masktool.evaluation.metrics.faithfulness.metric import METRICS, Figure, Measured, Metric, build_metric
from masktool.evaluation.metrics.faithfulness.road import Road
from masktool.evaluation.metrics.faithfulness.sensitivity_n import SensitivityN
from masktool.evaluation.metrics.faithfulness.stability import Stability
from masktool.evaluation.metrics.faithfulness.summary import PLAIN
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.parts.faithfulness import Faithfulness
from masktool.evaluation.running import run_part
from masktool.evaluation.scene import read_scene

N_IMAGES = 16
N_MEASURED = 3
"""Images of the tests that look at the form of what is found."""
OCCLUSION = MethodChoice("occlusion", {"sliding_window_shapes": 12, "strides": 6})
LIME = MethodChoice("lime", {"n_segments": 20}, n_samples=60)
MEASURED = (
    InsertionDeletion(n_steps=12),
    Road(shares=(0.5, 0.9)),
    Confidence(),
    SensitivityN(shares=(0.1, 0.4), n_subsets=20),
    Infidelity(n_squares=30),
    Stability(n_seeds=2),
)


@pytest.fixture(scope="module")
def layer():
    with load(demo.model_path(), "cpu", threads=1) as session:
        yield NamedModel("layer", session)


@pytest.fixture(scope="module")
def black(tmp_path_factory):
    pytest.importorskip("torch")
    with contextlib.ExitStack() as stack:
        (model,) = open_shapes_modes(stack, tmp_path_factory.mktemp("modes"), ("black",))
        yield model


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return draw_dataset(tmp_path_factory.mktemp("pictures"), seed=21, count=N_IMAGES)


def first_images(dataset, count):
    return Dataset(dataset.images[:count])


@pytest.fixture(scope="module")
def object_figures(layer, dataset):
    """By figure and map, one value per image, for the object's own pixels and for noise, through layer masking."""
    part = Faithfulness(layer, [layer], [], MEASURED)
    found = {}
    for sample in dataset.images:
        scene = read_scene(sample, layer.session)
        target = int(layer.session.scores(scene.array)[0].argmax())
        maps = {"object": scene.inside.astype(np.float64), "random": BASELINE_MAPS["random"](scene, 0)}
        for metric in MEASURED[:-1]:
            for name, measured in metric.measure(part.trial(scene, layer, maps, target)).items():
                for figure, value in measured.figures.items():
                    found.setdefault(figure, {}).setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize(
    ("figure", "margin"),
    [
        ("insertion", 0.05),
        ("deletion", -0.3),
        ("most-first", -0.3),
        ("least-first", 0.1),
        ("gap", 0.3),
        ("sensitivity-n", 0.15),
        ("unexplained", -0.2),
    ],
)
def test_the_object_beats_noise(object_figures, figure, margin):
    """In expectation: by the margin in the mean, and with the interval of the differences on one side.

    Insertion has the smallest margin: layer masking fills scattered pixels in from their neighbours, so that noise
    shows the whole picture early. Confidence is left out: noise keeps half of the image, and so drops little.
    """
    values = {name: np.array(each, np.float64) for name, each in object_figures[figure].items()}
    interval = interval_of_mean(np.sign(margin) * (values["object"] - values["random"]))
    assert interval.n == N_IMAGES
    assert interval.value > abs(margin)
    assert interval.low > 0


@pytest.fixture(scope="module")
def part(layer, black):
    return Faithfulness(layer, [layer, black], [OCCLUSION, LIME], MEASURED)


@pytest.fixture(scope="module")
def records(part, dataset):
    samples = dataset.images[:N_MEASURED]
    return {sample.name: part.measure(read_scene(sample, part.explainer.session)) for sample in samples}


@pytest.fixture(scope="module")
def findings(part, records):
    return part.summarise(records)


def table(findings, name):
    (found,) = (each for each in findings.tables if each.name == name)
    return {row[0]: dict(zip(found.columns, row, strict=True)) for row in found.rows}


def test_tables_hold_every_map_through_every_model(findings):
    maps = ["occlusion", "lime", *BASELINE_MAPS]
    for metric in MEASURED:
        if metric.asks != "masks":
            found = table(findings, metric.name)
            assert list(found) == maps
            assert list(found["lime"]) == ["map", *(figure.name for figure in metric.figures)]
            continue
        for figure in metric.figures:
            found = table(findings, figure.name)
            assert list(found) == maps
            assert list(found["lime"]) == ["map", "layer", "black"]
            assert found["lime"]["layer"].n == N_MEASURED


def test_the_models_ranking_of_the_maps_is_compared(findings, records):
    found = {row[0]: row for row in next(t for t in findings.tables if t.name == "insertion-deletion-agreement").rows}
    assert list(found) == ["insertion", "deletion", "srg"]
    means = {
        model: [
            np.mean([r["measured"][model]["insertion-deletion"][name]["figures"]["srg"] for r in records.values()])
            for name in ["occlusion", "lime", *BASELINE_MAPS]
        ]
        for model in ("layer", "black")
    }
    _, models, kendall, spearman = found["srg"]
    assert models == "layer, black"
    assert kendall.value == pytest.approx(scipy.stats.kendalltau(means["layer"], means["black"]).statistic)
    assert spearman.value == pytest.approx(scipy.stats.spearmanr(means["layer"], means["black"]).statistic)
    assert kendall.low <= kendall.value <= kendall.high


def test_undefined_figures_are_in_no_mean(findings):
    for figure in ("average-drop", "sensitivity-n"):
        assert table(findings, figure)["ones"]["layer"].n == 0
        assert math.isnan(table(findings, figure)["ones"]["layer"].value)
    assert table(findings, "insertion")["ones"]["layer"].n == N_MEASURED


def test_differences_from_random_are_taken_image_by_image(findings, records):
    values = [
        record["measured"]["black"]["insertion-deletion"]["occlusion"]["figures"]["deletion"]
        - record["measured"]["black"]["insertion-deletion"]["random"]["figures"]["deletion"]
        for record in records.values()
    ]
    found = table(findings, "deletion-minus-random")
    assert found["occlusion"]["black"] == interval_of_mean(values)
    assert "random" not in found
    assert "stability-minus-random" not in [each.name for each in findings.tables]


def test_charts_show_the_curves_through_every_model(findings):
    charts = {chart.name: chart for chart in findings.charts}
    for name in ("insertion-layer", "insertion-black", "deletion-layer", "deletion-black"):
        chart = charts[name]
        assert chart.x == pytest.approx(np.linspace(0, 1, 13))
        assert [line.label for line in chart.lines] == ["occlusion", "lime", *BASELINE_MAPS]
        assert all(len(line.y) == 13 for line in chart.lines)
    assert {"road-most-first", "road-least-first", "sensitivity-n-layer"} <= set(charts)
    empty, full = charts["insertion-black"].lines[0].y[0], charts["insertion-black"].lines[0].y[-1]
    assert {line.y[0] for line in charts["insertion-black"].lines} == {empty}  # all begin with nothing
    assert {line.y[-1] for line in charts["insertion-black"].lines} == {full}


def test_maps_are_made_once_and_measured_through_each(part, layer, black, dataset, records):
    scene = read_scene(dataset.images[0], layer.session)
    alone = Faithfulness(layer, [black], part.methods, MEASURED[:1]).measure(scene)
    both = records[scene.known.name]
    for name in ("occlusion", "lime", "random"):
        assert (
            alone["measured"]["black"]["insertion-deletion"][name]
            == both["measured"]["black"]["insertion-deletion"][name]
        )
    assert both["measured"]["black"]["insertion-deletion"] != both["measured"]["layer"]["insertion-deletion"]
    assert set(both["measured"]) == {"layer", "black", PLAIN}


def test_methods_are_stable_or_not_as_they_should_be(findings):
    found = table(findings, "stability")
    assert found["occlusion"]["spearman"].value == pytest.approx(1)
    assert found["occlusion"]["overlap"].value == 1
    assert 0.2 < found["lime"]["spearman"].value < 0.999
    assert abs(found["random"]["spearman"].value) < 0.05
    assert found["ones"]["spearman"].n == 0


def test_records_are_json_and_do_not_depend_on_what_ran_before(part, layer, dataset, records):
    name, scene = dataset.images[2].name, read_scene(dataset.images[2], layer.session)
    assert json.dumps(part.measure(scene), allow_nan=False) == json.dumps(records[name], allow_nan=False)
    assert (
        dataclasses.replace(part, seed=1, measuring=[layer]).measure(scene)["measured"]["layer"]
        != (records[name]["measured"]["layer"])
    )


def test_an_interrupted_run_goes_on_with_the_same_figures(layer, dataset, tmp_path):
    part, journal = Faithfulness(layer, [layer], [], MEASURED[:2]), tmp_path / "faithfulness.jsonl"
    run_part(part, first_images(dataset, 1), journal)
    resumed = run_part(part, first_images(dataset, 2), journal).as_json()
    whole = run_part(part, first_images(dataset, 2)).as_json()
    assert resumed | {"timing": None} == whole | {"timing": None}


def test_settings_tell_all_options(part):
    settings = json.loads(json.dumps(part.settings()))
    assert settings["metrics"]["insertion-deletion"] == {"n_steps": 12}
    assert settings["methods"][1] == {"name": "lime", "options": {"n_segments": 20}, "n_samples": 60}
    assert settings["explained_with"] == "layer"
    assert settings["measured_through"] == ["layer", "black"]
    for change in ({"seed": 2}, {"target": "label"}, {"batch": 3}, {"metrics": MEASURED[:1]}):
        assert json.loads(json.dumps(dataclasses.replace(part, **change).settings())) != settings


def test_the_true_class_may_be_the_target(layer, dataset, tmp_path):
    part = Faithfulness(layer, [layer], [], MEASURED[:1], target="label")
    sample = dataclasses.replace(dataset.images[0], label=(dataset.images[0].label + 1) % 8)
    record = part.measure(read_scene(sample, layer.session))
    assert record["target"] == sample.label
    unlabelled = Dataset((dataset.images[0], dataclasses.replace(dataset.images[1], label=None)))
    found = run_part(part, unlabelled)
    assert found.n_images == 1
    assert [problem.where for problem in found.problems] == [dataset.images[1].name]


def test_pictures_are_of_the_maps_that_are_judged(layer, dataset, tmp_path):
    name = dataset.images[0].name
    part = Faithfulness(
        layer, [layer], [LIME], [Stability(n_seeds=2)], overlays=tmp_path / "overlays", pictured=frozenset({name})
    )
    run_part(part, first_images(dataset, 2))
    assert [path.name for path in (tmp_path / "overlays").iterdir()] == [f"{name}.layer.lime.png"]


def test_the_same_method_or_metric_twice_is_refused(layer):
    with pytest.raises(MasktoolError, match="lime"):
        Faithfulness(layer, [layer], [LIME, LIME], MEASURED)
    with pytest.raises(MasktoolError, match="road"):
        Faithfulness(layer, [layer], [LIME], [Road(), Road(noise=0)])
    with pytest.raises(MasktoolError, match="target"):
        Faithfulness(layer, [layer], [LIME], MEASURED, target="bottom")


def test_metrics_are_found_by_looking():
    assert list(METRICS) == sorted(metric.name for metric in MEASURED)
    assert build_metric("road", {"noise": 0.1}) == Road(noise=0.1)
    with pytest.raises(MasktoolError, match="unknown metric"):
        build_metric("flipping", {})
    with pytest.raises(MasktoolError, match="unknown option of road"):
        build_metric("road", {"steps": 3})


@dataclasses.dataclass(frozen=True)
class MeanOfMap(Metric):
    """A metric of someone else's."""

    name = "mean-of-map"
    title = "Mean"
    figures = (Figure("mean", "mean of the map", None),)
    asks = "nothing"

    def measure(self, trial):
        return {name: Measured({"mean": float(each.mean())}) for name, each in trial.maps.items()}


def test_a_new_metric_needs_nothing_else(layer, dataset):
    found = run_part(Faithfulness(layer, [layer], [], [MeanOfMap()]), first_images(dataset, 2)).findings
    assert table(found, "mean-of-map")["ones"]["mean"].value == 1
    assert found.charts == ()


@pytest.fixture
def command_line(dataset, tmp_path, monkeypatch, capsys):
    """Runs ``masktool evaluate faithfulness`` on the demo model; returns the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    folder = dataset.images[0].path.parent

    def call(*arguments):
        options = ["--limit", "2", "--threads", "1", "--provider", "cpu", "-o", "out"]
        code = run(["evaluate", "faithfulness", str(demo.model_path()), str(folder), *options, *arguments])
        return code, *capsys.readouterr()

    return call


def test_the_command_writes_what_it_prints(command_line, tmp_path):
    pytest.importorskip("matplotlib")
    chosen = ["--method", "occlusion", "--set", "strides=16", "--set", "sliding_window_shapes=16", "--pictures", "1"]
    code, out, _ = command_line(
        *chosen, "--metric", "insertion-deletion", "--metric-set", "insertion-deletion.n_steps=4"
    )
    assert code == 0
    written = json.loads((tmp_path / "out" / "faithfulness.json").read_text(encoding="utf-8"))
    assert written["settings"]["metrics"] == {"insertion-deletion": {"n_steps": 4}}
    assert [each["name"] for each in written["tables"]][:2] == ["insertion", "deletion"]
    for name in ("occlusion", *BASELINE_MAPS):
        assert f"\n {name} " in out
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 1
    assert (tmp_path / "out" / "faithfulness.deletion-layer.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "road", "--metric-set", "confidence.binary=true"], "no such option of a metric"),
        (["--metric-set", "noise=1"], "no such option of a metric"),
        (["--metric-set", "road.noises=1"], "unknown option of road"),
        (["--explain-with", "black"], "one masking mode"),
    ],
)
def test_misuse_is_one_line(command_line, arguments, message):
    code, out, err = command_line(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
