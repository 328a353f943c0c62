"""A run: image by image, with records that outlive it, and with whatever cannot be used reported."""

import contextlib
import dataclasses
import json
import tracemalloc

import pytest
from explainers.models import noise_photograph, write_region_model
from PIL import Image

from masktool import MasktoolError, load
from masktool.datasets.dataset import Dataset, DatasetImage, Problem
from masktool.evaluation.bootstrap import interval_of_mean
from masktool.evaluation.findings import Findings, Table
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.part import Part
from masktool.evaluation.running import run_part
from masktool.explainers.subject import make_subject, read_subject
from masktool.journal import Journal

SETTINGS = {"seed": 0, "models": [{"name": "layer"}]}
RECORDS = {"a.png": {"x": [0.5, None]}, "b.png": {"x": []}, "ü/c.png": {"x": "word\nword"}}


@pytest.fixture
def journal_bytes(tmp_path):
    """What a journal of three records looks like."""
    write_journal(tmp_path / "whole.jsonl")
    return (tmp_path / "whole.jsonl").read_bytes()


def write_journal(path, settings=SETTINGS):
    with Journal(path, settings) as journal:
        for name, record in RECORDS.items():
            if journal.find(name, "digest") is None:
                journal.add(name, "digest", record)


def read_journal(path, settings=SETTINGS):
    with Journal(path, settings) as journal:
        return {name: journal.read(name) for name in journal.entries}


def test_a_journal_cut_at_any_byte_gives_its_whole_records_and_goes_on_to_the_same_bytes(journal_bytes, tmp_path):
    path = tmp_path / "cut.jsonl"
    header = journal_bytes.index(b"\n") + 1
    for length in range(len(journal_bytes) + 1):
        path.write_bytes(journal_bytes[:length])
        n_whole = max(journal_bytes[:length].count(b"\n") - 1, 0)
        assert (length >= header) or n_whole == 0
        assert read_journal(path) == dict(list(RECORDS.items())[:n_whole])
        write_journal(path)
        assert path.read_bytes() == journal_bytes


def test_records_are_in_the_file_before_the_next_image(tmp_path):
    with Journal(tmp_path / "j.jsonl", SETTINGS) as journal:
        for number, (name, record) in enumerate(RECORDS.items()):
            journal.add(name, "digest", record)
            assert (tmp_path / "j.jsonl").read_bytes().count(b"\n") == number + 2


def test_records_of_other_settings_are_dropped(journal_bytes, tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(journal_bytes)
    with Journal(path, SETTINGS | {"seed": 1, "new": None}) as journal:
        assert journal.entries == {}
        assert journal.changed == ("seed",)
    path.write_bytes(journal_bytes)
    with Journal(path, json.loads(json.dumps(SETTINGS))) as journal:
        assert list(journal.entries) == list(RECORDS)
        assert journal.changed == ()


def test_the_last_record_of_an_image_counts(tmp_path):
    for number in range(2):
        with Journal(tmp_path / "j.jsonl", SETTINGS) as journal:
            journal.add("a.png", "old", {"x": number})
            journal.add("b.png", "digest", {})
            journal.add("a.png", "new", {"x": number + 5})
            assert journal.read("a.png") == {"x": number + 5}
            assert list(journal.entries) == ["b.png", "a.png"]
            assert journal.find("a.png", "old") is None


def test_records_that_were_read_stay_out_of_memory(tmp_path):
    content = "x" * 1_000_000
    with Journal(tmp_path / "j.jsonl", SETTINGS) as journal:
        for number in range(30):
            journal.add(f"{number}.png", "digest", {"x": content})
    tracemalloc.start()
    try:
        with Journal(tmp_path / "j.jsonl", SETTINGS) as journal:
            assert all(len(journal.read(name)["x"]) == len(content) for name in journal.entries)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_records_of_an_image_that_changed_are_not_used(journal_bytes, tmp_path):
    (tmp_path / "j.jsonl").write_bytes(journal_bytes)
    with Journal(tmp_path / "j.jsonl", SETTINGS) as journal:
        assert journal.find("b.png", "digest") == RECORDS["b.png"]
        assert journal.find("b.png", "other") is None
        assert journal.find("none.png", "digest") is None


def test_a_record_is_the_same_at_once_and_from_the_file(tmp_path):
    with Journal(None, SETTINGS) as journal:
        assert journal.add("a", "digest", {"x": (1, 2), "y": {3: 4}}) == {"x": [1, 2], "y": {"3": 4}}
        with pytest.raises(ValueError, match="not JSON compliant"):
            journal.add("b", "digest", {"x": float("nan")})
        assert list(journal.entries) == ["a"]


def test_a_journal_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MasktoolError, match="cannot write"), Journal(tmp_path / "file" / "j.jsonl", SETTINGS):
        pass
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(MasktoolError, match="the output is a directory"), Journal(tmp_path / "folder.jsonl", SETTINGS):
        pass


@pytest.fixture
def session(tmp_path):
    with load(write_region_model(tmp_path / "model.onnx"), "cpu") as session:
        yield session


def write_photograph(path, size=(50, 100), seed=0):
    Image.fromarray(noise_photograph(size, seed)).save(path)
    return path


class Brightness(Part):
    """Measures the mean of the input; the test looks at what was asked for."""

    name = "brightness"
    title = "Brightness"

    def __init__(self, *models, options=()):
        self.models_, self.options, self.seen, self.stop_at = models, dict(options), [], None

    @property
    def models(self):
        return self.models_

    def settings(self):
        return self.options

    def measure(self, scene):
        if len(self.seen) == self.stop_at:
            raise KeyboardInterrupt
        self.seen.append(scene.known.name)
        return {"mean": float(scene.array.mean())}

    def summarise(self, records):
        mean = interval_of_mean([record["mean"] for record in records.values()])
        return Findings((Table("t", "c", ("n", "mean"), ((", ".join(records), mean),)),))


@pytest.fixture
def dataset(tmp_path):
    """Four images, of which the second does not open."""
    samples = [DatasetImage(f"{n}.png", write_photograph(tmp_path / f"{n}.png", seed=n)) for n in range(4)]
    (tmp_path / "1.png").write_bytes(b"no image")
    return Dataset(tuple(samples), (Problem("labels.csv", "names no image"),))


def document(evaluation):
    return {key: value for key, value in evaluation.as_json().items() if key != "timing"}


def test_a_run_measures_every_image_and_lists_what_it_could_not(session, dataset):
    part = Brightness(NamedModel("layer", session), options={"seed": 7})
    found = run_part(part, dataset)
    assert part.seen == ["0.png", "2.png", "3.png"]
    assert found.n_images == 3
    assert [problem.where for problem in found.problems] == ["labels.csv", "1.png"]
    assert "not an image" in found.problems[1].what
    assert found.settings["seed"] == 7
    assert found.settings["models"][0]["masking"] == "layer"
    assert (found.part, found.title) == ("brightness", "Brightness")
    subject = make_subject(read_subject(dataset.images[0].path), session)
    expected = interval_of_mean([subject.prepared.array.mean()]).value
    assert run_part(part, Dataset(dataset.images[:1])).findings.tables[0].rows[0][1].value == pytest.approx(expected)


@pytest.mark.parametrize("after", range(3))
def test_a_run_that_was_stopped_gives_the_same_in_the_end(session, dataset, tmp_path, after):
    model, said = NamedModel("layer", session), []
    whole = run_part(Brightness(model), dataset)
    stopped, second = Brightness(model), Brightness(model)
    stopped.stop_at = after
    with pytest.raises(KeyboardInterrupt):
        run_part(stopped, dataset, tmp_path / "j.jsonl")
    found = run_part(second, dataset, tmp_path / "j.jsonl", say=said.append)
    assert stopped.seen + second.seen == ["0.png", "2.png", "3.png"]
    assert said == ([f"resuming: {after} of 4 images are measured"] if after else [])
    assert document(found) == document(whole)


def test_images_of_an_earlier_run_that_are_not_asked_for_do_not_count(session, dataset, tmp_path):
    part = Brightness(NamedModel("layer", session))
    run_part(part, dataset, tmp_path / "j.jsonl")
    found = run_part(part, Dataset(dataset.images[2:]), tmp_path / "j.jsonl")
    assert found.findings.tables[0].rows[0][0] == "2.png, 3.png"
    assert len(part.seen) == 3


def test_the_digest_of_the_data_is_theirs_alone(session, dataset, tmp_path):
    part = Brightness(NamedModel("layer", session))
    first = run_part(part, dataset).data_sha256
    assert run_part(part, dataset, tmp_path / "j.jsonl").data_sha256 == first
    labelled = tuple(dataclasses.replace(sample, label=0) for sample in dataset.images)
    assert run_part(part, Dataset(labelled)).data_sha256 != first


def test_progress_counts_every_image(session, dataset):
    counts = []

    @contextlib.contextmanager
    def progress(description, total):
        counts.append((description, total))
        yield lambda count, *_: counts.append(count)

    run_part(Brightness(NamedModel("layer", session)), dataset, progress=progress)
    assert counts == [("Brightness", 4), 0, 1, 1, 1, 1]


def test_no_image_that_can_be_measured(session, dataset):
    part = Brightness(NamedModel("layer", session))
    with pytest.raises(MasktoolError, match=r"no image could be measured \(1 images\): 1\.png: not an image"):
        run_part(part, Dataset(dataset.images[1:2]))
    with pytest.raises(MasktoolError, match="there are none"):
        run_part(part, Dataset(()))


def test_models_of_different_networks_are_refused(session, dataset, tmp_path):
    path = write_region_model(tmp_path / "other.onnx", source="other.onnx", source_sha256="1" * 64)
    with load(path, "cpu") as other, pytest.raises(MasktoolError, match="different networks"):
        run_part(Brightness(NamedModel("layer", session), NamedModel("black", other)), dataset)
