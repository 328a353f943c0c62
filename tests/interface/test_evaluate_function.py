"""``masktool.evaluate`` measures what ``masktool evaluate`` does, on a model as it came, in one call."""

import json
from pathlib import Path

import pytest
from explainers.models import noise_photograph, write_region_model
from networks.plain_classifier import write_plain_model
from PIL import Image

import masktool
from masktool.cli import run
from masktool.evaluation.part import PARTS
from masktool.interface.part_options import PART_OPTIONS

N_IMAGES = 3
PLAIN = {"preprocessing": "imagenet", "providers": "cpu", "labels": "labels.json", "boxes": "boxes.json"}
QUICK = {
    "missingness": {"modes": ["layer", "black"], "orders": ["random"], "fractions": [0, 0.5, 1], "side": 8},
    "faithfulness": {"modes": ["layer"], "methods": ["occlusion"], "metrics": {"confidence": {}}},
    "localisation": {"methods": {"rise": {"n_samples": 20}, "gradient": {}}},
    "lime-alignment": {"modes": ["layer"], "segments": "grid", "side": 8, "n_samples": 20, "n_seeds": 2, "n_top": 1},
    "randomisation": {"methods": ["occlusion"], "stages": 1},
}


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The current directory, with a plain model, the same exported, and labelled photographs with boxes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_plain_model(tmp_path / "model.onnx")
    (tmp_path / "photos").mkdir()
    names = [f"{number}.png" for number in range(N_IMAGES)]
    for seed, name in enumerate(names):
        Image.fromarray(noise_photograph((20, 24), seed)).save(tmp_path / "photos" / name)
    (tmp_path / "labels.json").write_text(json.dumps({name: i % 2 for i, name in enumerate(names)}))
    (tmp_path / "boxes.json").write_text(json.dumps({name: [[2, 2, 12, 12]] for name in names}))
    return tmp_path


def test_every_part_has_options():
    assert set(PART_OPTIONS) == set(PARTS)


@pytest.mark.parametrize("part", QUICK)
def test_a_plain_model_is_evaluated_in_one_call_and_nothing_is_written(work, part, capsys):
    before = {path.name for path in work.iterdir()}
    evaluation = masktool.evaluate(part, "model.onnx", "photos", **PLAIN, **QUICK[part])
    assert evaluation.part == part
    assert evaluation.n_images == N_IMAGES
    assert evaluation.findings.tables
    assert {path.name for path in work.iterdir()} - before == {"cache"}
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("localisation", {"modes": ["layer", "mean"]}),
        ("faithfulness", {"modes": ["layer"], "metrics": {"confidence": {}}}),
    ],
)
def test_a_plain_model_gets_the_head_that_a_method_needs(work, part, options):
    """In every mode that explains."""
    methods = {"recipro-cam": {}, "gradient": {}}
    evaluation = masktool.evaluate(part, "model.onnx", "photos", **PLAIN, methods=methods, **options)
    assert evaluation.n_images == N_IMAGES
    assert "recipro-cam" in str(evaluation.findings.tables)
    with pytest.raises(masktool.MasktoolError, match=r"randomised copies have no head.*recipro-cam"):
        masktool.evaluate("randomisation", "model.onnx", "photos", **PLAIN, methods=methods)


def test_the_command_and_the_function_write_the_same(work, capsys):
    masktool.evaluate(
        "localisation", "model.onnx", "photos", **PLAIN, methods={"rise": {"n_masks": 20}}, directory="function"
    )
    command = ["evaluate", "localisation", "model.onnx", "photos", "--preprocess", "imagenet", "--provider", "cpu"]
    command += ["--labels", "labels.json", "--boxes", "boxes.json", "--method", "rise", "--samples", "20"]
    assert run([*command, "-o", "command"]) == 0
    capsys.readouterr()
    documents = [json.loads(Path(name, "localisation.json").read_text()) for name in ("function", "command")]
    for document in documents:
        document.pop("timing")
        document.pop("command")
    assert documents[0] == documents[1]
    page = masktool.write_report("function")
    assert page == Path("function", "report.html")
    assert "Localisation" in page.read_text(encoding="utf-8")
    page.unlink()
    assert {path.name for path in Path("function").iterdir()} == {path.name for path in Path("command").iterdir()}


def test_a_session_is_evaluated_in_its_own_mode(work):
    write_region_model(work / "exported.onnx")
    with masktool.load("exported.onnx", providers="cpu") as session:
        known = {"boxes": "boxes.json", "labels": "labels.json"}
        evaluation = masktool.evaluate("localisation", session, "photos", methods=["occlusion"], **known)
        assert [model["name"] for model in evaluation.settings["models"]] == ["layer"]
        with pytest.raises(masktool.MasktoolError, match=r"one masking mode: expected layer, got black"):
            masktool.evaluate("localisation", session, "photos", modes=["black"])
        masktool.explain(session, "photos/0.png", "occlusion")  # it is open still


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": ["layer"]}, r"unknown option of localisation \(mode\).*modes.*preprocessing"),
        ({"masking": "fill"}, r"unknown option of localisation \(masking\)"),
        ({"methods": ["none"]}, r"unknown method.*none"),
        ({"methods": {"rise": {"q": 1}}}, r"unknown option of RISE \(q\)"),
    ],
)
def test_an_option_that_nobody_knows_is_refused_before_any_work(work, options, message):
    with pytest.raises(masktool.MasktoolError, match=message):
        masktool.evaluate("localisation", "model.onnx", "photos", **PLAIN, **options)
    assert not (work / "cache").exists()


def test_a_part_that_there_is_not_is_refused(work):
    with pytest.raises(masktool.MasktoolError, match=r"unknown evaluation.*everything.*one of compare, faithfulness, "):
        masktool.evaluate("everything", "model.onnx", "photos")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": "occlusion"}, r"one value in place of several \(methods\): expected such as \['occlusion'\]"),
        ({"modes": "layer"}, r"one value in place of several \(modes\)"),
        ({"also": Path("exported.onnx")}, r"one value in place of several \(also\)"),
        ({"methods": {"occlusion": 3}}, r"not options \(occlusion\): expected a mapping.*got 3"),
        ({"labels": ["a"]}, r"not a path \(labels\): expected a file or folder, got list"),
        ({"limit": 0}, r"out of range \(limit\)"),
        ({"limit": "3"}, r"out of range \(limit\)"),
        ({"seed": -1}, r"out of range \(seed\)"),
        ({"perturbations_per_eval": 0}, r"out of range \(perturbations_per_eval\)"),
    ],
)
def test_what_is_no_value_of_an_option_is_told_before_any_work(work, options, message):
    with pytest.raises(masktool.MasktoolError, match=message):
        masktool.evaluate("localisation", "model.onnx", "photos", **{**PLAIN, **options})
    assert not (work / "cache").exists()


@pytest.mark.parametrize("given", [{"providers": "cuda"}, {"threads": 2}, {"arch": "timm:vgg11"}])
def test_what_an_open_session_has_settled_is_refused(work, given):
    write_region_model(work / "exported.onnx")
    with (
        masktool.load("exported.onnx", providers="cpu") as session,
        pytest.raises(masktool.MasktoolError, match=rf"the model is open already.*{next(iter(given))}"),
    ):
        masktool.evaluate("localisation", session, "photos", methods=["occlusion"], boxes="boxes.json", **given)
