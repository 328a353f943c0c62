"""Which bands mattered: against Captum and sums over all orders, maps of places in some bands, files, errors."""

from __future__ import annotations

import csv
import itertools
import json
import math

import numpy as np
import onnx
import pytest
from networks.small_graphs import parse
from networks.unusual_graphs import HEADER, many_channels, random_images
from PIL import Image

import masktool
from explainers.models import noise_photograph, write_region_model
from masktool import Contrast, MasktoolError, explain, explain_bands, load
from masktool.cli import run
from masktool.explainers.bands.false_colour import draw_false_colours
from masktool.explainers.bands.groups import read_groups
from masktool.explainers.bands.importance import all_sets, shapley_of_all
from masktool.runtime.pictures import PNG_KEY

CLOSE = 1e-5
BANDS = 7
SIZE = (10, 12)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("bands") / "bands.onnx"
    masktool.export(many_channels(BANDS), path, output_kind="logits")
    return path


@pytest.fixture(scope="module")
def session(path):
    with load(path, "cpu", threads=1) as opened:
        yield opened


@pytest.fixture
def image():
    return random_images(1, BANDS, *SIZE, seed=1)[0]


def twin(layout="NCHW"):
    """The network in torch, written out by its layers, in double precision: Captum adds up thousands of orders."""
    torch = pytest.importorskip("torch")
    weights = {
        each.name: torch.tensor(onnx.numpy_helper.to_array(each)).double()
        for each in many_channels(BANDS, layout).graph.initializer
    }

    def forward(images):
        features = torch.nn.functional.conv2d(images, weights["kernel"], padding=1).relu().mean(dim=(2, 3))
        return features @ weights["weight"]

    return forward


def captum_mask(groups):
    """Captum's feature mask: the group of every number of an input; bands of no group are a feature of their own."""
    torch = pytest.importorskip("torch")
    mask = torch.full((1, BANDS, *SIZE), len(groups))
    for index, group in enumerate(groups):
        mask[:, list(group)] = index
    return mask


@pytest.mark.parametrize("groups", [tuple((band,) for band in range(BANDS)), ((0, 1, 2, 3), (4, 5, 6))])
def test_what_is_lost_is_captums_feature_ablation(session, image, groups):
    torch = pytest.importorskip("torch")
    from captum.attr import FeatureAblation

    found = explain_bands(session, image, groups, output="scores", target=2)
    given = torch.tensor(image[None]).double()
    expected = FeatureAblation(twin()).attribute(given, target=2, feature_mask=captum_mask(groups))
    expected = expected[0, [group[0] for group in groups], 0, 0].numpy()
    np.testing.assert_allclose(found.left_out, expected, rtol=0, atol=CLOSE)
    assert found.groups == tuple("-".join(map(str, sorted({group[0], group[-1]}))) for group in groups)


def test_values_of_groups_are_captums_shapley_values(session, image):
    torch = pytest.importorskip("torch")
    from captum.attr import ShapleyValues

    groups = ((0,), (1, 4), (2, 3), (5, 6))
    found = explain_bands(session, image, "0,1+4,2-3,5-6", 1, output="scores", band_baseline=[0.5] * BANDS)
    given = torch.tensor(image[None]).double()
    expected = ShapleyValues(twin()).attribute(given, baselines=0.5, target=1, feature_mask=captum_mask(groups))
    np.testing.assert_allclose(found.shapley, expected[0, [group[0] for group in groups], 0, 0], rtol=0, atol=CLOSE)
    assert found.is_exact
    assert (found.errors == 0).all()


@pytest.mark.slow
def test_values_of_seven_bands_are_captums_over_all_orders(session, image):
    torch = pytest.importorskip("torch")
    from captum.attr import ShapleyValues

    found = explain_bands(session, image, target=3, output="scores")
    mask = captum_mask([(band,) for band in range(BANDS)])
    expected = ShapleyValues(twin()).attribute(torch.tensor(image[None]).double(), target=3, feature_mask=mask)
    np.testing.assert_allclose(found.shapley, expected[0, :, 0, 0], rtol=0, atol=5e-5)  # 5040 sums in single precision


def test_values_are_mean_gains_over_all_orders(session, image):
    """In probabilities, by the network in torch and sums over 5040 orders."""
    torch = pytest.importorskip("torch")
    scores = {
        kept: float(twin()(torch.tensor(image[None] * np.array(kept, np.float64)[:, None, None])).softmax(dim=1)[0, 0])
        for kept in itertools.product((0, 1), repeat=BANDS)
    }
    expected = np.zeros(BANDS)
    for order in itertools.permutations(range(BANDS)):
        kept = [0] * BANDS
        for band in order:
            before = scores[tuple(kept)]
            kept[band] = 1
            expected[band] += scores[tuple(kept)] - before
    found = explain_bands(session, image, target=0)
    np.testing.assert_allclose(found.shapley, expected / math.factorial(BANDS), rtol=0, atol=CLOSE)
    assert found.shapley.sum() == pytest.approx(found.score - found.nothing, abs=1e-12)
    assert found.forward_passes == 2**BANDS
    assert (found.score_name, found.name) == ("probability", "class 0")


def test_samples_of_sets_tend_to_the_exact_values(session, image):
    exact = explain_bands(session, image, target=2)
    rough, whole = (explain_bands(session, image, target=2, n_samples=count) for count in (60, 127))
    assert not rough.is_exact
    assert whole.is_exact
    np.testing.assert_allclose(whole.shapley, exact.shapley, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(whole.left_out, exact.left_out)
    assert rough.shapley.sum() == pytest.approx(exact.shapley.sum(), abs=1e-9)
    assert (np.abs(rough.shapley - exact.shapley) <= 4 * rough.errors + 1e-6).all()
    assert rough.forward_passes <= 1 + BANDS + 60
    again = explain_bands(session, image, target=2, n_samples=60)
    np.testing.assert_array_equal(rough.shapley, again.shapley)


def test_a_budget_holds(session, image):
    found = explain_bands(session, image, budget=40)
    assert found.forward_passes <= 40
    assert not found.is_exact
    assert explain_bands(session, image, budget=128).is_exact
    with pytest.raises(MasktoolError, match=r"a budget that is too small.*at least 11, for 7 groups"):
        explain_bands(session, image, budget=10)


def test_more_than_eight_bands_are_sampled_until_stable(tmp_path):
    masktool.export(many_channels(13), tmp_path / "many.onnx", output_kind="logits")
    many = random_images(1, 13, *SIZE)[0]
    with load(tmp_path / "many.onnx", "cpu", threads=1) as session:
        found = explain_bands(session, many, target=1, output="scores")
        assert not found.is_exact
        assert found.shapley.sum() == pytest.approx(found.score - found.nothing, abs=1e-9)
        assert (found.errors > 0).all()


def test_orders_of_sets_and_their_values():
    assert all_sets(2).tolist() == [[False, False], [True, False], [False, True], [True, True]]
    linear = all_sets(3) @ np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(shapley_of_all(linear[:, None])[:, 0], [1, -2, 0.5])
    both = all_sets(2).all(axis=1).astype(float)
    np.testing.assert_allclose(shapley_of_all(both[:, None])[:, 0], [0.5, 0.5])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_group_of_no_bands_left_is_the_plain_network(tmp_path, layout, image):
    masktool.export(many_channels(BANDS, layout), tmp_path / "m.onnx", output_kind="logits")
    with load(tmp_path / "m.onnx", "cpu", threads=1) as session:
        found = explain_bands(session, image, "0-6", 1, output="scores")
        filled = np.full_like(image, 0.25)
        filled[:4] = image[:4]
        mine = explain_bands(session, image, "4-6", 1, output="scores", band_baseline=0.25)
        placed = filled[None] if layout == "NCHW" else filled.transpose(1, 2, 0)[None]
        assert mine.nothing == float(session(placed)[0, 1])
        assert found.nothing == pytest.approx(0, abs=1e-6)  # no bias anywhere
        np.testing.assert_allclose(mine.left_out, mine.shapley, atol=1e-12)  # one group has no others


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        ("mean", lambda x: 0 * x),
        ("image-mean", lambda x: np.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape)),
        ("1.5", lambda x: 0 * x + 1.5),
        ([0, 1, 2, 3, 4, 5, 6], lambda x: 0 * x + np.arange(7, dtype=np.float32)[:, None, None]),
    ],
)
def test_baselines(session, image, baseline, expected):
    found = explain_bands(session, image, "0-6", output="scores", target=0, band_baseline=baseline)
    assert found.nothing == pytest.approx(float(session(expected(image).astype(np.float32)[None])[0, 0]), abs=1e-5)


def test_blurred_bands_keep_their_level(session, image):
    found = explain_bands(session, image + 3, "0-6", output="scores", target=0, band_baseline="blur")
    assert any("its level over the image counts as kept" in note for note in found.notes)
    assert found.nothing != explain_bands(session, image + 3, "0-6", output="scores", target=0).nothing


def test_a_map_of_places_in_some_bands_alone(session, image):
    """One window hides all of bands 4 to 6; and where it hides nothing, nothing changes."""
    whole = {"sliding_window_shapes": SIZE, "strides": SIZE}
    found = explain(session, image, "occlusion", 2, bands="4-6", output="scores", **whole)
    lost = explain_bands(session, image, "4-6", 2, output="scores").left_out[0]
    np.testing.assert_allclose(found.attributions, lost, rtol=0, atol=1e-6)
    half = {"sliding_window_shapes": (10, 6), "strides": (10, 6)}
    found = explain(session, image, "occlusion", 2, bands=[(0, 2)], band_baseline="image-mean", output="scores", **half)
    filled = image.copy()
    filled[[0, 2], :, 6:] = image[[0, 2]].mean(axis=(1, 2))[:, None, None]
    expected = session(image[None])[0, 2] - session(filled[None])[0, 2]
    np.testing.assert_allclose(found.attributions[:, 6:], expected, rtol=0, atol=1e-5)
    assert found.title == "Occlusion in bands 0+2"
    assert (found.settings["bands"], found.settings["band_baseline"]) == ("0+2", "image-mean")
    assert "filled in bands 0+2" in found.subtitle()
    assert any("hidden in bands 0+2 alone" in note for note in found.notes)


@pytest.mark.parametrize(
    ("method", "options"), [("lime", {"n_samples": 40, "n_segments": 8}), ("rise", {"n_samples": 40})]
)
def test_other_methods_hide_places_in_some_bands(session, image, method, options):
    found = explain(session, image, method, 2, bands="0-3", **options)
    assert np.ptp(found.attributions) > 0


def test_several_targets_and_kinds_of_them(session, image):
    contrast = explain_bands(session, image, target=Contrast(1, 0))
    first, second = (explain_bands(session, image, target=each, output="scores") for each in (1, 0))
    np.testing.assert_allclose(contrast.shapley, first.shapley - second.shapley, atol=1e-6)
    similar = explain_bands(session, image, reference=random_images(1, BANDS, *SIZE, seed=9)[0], output="scores")
    assert similar.score_name == "cosine similarity"


def test_channels_of_a_photograph_are_bands(tmp_path):
    write_region_model(tmp_path / "regions.onnx")  # looks at red alone
    found = explain_bands(tmp_path / "regions.onnx", noise_photograph(), target=0, providers="cpu")
    assert found.shapley[0] == pytest.approx(found.score, abs=1e-6)
    np.testing.assert_array_equal(found.shapley[1:], 0)
    with pytest.raises(MasktoolError, match="only arrays of bands are shown by three of them"):
        explain_bands(tmp_path / "regions.onnx", noise_photograph(), rgb=(2, 1, 0), providers="cpu")


SIGNAL = f"""{HEADER}
    leads (float[N, 4, 60] leads) => (float[N, 3] scores)
    <float[6, 4, 5] kernel, float[6, 3] weight>
    {{
        h = Conv<pads = [2, 2]>(leads, kernel)
        r = Relu(h)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        scores = Gemm(f, weight)
    }}"""


def test_the_leads_of_a_signal_are_bands(tmp_path):
    masktool.export(parse(SIGNAL), tmp_path / "leads.onnx", output_kind="logits")
    signal = random_images(1, 4, 60)[0]
    whole = {"sliding_window_shapes": (60,), "strides": (60,)}
    with load(tmp_path / "leads.onnx", "cpu", threads=1) as session:
        found = explain_bands(session, signal, "0-1,3", 1, output="scores")
        without = signal.copy()
        without[3] = 0
        assert found.left_out[1] == pytest.approx(found.score - float(session(without[None])[0, 1]), abs=1e-6)
        where = explain(session, signal, "occlusion", 1, output="scores", bands="3", **whole)
        np.testing.assert_allclose(where.attributions, found.left_out[1], rtol=0, atol=1e-6)
        with pytest.raises(MasktoolError, match=r"only arrays of bands are shown by three of them .*no image"):
            explain_bands(session, signal, rgb=(0, 1, 2))
    assert found.image is None
    assert found.plot().width > 400


def test_files_and_pictures(session, image, tmp_path):
    found = explain_bands(session, image, "0-3,4-6", 1, rgb=(6, 5, 4))
    paths = found.save(tmp_path, ("png", "json", "csv"))
    rows = list(csv.DictReader(paths[2].open()))
    assert [row["group"] for row in rows] == ["0-3", "4-6"]
    assert float(rows[1]["shapley"]) == pytest.approx(found.shapley[1], rel=1e-5)
    document = json.loads(paths[1].read_text())
    assert document["groups"][1]["bands"] == [4, 5, 6]
    assert document["exact"]
    assert document["settings"]["bands"] == "0-3,4-6"
    with Image.open(paths[0]) as picture:
        assert json.loads(picture.text[PNG_KEY])["schema"] == "masktool.bands/1"
    colours = draw_false_colours(image[None], "NCHW", (6, 5, 4))
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(colours))
    assert any("band 6 as red, 5 as green, 4 as blue" in note for note in found.notes)
    red = np.asarray(colours)[:, :, 0].astype(int)
    order = np.argsort(image[6].ravel())
    assert (np.diff(red.ravel()[order]) >= 0).all()
    assert (red.min(), red.max()) == (0, 255)
    with pytest.raises(MasktoolError, match="unknown format"):
        found.save(tmp_path, ("npz",))


def test_false_colours_of_odd_numbers():
    planes = np.zeros((1, 3, 2, 2), np.float32)
    planes[0, 1] = np.nan
    planes[0, 2, 0, 0] = np.inf
    picture = np.asarray(draw_false_colours(planes, "NCHW", (0, 1, 2)))
    assert picture[0, 0].tolist() == [128, 0, 0]


def test_how_groups_are_written():
    assert [group.name for group in read_groups(" 0 - 3 ,4-6, 8+10-11 ")] == ["0-3", "4-6", "8+10-11"]
    assert [group.bands for group in read_groups([range(2), 5, (9, 7)])] == [(0, 1), (5,), (7, 9)]
    assert read_groups("3,1")[0].title == "band 3"


BAD = [
    ({"bands": "0-9"}, r"a band outside the input \(bands=.0-9.\): expected 0 to 6, got 9"),
    ({"bands": "0-3,3-5"}, r"groups of bands overlap.*band 3 twice"),
    ({"bands": "1+1"}, "overlap.*band 1 twice"),
    ({"bands": "3-1"}, "no such bands"),
    ({"bands": "red"}, "no such bands.*0-3,4-6"),
    ({"bands": ""}, "no such bands"),
    ({"bands": "0-999999999"}, "no such bands"),
    ({"bands": [(-1, 2)]}, "indices from 0"),
    ({"bands": [0.5]}, "indices from 0"),
    ({"bands": []}, "no bands"),
    ({"band_baseline": [1, 2]}, "expected 1 or 7 numbers, got 2"),
    ({"band_baseline": "black"}, "no such baseline of bands.*image-mean"),
    ({"rgb": (0, 1, 7)}, r"a band outside the input \(rgb=.*expected 0 to 6, got 7"),
    ({"rgb": (0, 1)}, "not three bands"),
    ({"target": 9}, "no such class"),
    ({"alpha": 1}, "unknown argument of explain_bands"),
]


@pytest.mark.parametrize(("asked", "message"), BAD)
def test_what_cannot_be_asked_is_refused_in_one_line(session, image, asked, message):
    with pytest.raises(MasktoolError, match=message) as caught:
        explain_bands(session, image, **asked)
    assert "\n" not in caught.value.message


def test_one_band_and_too_many(tmp_path):
    for channels, message in ((1, "one band has no other"), (17, "groups are chosen for up to 16 bands.*17 bands")):
        masktool.export(many_channels(channels), tmp_path / f"{channels}.onnx", output_kind="logits")
        array = random_images(1, channels, *SIZE)[0]
        with pytest.raises(MasktoolError, match=message):
            explain_bands(tmp_path / f"{channels}.onnx", array, providers="cpu")


def test_maps_of_several_groups_or_of_gradients_are_refused(session, image):
    with pytest.raises(MasktoolError, match="a map of places is of one group"):
        explain(session, image, "occlusion", bands="0-3,4-6")
    with pytest.raises(MasktoolError, match=r"hides no places|feature map"):
        explain(session, image, "score-cam", bands="0-3")


def test_the_command(path, image, tmp_path, capsys):
    np.save(tmp_path / "x.npy", image)
    typed = ["explain", str(tmp_path / "x.npy"), "-m", str(path), "-o", str(tmp_path / "out"), "--bands", "0-3,4-6"]
    assert run([*typed, "--method", "occlusion", "--format", "png,csv,json", "--target", "1", "--rgb", "3,2,1"]) == 0
    told = capsys.readouterr()
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "x.bands.csv", "x.bands.json", "x.bands.png", "x.occlusion.bands-0-3.json", "x.occlusion.bands-0-3.png",
        "x.occlusion.bands-4-6.json", "x.occlusion.bands-4-6.png",
    ]  # fmt: skip
    assert set(told.out.split()) == {str(each) for each in (tmp_path / "out").iterdir()}
    found = explain_bands(path, image, "0-3,4-6", 1, providers="cpu")
    assert f"4-6  {found.shapley[1]:+.3g}  (lost without it alone: {found.left_out[1]:+.3g})" in told.err
    assert told.err.count("0 in the model's input") == 1
    assert run([*typed[:-1], "each", "--json", "--target", "0", "--target", "1"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(each["groups"]) for each in documents] == [BANDS, BANDS]
    assert documents[0]["written"] == [str(tmp_path / "out" / "x.bands.0.png")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bands", "0-9"], "a band outside the input (--bands 0-9): expected 0 to 6, got 9"),
        (["--bands", "0-3,2"], "groups of bands overlap (--bands 0-3,2)"),
        (["--bands", "a"], "no such bands (--bands a)"),
        (["--bands", "0", "--method", "gradient"], "Gradient hides no places"),
        (["--bands", "0", "--format", "parquet"], "with --bands some of png,json,csv,npz"),
        (["--bands", "0", "--jobs", "2"], "leave --jobs out"),
        (["--bands", "0", "--set", "alpha=1"], "add --method"),
        (["--bands", "0", "--band-baseline", "noise"], "no such baseline of bands (--band-baseline noise)"),
        (["--rgb", "1,2"], "not three bands (--rgb 1,2)"),
    ],
)
def test_bad_options_are_one_line(path, image, tmp_path, capsys, options, message):
    np.save(tmp_path / "x.npy", image)
    assert run(["explain", str(tmp_path / "x.npy"), "-m", str(path), "-o", str(tmp_path / "out"), *options]) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "running on" not in each]
    assert message in line


@pytest.mark.slow
def test_a_network_that_was_trained_on_three_bands_relies_on_them(tmp_path):
    """The class is a spot in bands 4 to 6 alone; in bands 0 to 3 spots tell nothing."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    def draw(count):
        images, classes = 0.3 * torch.randn(count, BANDS, 16, 16), torch.randint(0, 2, (count,))
        for image, which in zip(images, classes, strict=True):
            for bands, is_there in ((slice(4, 7), which), (slice(0, 4), torch.rand(()) < 0.5)):
                row, column = torch.randint(0, 12, (2,))
                image[bands, row : row + 4, column : column + 4] += 2.0 * float(is_there)
        return images, classes

    network = torch.nn.Sequential(
        torch.nn.Conv2d(BANDS, 12, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(12, 12, 3, padding=1),
        torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(12, 2),
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(150):
        images, classes = draw(64)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(images), classes).backward()
        optimiser.step()
    images, classes = draw(200)
    network.eval()
    assert (network(images).argmax(dim=1) == classes).float().mean() > 0.95
    masktool.export(network, tmp_path / "trained.onnx", output_kind="logits", input_size=(16, 16), channels=BANDS)
    with load(tmp_path / "trained.onnx", "cpu", threads=1) as session:
        shown = [index for index in range(len(classes)) if classes[index] == 1][:20]
        parts = [explain_bands(session, images[index].numpy(), "0-3,4-6", 1, output=None) for index in shown]
        single = [explain_bands(session, images[index].numpy(), target=1) for index in shown[:5]]
    useless, useful = np.array([np.abs(each.shapley) for each in parts]).mean(axis=0)
    assert useful > 5 * useless
    for each in single:
        assert set(np.argsort(-each.shapley)[:3]) == {4, 5, 6}
