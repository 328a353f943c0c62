"""A whole run: input, determinism, the way back to the photograph's pixels, errors."""

import contextlib
import json

import numpy as np
import pytest
from PIL import Image

from explainers.models import SIZE, bright_photograph, noise_photograph, write_region_model
from masktool import MasktoolError, explain, explain_targets, load
from masktool.contract import Preprocessing
from masktool.explainers.pixels import model_pixels
from masktool.runtime.preprocessing import prepare

METHODS = [("occlusion", {}), ("lime", {"n_samples": 40, "n_segments": 8}), ("rise", {"n_samples": 40})]


def without_timing(text):
    document = json.loads(text)
    assert document["timing"].keys() == {"seconds"}
    del document["timing"]
    return json.dumps(document)


@pytest.mark.parametrize(("method", "options"), METHODS)
def test_same_seed_same_json(session, model, method, options):
    first = explain(session, noise_photograph(), method, seed=5, **options).to_json()
    again = explain(session, noise_photograph(), method, seed=5, **options).to_json()
    with load(model, providers="cpu", threads=1) as another:
        elsewhere = explain(another, noise_photograph(), method, seed=5, **options).to_json()
    cut = slice(0, first.index(',"timing"'))
    assert first[cut] == again[cut] == elsewhere[cut]
    if method != "occlusion":
        other = explain(session, noise_photograph(), method, seed=6, **options).to_json()
        assert json.loads(other)["attributions"] != json.loads(first)["attributions"]


@pytest.mark.parametrize(("method", "options"), METHODS)
def test_batch_changes_rounding_only(session, method, options):
    maps = [
        explain(session, noise_photograph(), method, perturbations_per_eval=batch, **options).attributions
        for batch in (1, 7, 1000)
    ]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-5)
    np.testing.assert_allclose(maps[0], maps[2], atol=1e-5)


@pytest.mark.parametrize(("method", "options"), METHODS)
def test_crop_leaves_nan_and_everything_else_is_finite(tmp_path, method, options):
    preprocessing = Preprocessing(size=SIZE, resize="shortest", resize_to=16)
    path = write_region_model(tmp_path / "crop.onnx", preprocessing=preprocessing)
    found = explain(path, noise_photograph((32, 80)), method, **options)
    assert found.attributions.shape == found.image_size == (32, 80)
    seen = np.isfinite(found.attributions)
    assert seen[:, 16:64].all()
    assert not seen[:, :16].any()
    assert not seen[:, 64:].any()
    document = json.loads(found.to_json())
    assert document["attributions"][0][:16] == [None] * 16
    assert None not in document["attributions"][0][16:64]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (200, 3)])
def test_extreme_photographs(session, size):
    for method, options in METHODS:
        found = explain(session, noise_photograph(size), method, target=0, **options)
        assert found.attributions.shape == size
        assert np.isfinite(found.attributions).all()


def test_photograph_from_path_array_and_pillow_agree(session, tmp_path):
    Image.fromarray(noise_photograph()).save(tmp_path / "noise.png")
    images = [
        tmp_path / "noise.png",
        str(tmp_path / "noise.png"),
        noise_photograph(),
        Image.open(tmp_path / "noise.png"),
    ]
    maps = [explain(session, image, "occlusion").attributions for image in images]
    assert all(np.array_equal(maps[0], each) for each in maps[1:])


def test_scores_provenance_and_settings_are_told(session):
    found = explain(session, bright_photograph(), "rise", target="TOP LEFT", n_samples=10, seed=3)
    assert (found.target, found.label) == (0, "Top Left")
    assert found.score == pytest.approx(1)
    assert [each.index for each in found.scores] == [0, 1, 2]
    assert found.settings == {
        "n_masks": 10,
        "p": 0.5,
        "grid_size": 7,
        "binary": True,
        "estimator": "regression",
        "normalisation": "kept",
        "seed": 3,
        "perturbations_per_eval": 16,
        "providers": ["CPUExecutionProvider"],
        "threads": 1,
    }
    assert found.model["source"] == "regions.onnx"
    assert found.model["parity"] == {"ones_max_abs_difference": 0.0}
    assert found.forward_passes == 11
    assert found.seconds > 0
    assert found.score_name == "probability"


def test_unknown_output_kind_is_called_a_score(tmp_path):
    path = write_region_model(tmp_path / "unknown.onnx", output_kind=None)
    found = explain(path, bright_photograph(), "occlusion")
    assert found.meaning == "drop in score when hidden"
    assert "score" in json.loads(found.to_json())["target"]


def test_progress_counts_every_mask(session):
    seen = []

    @contextlib.contextmanager
    def progress(description, total):
        seen.append((description, total))
        yield lambda count: seen.append(count)

    explain(session, bright_photograph(), "rise", n_samples=10, perturbations_per_eval=4, progress=progress)
    assert seen == [("RISE", 10), 4, 4, 2]


def test_model_without_class_output(tmp_path):
    path = write_region_model(tmp_path / "none.onnx", class_output=None)
    with pytest.raises(MasktoolError, match=r"no class output to explain .*none\.onnx.*got scores"):
        explain(path, bright_photograph())


def test_model_without_preprocessing(tmp_path):
    path = write_region_model(tmp_path / "none.onnx")
    with load(path, providers="cpu") as session:
        object.__setattr__(session.metadata, "preprocessing", None)
        with pytest.raises(MasktoolError, match="export again with preprocessing"):
            explain(session, bright_photograph())


def test_scores_that_are_no_numbers(tmp_path):
    path = write_region_model(tmp_path / "nan.onnx", nan_when_empty=True)
    with pytest.raises(MasktoolError, match="scores are not finite"):
        explain(path, bright_photograph(), "occlusion")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(4, np.uint8), r"not an image.*\(H, W, 3\) uint8.*\(4,\) uint8"),
        (np.array([["red"]]), r"not an image.*<U3"),
        (np.zeros((4, 4, 3)), r"does not fit.*\(3, 16, 24\) or \(16, 24, 3\), got \(4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        ("missing.jpg", r"missing\.jpg"),
    ],
)
def test_bad_images(session, image, message):
    with pytest.raises(MasktoolError, match=message):
        explain(session, image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed.*-1"),
        ({"seed": 1.5}, "seed"),
        ({"perturbations_per_eval": 0}, "perturbations_per_eval.*0"),
        ({"target": [0, 1]}, "explain_targets"),
        ({"target": 3}, "from 0 to 2, got 3"),
    ],
)
def test_bad_arguments(session, options, message):
    with pytest.raises(MasktoolError, match=message):
        explain(session, bright_photograph(), **options)


def test_several_targets_share_the_passes(session):
    for method, options in METHODS:
        before = session.forward_passes
        found = explain_targets(session, noise_photograph(), [0, "bottom right", None], method, **options)
        assert session.forward_passes - before == found[0].forward_passes
        assert [each.target for each in found][:2] == [0, 1]
        assert not np.array_equal(found[0].attributions, found[1].attributions)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("order", ["RGB", "BGR", "L"])
def test_pixels_undo_the_preprocessing(layout, order):
    count = 1 if order == "L" else 3
    preprocessing = Preprocessing(
        size=(6, 9),
        resize="none",
        channel_order=order,
        mean=(0.4, 0.5, 0.6)[:count],
        std=(0.2, 0.3, 0.4)[:count],
        layout=layout,
    )
    photograph = Image.fromarray(noise_photograph((6, 9)))
    expected = np.asarray(photograph.convert("L").convert("RGB") if order == "L" else photograph)
    assert np.array_equal(model_pixels(prepare(photograph, preprocessing).array, preprocessing), expected)
