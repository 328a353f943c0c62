"""``masktool explain``: photographs in, pictures out; one line for whatever is wrong, and nothing half-written."""

import json
from pathlib import Path

import numpy as np
import pytest
from explainers.models import noise_photograph, write_region_model
from networks.plain_classifier import write_plain_model
from PIL import Image

from masktool import MasktoolError
from masktool.cli import run
from masktool.exported_files import is_masked
from masktool.interface import kept_exports
from masktool.interface.kept_exports import request_export
from masktool.interface.models import find_model
from masktool.interface.options import ModelChoice
from masktool.interface.photographs import choose_stems

FAST = ["--samples", "20", "--n-segments", "6"]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A directory with a model and two photographs; the current directory is an empty one beside them."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("MASKTOOL_MODEL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_region_model(tmp_path / "model.onnx")
    Image.fromarray(noise_photograph((20, 30))).save(tmp_path / "photos" / "b.png")
    Image.fromarray(noise_photograph((30, 20), seed=1)).save(tmp_path / "photos" / "a.jpg")
    return tmp_path


@pytest.fixture
def explain(work, capsys):
    """Runs the command and returns (exit code, stdout lines, stderr)."""

    def call(*arguments, model=True):
        chosen = ["-m", str(work / "model.onnx")] if model else []
        code = run(["explain", *map(str, arguments), *chosen, "--provider", "cpu"])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    return call


def files(directory):
    return sorted(path.name for path in directory.iterdir())


def test_one_photograph_one_picture_in_the_current_directory(explain, work):
    code, out, err = explain(work / "photos" / "b.png", *FAST)
    assert code == 0
    assert out == ["b.lime.png"]
    assert files(work / "here") == ["b.lime.png"]
    assert "running on CPU" in err
    assert "LIME of " in err
    assert "21 passes" in err
    with Image.open("b.lime.png") as picture:
        assert picture.width > 500


def test_the_fastest_batch_is_measured_once_and_said(explain, work):
    photographs = sorted((work / "photos").iterdir())
    arguments = ["--method", "occlusion", "--json", *photographs]
    code, out, err = explain("--batch", "fastest", *arguments)
    assert code == 0
    found = [json.loads(line) for line in out]
    batch = found[0]["settings"]["perturbations_per_eval"]
    assert [each["settings"]["perturbations_per_eval"] for each in found] == [batch, batch]
    assert err.count(f"the fastest batch was measured; --batch {batch} gives the same result again") == 2
    _, out, err = explain("--batch", batch, *arguments)
    assert "measured" not in err
    again = [json.loads(line) for line in out]
    assert [each["attributions"] for each in again] == [each["attributions"] for each in found]
    assert explain("--batch", "quickest", *arguments)[0] == 2


def test_directory_methods_targets_and_formats(explain, work):
    (work / "photos" / "notes.txt").write_text("no photograph")
    code, out, err = explain(
        work / "photos", "--method", "rise", "--method", "occlusion", "--samples", "20",
        "--target", "0", "--target", "bottom right", "--target", "BOTTOM RIGHT", "--format", "png,json,npz",
        "-o", work / "out",
    )  # fmt: skip
    assert code == 0
    assert "notes.txt" in err
    names = [
        f"{stem}.{method}.{target}.{suffix}"
        for stem in ("a", "b")
        for method in ("rise", "occlusion")
        for target in ("0-Top_Left", "1-bottom_right")
        for suffix in ("png", "json", "npz")
    ]
    assert out == [str(work / "out" / name) for name in names]
    assert files(work / "out") == sorted([*names, "explain.jsonl"])
    document = json.loads((work / "out" / "a.rise.1-bottom_right.json").read_text())
    assert document["target"]["label"] == "bottom right"
    assert np.shape(document["attributions"]) == (30, 20)


def test_own_pictures_are_not_explained_again(explain, work, monkeypatch):
    monkeypatch.chdir(work / "photos")
    assert explain(".", *FAST)[0] == 0
    code, out, err = explain(".", *FAST)
    assert code == 0
    assert out == ["a.lime.png", "b.lime.png"]
    assert "made by masktool explain" in err


def test_json_documents_and_no_files(explain, work):
    code, out, _ = explain(work / "photos", *FAST, "--json")
    assert code == 0
    documents = [json.loads(line) for line in out]
    assert [document["file"] for document in documents] == [str(work / "photos" / name) for name in ("a.jpg", "b.png")]
    assert all(document["written"] == [] for document in documents)
    assert files(work / "here") == []


def test_json_with_output_writes_pictures_too(explain, work):
    code, out, _ = explain(work / "photos" / "b.png", *FAST, "--json", "-o", work / "out")
    assert code == 0
    assert json.loads(out[0])["written"] == [str(work / "out" / "b.lime.png")]
    assert files(work / "out") == ["b.lime.png"]


def test_same_run_same_bytes(explain, work):
    def document():
        line = explain(work / "photos" / "b.png", *FAST, "--seed", "7", "--threads", "1", "--json")[1][0]
        return line[: line.index(',"timing"')]

    assert document() == document()


def test_a_directory_without_an_output_directory_leaves_its_pictures_alone(explain, work):
    assert explain(work / "photos", *FAST)[0] == 0
    assert files(work / "here") == ["a.lime.png", "b.lime.png"]
    assert explain(*sorted((work / "photos").iterdir()), *FAST, "-o", work / "out")[0] == 0
    assert files(work / "out") == ["a.lime.png", "b.lime.png"]


def test_same_stem_never_overwrites(explain, work):
    Image.fromarray(noise_photograph((20, 30), seed=5)).save(work / "photos" / "b.bmp")
    code, out, _ = explain(work / "photos" / "b.png", work / "photos" / "b.bmp", work / "photos" / "b.png", *FAST)
    assert code == 0
    assert out == ["b.lime.png", "b-2.lime.png"]


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["a.png", "b.png"], ["a", "b"]),
        (["x/a.png", "y/a.png", "z/a.jpg"], ["a", "a-2", "a-3"]),
        (["x/a.png", "y/a.png", "a-2.png"], ["a", "a-3", "a-2"]),
        (["A.png", "a.png"], ["A", "a-2"]),
    ],
)
def test_stems(names, stems, tmp_path):
    assert choose_stems([tmp_path / name for name in names]) == stems


def test_bad_photograph_among_several_is_reported_and_the_rest_explained(explain, work):
    (work / "photos" / "broken.png").write_bytes((work / "photos" / "b.png").read_bytes()[:200])
    (work / "photos" / "empty.jpg").touch()
    code, out, err = explain(work / "photos", work / "missing.png", *FAST)
    assert code == 2
    assert out == ["a.lime.png", "b.lime.png"]
    reported = [line for line in err.splitlines() if line.startswith("masktool: error: ")]
    assert len(reported) == 3
    for name in ("broken.png", "empty.jpg", "missing.png"):
        assert any(name in line for line in reported)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "missing.png"),
        (["{photos}/b.png", "--target", "3"], "from 0 to 2, got 3"),
        (["{photos}/b.png", "--target", "top lift"], "did you mean 'Top Left'"),
        (["{photos}/b.png", "--method", "occlusion", "--samples", "5"], "Occlusion draws no samples"),
        (["{photos}/b.png", "--method", "rise", "--n-segments", "5"], "unknown option of rise (n_segments)"),
        (["{photos}/b.png", "--set", "q=5"], "unknown option of lime (q)"),
        (["{photos}/b.png", "--set", "p"], "expected OPTION=VALUE"),
        (["{photos}/b.png", "--set", "p=much"], "option out of range (p)"),
        (["{photos}/b.png", "--segments", "slik"], "expected slic, grid or a file"),
        (["{photos}/b.png", "--segments", "{model}"], "not an image"),
        (["{photos}/b.png", "--samples", "1"], "n_samples"),
        (["{photos}/b.png", "--format", "png,gif"], "unknown format (--format gif)"),
        (["{photos}/b.png", "-o", "{model}"], "cannot write into the output directory"),
        (["{photos}/b.png", "-o", "{model}/deeper"], "cannot write into the output directory"),
        (["{empty}"], "no images"),
        (["{text}"], "not an image"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(explain, work, arguments, message):
    (work / "empty").mkdir()
    (work / "note.png").write_text("hello")
    places = {
        "photos": work / "photos", "model": work / "model.onnx", "empty": work / "empty", "text": work / "note.png"
    }  # fmt: skip
    before = sorted(work.rglob("*"))
    code, out, err = explain(*[argument.format(**places) for argument in arguments])
    assert code == 2
    assert out == []
    errors = [line for line in err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert errors[0].startswith("masktool: error: ")
    assert message in errors[0]
    assert "Traceback" not in err
    assert sorted(work.rglob("*")) == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a directory that nobody can write into")
def test_directory_that_cannot_be_written(explain, work):
    code, _, err = explain(work / "photos" / "b.png", "-o", "/proc/self/masktool")
    assert code == 2
    assert "cannot write into the output directory (/proc/self/masktool)" in err
    assert "running on" not in err  # found out before any work


def test_model_without_class_output_names_the_outputs(explain, work):
    write_region_model(work / "model.onnx", class_output=None)
    code, _, err = explain(work / "photos" / "b.png")
    assert code == 2
    assert "no class output" in err
    assert "got scores" in err


def test_label_map_and_other_options(explain, work):
    labels = np.zeros((20, 30), np.uint8)
    labels[10:] = 1
    Image.fromarray(labels).save(work / "labels.png")
    code, out, _ = explain(
        work / "photos" / "b.png", "--segments", work / "labels.png", "--samples", "20", "--json", "--set", "alpha=0.5"
    )
    assert code == 0
    document = json.loads(out[0])
    assert document["settings"]["alpha"] == 0.5
    assert document["settings"]["n_features"] == 2
    assert np.unique(document["segments"]).tolist() == [0, 1]


def test_model_from_the_environment_is_announced(explain, work, monkeypatch):
    monkeypatch.setenv("MASKTOOL_MODEL", str(work / "model.onnx"))
    code, _, err = explain(work / "photos" / "b.png", *FAST, model=False)
    assert code == 0
    assert "$MASKTOOL_MODEL" in err
    assert str(work / "model.onnx") in err


def test_built_in_model_is_the_last_resort(work, monkeypatch):
    monkeypatch.setattr("masktool.demo.model_path", lambda: work / "model.onnx")
    said = []
    assert find_model(ModelChoice(None), said.append) == work / "model.onnx"
    assert "built in" in said[0]


def test_model_that_is_not_masked_is_exported_into_the_cache_once(explain, work):
    write_plain_model(work / "plain.onnx")
    arguments = [work / "photos" / "b.png", *FAST, "-m", work / "plain.onnx", "--preprocess", "imagenet"]
    code, _, err = explain(*arguments, model=False)
    assert code == 0
    assert "plain.onnx is not masked; exporting it to" in err
    (exported,) = (work / "cache" / "masktool" / "models").glob("*/*.onnx")
    assert is_masked(exported)
    code, _, err = explain(*arguments, model=False)
    assert code == 0
    assert f"using its export {exported}" in " ".join(err.split())


def test_cache_key_changes_with_everything_that_matters(work, monkeypatch):
    write_plain_model(work / "plain.onnx")
    name = str(work / "plain.onnx")
    (work / "preprocess.json").write_text("{}")
    (work / "factory.py").write_text("A = 1")

    def cache_key(choice):
        return request_export(choice).entry

    keys = [cache_key(ModelChoice(name))]
    keys.append(cache_key(ModelChoice(name, preprocessing="tf")))
    keys.append(cache_key(ModelChoice(name, input_size=(32, 32))))
    with_files = ModelChoice(name, arch=f"{work / 'factory.py'}:A", preprocessing=str(work / "preprocess.json"))
    keys.append(cache_key(with_files))
    (work / "factory.py").write_text("A = 2")
    keys.append(cache_key(with_files))
    (work / "preprocess.json").write_text('{"scale": 1}')
    keys.append(cache_key(with_files))
    write_plain_model(work / "plain.onnx", seed=1)
    keys.append(cache_key(ModelChoice(name)))
    monkeypatch.setattr(kept_exports, "__version__", "999")
    keys.append(cache_key(ModelChoice(name)))
    keys.append(cache_key(ModelChoice("timm:resnet18")))
    assert len(set(keys)) == len(keys)


def test_failed_export_leaves_no_cache_entry(explain, work):
    (work / "text.onnx").write_text("no model")
    code, _, err = explain(work / "photos" / "b.png", "-m", work / "text.onnx", model=False)
    assert code == 2
    assert "text.onnx" in err
    assert not list((work / "cache").rglob("*.onnx"))


def test_missing_model(work):
    with pytest.raises(MasktoolError, match=r"no such model.*none\.onnx.*torchvision:NAME"):
        find_model(ModelChoice("none.onnx"), lambda _: None)


def test_empty_and_missing_files_are_not_masked(work):
    (work / "empty.onnx").touch()
    assert not is_masked(work / "empty.onnx")
    assert not is_masked(work / "none.onnx")
    assert is_masked(work / "model.onnx")


def test_it_stops_as_the_options_say(explain, work):
    photograph = work / "photos" / "b.png"
    code, out, err = explain(photograph, "--json", "--method", "rise", "--method", "occlusion", "--budget", 40)
    assert code == 0
    rise, occlusion = map(json.loads, out)
    assert rise["forward_passes"] == 40
    assert rise["settings"]["n_masks"] == 39
    assert occlusion["settings"]["budget"] == 40
    assert occlusion["forward_passes"] <= 40
    assert "would draw enough" in err
    assert "--samples" in err


def test_limits_for_a_method_without_samples_are_refused(explain, work):
    code, _, err = explain(work / "photos" / "b.png", "--method", "occlusion", "--until", "stable", "--seconds", 3)
    assert code == 2
    assert "Occlusion draws no samples" in err
    assert "--until stable, --seconds 3" in err
