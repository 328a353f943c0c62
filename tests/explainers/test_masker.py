"""The masking model's map: one pass, the predicted class's, judged through the file's own mask."""

import json

import numpy as np
import pytest
from networks.small_graphs import parse
from PIL import Image

import masktool
from explainers.models import LABELS, SIZE, write_region_model
from masktool import MasktoolError, explain, explain_images, explain_targets, load
from masktool.cli import run
from masktool.contract import SALIENCY_MAP, Preprocessing
from masktool.runtime import prepare

NETWORK = """
<ir_version: 10, opset_import: ["" : 20]>
masker (float[N, {shape}] image) => (float[N, 4] logits, float[N, 1, 8, 8] saliency_map)
<float[6, 3, 3, 3] kernel, float[6, 4] weight, float[1, 6, 1, 1] readout>
{{
    x = {entry}(image)
    features = Conv<pads = [1, 1, 1, 1]>(x, kernel)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
    salient = Conv(active, readout)
    saliency_map = Sigmoid(salient)
}}
"""
PREPROCESSING = Preprocessing(size=(8, 8), resize="exact", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
SAME_EVERYWHERE = "the map is the same everywhere: it does not tell one place from another"


def export_network(path, masking="fill", layout="NCHW", **options):
    shape, entry = ("3, 8, 8", "Identity") if layout == "NCHW" else ("8, 8, 3", "Transpose<perm = [0, 3, 1, 2]>")
    preprocessing = Preprocessing(**(vars(PREPROCESSING) | {"layout": layout}))
    graph = parse(NETWORK.format(shape=shape, entry=entry))
    masktool.export(graph, path, masking=masking, preprocessing=preprocessing, output_kind="logits", **options)
    return path


def photograph(red=(255, 102), green=(204, 51)):
    """Quarters of the region model: scores follow red, of the two quarters; the map is green, inside and outside them.

    The mask is to keep the top left quarter, class 0: it is green, and red too.
    """
    height, width = SIZE[0] // 2, SIZE[1] // 2
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:height, :width, 0], pixels[height:, width:, 0] = red
    pixels[..., 1] = green[1]
    pixels[:height, :width, 1] = green[0]
    return pixels


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_region_model(tmp_path_factory.mktemp("masker") / "masker.onnx", saliency="green")


@pytest.fixture
def session(path):
    with load(path, "cpu", threads=1) as opened:
        yield opened


@pytest.fixture(params=[("fill", "NCHW"), ("layer", "NCHW"), ("layer", "NHWC")], ids="-".join)
def exported(request, tmp_path):
    with load(export_network(tmp_path / "masker.onnx", *request.param), "cpu", threads=1) as opened:
        yield opened


def noise(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)


def test_scores_and_map_come_from_one_pass(session, monkeypatch):
    asked, forward = [], session._forward

    def watched(outputs, feed):
        asked.append((list(outputs), sorted(feed.values)))
        return forward(outputs, feed)

    monkeypatch.setattr(session, "_forward", watched)
    found = explain(session, photograph(), "masker")
    assert asked == [(["scores", SALIENCY_MAP], ["image"])]
    assert session.forward_passes == found.forward_passes == 1
    np.testing.assert_allclose(found.model_attributions, photograph()[..., 1] / 255, rtol=1e-6)
    assert (found.target, found.label) == (0, LABELS[0])
    assert found.score == pytest.approx(1)
    assert not found.signed
    assert found.quality == {
        "class": 0,
        "score": found.score,
        "area_soft": pytest.approx(0.25 * 0.8 + 0.75 * 0.2),
        "area_cut": 0.25,
    }
    assert found.notes == ()
    assert found.settings["judge"] is False
    assert found.plot().mode == "RGB"


def test_the_map_is_that_of_the_file_in_every_mode_and_layout(exported):
    found = explain(exported, noise(), "masker")
    image = prepare(Image.fromarray(noise()), exported.metadata.preprocessing).array
    outputs = exported.run(image)
    np.testing.assert_array_equal(found.model_attributions, outputs[SALIENCY_MAP][0, 0])
    np.testing.assert_array_equal(found.attributions, found.model_attributions)  # no resize, no crop
    np.testing.assert_array_equal(exported.to_scores(outputs["logits"]), exported.scores(image))
    assert found.scores[0].score == exported.scores(image)[0].max()
    assert found.forward_passes == 1


def test_the_same_run_gives_the_same_bytes(exported):
    first, again = (explain(exported, noise(), "masker", judge=True, seed=3).to_json() for _ in range(2))
    assert first.split('"timing"')[0] == again.split('"timing"')[0]


def test_a_target_gets_the_predicted_classs_map_and_is_told_so(session):
    found = explain_targets(session, photograph(), [None, 1, "background", "top left"], "masker")
    assert session.forward_passes == 1
    assert [each.target for each in found] == [0, 1, 2, 0]
    for each in found:
        np.testing.assert_array_equal(each.attributions, found[0].attributions)
        assert each.quality == found[0].quality
    other = "the map is of class 0, which the model predicts: a masking model takes no target"
    assert [other in each.notes for each in found] == [False, True, True, False]


def test_judging_is_what_the_session_says_under_the_cut_mask(exported):
    image = prepare(Image.fromarray(noise(1)), exported.metadata.preprocessing).array
    found = explain(exported, noise(1), "masker", judge=True, perturbations_per_eval=1)
    assert found.forward_passes == 3
    kept = (found.model_attributions >= 0.5).astype(np.float32)[None, None]
    assert 0 < kept.mean() < 1
    predicted = int(exported.scores(image)[0].argmax())
    for name, mask in (("cut", kept), ("out", 1 - kept)):
        scores = exported.scores(image, mask)[0]
        assert found.quality[f"class_{name}"] == scores.argmax()
        assert found.quality[f"score_{name}"] == scores[predicted]
    assert found.quality["kept_cut"] == (found.quality["class_cut"] == predicted)
    assert found.quality["lost_out"] == (found.quality["class_out"] != predicted)
    assert found.quality["area_cut"] == pytest.approx(kept.mean())


@pytest.mark.parametrize(
    ("picture", "figures", "notes"),
    [
        (
            photograph(),
            {"class_cut": 0, "score_cut": 1, "kept_cut": True, "class_out": 1, "score_out": 0, "lost_out": True},
            (),
        ),
        (
            photograph(green=(51, 204)),  # keeps all but the quarter that the class is seen in
            {"class_cut": 1, "score_cut": 0, "kept_cut": False, "class_out": 0, "score_out": 1, "lost_out": False},
            (
                "the class does not survive the mask cut at .5: class 1 comes first there, and the explained one has a "
                "score of 0",
                "the class survives although the mask, cut at .5, is taken away",
            ),
        ),
        (
            photograph(red=(102, 255), green=(255, 255)),
            {"class_cut": 1, "kept_cut": True, "class_out": 0, "lost_out": True, "area_cut": 1},
            ("the mask cut at .5 keeps everything", SAME_EVERYWHERE),
        ),
        (
            photograph(red=(102, 255), green=(0, 0)),
            {"class_cut": 0, "kept_cut": False, "class_out": 1, "lost_out": False, "area_soft": 0, "area_cut": 0},
            (
                "the mask cut at .5 keeps nothing",
                "the class does not survive the mask cut at .5: class 0 comes first there, and the explained one has a "
                "score of 0",
                "the class survives although the mask, cut at .5, is taken away",
                SAME_EVERYWHERE,
            ),
        ),
    ],
    ids=["good", "inverted", "everything", "nothing"],
)
def test_what_judging_tells_of_masks_made_by_hand(session, picture, figures, notes):
    found = explain(session, picture, "masker", judge=True)
    assert {name: found.quality[name] for name in figures} == pytest.approx(figures)
    assert found.notes == notes
    assert [note for note in explain(session, picture, "masker").notes if "survive" in note] == []


def test_a_layer_masked_file_judges_the_mask_of_another(tmp_path):
    """As the method's documentation shows it."""
    found = explain(export_network(tmp_path / "masker.onnx", "fill"), noise(1), method="masker")
    kept = (found.model_attributions >= 0.5).astype("float32")[None, None]
    with load(export_network(tmp_path / "layer.onnx", "layer"), "cpu", threads=1) as layer:
        image = prepare(found.image, layer.metadata.preprocessing).array
        masked_in, masked_out = layer.scores(image, kept)[0], layer.scores(image, 1 - kept)[0]
        own = explain(layer, noise(1), "masker", judge=True).quality
    predicted = own["class"]
    assert (own["score_cut"], own["score_out"]) == pytest.approx((masked_in[predicted], masked_out[predicted]))


def test_a_map_comes_back_to_the_photographs_pixels(tmp_path):
    preprocessing = Preprocessing(size=SIZE, resize="shortest", resize_to=SIZE[0])
    path = write_region_model(tmp_path / "crop.onnx", preprocessing=preprocessing, saliency="green")
    picture = np.zeros((32, 80, 3), np.uint8)
    picture[..., 1] = 153
    found = explain(path, picture, "masker")
    assert found.attributions.shape == (32, 80)
    assert np.isnan(found.attributions[:, :16]).all()
    np.testing.assert_allclose(found.attributions[:, 16:64], 0.6, rtol=1e-6)


def test_a_file_without_a_map_names_the_command(tmp_path):
    with load(write_region_model(tmp_path / "plain.onnx"), "cpu", threads=1) as plain:
        with pytest.raises(MasktoolError, match=r"expected saliency_map, got scores .*train_masker\(MODEL, FOLDER"):
            explain(plain, photograph(), "masker")
        assert plain.forward_passes == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output": "scores", "target": 1}, r"explains classes only.*leave the output out"),
        ({"judge": "yes"}, r"judge.*expected True \| False, got 'yes'"),
        ({"n_samples": 3}, r"draws no samples.*set judge"),
        ({"target": 7}, "no such class"),
    ],
)
def test_bad_use_is_refused(session, arguments, message):
    with pytest.raises(MasktoolError, match=message):
        explain(session, photograph(), "masker", **arguments)


def test_images_are_explained_one_by_one(session):
    pictures = [photograph(), photograph(red=(51, 204))]
    found = explain_images(session, pictures, "masker", ["top left", None])
    for picture, target, each in zip(pictures, ["top left", None], found, strict=True):
        alone = explain(session, picture, "masker", target)
        assert np.array_equal(each.attributions, alone.attributions)
        assert each.target == alone.target
        assert each.forward_passes == alone.forward_passes


@pytest.mark.parametrize(("saliency", "scale"), [("scores", 1 / 255), ("image", 1 / 255), ("green", 2 / 255)])
def test_an_output_of_that_name_that_is_no_map_is_refused(tmp_path, saliency, scale):
    """Of another shape, or with values above 1."""
    preprocessing = Preprocessing(size=SIZE, resize="exact", scale=scale)
    path = write_region_model(tmp_path / "model.onnx", saliency=saliency, preprocessing=preprocessing)
    with pytest.raises(MasktoolError, match=r"not a saliency map .*expected \(1, 16, 24\) within 0 to 1, got \("):
        explain(path, photograph(), "masker")


def test_a_score_that_is_no_number_under_the_mask_is_refused(session, monkeypatch):
    original = session.run

    def run(images, masks=None, inputs=None, outputs=None):
        found = original(images, masks, inputs, outputs)
        return found if masks is None else {name: np.full_like(values, np.nan) for name, values in found.items()}

    monkeypatch.setattr(session, "run", run)
    assert explain(session, photograph(), "masker").forward_passes == 1
    with pytest.raises(MasktoolError, match="not finite"):
        explain(session, photograph(), "masker", judge=True)


def test_a_torch_module_exported_with_its_map_agrees_with_torch(tmp_path):
    torch = pytest.importorskip("torch")

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = torch.nn.Conv2d(3, 6, 3, padding=1, stride=2)
            self.head, self.mask = torch.nn.Linear(6, 4), torch.nn.Conv2d(6, 1, 1)

        def forward(self, image):
            features = self.trunk(image).relu()
            mask = torch.nn.functional.interpolate(self.mask(features).sigmoid(), image.shape[2:], mode="nearest")
            return {"logits": self.head(features.mean((2, 3))), "saliency_map": mask}

    torch.manual_seed(0)
    network = Both().eval()
    path = tmp_path / "masker.onnx"
    masktool.export(network, path, input_size=(8, 8), masking="fill", baseline="mean", preprocessing=PREPROCESSING)
    found = explain(path, noise(), "masker")
    image = torch.from_numpy(prepare(Image.fromarray(noise()), PREPROCESSING).array)
    with torch.no_grad():
        expected = network(image)
    np.testing.assert_allclose(found.model_attributions, expected["saliency_map"][0, 0], atol=1e-5)
    assert found.target == int(expected["logits"].argmax())
    assert found.forward_passes == 1


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The current directory, with a masker's file, and three photographs with labels and boxes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_region_model(tmp_path / "masker.onnx", saliency="green")
    (tmp_path / "photos").mkdir()
    quarter = [0, 0, SIZE[1] // 2, SIZE[0] // 2]
    names = [f"{letter}.png" for letter in "abc"]
    for index, name in enumerate(names):
        Image.fromarray(photograph(red=(255, 100 + index))).save(tmp_path / "photos" / name)
    (tmp_path / "labels.json").write_text(json.dumps(dict.fromkeys(names, 0)))
    (tmp_path / "boxes.json").write_text(json.dumps({name: [quarter] for name in names}))
    return tmp_path


def test_command(work, capsys):
    arguments = ["explain", "photos", "-m", "masker.onnx", "--provider", "cpu", "--method", "masker", "--json"]
    assert run([*arguments, "--set", "judge=true", "--target", "1"]) == 0
    out, err = capsys.readouterr()
    documents = [json.loads(line) for line in out.splitlines()]
    assert len(documents) == 3
    for document in documents:
        assert document["quality"]["kept_cut"]
        assert document["forward_passes"] == 3
        assert "a masking model takes no target" in document["notes"][0]
        assert document["notes"][0] in err
    assert run(arguments) == 0
    out, err = capsys.readouterr()
    assert all(json.loads(line)["forward_passes"] == 1 for line in out.splitlines())
    assert "explained 3 photographs in" in err


def test_command_on_a_file_without_a_map_is_one_line(work, capsys):
    write_region_model(work / "plain.onnx")
    assert run(["explain", "photos/a.png", "-m", "plain.onnx", "--provider", "cpu", "--method", "masker"]) == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert "masktool: error: Masking model needs an output that the file does not have" in error
    assert "masktool train-masker" in error


def test_command_beside_a_method_that_adds_gradients(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    export_network(tmp_path / "masker.onnx", "layer")
    Image.fromarray(noise()).save(tmp_path / "photo.png")
    methods = ["--method", "gradient", "--method", "masker"]
    assert run(["explain", "photo.png", "-m", "masker.onnx", "--provider", "cpu", *methods, "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["method"] for each in found] == ["gradient", "masker"]
    assert found[1]["forward_passes"] == 1
    alone = explain(tmp_path / "masker.onnx", tmp_path / "photo.png", "masker")
    np.testing.assert_allclose(found[1]["model_attributions"], alone.model_attributions, atol=1e-6)


@pytest.mark.parametrize(
    ("part", "options", "expected"),
    [
        ("localisation", ["--boxes", "boxes.json"], {"pointing game": 1, "energy": 1}),
        ("faithfulness", ["--metric", "insertion-deletion"], {"insertion": 1 - 0.25 / 2, "deletion": 0.25 / 2}),
    ],
)
def test_evaluation_judges_the_map(work, part, options, expected):
    """The mask is the object, and the class is seen nowhere else: its score rises and falls with the first quarter."""
    arguments = [part, "masker.onnx", "photos", "--labels", "labels.json", *options, "--method", "masker"]
    assert run(["evaluate", *arguments, "--provider", "cpu", "--pictures", "0", "-o", "out", "--strict"]) == 0
    found = {}
    for table in json.loads((work / "out" / f"{part}.json").read_text())["tables"]:
        figures = next(row for row in table["rows"] if row[0] == "masker")
        columns = (table["name"] if name == "layer" else name for name in table["columns"])  # the one model's figure
        found |= dict(zip(columns, figures, strict=True))
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected, rel=1e-5)
