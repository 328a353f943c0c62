"""What Ultralytics' exporters write beside the graph: names become labels, the task tells the kind of head."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks.small_graphs import parse
from PIL import Image

import masktool
from masktool import MasktoolError
from masktool.cli import run
from masktool.exporters.result import Export
from masktool.exporters.said import SaidByFile, read_said
from masktool.limits import limits

NAMES = "{0: 'person', 1: \"driver's seat\", 2: 'n\\u00fc'}"
READ = ("person", "driver's seat", "n\u00fc")
DETECTOR = """
<ir_version: 10, opset_import: ["" : 20]>
main_graph (float[N, 3, 32, 32] images) => (float[N, 7, 16] output0)
<float[7, 3, 8, 8] kernel, int64[3] shape>
{
    a = Conv<strides = [8, 8]>(images, kernel) rows = Reshape(a, shape) sizes = Constant<value_ints = [4, 3]>()
    given, raw = Split<axis = 1>(rows, sizes) boxes = Abs(given) scores = Sigmoid(raw)
    output0 = Concat<axis = 1>(boxes, scores)
}
"""
CLASSIFIER = """
<ir_version: 10, opset_import: ["" : 20]>
main_graph (float[N, 3, 8, 8] images) => (float[N, 3] output0)
<float[3, 3, 3, 3] kernel>
{
    a = Conv(images, kernel) b = GlobalAveragePool(a) c = Flatten(b) output0 = Softmax(c)
}
"""


def save(path: Path, text: str, **said: str) -> Path:
    """Writes a network with what an exporter says of it beside the graph."""
    random = np.random.default_rng(3)
    kernel = random.normal(0, 0.5, (7, 3, 8, 8) if text == DETECTOR else (3, 3, 3, 3)).astype(np.float32)
    shape = {"shape": np.array([0, 7, -1])} if text == DETECTOR else {}
    model = parse(text, kernel=kernel, **shape)
    for key, value in said.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector as exported by Ultralytics' exporter, masked, and a photograph."""
    folder = tmp_path_factory.mktemp("said")
    path = save(folder / "yolo.onnx", DETECTOR, names=NAMES, task="detect", author="Ultralytics", stride="32")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(np.uint8)).save(folder / "photo.png")
    masktool.export(path, folder / "masked.onnx", preprocessing="yolo")
    return folder


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (NAMES, READ),
        ("['a', 'b']", ("a", "b")),
        ("('a', 'b')", ("a", "b")),
        ("{1: 'b', 0: 'a'}", ("a", "b")),
        ("{0: '\\d'}", ("\\d",)),
    ],
)
def test_names_are_read_as_python_shows_them(text: str, labels: tuple[str, ...]):
    assert read_said({"names": text, "task": "segment", "args": "{'nms': True}"}) == SaidByFile(labels, "segment")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no literal"),
        ("{0: 'a'", "is no literal"),
        ("__import__('os').getcwd()", "is no literal"),
        ("{[]: 'a'}", "is no literal"),
        ("[" * 5000, "is no literal"),
        ("-" * 200_000 + "1", "is no literal"),
        ("7", "no names by number"),
        ("'abc'", "no names by number"),
        ("{}", "no names by number"),
        ("[]", "no names by number"),
        ("{1: 'a', 2: 'b'}", "no name for class 0"),
        ("{'0': 'a'}", "no name for class 0"),
        ("{0: 'a', 1: 2}", "no name for class 1"),
        ("['a', ' ']", "no name for class 1"),
    ],
)
def test_what_is_no_list_of_names_is_a_problem_and_no_error(text: str, problem: str):
    said = read_said({"names": text, "task": "image-classification"})
    assert (said.labels, said.task) == (None, None)
    assert said.problem is not None
    assert problem in said.problem
    assert len(said.problem) < 300


def test_a_text_beyond_the_limit_is_not_read():
    with limits(text=20):
        assert read_said({"names": NAMES}).problem == f"{len(NAMES)} characters, more than 20"


def test_nothing_is_said_by_other_files():
    assert read_said({"producer": "x"}) == SaidByFile()


def test_an_exported_detector_has_the_labels_and_the_task(folder: Path, capsys: pytest.CaptureFixture[str]):
    with masktool.load(folder / "masked.onnx", "cpu") as session:
        metadata = session.metadata
    assert (metadata.labels, metadata.task, metadata.class_output) == (READ, "detect", None)
    assert run(["info", str(folder / "masked.onnx")]) == 0
    shown = capsys.readouterr().out
    assert "task          detect, as the source's metadata say" in shown
    assert "labels        3: person, driver's seat, n\u00fc" in shown


def test_the_task_tells_the_kind_of_a_head_whose_shapes_leave_doubt(folder: Path):
    found = masktool.explain(
        folder / "masked.onnx", folder / "photo.png", "occlusion", "box:0", sliding_window_shapes=16, strides=16
    )
    described = found.question.describe()
    assert described["detector"] == "yolov8"
    assert described["label"] == READ[described["class"]]


def test_without_a_task_or_with_other_names_the_kind_is_asked(folder: Path):
    with masktool.load(folder / "masked.onnx", "cpu") as session:
        of_two = dataclasses.replace(session.metadata, labels=("a", "b"))
        for metadata in (dataclasses.replace(session.metadata, task=None), of_two, None):
            with pytest.raises(MasktoolError, match="which kind of detector"):
                masktool.Detection("box:0").fit(session.output_shapes, (32, 32), metadata)


def export(path: Path, **options) -> Export:
    return masktool.export(path, path.with_suffix(".masked.onnx"), preprocessing="yolo", **options)


def test_a_classifier_has_its_labels_and_a_note_says_where_from(tmp_path: Path):
    exported = export(save(tmp_path / "a.onnx", CLASSIFIER, names=NAMES, task="classify"))
    assert exported.metadata.labels == READ
    assert exported.metadata.class_output == "output0"
    assert "3 labels for 3 columns" in exported.metadata.output_evidence
    assert "labels as the source's own metadata have them ('names')" in exported.notes
    own = export(tmp_path / "a.onnx", labels=["a", "b", "c"])
    assert own.metadata.labels == ("a", "b", "c")
    assert not any("names" in note for note in own.notes)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        ("{0: 'a', 1: 'b'}", "2 'names', and the class output has another number: no labels taken"),
        ("{0: 'a', 1:", "the 'names' in the source's metadata are not taken as labels: \"{0: 'a', 1:\" is no literal"),
    ],
)
def test_names_that_are_not_those_of_the_classes_are_not_taken_and_a_note_says_so(tmp_path, names: str, note: str):
    exported = export(save(tmp_path / "a.onnx", CLASSIFIER, names=names))
    assert exported.metadata.labels is None
    assert [each for each in exported.notes if "'names'" in each] == [each for each in exported.notes if note in each]
    assert len([each for each in exported.notes if note in each]) == 1


def test_a_file_that_masktool_wrote_is_not_asked_again(tmp_path: Path):
    own = export(save(tmp_path / "a.onnx", CLASSIFIER, names=NAMES), labels=["x", "y", "z"])
    again = masktool.add_gradients_to(own.path, tmp_path / "gradients.onnx")
    assert again.metadata.labels == ("x", "y", "z")
    assert not any("names" in note for note in again.notes)
