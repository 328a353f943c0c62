"""Real detectors on photographs: does the map of a detection point into its box, and what does it cost?

Four networks of other people find faces, each by a head of its own: NudeNet's YOLOv8n (the wheel of `nudenet` holds it;
MIT, its weights AGPL-3.0 by their metadata), UltraFace (MIT), YuNet and BlazeFace (Apache-2.0). None of the photographs
has boxes of faces, so that the networks are each other's annotators: a face counts where two of them put boxes that
overlap by .4, and the box that a map has to point into is the *other* network's. Into how large a part of the picture
a map has to point, the share of the box says, which is what chance would hit.

    pip download --no-deps nudenet && unzip nudenet-*.whl nudenet/320n.onnx
    python -m benchmarks.detectors DATA --nudenet nudenet/320n.onnx --photographs 20 --sheet faces.png
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from PIL import Image

import masktool
from masktool.contract import Preprocessing
from masktool.errors import MasktoolError
from masktool.evaluation.bootstrap import interval_of_mean
from masktool.evaluation.metrics.localisation.pointing_game import point
from masktool.explainers.detections import overlap_with
from masktool.explainers.explanation import Explanation
from masktool.explainers.marks import Box
from masktool.explainers.reading import read_scores
from masktool.explainers.subject import make_subject, read_subject
from masktool.explainers.targets.detection import Detection, Found, SettledDetection
from masktool.runtime.session import MaskedSession

SURE, AGREE = 0.5, 0.4
"""Score from which on a face counts, and overlap from which on two networks mean the same one."""
SMALLEST = 20.0
"""Pixels along the shorter side of a face: smaller ones are a few of the input's."""
FOLDERS = ("acuity227", "images", "voc")
COLUMNS = 4


@dataclasses.dataclass(frozen=True)
class FaceNetwork:
    """A network that finds faces: its file in the data, and how pixels become its input."""

    name: str
    path: Path
    preprocessing: Preprocessing

    @property
    def faces(self) -> frozenset[int]:
        """The classes that are faces; all, where there is one."""
        names = {entry.key: entry.value for entry in onnx.load(self.path).metadata_props}.get("names")
        found = ast.literal_eval(names) if names else {0: "FACE"}
        return frozenset(index for index, name in found.items() if name.startswith("FACE"))

    def open(self, folder: Path) -> MaskedSession:
        """Exports and opens the network."""
        target = folder / f"{self.name}.onnx"
        masktool.export(
            self.path,
            target,
            preprocessing=self.preprocessing,
            input_size=self.preprocessing.size if self.name == "yolov8" else None,
            class_output="none",
        )
        return masktool.load(target, "cpu", threads=1)


class Face(NamedTuple):
    """A face of a photograph: the networks that agree on it, each with its box."""

    photograph: Path
    boxes: dict[str, Found]


def list_networks(data: Path, nudenet: Path | None) -> Iterator[FaceNetwork]:
    """Yields the networks."""
    if nudenet is not None:
        yield FaceNetwork("yolov8", nudenet, Preprocessing((320, 320), "letterbox", padding=114.0))
    folder = data / "onnx"
    halved = Preprocessing((240, 320), "exact", scale=1 / 128, mean=(127 / 128,) * 3)
    yield FaceNetwork("ultraface", folder / "ultraface_rfb320.onnx", halved)
    plain = Preprocessing((320, 320), "exact", scale=1.0, channel_order="BGR")
    yield FaceNetwork("yunet", folder / "yunet_s_320.onnx", plain)
    signed = Preprocessing((128, 128), "exact", scale=1 / 127.5, mean=(1.0,) * 3, layout="NHWC")
    yield FaceNetwork("blazeface", folder / "blazeface_front_nhwc.onnx", signed)


def find_faces(session: MaskedSession, photograph: Path, classes: frozenset[int]) -> list[Found]:
    """Returns the faces that a network is sure of in a photograph."""
    subject = make_subject(read_subject(photograph), session)
    target = Detection("box:0", least_score=SURE).fit(session.output_shapes, subject.prepared.size)
    try:
        settled = target.settle(read_scores(session, subject, [target], None).whole)
    except MasktoolError:  # nothing is detected
        return []
    return [each for each in settled.found if each.label in classes and shorter_side(each.box) >= SMALLEST]


def shorter_side(box: Box) -> float:
    """Returns the length of a box's shorter side."""
    return min(box[2] - box[0], box[3] - box[1])


def choose_face(photograph: Path, found: dict[str, list[Found]]) -> Face | None:
    """Returns the face that most networks agree on, of those the largest; None where no two agree on any."""
    faces = []
    for first in itertools.chain.from_iterable(found.values()):
        same = {
            name: max(others, key=lambda each: float(overlap_with(np.array(each.box), first.box)))
            for name, others in found.items()
            if any(overlap_with(np.array(each.box), first.box) >= AGREE for each in others)
        }
        if len(same) > 1:
            faces.append(Face(photograph, same))
    return max(faces, key=lambda face: (len(face.boxes), max(map(shorter_side, boxes_of(face)))), default=None)


def boxes_of(face: Face) -> list[Box]:
    """Returns the boxes of a face."""
    return [each.box for each in face.boxes.values()]


def choose_faces(sessions: dict[str, MaskedSession], networks: list[FaceNetwork], data: Path, count: int) -> list[Face]:
    """Returns faces of so many photographs, those first that most networks agree on."""
    classes = {each.name: each.faces for each in networks}
    paths = sorted(path for folder in FOLDERS for path in (data / folder).glob("*.[jJ]*") if path.suffix != ".json")
    faces = []
    for path in paths:
        found = {name: find_faces(session, path, classes[name]) for name, session in sessions.items()}
        if face := choose_face(path, found):
            faces.append(face)
    print(f"{len(faces)} of {len(paths)} photographs have a face that two networks agree on")
    return sorted(faces, key=lambda face: (-len(face.boxes), face.photograph.name))[:count]


def judge(found: Explanation, box: Box) -> tuple[float, float, float]:
    """Returns whether the map points into a box, the share of its positive values in there, and of the picture."""
    height, width = found.image_size
    rows, columns = np.mgrid[:height, :width] + 0.5
    inside = (columns >= box[0]) & (columns <= box[2]) & (rows >= box[1]) & (rows <= box[3])
    values = np.nan_to_num(found.attributions).astype(np.float64)
    weights = values - values.min() if not found.signed else np.maximum(values, 0)
    return float(point(values, inside) or 0.0), float(weights[inside].sum() / weights.sum()), float(inside.mean())


def measure(sessions: dict[str, MaskedSession], faces: list[Face], method: str, sheet: Path | None) -> None:
    """Explains every face by every network that found it; prints the table and draws the contact sheet."""
    figures: dict[str, list[tuple[float, ...]]] = {name: [] for name in sessions}
    pictures = []
    for face in faces:
        for name, mine in face.boxes.items():
            others = {other: each for other, each in face.boxes.items() if other != name}
            judged_by = max(others, key=lambda other: others[other].score)
            x, y = (mine.box[0] + mine.box[2]) / 2, (mine.box[1] + mine.box[3]) / 2
            began = time.process_time()
            target = Detection(f"{mine.label} near {x},{y}", least_score=SURE)
            found = masktool.explain(sessions[name], str(face.photograph), method, target)
            seconds = time.process_time() - began
            assert isinstance(found.question, SettledDetection)
            figures[name].append((*judge(found, others[judged_by].box), *judge(found, mine.box)[:1], seconds))
            print(f"{face.photograph.name} {name} into {judged_by}'s: {figures[name][-1]}", flush=True)
            pictures.append(found.plot())
    for name, rows in figures.items():
        if rows:
            hit, energy, share, own, seconds = np.array(rows).T
            told = [len(rows), *map(interval_of_mean, (hit, own, energy)), f"{share.mean():.3f}"]
            print("| " + " | ".join(map(str, [name, *told, f"{np.median(seconds):.1f}"])) + " |")
    if sheet is not None:
        draw_sheet(pictures, sheet)


def draw_sheet(pictures: list[Image.Image], path: Path) -> None:
    """Writes all pictures side by side."""
    width, height = 420, 300
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    for index, picture in enumerate(pictures):
        picture.thumbnail((width - 8, height - 8))
        sheet.paste(picture, (index % COLUMNS * width, index // COLUMNS * height))
    sheet.save(path)


def main() -> None:
    """Reads the arguments, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of test data")
    parser.add_argument("--nudenet", type=Path, help="320n.onnx of the wheel of nudenet")
    parser.add_argument("--photographs", type=int, default=20)
    parser.add_argument("--method", default="rise")
    parser.add_argument("--sheet", type=Path, help="where to write the contact sheet")
    arguments = parser.parse_args()
    networks = list(list_networks(arguments.data, arguments.nudenet))
    with tempfile.TemporaryDirectory() as folder:
        sessions = {each.name: each.open(Path(folder)) for each in networks}
        faces = choose_faces(sessions, networks, arguments.data, arguments.photographs)
        print("| network | faces | points into the other's box | into its own | energy | box's share | CPU seconds |")
        measure(sessions, faces, arguments.method, arguments.sheet)


if __name__ == "__main__":
    main()
