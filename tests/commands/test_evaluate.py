"""The frame of ``masktool evaluate``: whatever is measured runs, stops, goes on, prints and reports alike."""

import contextlib
import json
import sys
import types
from pathlib import Path

import click
import numpy as np
import pytest
from explainers.models import noise_photograph, write_region_model
from PIL import Image

from masktool import demo
from masktool.cli import run
from masktool.commands.evaluate import SUMMARIES
from masktool.commands.evaluate.common import EvaluationRequest, evaluation_options, finish_evaluation
from masktool.demo import shapes
from masktool.evaluation.bootstrap import as_float, interval_of_mean
from masktool.evaluation.findings import Chart, Findings, Line, Table
from masktool.evaluation.part import Part
from masktool.evaluation.scene import require_label

N_IMAGES = 6
CAPTION = "mean [score] of the true class, higher is better"


class Tiny(Part):
    """Measures the labelled class's score, undefined for class 2."""

    name = "tiny"
    title = "Scores"
    interrupt_at = None
    measured = []

    def __init__(self, models, seed, batch, digits):
        self.all_models, self.seed, self.batch, self.digits = models, seed, batch, digits

    @property
    def models(self):
        return self.all_models

    def settings(self):
        return {"seed": self.seed, "batch": self.batch, "digits": self.digits}

    def measure(self, scene):
        if len(Tiny.measured) == Tiny.interrupt_at:
            raise KeyboardInterrupt
        Tiny.measured.append(scene.known.name)
        label = require_label(scene)
        scores = [model.session.scores(scene.array)[0, label] for model in self.all_models]
        noise = scene.random(self.seed).random()
        return {"scores": [None if label == 2 else round(float(s), self.digits) for s in scores], "noise": noise}

    def summarise(self, records):
        names = [model.name for model in self.all_models]
        scores = np.array([[as_float(score) for score in record["scores"]] for record in records.values()])
        figures = tuple(interval_of_mean(column, self.seed) for column in scores.T)
        noise = interval_of_mean([record["noise"] for record in records.values()], self.seed)
        rows = (*zip(names, figures, strict=True), ("noise", noise), ("none", None), ("nan", float("nan")))
        return Findings(
            (Table("scores", CAPTION, ("model", "score"), rows),),
            (Chart("scores", "Scores", "model", "score", tuple(names), (Line("score", figures),), "bar"),),
            ("Only a test.",),
        )


@click.command(name="tiny")
@click.option("--modes", default=None, help="Of masking.")
@evaluation_options
@click.option("--digits", type=int, default=6, help="Of the scores.")
@click.option("--gradient", is_flag=True, help="Open files with gradients.")
def tiny(request: EvaluationRequest, modes, digits, gradient):
    """Measure for a test."""
    with contextlib.ExitStack() as stack:
        study = request.study(stack)
        models = study.open_models(modes.split(",") if modes else None, gradient)
        assert all(model.session.has_gradient for model in models) or not gradient
        return finish_evaluation(request, study, Tiny(models, request.seed, request.batch, digits))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """``masktool evaluate tiny`` exists."""
    module = types.ModuleType("masktool.commands.evaluate.tiny")
    module.command = tiny
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(SUMMARIES, "tiny", "Measure for a test.")
    monkeypatch.setattr(Tiny, "interrupt_at", None)
    monkeypatch.setattr(Tiny, "measured", [])


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The current directory, with a model, six labelled photographs, and the cache inside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_region_model(tmp_path / "model.onnx")
    (tmp_path / "photos").mkdir()
    names = [f"{letter}.png" for letter in "abcdef"]
    for seed, name in enumerate(names):
        Image.fromarray(noise_photograph((16, 24), seed)).save(tmp_path / "photos" / name)
    (tmp_path / "labels.json").write_text(json.dumps({name: i % 3 for i, name in enumerate(names)}))
    return tmp_path


@pytest.fixture
def evaluate(work, capsys):
    """Runs the command and returns (exit code, stdout, stderr)."""

    def call(*arguments, model="model.onnx", directory="out"):
        fixed = ["evaluate", "tiny", model, "photos", "--labels", "labels.json", "--provider", "cpu", "-o", directory]
        code = run([*fixed, *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def read(directory="out"):
    """Returns the document without what may differ between two runs of one command."""
    document = json.loads(Path(directory, "tiny.json").read_text())
    return {key: value for key, value in document.items() if key not in ("timing", "command")}


def test_everything_is_printed_and_written(evaluate, work):
    code, out, err = evaluate()
    assert code == 0
    assert f"scores: {CAPTION}" in out
    assert "Note: Only a test." in out
    lines = {line.split()[0]: line.rstrip() for line in out.splitlines() if line.strip()}
    assert lines["layer"].endswith("(n=4)")
    assert lines["none"].split() == ["none"]
    assert lines["nan"].split() == ["nan", "undefined"]
    assert "running on CPU" in err
    assert "6 images; written: out/tiny.scores.png, out/tiny.json" in err
    assert sorted(path.name for path in (work / "out").iterdir()) == ["tiny.json", "tiny.scores.png"]
    with Image.open("out/tiny.scores.png") as picture:
        assert picture.format == "PNG"
    document = json.loads(Path("out/tiny.json").read_text())
    command = "masktool evaluate tiny model.onnx photos --labels labels.json --provider cpu -o out"
    assert document["command"] == command
    assert document["title"] == "Scores"
    assert document["n_images"] == N_IMAGES
    assert document["settings"]["models"][0] | {"threads": None} == document["settings"]["models"][0]
    (_, layer), (_, noise), (_, none), (_, nan) = document["tables"][0]["rows"]
    assert layer["n"] == 4
    assert noise["n"] == N_IMAGES
    assert none is None
    assert nan == {"value": None, "low": None, "high": None, "n": 0}


def test_every_image_has_its_own_record(evaluate):
    """So that two runs can be paired: the mean over the images is the table's figure."""
    assert evaluate()[0] == 0
    document = json.loads(Path("out/tiny.json").read_text())
    assert list(document["images"]) == [f"{letter}.png" for letter in "abcdef"]
    noise = [record["noise"] for record in document["images"].values()]
    assert np.mean(noise) == pytest.approx(document["tables"][0]["rows"][1][1]["value"])
    assert len(Path("out/tiny.json").read_text().splitlines()) < 200, "a line for each image"


def test_json_is_what_the_file_holds(evaluate):
    code, out, _ = evaluate("--json")
    assert code == 0
    assert out == Path("out/tiny.json").read_text()


def test_the_same_command_gives_the_same_bytes_but_for_timing(evaluate):
    documents, charts = [], []
    for _ in range(2):
        evaluate()
        document = json.loads(Path("out/tiny.json").read_text())
        del document["timing"]
        documents.append(json.dumps(document))
        charts.append(Path("out/tiny.scores.png").read_bytes())
    assert documents[0] == documents[1]
    assert charts[0] == charts[1]
    assert len(Tiny.measured) == 2 * N_IMAGES, "a finished run leaves nothing that the next would take up"


def test_problems_are_listed_and_only_strict_minds_them(evaluate, work):
    names = [f"{number:02d}.png" for number in range(12)]
    for name in names:
        (work / "photos" / name).write_bytes(b"no image")
    labels = json.loads((work / "labels.json").read_text()) | dict.fromkeys(names, 0)
    (work / "labels.json").write_text(json.dumps(labels))
    code, out, err = evaluate()
    assert code == 0
    assert "layer" in out
    assert "12 problems with the data:" in err
    listed = [line.split(":")[0].strip() for line in err.splitlines() if line.startswith("  ")]
    assert listed == [*names[:10], "and 2 more"]
    document = read()
    assert [problem["where"] for problem in document["problems"]] == names
    assert document["n_images"] == N_IMAGES
    code, out, err = evaluate("--strict", directory="strict")
    assert code == 2
    assert "layer" in out
    assert read("strict") == document


def test_strict_without_problems(evaluate):
    assert evaluate("--strict")[0] == 0


def test_no_image_at_all(evaluate, work):
    for path in (work / "photos").iterdir():
        path.write_bytes(b"no image")
    code, out, err = evaluate()
    assert (code, out) == (2, "")
    assert "no image could be measured (6 images): a.png: " in err


@pytest.mark.parametrize("after", range(N_IMAGES))
def test_an_interrupted_run_goes_on_where_it_was(evaluate, monkeypatch, after):
    evaluate(directory="whole")
    Tiny.measured.clear()
    monkeypatch.setattr(Tiny, "interrupt_at", after)
    code, out, err = evaluate()
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "masktool: interrupted"
    assert Path("out/tiny.jsonl").read_text().count("\n") == after + 1
    assert not Path("out/tiny.json").exists()
    monkeypatch.setattr(Tiny, "interrupt_at", None)
    code, _, err = evaluate()
    assert code == 0
    assert len(Tiny.measured) == N_IMAGES, "no image is measured twice"
    assert (f"resuming: {after} of 6 images are measured" in err) == (after > 0)
    assert read() == read("whole")
    assert Path("out/tiny.scores.png").read_bytes() == Path("whole/tiny.scores.png").read_bytes()
    assert not Path("out/tiny.jsonl").exists()


def test_an_interruption_before_the_results_are_written_loses_nothing(evaluate, monkeypatch):
    from masktool.commands.evaluate import common

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(common, "write_evaluation", interrupt)
        assert evaluate()[0] == 130
    code, _, err = evaluate()
    assert code == 0
    assert "resuming: 6 of 6" in err
    assert len(Tiny.measured) == N_IMAGES


@pytest.mark.parametrize("left", ["half a line", "half the header", "a damaged line", "no bytes", "not text"])
def test_whatever_a_killed_process_leaves_is_taken_up(evaluate, monkeypatch, left):
    evaluate(directory="whole")
    Tiny.measured.clear()
    monkeypatch.setattr(Tiny, "interrupt_at", 4)
    evaluate()
    monkeypatch.setattr(Tiny, "interrupt_at", None)
    path = Path("out/tiny.jsonl")
    content = path.read_bytes()
    lines = content.split(b"\n")
    contents = {
        "half a line": (content[:-20], 3),
        "half the header": (content[:30], 0),
        "a damaged line": (b"\n".join([*lines[:2], lines[2][:9], *lines[3:]]), 3),
        "no bytes": (b"", 0),
        "not text": (b"\xff\xfe\n\x00", 0),
    }
    damaged, kept = contents[left]
    path.write_bytes(damaged)
    code, _, err = evaluate()
    assert code == 0
    assert (f"resuming: {kept} of 6" in err) == (kept > 0)
    assert len(Tiny.measured) == 4 + N_IMAGES - kept
    assert read() == read("whole")


def test_other_settings_start_anew_and_say_so(evaluate, monkeypatch):
    evaluate("--digits", "2", "--seed", "1", directory="whole")
    Tiny.measured.clear()
    monkeypatch.setattr(Tiny, "interrupt_at", 3)
    evaluate()
    monkeypatch.setattr(Tiny, "interrupt_at", None)
    code, _, err = evaluate("--digits", "2", "--seed", "1")
    assert code == 0
    assert "an earlier run had other settings (digits, seed): starting anew" in err
    assert "resuming" not in err
    assert len(Tiny.measured) == 3 + N_IMAGES
    assert read() == read("whole")


def test_images_that_changed_are_measured_again(evaluate, monkeypatch, work):
    monkeypatch.setattr(Tiny, "interrupt_at", 4)
    evaluate()
    monkeypatch.setattr(Tiny, "interrupt_at", None)
    Image.fromarray(noise_photograph((16, 24), 99)).save(work / "photos" / "a.png")
    labels = json.loads((work / "labels.json").read_text())
    (work / "labels.json").write_text(json.dumps(labels | {"b.png": 0}))
    _, _, err = evaluate()
    assert "resuming: 2 of 6" in err
    assert Tiny.measured[4:] == ["a.png", "b.png", "e.png", "f.png"]
    resumed = read()
    evaluate(directory="whole")
    assert resumed == read("whole")


def test_an_image_that_failed_is_tried_again(evaluate, monkeypatch, work):
    content = (work / "photos" / "a.png").read_bytes()
    (work / "photos" / "a.png").write_bytes(b"no image")
    monkeypatch.setattr(Tiny, "interrupt_at", 3)
    evaluate()
    monkeypatch.setattr(Tiny, "interrupt_at", None)
    (work / "photos" / "a.png").write_bytes(content)
    _, _, err = evaluate()
    assert "problem" not in err
    assert read()["n_images"] == N_IMAGES


def test_limit_takes_some_of_the_images(evaluate):
    assert evaluate("--limit", "2")[0] == 0
    assert len(Tiny.measured) == 2


def test_a_missing_extra_is_one_line_before_anything_is_measured(evaluate, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = evaluate()
    assert (code, out, Tiny.measured) == (2, "", [])
    assert err.count("\n") == 1
    assert "pip install 'masktool[evaluate]'" in err
    assert not Path("out").exists()


def test_a_directory_that_cannot_be_written_is_told_before_anything_is_measured(evaluate, work):
    (work / "taken").write_text("")
    code, _, err = evaluate(directory="taken")
    assert (code, Tiny.measured) == (2, [])
    assert "taken" in err


def test_an_exported_model_offers_its_own_mode_only(evaluate, work):
    assert evaluate("--modes", "layer")[0] == 0
    code, _, err = evaluate("--modes", "layer,black")
    assert code == 2
    assert "an exported model has one masking mode (model.onnx): expected layer, got layer, black" in err
    write_region_model(work / "filled.onnx", masking="fill", baseline="blur")
    assert evaluate(model="filled.onnx")[0] == 0
    assert read()["settings"]["models"][0]["name"] == "blur"
    assert evaluate("--modes", "blur", model="filled.onnx")[0] == 0
    assert evaluate("--modes", "layer", model="filled.onnx")[0] == 2


def test_a_missing_model_and_a_missing_folder_are_one_line(evaluate, work):
    code, _, err = evaluate(model="none.onnx")
    assert (code, err.count("\n")) == (2, 1)
    assert "none.onnx" in err
    (work / "photos").rename(work / "moved")
    code, _, err = evaluate()
    assert code == 2
    assert "photos" in err.splitlines()[-1]


def test_a_plain_model_is_exported_in_each_mode_once(evaluate, work):
    pytest.importorskip("torch")
    images, labels, _ = shapes.draw(0, 3)
    (work / "shapes").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(work / "shapes" / f"{number}.png")
    (work / "labels.json").write_text(json.dumps({f"{i}.png": int(label) for i, label in enumerate(labels)}))
    (work / "preprocess.json").write_text(json.dumps({"size": list(images.shape[1:3]), "resize": "exact"}))
    arguments = ["--modes", "grey,layer,grey", "--preprocess", "preprocess.json"]
    (work / "photos").rename(work / "other")
    (work / "shapes").rename(work / "photos")
    code, _, err = evaluate(*arguments, model=str(demo.program_path()))
    assert code == 0
    assert err.count("exporting it to") == 2
    assert [model["name"] for model in read()["settings"]["models"]] == ["grey", "layer"]
    assert [model["masking"] for model in read()["settings"]["models"]] == ["fill", "layer"]
    assert read()["settings"]["models"][0]["baseline"] == "grey"
    first = read()
    code, _, err = evaluate(*arguments, model=str(demo.program_path()))
    assert "exporting it to" not in err
    assert read() == first


def test_gradients_are_added_where_they_are_needed(evaluate, work):
    code, _, err = evaluate("--gradient", model=str(demo.model_path()))
    assert code == 0
    assert "adding them" in err


def test_misuse_names_the_help_to_read(evaluate, capsys):
    assert run(["evaluate", "tiny"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("see `masktool evaluate tiny --help`")
    assert run(["evaluate", "nope"]) == 2
    assert "No such command 'nope'" in capsys.readouterr().err


def test_options_above_the_shared_ones_come_first(capsys):
    assert run(["evaluate", "tiny", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.index("--modes") < text.index("--labels") < text.index("--threads") < text.index("--digits")


def test_report_command(evaluate, capsys):
    evaluate()
    assert run(["evaluate", "report", "out"]) == 0
    assert capsys.readouterr().out == "out/report.html\n"
    assert "mean [score] of the true class" in Path("out/report.html").read_text()
    assert run(["evaluate", "report", "out", "-o", "elsewhere/page.html"]) == 0
    assert Path("elsewhere/page.html").read_text() == Path("out/report.html").read_text()
    assert run(["evaluate", "report", "photos"]) == 2
    assert "no evaluations (photos)" in capsys.readouterr().err
