"""Explanations by files that explain themselves: the map, the scores and what is said of them are the file's own."""

import numpy as np
import onnxruntime
import pytest
from embedding.explained_files import LABELS, SIZE, write_explained, write_network
from PIL import Image

import masktool
from masktool.contract import Preprocessing
from masktool.embedding.method import EMBEDDED_METHODS
from masktool.errors import MasktoolError
from masktool.explainers.method import METHODS
from masktool.option_names import for_command_line

SHARE = 1e-4


@pytest.fixture(scope="module")
def photograph():
    pixels = np.random.default_rng(5).integers(0, 256, (30, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_explained(folder / "file.onnx")
    write_explained(folder / "target.onnx", target="required", on_request="required")
    masktool.export(
        folder / "network.onnx",
        folder / "masked.onnx",
        output_kind="logits",
        labels=LABELS,
        preprocessing=Preprocessing(size=SIZE, resize="exact", std=(0.2, 0.2, 0.2)),
    )
    return folder


def explain(path, image, **options):
    return masktool.explain(path, image, providers="cpu", **options)


def assert_same_map(found, expected):
    for name in ("attributions", "model_attributions"):
        own, theirs = getattr(found, name), getattr(expected, name)
        assert own.shape == theirs.shape
        assert np.nanmax(np.abs(own - theirs)) <= SHARE * np.ptp(expected.model_attributions)


def test_the_file_is_asked_once_and_by_its_own_method(files, photograph):
    found, expected = (
        explain(files / "file.onnx", photograph),
        explain(files / "masked.onnx", photograph, method="occlusion"),
    )
    assert_same_map(found, expected)
    assert found.forward_passes == 1
    for name in ("method", "title", "meaning", "signed", "capped", "target", "label", "score_name", "crop_box"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.score == pytest.approx(expected.score, abs=1e-6)
    own = {name: value for name, value in expected.settings.items() if name != "perturbations_per_eval"}
    assert {name: found.settings[name] for name in own} == own
    assert found.settings["perturbations_per_eval"] == 1


def test_the_seed_is_the_files(tmp_path, photograph):
    write_explained(tmp_path / "file.onnx", seed=7)
    assert explain(tmp_path / "file.onnx", photograph).settings["seed"] == 7


@pytest.mark.parametrize("asked", ["dog", 1, "1", "top", None])
def test_a_target_goes_into_the_file(files, photograph, asked):
    found = explain(files / "target.onnx", photograph, target=asked)
    expected = explain(files / "masked.onnx", photograph, method="occlusion", target=asked)
    assert found.target == expected.target
    assert found.forward_passes == 1
    assert_same_map(found, expected)


def test_several_targets_take_one_run_each(files, photograph):
    found = masktool.explain_targets(files / "target.onnx", photograph, [0, 3], providers="cpu")
    assert [each.label for each in found] == ["cat", "fish"]
    assert not np.array_equal(found[0].model_attributions, found[1].model_attributions)


def test_several_images(files, photograph):
    flipped = photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    found = masktool.explain_images(files / "target.onnx", [photograph, flipped], None, [2, None], providers="cpu")
    assert found[0].target == 2
    assert_same_map(found[1], explain(files / "masked.onnx", flipped, method="occlusion"))


def test_another_target_than_the_top_is_refused_with_the_way_out(files, photograph):
    top = explain(files / "file.onnx", photograph).target
    assert explain(files / "file.onnx", photograph, target=top).target == top
    with pytest.raises(MasktoolError, match="explains the class with the highest score only") as caught:
        explain(files / "file.onnx", photograph, target=(top + 1) % 4)
    said = for_command_line(caught.value.message)
    assert said.endswith("masktool export network.onnx -o NEW.onnx --explain occlusion --target optional")


def test_there_must_be_such_a_class(files, photograph):
    for name in ("file.onnx", "target.onnx"):
        with pytest.raises(MasktoolError, match="no such class"):
            explain(files / name, photograph, target=4)
        with pytest.raises(MasktoolError, match="unknown label"):
            explain(files / name, photograph, target="horse")


def test_another_method_is_refused_with_the_way_out(files, photograph):
    with pytest.raises(MasktoolError, match=r"by one method only.*expected occlusion, got rise") as caught:
        explain(files / "file.onnx", photograph, method="rise")
    assert "masktool export network.onnx -o NEW.onnx" in for_command_line(caught.value.message)
    for method in ("gradient", "neuromask"):  # which would need gradients in any other file
        with pytest.raises(MasktoolError, match="by one method only"):
            explain(files / "file.onnx", photograph, method=method)


@pytest.mark.parametrize(
    "option",
    [{"sliding_window_shapes": 4}, {"seed": 3}, {"perturbations_per_eval": 8}, {"method": "occlusion", "strides": 2}],
)
def test_what_the_export_settled_is_refused(files, photograph, option):
    with pytest.raises(MasktoolError, match="has settled how it explains itself"):
        explain(files / "file.onnx", photograph, **option)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"output": "logits"}, "of a class, and of no other output"),
        ({"score": "log-odds"}, "no log-odds"),
        ({"inputs": {"target": 1}}, "inputs that the explanation itself feeds"),
        ({"masking": "fill"}, "the model explains itself already"),
    ],
)
def test_what_the_file_does_not_give_is_refused(files, photograph, option, said):
    with pytest.raises(MasktoolError, match=said):
        explain(files / "target.onnx", photograph, **option)


def test_a_session_and_the_environment_name_the_file_too(files, photograph, monkeypatch):
    with masktool.load(files / "file.onnx", "cpu") as session:
        assert masktool.explain(session, photograph).method == "occlusion"
    monkeypatch.setenv("MASKTOOL_MODEL", str(files / "file.onnx"))
    assert explain(None, photograph).method == "occlusion"


@pytest.mark.parametrize("method", sorted(EMBEDDED_METHODS))
def test_every_embedded_method_is_read_back(tmp_path, photograph, method):
    samples = 6 if METHODS[method].samples_option else None
    write_explained(tmp_path / "file.onnx", method, n_samples=samples)
    found = explain(tmp_path / "file.onnx", photograph)
    session = onnxruntime.InferenceSession(str(tmp_path / "file.onnx"), providers=["CPUExecutionProvider"])
    image = masktool.load(tmp_path / "file.onnx", "cpu").metadata.preprocessing
    names = [each.name for each in session.get_outputs()]
    prepared = prepare(photograph, image)
    own = dict(zip(names, session.run(None, {"image": prepared}), strict=True))
    assert np.array_equal(found.model_attributions, own["saliency_map"][0, 0])
    assert found.title == METHODS[method].title
    figures = {name: float(own[name][0]) for name in names[2:] if name != "attributions"}
    assert {name: found.quality[name] for name in figures} == pytest.approx(figures)
    if "attributions" in own:
        assert found.segments is not None
        assert np.array_equal(own["attributions"][0][found.segments], found.model_attributions)
    found.plot()
    assert found.to_json()


def prepare(photograph, preprocessing):
    from masktool.runtime.preprocessing import prepare as prepare_image

    return prepare_image(photograph, preprocessing).array


def test_a_map_that_is_not_finite_is_refused(files, tmp_path):
    write_network(tmp_path / "network.onnx")
    image = np.full((3, *SIZE), np.inf, np.float32)
    with pytest.raises(MasktoolError, match="not finite"):
        explain(files / "file.onnx", image)
