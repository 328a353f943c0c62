"""A Python program calls what a command does in one line, on a model as it came."""

import json
import logging
import subprocess
import sys

import numpy as np
import onnx
import pytest
from explainers.models import noise_photograph, write_region_model
from networks.plain_classifier import write_plain_model
from PIL import Image

import masktool
from masktool.contract import Preprocessing
from masktool.exporters.presets import preprocessing_preset
from masktool.interface import load as load_module
from masktool.runtime.session import MaskedSession

FAST = {"method": "lime", "n_samples": 20, "n_segments": 6, "providers": "cpu"}


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A directory with a plain model, the same exported, and a photograph; the cache is within."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MASKTOOL_MODEL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_plain_model(tmp_path / "model.onnx")
    write_region_model(tmp_path / "exported.onnx")
    Image.fromarray(noise_photograph((20, 30))).save(tmp_path / "photo.jpg")
    return tmp_path


def test_a_plain_model_is_explained_in_one_call(work):
    explanation = masktool.explain("model.onnx", "photo.jpg", preprocessing="imagenet", **FAST)
    assert explanation.attributions.shape == (20, 30)
    assert len(list((work / "cache").rglob("*.onnx"))) == 1


def test_a_plain_model_is_loaded_as_the_readme_says(work):
    with masktool.load("model.onnx", preprocessing="imagenet", labels=["a", "b", "c", "d"], providers="cpu") as session:
        assert session.metadata.labels == ("a", "b", "c", "d")
        explanation = masktool.explain(session, "photo.jpg", method="occlusion", target="top")
    assert explanation.label in ("a", "b", "c", "d")


@pytest.mark.parametrize("form", ["name", "file", "object"])
def test_preprocessing_is_a_name_a_file_or_an_object(work, form):
    expected = preprocessing_preset("imagenet", (16, 16))
    fields = {"mean": expected.mean, "std": expected.std, "resize_to": expected.resize_to}
    (work / "steps.json").write_text(json.dumps(fields))
    given = {"name": "imagenet", "file": work / "steps.json", "object": expected}[form]
    with masktool.load(work / "model.onnx", preprocessing=given, providers="cpu") as session:
        assert session.metadata.preprocessing == expected


@pytest.mark.parametrize("form", ["text", "json", "sequence"])
def test_labels_are_a_file_or_a_sequence(work, form):
    names = ["a", "b", "c", "d"]
    (work / "names.txt").write_text("\n".join(names))
    (work / "names.json").write_text(json.dumps(names))
    given = {"text": "names.txt", "json": work / "names.json", "sequence": names}[form]
    with masktool.load("model.onnx", labels=given, providers="cpu") as session:
        assert session.metadata.labels == tuple(names)


def test_a_model_in_memory_is_exported_once(work):
    said = []
    proto = onnx.load("model.onnx")
    first = masktool.load(proto, preprocessing="imagenet", providers="cpu", say=said.append)
    second = masktool.load(proto, preprocessing="imagenet", providers="cpu", say=said.append)
    assert first.path == second.path
    assert "exporting it" in said[0]
    assert "using its export" in said[1]
    other = onnx.load("model.onnx")
    other.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), other.graph.initializer[0].name)
    )
    assert masktool.load(other, preprocessing="imagenet", providers="cpu").path != first.path


def test_a_torch_module_in_memory_is_explained(work):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ).eval()
    explanation = masktool.explain(module, "photo.jpg", preprocessing="imagenet", input_size=(16, 16), **FAST)
    assert explanation.attributions.shape == (20, 30)


def test_what_is_exported_is_said_through_logging_and_nothing_is_printed(work, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="masktool"):
        masktool.load("model.onnx", providers="cpu")
    assert any("model.onnx is not masked; exporting it" in record.getMessage() for record in caplog.records)
    assert {record.name for record in caplog.records if "not masked" in record.getMessage()} == {"masktool"}
    assert capsys.readouterr() == ("", "")


def test_gradients_are_added_where_a_method_needs_them(work):
    said = []
    explanation = masktool.explain(
        "model.onnx", "photo.jpg", "gradient", preprocessing="imagenet", providers="cpu", say=said.append
    )
    assert explanation.method == "gradient"
    assert "with gradients" in " ".join(said)


def test_a_provider_that_takes_defaults_for_constants_gets_a_mask_without_one(work, monkeypatch):
    """OpenVINO is not installed here: what is exported for it, a session on the CPU opens."""
    opened = []

    class Unopened(MaskedSession):
        def __init__(self, path, **given):
            opened.append((path, given))

    monkeypatch.setattr(load_module, "MaskedSession", Unopened)
    masktool.load("model.onnx", "openvino", provider_options={"num_streams": 2})
    masktool.load("model.onnx", "cpu")
    (required, given), (optional, _) = opened
    assert given == {"providers": "openvino", "threads": None, "provider_options": {"num_streams": 2}}
    assert [MaskedSession(path, providers="cpu").mask_required for path in (required, optional)] == [True, False]


def test_a_session_stays_open_and_is_used_as_it_is(work):
    with masktool.load("exported.onnx", providers="cpu") as session:
        masktool.explain(session, "photo.jpg", n_samples=20, n_segments=6)
        assert masktool.load(session) is session
        masktool.explain(session, "photo.jpg", n_samples=20, n_segments=6)


@pytest.mark.parametrize(
    "given",
    [
        {"preprocessing": "imagenet"},
        {"labels": ["a"]},
        {"labels": np.array(["a", "b"])},
        {"providers": "cpu"},
        {"threads": 0},
        {"provider_options": {"use_tf32": 1}},
        {"masking": "fill"},
    ],
)
def test_what_an_open_session_has_settled_is_refused(work, given):
    with (
        masktool.load("exported.onnx", providers="cpu") as session,
        pytest.raises(masktool.MasktoolError, match=rf"{next(iter(given))}.*load"),
    ):
        masktool.explain(session, "photo.jpg", **given)


@pytest.mark.parametrize(
    "given",
    [
        {"preprocessing": "imagenet"},
        {"labels": ["a"]},
        {"masking": "fill"},
        {"arch": "timm:vgg11"},
        {"channels": 3},
        {"image_input": "image"},
    ],
)
def test_what_an_exported_file_has_settled_is_refused(work, given):
    with pytest.raises(masktool.MasktoolError, match="masked already"):
        masktool.load("exported.onnx", **given)


def test_an_option_that_nobody_knows_is_refused(work):
    with pytest.raises(masktool.MasktoolError, match=r"unknown option.*preprocess\b.*preprocessing"):
        masktool.load("model.onnx", preprocess="imagenet")
    with pytest.raises(masktool.MasktoolError, match=r"unknown option.*preprocess\b"):
        masktool.explain("model.onnx", "photo.jpg", preprocess="imagenet")


def test_a_baseline_that_may_be_the_methods_or_the_fills_is_asked_about(work):
    with pytest.raises(masktool.MasktoolError, match=r"baseline.*load"):
        masktool.explain(
            "model.onnx", "photo.jpg", "integrated-gradients", preprocessing="tf", masking="fill", baseline="black"
        )


def test_the_baseline_of_a_fill_is_taken(work):
    explanation = masktool.explain(
        "model.onnx", "photo.jpg", preprocessing="tf", masking="fill", baseline="black", **FAST
    )
    assert explanation.model["masking"] == "fill"


def test_an_exported_file_is_explained_without_onnx(work):
    code = (
        "import sys, masktool; masktool.explain('exported.onnx', 'photo.jpg', n_samples=20, n_segments=6, "
        "providers='cpu'); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"onnx", "onnx_ir", "torch", "masktool.exporters"} & set(done.stdout.split())


def test_a_type_of_preprocessing_is_public():
    assert masktool.Preprocessing is Preprocessing


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preprocessing": 3}, r"not a preprocessing.*int"),
        ({"labels": 3}, r"not labels.*int"),
        ({"input_size": 16}, r"out of range \(input_size\): expected \(height, width\), or .*, got 16"),
        ({"input_size": (16, 0)}, r"out of range \(input_size\): expected a whole number from 1, got 0"),
        ({"channels": "3"}, r"out of range \(channels\)"),
        ({"masking": "fill", "baseline": (1, 2, 3)}, r"unknown baseline"),
        ({"threads": "2", "preprocessing": "tf"}, r"out of range \(threads\).*got '2'"),
        ({"feature_map": 3}, r"not feature maps .*names, each of them once, got 3"),
    ],
)
def test_values_of_another_type_are_refused_by_name(work, given, message):
    with pytest.raises(masktool.MasktoolError, match=message):
        masktool.load("model.onnx", **given)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"perturbations_per_eval": "5"}, "perturbations_per_eval"),
        ({"perturbations_per_eval": 2.5}, "perturbations_per_eval"),
        ({"seed": None}, "seed"),
        ({"input_size": 16}, "input_size"),
    ],
)
def test_settings_of_another_type_are_refused_by_name(work, given, name):
    with pytest.raises(masktool.MasktoolError, match=rf"option out of range \({name}\)"):
        masktool.explain("exported.onnx", "photo.jpg", "occlusion", **given)


def test_numbers_of_numpy_are_taken(work):
    options = {"preprocessing": "tf", "providers": "cpu", "masking": "fill"}
    one = masktool.load("model.onnx", **options, input_size=tuple(np.array([16, 16])), baseline=np.float32(3))
    assert masktool.load("model.onnx", **options, input_size=(16, 16), baseline="3").path == one.path


def test_inputs_that_are_no_mapping_are_refused(work):
    with pytest.raises(masktool.MasktoolError, match=r"not inputs \(inputs\): expected values by name, got list"):
        masktool.explain("exported.onnx", "photo.jpg", "occlusion", inputs=[1])


def test_a_feature_map_that_there_is_not_is_told_with_some_that_there_are(work):
    with pytest.raises(masktool.MasktoolError, match=r"no such feature map \(x\): expected .* such as "):
        masktool.load(gradient=True, feature_map="x")  # of the built-in model
