"""LIME alignment: figures by hand on a linear model whose objects are known, and the order on a trained network."""

import contextlib
import itertools
import json

import numpy as np
import pytest
from explainers.models import write_region_model
from PIL import Image
from sklearn.metrics import jaccard_score
from sklearn.metrics.pairwise import cosine_similarity

from evaluation.shapes_modes import draw_dataset, open_shapes_modes
from masktool import MasktoolError, load
from masktool.cli import run
from masktool.datasets.dataset import Dataset, DatasetImage
from masktool.evaluation.bootstrap import interval_of_mean
from masktool.evaluation.metrics.lime_alignment.agreement import agreement, expected_jaccard, jaccard
from masktool.evaluation.metrics.lime_alignment.alignment import EQUAL, cosine, measure_alignment, weight_on_object
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.parts.lime_alignment import RANDOM, LimeAlignment
from masktool.evaluation.removal import SegmentChoice
from masktool.evaluation.running import run_part

HEIGHT, WIDTH = SIZE = (16, 24)
QUARTERS = np.kron([[0, 1], [2, 3]], np.ones((HEIGHT // 2, WIDTH // 2), np.int64))
"""The model's class 0 is the brightness of quarter 0, its class 1 that of quarter 3."""


@pytest.fixture
def data(tmp_path):
    """One white picture, whose object is quarter 0, and the same without an object."""
    (tmp_path / "pictures").mkdir()
    np.save(tmp_path / "quarters.npy", QUARTERS)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((*SIZE, 3), 255, np.uint8)).save(tmp_path / "pictures" / name)
    path, segments = tmp_path / "pictures", tmp_path / "quarters.npy"
    samples = (
        DatasetImage("a.png", path / "a.png", object_mask=QUARTERS == 0, segments=segments),
        DatasetImage("b.png", path / "b.png", segments=segments),
    )
    return Dataset(samples)


@pytest.fixture
def session(tmp_path):
    write_region_model(tmp_path / "model.onnx")
    with load(tmp_path / "model.onnx", "cpu", threads=1) as session:
        yield session


@pytest.fixture
def part(session):
    modes = [NamedModel("layer", session), NamedModel("black", session)]
    return LimeAlignment(modes, SegmentChoice("given"), n_samples=200, n_top=1)


def records_of(part, dataset, path):
    run_part(part, dataset, path)
    entries = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return {entry["image"]: entry["record"] for entry in entries}


def test_cosine_is_scikit_learns():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=9), rng.random(9)
    assert cosine(a, b) == pytest.approx(cosine_similarity([a], [b])[0, 0])
    assert cosine(np.array([3.0, 4]), np.array([0.0, 2])) == pytest.approx(0.8)
    assert cosine(np.zeros(3), np.ones(3)) is None


def test_jaccard_is_scikit_learns():
    rng = np.random.default_rng(0)
    a, b = (rng.choice(12, 5, replace=False) for _ in range(2))
    assert jaccard(a, b) == pytest.approx(jaccard_score(np.isin(range(12), a), np.isin(range(12), b)))
    assert jaccard([1, 2, 3], [2, 3, 4]) == 0.5


def test_expected_jaccard_is_the_mean_over_all_pairs_of_sets():
    for n, k in ((6, 2), (5, 4), (4, 4)):
        sets = list(itertools.combinations(range(n), k))
        every = np.mean([jaccard(a, b) for a in sets for b in sets])
        assert expected_jaccard(n, k) == pytest.approx(every)


def test_explanations_that_are_compared_never_share_a_seed():
    one, other = [[0, 1], [0, 2]], [[0, 1], [1, 2]]
    assert agreement(one, one) == pytest.approx(1 / 3)
    assert agreement(one, other) == pytest.approx((1 / 3 + 1 / 3) / 2)  # {0,1} with {1,2}, and {0,2} with {0,1}


def test_alignment_by_hand():
    segments = np.array([[0, 0, 1, 1], [2, 2, 2, 2]], np.int32)
    inside = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool)  # two thirds of it in segment 0, one in segment 1
    weights = {"layer": [np.array([2.0, 1, 0]), np.array([0.0, 0, 5])], "black": [np.zeros(3), np.ones(3)]}
    found = measure_alignment(weights, segments, inside)
    assert found == {
        "alignment": {
            "layer": pytest.approx(0.5),  # 1 with the first seed, 0 with the second
            "black": None,
            EQUAL: pytest.approx(3 / np.sqrt(5 * 3)),
        },
        "on_object": {"layer": pytest.approx(0.5), "black": None, EQUAL: pytest.approx(np.sqrt(2 / 3))},
    }
    for unknown in (None, np.zeros((2, 4), bool)):
        nothing = {"layer": None, "black": None, EQUAL: None}
        assert measure_alignment(weights, segments, unknown) == {"alignment": nothing, "on_object": nothing}


def test_alignment_is_the_weight_on_the_object_times_the_cosine_there():
    rng = np.random.default_rng(0)
    weights, share = rng.normal(size=12), np.where(np.arange(12) < 5, rng.random(12), 0)
    there = cosine(weights[:5], share[:5])
    assert cosine(weights, share) == pytest.approx(there * weight_on_object(weights, share))
    assert weight_on_object(np.array([3.0, 4, 0]), np.array([0, 0.5, 0.5])) == pytest.approx(0.8)


def test_records_of_a_linear_model(part, data, tmp_path):
    records = records_of(part, data, tmp_path / "journal.jsonl")
    a, b = records["a.png"], records["b.png"]
    assert a["n_segments"] == 4
    assert a["alignment"]["layer"] > 0.999  # class 0 is quarter 0, nothing else
    assert a["alignment"][EQUAL] == pytest.approx(0.5)
    assert a["on_object"]["layer"] > 0.999
    assert a["top"] == {"layer": [[0], [0]], "black": [[0], [0]]}
    assert set(a["deletion"]) == {"layer", "black"}
    assert a["deletion"]["layer"]["layer"] == pytest.approx((1 + 0) / 2)  # whole, and without quarter 0
    assert a["deletion"]["layer"][RANDOM] in (pytest.approx(0.5), pytest.approx(1))
    assert {*b["alignment"].values(), *b["on_object"].values()} == {None}
    assert b["top"] == a["top"]


def test_findings_of_a_linear_model(part, data):
    findings = run_part(part, data).findings
    alignment, deletion, agreements = findings.tables
    assert [(row[0], row[1].n) for row in alignment.rows] == [("layer", 1), ("black", 1), (EQUAL, 1)]
    assert [row[0] for row in deletion.rows] == ["layer", "black", RANDOM]
    assert [cell.value for cell in deletion.rows[0][1:]] == pytest.approx([0.5, 0.5])
    assert [[cell.value for cell in row[1:]] for row in agreements.rows] == [[1, 1], [1, 1]]
    assert findings.notes == ("Two random sets of 1 segments have a Jaccard index of 0.250 on average.",)


def test_what_is_undefined_is_said(session, data):
    part = LimeAlignment([NamedModel("layer", session)], SegmentChoice("given"), n_samples=20, n_top=4)
    findings = run_part(part, Dataset(data.images[1:])).findings
    assert findings.tables == ()
    assert findings.notes[0] == "No object is known: there is no alignment."
    assert findings.notes[1].startswith("1 of 1 images have no more than 4 segments")
    single = LimeAlignment([NamedModel("layer", session)], SegmentChoice("given"), n_samples=20, n_top=2, n_seeds=1)
    assert [table.name for table in run_part(single, data).findings.tables] == ["alignment", "deletion"]
    for wrong in ({"n_samples": 1}, {"n_seeds": 0}, {"n_top": 0}):
        with pytest.raises(MasktoolError, match="option out of range"):
            LimeAlignment([NamedModel("layer", session)], **wrong)


def test_records_depend_on_the_image_and_the_seed_alone(part, data, tmp_path):
    one = records_of(part, data, tmp_path / "1.jsonl")
    other = records_of(part, Dataset(data.images[::-1]), tmp_path / "2.jsonl")
    assert one == other


def test_the_command(data, tmp_path, capsys, session):
    write_region_model(tmp_path / "partial.onnx", masking="partial")
    np.save(tmp_path / "masks.npy", QUARTERS == 0)
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks" / "a.npy", QUARTERS == 0)
    arguments = [
        *("evaluate", "lime-alignment", session.path, tmp_path / "pictures", "--also", tmp_path / "partial.onnx"),
        *("--masks", tmp_path / "masks", "--segments", "grid", "--side", 8, "--top", 1, "--samples", 100),
        *("--provider", "cpu", "--threads", 1, "-o", tmp_path / "out", "--json"),
    ]
    assert run(list(map(str, arguments))) == 0
    found = json.loads(capsys.readouterr().out)
    tables = {table["name"]: table["rows"] for table in found["tables"]}
    assert [row[0] for row in tables["alignment"]] == ["layer", "partial", EQUAL]
    assert tables["alignment"][0][1]["value"] > 0.9
    assert tables["alignment"][0][1]["n"] == 1
    assert (tmp_path / "out" / "lime-alignment.json").is_file()


def alignments(folder, n_pictures, n_samples):
    """Each picture's alignment in each mode, one seed of LIME."""
    pytest.importorskip("torch")
    with contextlib.ExitStack() as stack:
        modes = open_shapes_modes(stack, folder, ("layer", "grey", "black"))
        part = LimeAlignment(modes, n_samples=n_samples, n_seeds=1, n_top=1)
        records = records_of(part, draw_dataset(folder, 555, n_pictures), folder / "journal.jsonl").values()
    return [np.array([record["alignment"][model.name] for record in records]) for model in modes]


@pytest.mark.slow
def test_layer_masking_aligns_better_than_grey_and_grey_better_than_black(tmp_path):
    """The paper's order, on a few pictures and a quarter of its 512 samples."""
    layer, grey, black = alignments(tmp_path, 16, 128)
    assert layer.mean() > grey.mean() + 0.05
    assert grey.mean() > black.mean() + 0.05


@pytest.mark.slow
def test_the_order_is_no_chance(tmp_path):
    """The paper's own settings; each picture's differences are judged."""
    layer, grey, black = alignments(tmp_path, 60, 512)
    assert interval_of_mean(layer - grey).low > 0
    assert interval_of_mean(grey - black).low > 0
