"""The sanity check by randomising weights: measures by hand, and methods that should and should not pass."""

import contextlib
import dataclasses
import functools
import itertools
import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from masktool import MasktoolError, demo, load
from masktool.cli import run
from masktool.datasets.dataset import Dataset, DatasetImage
from masktool.demo import shapes
from masktool.evaluation.maps import MethodChoice
from masktool.evaluation.metrics.map_similarity import (
    absolute_rank_correlation,
    rank_correlation,
    structural_similarity,
)
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.parts.randomisation import RESEEDED, SIMILARITIES, Randomisation, RandomisedCopy
from masktool.evaluation.running import run_part
from masktool.evaluation.scene import read_scene
from masktool.explainers.method import METHODS, Attribution, Method
from masktool.exporters.randomise import choose_layers, find_layers, randomise, read_exported

N_IMAGES = 4
OCCLUSION = MethodChoice("occlusion", {"sliding_window_shapes": 12, "strides": 8})
LIME = MethodChoice("lime", {"n_segments": 20}, n_samples=60)
BLIND = MethodChoice("blind")
SMALLEST_RANDOM = 0.35
"""Similarity that is far from 1; of maps of 64 x 64 pixels a few independent blobs are left, which agree by chance."""


@dataclasses.dataclass(frozen=True)
class Blind(Method):
    """Shows the image's brightness, whatever the network."""

    name, title, meaning, signed, samples_option = "blind", "Blind", "brightness", False, None

    def attribute(self, task):
        return Attribution(task.pixels.mean(axis=2)[None].astype(np.float64), {}, ({},))


@pytest.fixture(scope="module", autouse=True)
def blind():
    """Makes the method known while these tests run."""
    METHODS.register("blind")(Blind)
    yield
    del METHODS._entries["blind"]


@pytest.fixture(scope="module")
def session():
    with load(demo.model_path(), "cpu", threads=1) as session:
        yield session


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures with a file of their classes."""
    folder, pictures = tmp_path_factory.mktemp("pictures"), shapes.draw(21, N_IMAGES)
    for index, image in enumerate(pictures.images):
        Image.fromarray(image).save(folder / f"{index}.png")
    labels = {f"{index}.png": int(label) for index, label in enumerate(pictures.labels)}
    (folder / "labels.json").write_text(json.dumps(labels))
    np.save(folder / "masks.npy", pictures.object_masks)
    return folder


@pytest.fixture(scope="module")
def data(folder):
    return Dataset(tuple(DatasetImage(f"{index}.png", folder / f"{index}.png") for index in range(N_IMAGES)))


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Layers and file of each stage."""
    folder = tmp_path_factory.mktemp("copies")
    found = []
    for names in choose_layers(find_layers(read_exported(demo.model_path())[0]), "cascading", 3):
        randomise(demo.model_path(), folder / f"{len(names)}.onnx", names)
        found.append((names, folder / f"{len(names)}.onnx"))
    return found


@pytest.fixture(scope="module")
def stages(copies):
    return [RandomisedCopy(names[-1], names, functools.partial(load, path, "cpu", 1)) for names, path in copies]


@pytest.fixture(scope="module")
def part(session, stages):
    return Randomisation(NamedModel("layer", session), stages, [OCCLUSION, LIME, BLIND])


@pytest.fixture(scope="module")
def evaluation(part, data):
    return run_part(part, data)


def rows_of(evaluation):
    """Rows by method and number of layers."""
    (table,) = evaluation.findings.tables
    return {(row[0], row[2]): dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_rank_correlation_by_hand():
    first, second = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[10.0, 30.0], [20.0, 90.0]])
    assert rank_correlation(first, second) == pytest.approx(1 - 6 * 2 / (4 * 15))  # two ranks differ by 1
    assert rank_correlation(first, -second) == pytest.approx(-(1 - 6 * 2 / (4 * 15)))
    assert rank_correlation(first, np.exp(first)) == pytest.approx(1)
    tied = np.array([[1.0, 1.0], [2.0, 3.0]])  # ranks 1.5, 1.5, 3, 4 against 1, 2, 3, 4
    assert rank_correlation(tied, first) == pytest.approx(np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3, 4])[0, 1])


def test_absolute_rank_correlation_forgets_the_sign():
    first = np.array([[-4.0, 1.0], [2.0, -3.0]])
    assert rank_correlation(first, -first) == pytest.approx(-1)
    assert absolute_rank_correlation(first, -first) == pytest.approx(1)


def slow_ssim(first, second, side=7):
    """The mean over all windows within the map; sample (co)variances, constants (.01)² and (.03)² for a range of 1."""
    found = []
    for top, left in itertools.product(*(range(length - side + 1) for length in first.shape)):
        a, b = (each[top : top + side, left : left + side].reshape(-1) for each in (first, second))
        covariance = np.cov(a, b)
        numerator = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance[0, 1] + 9e-4)
        denominator = (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (covariance[0, 0] + covariance[1, 1] + 9e-4)
        found.append(numerator / denominator)
    return np.mean(found)


def test_ssim_is_that_of_a_slow_program_on_stretched_maps():
    random = np.random.default_rng(0)
    first = random.random((12, 15))
    second = 0.7 * first + 0.3 * random.random((12, 15))
    stretched = [(each - each.min()) / (each.max() - each.min()) for each in (first, second)]
    assert structural_similarity(first, second) == pytest.approx(slow_ssim(*stretched), abs=1e-9)
    assert structural_similarity(5 * first - 2, first) == pytest.approx(1)


@pytest.mark.parametrize("measure", SIMILARITIES.values())
def test_a_flat_map_is_like_no_other(measure):
    varied = np.random.default_rng(0).random((8, 8))
    assert measure(varied, np.ones((8, 8))) is None
    assert measure(np.ones((8, 8)), varied) is None


def test_a_map_smaller_than_the_windows_has_no_ssim():
    varied = np.random.default_rng(0).random((6, 9))
    assert structural_similarity(varied, varied) is None


def test_a_method_that_ignores_the_network_is_found_out(evaluation):
    rows = rows_of(evaluation)
    for depth, measure in itertools.product((0, 1, 6, 10), SIMILARITIES):
        assert rows["blind", depth][measure].value == pytest.approx(1)


@pytest.mark.parametrize("method", ["occlusion", "lime"])
def test_methods_that_ask_the_network_change(evaluation, method):
    rows = rows_of(evaluation)
    for measure in SIMILARITIES:
        assert rows[method, 10][measure].value < SMALLEST_RANDOM
    assert rows[method, 10]["score of the class"].value < rows[method, 0]["score of the class"].value - 0.5


def test_the_original_with_another_seed_shows_what_sampling_alone_changes(evaluation):
    rows = rows_of(evaluation)
    assert rows["occlusion", 0]["Spearman"].value == pytest.approx(1)  # no random choice
    assert 0 < rows["lime", 0]["Spearman"].value < 0.99
    assert rows["lime", 0]["up to layer"] == RESEEDED


def test_charts_follow_the_depth(evaluation):
    assert [chart.x for chart in evaluation.findings.charts] == [(0.0, 1.0, 6.0, 10.0)] * len(SIMILARITIES)
    assert [line.label for line in evaluation.findings.charts[0].lines] == ["occlusion", "lime", "blind"]


@pytest.mark.slow
def test_results_do_not_depend_on_which_images_ran_before(part, data, session):
    scenes = [read_scene(sample, session) for sample in data.images[:2]]
    part = dataclasses.replace(part, methods=[LIME])
    forwards = [json.dumps(part.measure(scene)) for scene in scenes]
    assert forwards == [json.dumps(part.measure(scene)) for scene in scenes[::-1]][::-1]


def test_no_two_copies_are_open_at_once(part, data, session, copies):
    opened = []

    @contextlib.contextmanager
    def watched(path):
        assert not opened
        opened.append(path)
        with load(path, "cpu", threads=1) as copy:
            yield copy
        opened.remove(path)

    stages = [RandomisedCopy(names[-1], names, functools.partial(watched, path)) for names, path in copies]
    found = dataclasses.replace(part, stages=stages, methods=[BLIND]).measure(read_scene(data.images[0], session))
    assert list(found["stages"]) == [RESEEDED, *(names[-1] for names, _ in copies)]
    assert not opened


def test_scores_that_are_not_finite_leave_the_stage_undefined(part, data, copies, tmp_path):
    """A copy whose classifier gives no numbers."""
    model = onnx.load(copies[0][1])
    (bias,) = (each for each in model.graph.initializer if each.name == "classifier.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(8, np.nan, np.float32), bias.name))
    onnx.save(model, tmp_path / "broken.onnx")
    broken = RandomisedCopy("broken", ("broken",), functools.partial(load, tmp_path / "broken.onnx", "cpu", 1))
    found = run_part(dataclasses.replace(part, stages=[broken], methods=[OCCLUSION]), data)
    assert {rows_of(found)["occlusion", 1][measure].n for measure in SIMILARITIES} == {0}
    assert f"Spearman of occlusion at broken on {N_IMAGES}" in found.findings.notes[-1]


def test_layers_one_at_a_time_are_bars(part, data, stages):
    alone = [dataclasses.replace(stage, layers=stage.layers[-1:]) for stage in stages]
    found = run_part(dataclasses.replace(part, stages=alone, methods=[BLIND]), Dataset(data.images[:1]))
    assert {chart.kind for chart in found.findings.charts} == {"bar"}
    assert found.findings.tables[0].columns[1] == "layer"


def test_a_method_named_twice_is_refused(part):
    with pytest.raises(MasktoolError, match=r"the same method twice \(occlusion\)"):
        dataclasses.replace(part, methods=[OCCLUSION, OCCLUSION])


def test_the_command_writes_tables_charts_and_pictures(folder, tmp_path, capsys):
    arguments = ["evaluate", "randomisation", str(demo.model_path()), str(folder), "-o", str(tmp_path / "out")]
    chosen = ["--method", "occlusion", "--set", "sliding_window_shapes=12", "--set", "strides=8"]
    more = ["--limit", "2", "--stages", "2", "--pictures", "1", "--provider", "cpu", "--threads", "1"]
    assert run([*arguments, *chosen, *more]) == 0
    captured = capsys.readouterr()
    assert "10 layers with weights, from node_Conv_138 to node_linear" in captured.err
    assert RESEEDED in captured.out
    document = json.loads((tmp_path / "out" / "randomisation.json").read_text())
    assert [row[2] for row in document["tables"][0]["rows"]] == [0, 1, 10]
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 3
    assert len(list((tmp_path / "out").glob("randomisation.*.png"))) == len(SIMILARITIES)


def test_the_command_for_localisation_writes_tables_charts_and_pictures(folder, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    for index, mask in enumerate(np.load(folder / "masks.npy")):
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    arguments = ["evaluate", "localisation", str(demo.model_path()), str(folder), "-o", str(tmp_path / "out")]
    known = ["--labels", str(folder / "labels.json"), "--masks", str(tmp_path / "masks"), "--correct-only"]
    chosen = ["--method", "occlusion", "--method", "lime", "--samples", "30", "--pictures", "1"]
    assert run([*arguments, *known, *chosen, "--limit", "2", "--provider", "cpu", "--threads", "1"]) == 0
    assert "images that the model gets right" in capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "localisation.json").read_text())
    assert [row[0] for row in document["tables"][1]["rows"]] == [
        "occlusion",
        "lime",
        "centre",
        "random",
        "random-cells",
        "ones",
        "edges",
    ]
    assert document["settings"]["methods"][1]["n_samples"] == 30
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 2
