"""Comparison: maps from shared passes are those made alone, and tables say what the records hold."""

import json
import math

import numpy as np
import pytest
from explainers.models import noise_photograph, write_region_model
from explainers.small_network import SMALL_SIZE, draw_input, export_small
from PIL import Image

from masktool import MasktoolError, explain, load
from masktool.cli import run
from masktool.datasets.dataset import Dataset, DatasetImage
from masktool.evaluation.bootstrap import interval_of_mean
from masktool.evaluation.comparing.contenders import LeftOut
from masktool.evaluation.comparing.drawing import SceneDrawing
from masktool.evaluation.comparing.shared_scores import SharedScores
from masktool.evaluation.comparing.standings import ContenderRow, Standings
from masktool.evaluation.maps import BASELINE_MAPS, MethodChoice
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.parts.compare import MethodComparison
from masktool.evaluation.plots import draw_chart
from masktool.evaluation.running import run_part
from masktool.evaluation.scene import read_scene
from masktool.explainers.mask_design import MasksInMemory
from masktool.explainers.method import METHODS
from masktool.explainers.methods.rise import EnlargedGrids
from masktool.explainers.segment_method import KeptSegments
from masktool.explainers.task import ScoredMasks

BUDGETS = (25, 100, 250, 1000)
ALL = sorted(set(METHODS) - {"masker"})
DRAWING = ("hsic", "kernel-shap", "lime", "rise", "sobol")
NESTED = {"hsic": (250, 1000), "lime": (250, 1000), "kernel-shap": (600, 1000), "rise": (100, 250, 1000)}
"""Budgets at which a method has one design: the samples of the smaller are the first of the larger. Sobol's too, but
its points begin and end with the budget."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with load(export_small(tmp_path_factory.mktemp("compare") / "small.onnx"), "cpu", threads=1) as session:
        yield NamedModel("layer", session)


@pytest.fixture(scope="module")
def scene(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("inputs") / "input.npy"
    np.save(path, draw_input(3))
    inside = np.zeros(SMALL_SIZE, np.uint8)
    inside[:20, :20] = 1
    return read_scene(DatasetImage("input.npy", path, object_mask=inside), model.session)


@pytest.mark.parametrize("name", ALL)
def test_maps_from_shared_passes_are_those_made_alone(model, scene, name):
    drawing = SceneDrawing(model, scene, [MethodChoice(name)], seed=5, batch=None)
    found = [each for each in drawing.draw_all(BUDGETS) if not isinstance(each, LeftOut)]
    assert found
    for contender, drawn in found:
        count = getattr(contender.method, contender.method.samples_option) if name in DRAWING else None
        alone = explain(model.session, scene.image, name, budget=contender.budget, n_samples=count, seed=5)
        scale = np.ptp(alone.model_attributions) or 1
        np.testing.assert_allclose(drawn.attributions, alone.model_attributions, atol=2e-5 * scale)
        assert drawn.passes == alone.forward_passes <= contender.budget
        assert drawn.times.wall > 0


@pytest.mark.parametrize("name", sorted(NESTED))
def test_smaller_budgets_of_one_design_run_no_pass_of_their_own(model, scene, name):
    drawing = SceneDrawing(model, scene, [MethodChoice(name)], seed=0, batch=None)
    runs = {}
    for contender in drawing.contenders(MethodChoice(name), NESTED[name]):
        before = model.session.forward_passes
        drawn = drawing.draw(contender)
        runs[contender.budget] = model.session.forward_passes - before
        assert drawn.passes > 0.9 * contender.budget  # which each is charged with
    largest = max(NESTED[name])
    assert runs[largest] > 0.9 * largest
    assert all(run == 0 for budget, run in runs.items() if budget != largest)


def test_what_costs_the_same_at_every_budget_is_one_contender(model, scene):
    names = ("grad-cam", "recipro-cam", "extremal", "lime", "occlusion")
    drawing = SceneDrawing(model, scene, [MethodChoice(name) for name in names], seed=0, batch=None)
    budgets = {
        name: sorted(each.budget for each in drawing.contenders(MethodChoice(name), BUDGETS) if hasattr(each, "task"))
        for name in names
    }
    assert budgets == {
        "grad-cam": [25],
        "recipro-cam": [100],
        "extremal": [100, 250],
        "lime": list(BUDGETS),
        "occlusion": list(BUDGETS),
    }
    (refused,) = drawing.contenders(MethodChoice("extremal"), (25,))
    assert isinstance(refused, LeftOut)
    assert "at least 54" in refused.why


class CountedMean:
    """Scores masks by their mean, and counts them."""

    def __init__(self):
        self.count = 0

    def __call__(self, batches, total, design=None):
        for batch in batches:
            masks = batch if design is None else design.expand(batch)
            self.count += len(masks)
            assert len(masks) == total
            yield ScoredMasks(MasksInMemory(masks), masks.mean(axis=(1, 2, 3), dtype=np.float64)[:, None])


def test_rows_are_known_by_their_bytes_and_their_design():
    counted = CountedMean()
    shared = SharedScores(counted)
    halves, thirds = (KeptSegments(np.repeat(np.arange(n), 6 // n)[None].astype(np.int32)) for n in (2, 3))
    rows = {"kept": np.array([[1, 0], [0, 0], [1, 0]], np.float32)}
    (found,) = shared([rows], 3, halves)
    assert found.scores[:, 0].tolist() == [0.5, 0, 0.5]
    assert (counted.count, shared.run, shared.asked) == (2, 2, 3)  # a row twice is run once
    assert np.array_equal(found.masks.design.expand(found.masks.rows), halves.expand(rows))
    (again,) = shared([{"kept": rows["kept"][1:2]}], 1, KeptSegments(halves.segments.copy()))
    assert again.scores.tolist() == [[0]]
    assert counted.count == 2
    (other,) = shared([{"kept": np.array([[1, 0, 0]], np.float32)}], 1, thirds)
    assert other.scores[0, 0] == pytest.approx(1 / 3)
    kept = np.array([[[1, 0], [0, 1]]], np.float32)
    grids = [{"kept": kept, "top": np.zeros(1, np.int32), "left": np.full(1, left, np.int32)} for left in (0, 1)]
    for cut in (False, True):
        for grid in grids:
            list(shared([grid], 1, EnlargedGrids((6, 6), 2, cut)))
    assert counted.count == 3 + 4
    masks = np.ones((2, 1, 2, 2), np.float32)
    (plain,) = shared([masks], 2)
    assert plain.scores.tolist() == [[1], [1]]
    assert counted.count == 8
    assert shared.charged.wall >= shared.spent.wall > 0


def test_a_record_holds_what_every_map_is_judged_by(model, scene):
    choices = [MethodChoice("grad-cam"), MethodChoice("rise"), MethodChoice("occlusion")]
    part = MethodComparison(model, [model], choices, (25, 100), n_steps=4, steady=frozenset({"input.npy"}))
    record = json.loads(json.dumps(part.measure(scene)))
    rows = {(row["method"], row["budget"]): row for row in record["maps"]}
    assert set(rows) == {
        *(("grad-cam", 25), ("rise", 25), ("rise", 100), ("occlusion", 25), ("occlusion", 100)),
        *((name, None) for name in BASELINE_MAPS),
    }
    assert record["target"] == int(model.session.scores(scene.array)[0].argmax())
    assert record["right"] is None
    alone = explain(model.session, scene.image, "occlusion", budget=100).model_attributions.astype(float)
    trial = part.judge(scene, model, {"alone": alone}, record["target"])["alone"]
    judged = rows["occlusion", 100]["judged"]["layer"]
    assert judged == pytest.approx(trial, abs=1e-6)
    assert judged["srg"] == pytest.approx(judged["insertion"] - judged["deletion"], abs=1e-9)
    assert rows["occlusion", 100]["stability"] == 1  # it draws nothing
    assert -1 <= rows["rise", 100]["stability"] < 1
    assert rows["centre", None]["stability"] is None
    assert 0 <= rows["rise", 25]["energy"] <= 1
    assert rows["ones", None]["passes"] is None
    assert part.measure(scene)["maps"][0]["judged"] == record["maps"][0]["judged"]
    elsewhere = MethodComparison(model, [model], choices, (25,), n_steps=4)
    assert all(row["stability"] is None for row in elsewhere.measure(scene)["maps"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budgets": (100, 25)}, "budgets.*rising"),
        ({"budgets": ()}, "budgets.*rising"),
        ({"budgets": (2,)}, "budgets.*from 3"),
        ({"n_steps": 1}, "n_steps"),
        ({"choices": [MethodChoice("rise"), MethodChoice("rise")]}, "same method twice"),
    ],
)
def test_bad_options_are_refused(model, options, message):
    with pytest.raises(MasktoolError, match=message):
        MethodComparison(model, [model], **({"choices": [MethodChoice("rise")]} | options))


def made_record(gains, counts=None):
    """The record of an image, of (method, budget, passes, SRG through layer and blur)."""
    return {
        "right": True,
        "left_out": [{"method": "slow", "budget": 25, "why": "it needs 60"}],
        "maps": [
            {
                "method": method,
                "budget": budget,
                "passes": passes,
                "cpu_seconds": None if passes is None else passes / 100,
                "wall_seconds": None if passes is None else passes / 50,
                "judged": {
                    name: {"srg": gain, "insertion": gain + 0.1, "deletion": 0.1}
                    for name, gain in zip(("layer", "blur"), both, strict=True)
                },
                "stability": None,
                "energy": None,
                "counts": None,
            }
            for method, budget, passes, both in gains
        ],
    }


@pytest.fixture
def standings():
    """Ten images, some harder; ``cheap`` costs 2 passes, ``fine`` gains with passes, ``even`` is level with it."""
    random = np.random.default_rng(0)
    records = []
    for hard in np.linspace(-0.3, 0.3, 10):
        noise = random.normal(scale=0.02)
        records.append(
            made_record(
                [
                    ("cheap", 25, 2, (0.4 + hard, 0.3 + hard)),
                    ("fine", 25, 25, (0.3 + hard, 0.2 + hard)),
                    ("fine", 100, 90, (0.5 + hard, 0.4 + hard)),
                    ("even", 100, 100, (0.5 + hard + noise, 0.2 + hard)),
                    ("slow", 100, 60, (0.1 + hard, 0.1 + hard)),
                    ("centre", None, None, (0.2 + hard, 0.1 + hard)),
                    ("random-cells", None, None, (0.0, 0.0)),
                ]
            )
        )
    return Standings(records, ["layer", "blur"], "layer", (25, 100), 0)


def test_the_best_is_the_one_that_costs_no_more(standings):
    assert standings.best(25, "layer") == ContenderRow("cheap", 25)
    assert standings.best(100, "blur") == ContenderRow("fine", 100)
    table = standings.main_table()
    rows = {ContenderRow(row[0], row[1]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert rows["cheap", 25]["less the best, layer"] == "best"
    behind = rows["fine", 25]["less the best, layer"]
    assert (behind.value, behind.low, behind.high) == pytest.approx((-0.1, -0.1, -0.1))  # whatever images are like
    assert rows["fine", 25]["SRG, layer"].high - rows["fine", 25]["SRG, layer"].low > 0.1
    noise = standings.gains(ContenderRow("even", 100), "layer") - standings.gains(ContenderRow("fine", 100), "layer")
    level = {rows["fine", 100]["less the best, layer"], rows["even", 100]["less the best, layer"]} - {"best"}
    (difference,) = level
    assert difference.value == pytest.approx(-abs(noise.mean()))
    assert difference == interval_of_mean(-np.sign(noise.mean()) * noise)
    assert rows["slow", 100]["passes"] == 60
    assert rows["slow", 100]["CPU seconds"] == pytest.approx(0.6)
    assert rows["centre", None]["less the best, layer"] is None
    assert list(rows)[-2:] == [("centre", None), ("random-cells", None)]
    assert [row.method for row in list(rows)[:2]] == ["cheap", "fine"]  # by budget, then the best first


def test_notes_say_what_is_level_and_what_beats_no_map(standings):
    notes = list(standings.notes())
    assert notes[0].startswith("Within 25 passes, judged through layer: cheap 25 has the highest SRG, 0.400 [")
    assert "no other method is level" in notes[0]
    assert any("Within 100 passes, judged through layer" in note and "level with it: " in note for note in notes)
    (below,) = (note for note in notes if "the highest SRG through layer has centre" in note)
    assert below.endswith("not clearly above it: slow 100.")
    assert any(note.startswith("R-OMS") and "layer 0.100 [0.100, 0.100]" in note for note in notes)
    assert "slow is not at 25: it needs 60." in notes


def test_the_judges_rankings_are_compared(standings):
    table = standings.agreement_table()
    assert table.rows[0][:2] == ("srg", "layer, blur")
    assert 0.5 < table.rows[0][2].value < 1


def test_charts_have_a_line_for_each_method_at_its_own_passes(standings):
    chart = standings.chart("layer")
    lines = {line.label: line for line in chart.lines}
    assert lines["fine"].x == (25.0, 90.0)
    assert lines["cheap"].x == (2.0,)
    assert lines["centre (no model)"].x == (25.0, 100.0)
    assert chart.x == (2.0, 25.0, 100.0)
    assert chart.scale == "log"
    assert chart.as_json()["lines"][0]["x"]
    png = draw_chart(chart)
    assert png.startswith(b"\x89PNG")
    assert png == draw_chart(chart)


def test_rows_that_some_images_lack_are_left_out(standings):
    short = [*standings.records[:-1], made_record([("cheap", 25, 2, (0.5, 0.5))])]
    assert list(Standings(short, ["layer"], "layer", (25,), 0).found) == [("cheap", 25)]


@pytest.fixture
def command_line(tmp_path, monkeypatch):
    """An exported file without gradients, three pictures, and the words that compare two methods on them."""
    monkeypatch.chdir(tmp_path)
    write_region_model(tmp_path / "model.onnx")
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.fromarray(noise_photograph(seed=number)).save(tmp_path / "pictures" / f"{number}.png")
    return ["evaluate", "compare", "model.onnx", "pictures", "--budget", "20", "--budget", "50", "--provider", "cpu"]


def untimed(document):
    for record in document["images"].values():
        for row in record["maps"]:
            row["cpu_seconds"] = row["wall_seconds"] = None
    return document["images"]


def test_the_command_compares_what_the_file_allows_and_goes_on_where_it_was(command_line, tmp_path, capsys):
    assert run([*command_line, "--stability-images", "1", "-o", "out", "--steps", "4"]) == 0
    out, err = capsys.readouterr()
    assert "without recipro-cam: the file was exported without a head" in err
    for name, title in (("grad-cam", "Grad-CAM"), ("eigen-cam", "Eigen-CAM"), ("score-cam", "Score-CAM")):
        assert f"{name} is not at 20: {title} needs a feature map" in out  # which stops no other method
    assert "Within 50 passes, judged through layer:" in out
    written = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert written["settings"]["budgets"] == [20, 50]
    methods = {row["method"] for record in written["images"].values() for row in record["maps"]} - set(BASELINE_MAPS)
    without_map = {"eigen-cam", "grad-cam", "layercam", "recipro-cam", "score-cam"}
    assert methods == set(METHODS) - {"masker", "extremal", "neuromask"} - without_map
    assert all(row["passes"] is None or row["passes"] <= row["budget"] for row in written["images"]["0.png"]["maps"])
    stable = [record["maps"][0]["stability"] is not None for record in written["images"].values()]
    assert stable == [True, False, False]
    assert (tmp_path / "out" / "compare.srg-layer.png").is_file()
    assert run(["evaluate", "report", "out"]) == 0
    assert "Methods at equal budgets" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_processes_give_the_same_records(command_line, tmp_path, capsys):
    chosen = [*command_line, "--method", "rise", "--method", "occlusion", "--steps", "4", "--threads", "1"]
    for folder, jobs in (("one", "1"), ("two", "2")):
        assert run([*chosen, "-o", folder, "--jobs", jobs]) == 0
    capsys.readouterr()
    one, two = (json.loads((tmp_path / name / "compare.json").read_text()) for name in ("one", "two"))
    assert untimed(one) == untimed(two)
    assert list(one["images"]) == ["0.png", "1.png", "2.png"]


def test_an_interrupted_run_goes_on(model, scene, tmp_path):
    path = tmp_path / "other.npy"
    np.save(path, draw_input(4))
    images = (scene.known, DatasetImage("other.npy", path))
    part = MethodComparison(model, [model], [MethodChoice("occlusion")], (25,), n_steps=3)
    journal = tmp_path / "compare.jsonl"
    run_part(part, Dataset(images[:1]), journal)
    before = model.session.forward_passes
    found = run_part(part, Dataset(images), journal)
    assert found.n_images == 2
    fresh = run_part(part, Dataset(images[1:]))
    both = model.session.forward_passes - before
    assert both == 2 * (both // 2)  # the second image, twice: the first was not measured again
    assert both < 3 * (fresh.images["other.npy"]["maps"][0]["passes"] + 2 + 6 * 2 * 2)
    assert journal.read_text().count("\n") == 3


def test_a_method_that_is_named_must_run(command_line, capsys):
    assert run([*command_line, "--method", "recipro-cam"]) == 2
    assert "without a head" in capsys.readouterr().err


def test_options_of_methods_hold_at_every_budget(command_line, tmp_path, capsys):
    chosen = [*command_line, "--method", "lime", "--set", "n_segments=9", "--steps", "2", "--json"]
    assert run(chosen) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"]["methods"] == [{"name": "lime", "options": {"n_segments": 9}, "n_samples": None}]
    assert not (tmp_path / "masktool-evaluation" / "compare.jsonl").exists()
    assert not math.isnan(document["tables"][0]["rows"][0][3]["value"])
