"""Every command on a file that explains itself: it is written, shown, explained with, or refused in one true line."""

import json

import numpy as np
import onnx
import pytest
from embedding.explained_files import LABELS, NETWORK, write_network
from networks.small_graphs import parse
from PIL import Image

import masktool
from masktool.cli import run
from masktool.errors import MasktoolError

EXPORT = ["--output-kind", "logits", "--labels", "classes.txt", "--preprocess", "steps.json"]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with a network, its classes and preprocessing, and photographs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MASKTOOL_MODEL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_network(tmp_path / "network.onnx")
    (tmp_path / "classes.txt").write_text("\n".join(LABELS))
    (tmp_path / "steps.json").write_text(json.dumps({"size": [12, 10], "resize": "exact", "std": [0.2, 0.2, 0.2]}))
    (tmp_path / "photos").mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (30, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{seed}.png")
    return tmp_path


def export(*options, method="occlusion"):
    return run(["export", "network.onnx", "--explain", method, *EXPORT, *map(str, options)])


def test_an_export_says_what_is_embedded(work, capsys):
    assert export("--set", "strides=3", "--set", "sliding_window_shapes=4", "--chunk", "2") == 0
    out, said = capsys.readouterr()
    assert out == "network.explained.onnx\n"
    assert "explanation: occlusion of the class with the highest score, in every run" in said
    assert "explanation: settings: sliding_window_shapes 4 4, strides 3 3, n_windows 12; seed 0; chunk 2" in said
    assert "explanation: the map differs from that of the explainer in Python by" in said
    assert "inputs: image\n" in said
    assert "outputs: logits, saliency_map\n" in said
    assert "warning" not in said
    assert [each.name for each in onnx.load("network.explained.onnx").graph.output] == ["logits", "saliency_map"]


def test_optional_inputs_are_said_loudly(work, capsys):
    assert export("--target", "optional", "--on-request", "optional", "-o", "file.onnx") == 0
    warning = (
        "explain, target may be left out, and ONNX Runtime in JavaScript knows no such inputs: Node ignores in silence "
        "what it is given for them, and a browser refuses it; for these, export with --on-request required --target "
        "required"
    )
    assert f"warning: {warning}\n" in capsys.readouterr().err
    assert (work / "file.onnx.data").exists()
    assert run(["info", "file.onnx"]) == 0
    assert f"WARNING       {warning}\n" in capsys.readouterr().out
    assert export("--target", "required", "--on-request", "required", "-o", "file.onnx") == 0
    assert run(["info", "file.onnx"]) == 0
    out, said = capsys.readouterr()
    assert "warning" not in out.lower() + said


def test_an_optional_mask_is_said_too(work, capsys):
    assert run(["export", "network.onnx", "-o", "masked.onnx"]) == 0
    assert run(["info", "masked.onnx"]) == 0
    assert (
        "WARNING       mask may be left out, and ONNX Runtime in JavaScript knows no such inputs"
        in capsys.readouterr().out
    )


def test_the_options_reach_the_file(work):
    assert export("--seed", "4", "--chunk", "3", "--masking", "fill", "--baseline", "black", "-o", "file.onnx") == 0
    metadata = masktool.describe("file.onnx").metadata
    assert metadata.explanation["seed"] == 4
    assert metadata.explanation["chunk"] == 3
    assert (metadata.masking, metadata.baseline, metadata.labels) == ("fill", "black", LABELS)


def test_the_number_of_steps_may_be_an_input(work, capsys):
    options = ("--set", "rule=riemann", "--samples", "4", "--samples-input", "required", "-o", "file.onnx")
    assert export(*options, method="integrated-gradients") == 0
    assert "inputs: image, n_steps\n" in capsys.readouterr().err
    assert run(["export", "--check", "file.onnx", "network.onnx"]) == 0
    assert export("--samples-input", "optional", method="integrated-gradients") == 2
    assert "set rule=riemann" in capsys.readouterr().err


def test_gradient_methods_mask_nothing(work, capsys):
    assert export(method="gradient") == 0
    assert "masked: nothing; the method works on gradients" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--gradient", "logit"], ["--mask", "required"], ["--feature-map", "features"], ["--mask", "optional"]]
)
def test_what_belongs_to_a_mask_is_refused(work, capsys, options):
    assert export(*options) == 2
    said = capsys.readouterr().err
    assert f"a file that explains itself takes no mask and gives no gradients: {options[0]}; leave that out" in said
    assert said.count("\n") == 1
    assert not list(work.glob("*.explained.onnx"))


def test_what_belongs_to_an_explanation_is_refused_without_one(work, capsys):
    given = [
        "--chunk",
        "2",
        "--seed",
        "0",
        "--set",
        "a=1",
        "--samples",
        "3",
        "--target",
        "top",
        "--on-request",
        "always",
    ]
    assert run(["export", "network.onnx", *given]) == 2
    said = capsys.readouterr().err
    assert "--chunk, --on-request, --samples, --seed, --set, --target; add --explain METHOD" in said


def test_unknown_methods_and_options_are_told(work, capsys):
    assert export(method="nonsense") == 2
    assert "unknown method (nonsense)" in capsys.readouterr().err
    assert export("--set", "p=0.3") == 2
    assert "unknown option of occlusion (p)" in capsys.readouterr().err
    assert export("--samples", "10") == 2
    assert "Occlusion draws no samples (--samples 10)" in capsys.readouterr().err


def test_info_shows_what_is_embedded(work, capsys):
    assert export("-o", "file.onnx", "--target", "required") == 0
    capsys.readouterr()
    assert run(["info", "file.onnx"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("file.onnx: explains itself by occlusion, written by masktool; ")
    assert "saliency_map  float32 (N, 1, 12, 10)  the map of occlusion" in text
    assert "explanation   occlusion of the class in the input target (-1: the highest score), in every run" in text
    assert "the map differs from that of the explainer in Python by" in text
    assert run(["info", "file.onnx", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["masked"] is False
    assert document["metadata"]["explanation"]["method"] == "occlusion"
    described = masktool.describe("file.onnx")
    assert not described.masked
    assert described.metadata.explanation == document["metadata"]["explanation"]


def test_explain_uses_the_map(work, capsys):
    assert export("-o", "file.onnx") == 0
    assert run(["export", "network.onnx", *EXPORT, "-o", "masked.onnx"]) == 0
    assert run(["explain", "-m", "file.onnx", "photos/0.png", "--provider", "cpu"]) == 0
    assert (work / "0.occlusion.png").exists()
    assert "Occlusion of " in capsys.readouterr().err
    found = explain_json(capsys, "file.onnx")
    expected = explain_json(capsys, "masked.onnx", "--method", "occlusion")
    own, theirs = (np.array(each["model_attributions"], float) for each in (found, expected))
    assert np.abs(own - theirs).max() <= 1e-4 * np.ptp(theirs)
    assert found["method"] == "occlusion"
    assert found["forward_passes"] == 1
    assert found["scores"][0]["label"] == expected["scores"][0]["label"]


def explain_json(capsys, model, *options):
    capsys.readouterr()
    assert run(["explain", "-m", model, "photos/0.png", "--json", "--provider", "cpu", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_explain_takes_a_target_where_the_file_does(work, capsys):
    assert export("-o", "file.onnx", "--target", "optional") == 0
    assert explain_json(capsys, "file.onnx", "--target", "dog")["target"]["label"] == "dog"
    assert export("-o", "file.onnx") == 0
    top = explain_json(capsys, "file.onnx")["target"]["index"]
    assert run(["explain", "-m", "file.onnx", "photos/0.png", "--target", str((top + 1) % 4)]) == 2
    said = capsys.readouterr().err
    assert "--explain occlusion --target optional" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--method", "rise"],
            "the file explains itself, by one method only (file.onnx): expected occlusion, got rise",
        ),
        (["--method", "gradient"], "the file explains itself, by one method only"),
        (["--seed", "3"], "has settled how it explains itself (file.onnx): --seed"),
        (["--batch", "3"], "has settled how it explains itself (file.onnx): --batch"),
        (["--set", "strides=2"], "has settled how it explains itself (file.onnx): strides"),
        (["--masking", "fill"], "the model explains itself already (file.onnx): --masking fill"),
        (["--output", "logits"], "the map in the file is of a class, and of no other output"),
        (["--score", "log-odds"], "the map in the file is of no log-odds"),
    ],
)
def test_explain_refuses_what_the_file_does_not_do(work, capsys, options, said):
    assert export("-o", "file.onnx") == 0
    capsys.readouterr()
    assert run(["explain", "-m", "file.onnx", "photos/0.png", *options]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert said in errors[0]


@pytest.mark.parametrize("part", ["missingness", "faithfulness", "lime-alignment", "randomisation"])
def test_evaluations_that_mask_refuse_it(work, capsys, part):
    assert export("-o", "file.onnx") == 0
    capsys.readouterr()
    assert run(["evaluate", part, "file.onnx", "photos"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        "masktool: error: the file explains itself by occlusion and takes no mask (file.onnx); export one with a mask: "
        "masktool export network.onnx -o NEW.onnx"
    ]


@pytest.mark.parametrize("method", ["occlusion", "gradient"])
def test_localisation_judges_its_maps(work, capsys, method):
    assert export("-o", "file.onnx", "--target", "required", method=method) == 0
    (work / "labels.csv").write_text("file,label\n0.png,1\n1.png,2\n")
    (work / "boxes.json").write_text(json.dumps({"0.png": [[2, 3, 12, 20]], "1.png": [[4, 4, 20, 20]]}))
    given = ["--labels", "labels.csv", "--boxes", "boxes.json", "--method", method, "-o", "out"]
    assert run(["evaluate", "localisation", "file.onnx", "photos", *given]) == 0
    document = json.loads((work / "out" / "localisation.json").read_text())
    assert document["problems"] == []


def test_it_is_not_exported_again(work, capsys):
    assert export("-o", "file.onnx") == 0
    for options, said in (
        ([], "the model explains itself already: masktool exported it before (file.onnx); export the plain model"),
        (["--explain", "gradient"], "the model explains itself already: masktool exported it before"),
        (["--gradient", "logit"], "the file explains itself by occlusion, and takes no gradients (file.onnx)"),
    ):
        capsys.readouterr()
        assert run(["export", "file.onnx", "-o", "new.onnx", *options]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(MasktoolError, match="takes no gradients"):
        masktool.load("file.onnx", gradient=True)
    with pytest.raises(MasktoolError, match="takes no gradients"):
        masktool.add_gradients_to("file.onnx", "new.onnx")
    assert not (work / "new.onnx").exists()
    assert not (work / "cache").exists()


def test_no_masker_is_trained_on_it(work):
    pytest.importorskip("torch")
    assert export("-o", "file.onnx") == 0
    with pytest.raises(MasktoolError) as caught:
        masktool.train_masker("file.onnx", "photos", "masker.onnx")
    assert "torch" in str(caught.value)


def test_the_plain_network_has_the_classes_that_the_labels_name():
    assert len(LABELS) == parse(NETWORK).graph.output[0].type.tensor_type.shape.dim[1].dim_value


def test_a_file_may_take_the_photograph_and_draw(work, capsys):
    assert export("--embed-preprocessing", "--embed-overlay", "-o", "drawing.onnx") == 0
    assert "image is one photograph, RGB of any size, which the file prepares itself" in capsys.readouterr().err
    assert run(["info", "drawing.onnx"]) == 0
    said = capsys.readouterr().out
    assert "batch         one photograph at a time" in said
    assert "whose pixels differ from Pillow's by 0 of 255" in said
    assert "overlay is a picture: the map over the photograph" in said
    assert run(["explain", "photos/0.png", "-m", "drawing.onnx", "-o", "maps"]) == 0
    assert run(["export", "--check", "drawing.onnx", "network.onnx"]) == 0
    capsys.readouterr()
    assert run(["export", "network.onnx", *EXPORT, "--embed-overlay"]) == 2
    assert "only for a file that explains itself: --embed-overlay" in capsys.readouterr().err
