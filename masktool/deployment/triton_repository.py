"""Models in a Triton model repository: a folder for each, with its configuration and a folder for each version.

A folder appears whole or not at all, so that a server that polls the repository finds no half of one.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from masktool.deployment.triton_config import LABELS_FILE, WARM_UP_FOLDER
from masktool.errors import MasktoolError
from masktool.external_weights import find_beside, list_named_files
from masktool.files import atomic_directory, writing
from masktool.messages import join, parameter

CONFIG_FILE = "config.pbtxt"
MODEL_FILE = "model.onnx"
"""Name of a model in its version's folder that the ONNX Runtime backend expects."""
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A name that serves as a folder, in a URL and in a log without being spelled otherwise."""
NO_MODEL_FILE = "versions.txt"
NO_MODEL_TEXT = "A version of an ensemble holds no file of its own; this one keeps the folder in copies and stores.\n"


@dataclasses.dataclass(frozen=True)
class TritonModel:
    """A model to write into a repository.

    Attributes:
        name: name, which is its folder's.
        config: text of its ``config.pbtxt``.
        shared: text of that part of it which all versions of the model must agree in.
        source: exported file that it serves; None for an ensemble, which has none.
        labels: names of the classes; None where there are none.
        values: contents of the files that warm-ups are fed, by name.
    """

    name: str
    config: str
    shared: str
    source: Path | None
    labels: tuple[str, ...] | None = None
    values: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    @property
    def labels_text(self) -> str | None:
        """Content of the file of labels: a line for each; None where there are none."""
        return None if self.labels is None else "".join(one_line(label) + "\n" for label in self.labels)


def one_line(label: str) -> str:
    """Returns a label without the ends of lines in it, each a space instead, and ``?`` for what UTF-8 cannot spell."""
    return re.sub(r"\r\n|[\r\n]", " ", label).encode(errors="replace").decode()


def check_model_name(name: str) -> str:
    """Returns the name of a model, or raises a MasktoolError where it cannot be that of a folder and in a URL."""
    if not MODEL_NAME.fullmatch(name):
        raise MasktoolError(
            "not a name for a served model",
            got=repr(name),
            expected="a letter or digit, then letters, digits, dots, dashes and underscores, 100 in all",
            fix="give another with " + parameter("model_name"),
        )
    return name


def check_place(repository: Path, model: TritonModel, version: int | None, *, overwrite: bool) -> None:
    """Raises a MasktoolError where a model cannot be written into a repository.

    Args:
        repository: folder of all models.
        model: model to write.
        version: number of the version; None for the first of a new model.
        overwrite: whether what is there is replaced.
    """
    folder = repository / model.name
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise MasktoolError("not a folder", where=folder, fix="choose another name with " + parameter("model_name"))
    if not (folder / CONFIG_FILE).is_file():
        raise MasktoolError(
            "what is there is no model of Triton's",
            where=folder,
            fix="choose another name with " + parameter("model_name"),
        )
    if version is None and not overwrite:
        raise MasktoolError(
            "there is a model of this name already",
            where=folder,
            fix=join(
                "",
                [
                    "add a version to it with ",
                    parameter("model_version", find_newest(folder) + 1),
                    ", replace it and all its versions with ",
                    parameter("overwrite", True),
                    ", or choose another name with ",
                    parameter("model_name"),
                ],
            ),
        )
    if version is not None and (folder / str(version)).exists() and not overwrite:
        raise MasktoolError(
            "there is this version of the model already",
            where=folder / str(version),
            fix=join(
                "",
                [
                    "add another with ",
                    parameter("model_version", find_newest(folder) + 1),
                    ", or replace it with ",
                    parameter("overwrite", True),
                ],
            ),
        )
    if version is not None:
        check_same_interface(folder, model)


def find_newest(folder: Path) -> int:
    """Returns the number of the newest version in a model's folder; 0 where there is none."""
    return max((int(entry.name) for entry in folder.iterdir() if re.fullmatch(r"[1-9][0-9]*", entry.name)), default=0)


def check_same_interface(folder: Path, model: TritonModel) -> None:
    """Raises a MasktoolError unless a model's folder is configured for the inputs and outputs of another version."""
    for name, expected in ((CONFIG_FILE, model.shared), (LABELS_FILE, model.labels_text)):
        path = folder / name
        found = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
        if expected is not None and (found is None or expected not in found):
            raise MasktoolError(
                "the versions of a model share one configuration, and this file's inputs, outputs or labels are others",
                where=path,
                expected="none" if found is None else describe_difference(expected, found),
                fix="serve it under another name with " + parameter("model_name"),
            )


def describe_difference(expected: str, found: str) -> str:
    """Returns the first line of a text that another text lacks."""
    lines = {line.strip() for line in found.splitlines()}
    return next((line.strip() for line in expected.splitlines() if line.strip() not in lines), "these in another order")


def write_model(repository: Path, model: TritonModel, version: int | None, *, overwrite: bool) -> Path:
    """Writes a model, or a version of one that is there, and returns the model's folder.

    Args:
        repository: folder of all models.
        model: model to write.
        version: number of the version; None for the first of a new model.
        overwrite: whether what is there is replaced: the version, or where none is given the whole model.

    Raises:
        MasktoolError: there is such a model or version and it is not to be replaced, or it cannot be written.
    """
    check_place(repository, model, version, overwrite=overwrite)
    folder = repository / model.name
    if version is not None and folder.exists():
        with atomic_directory(folder / str(version), replace=overwrite) as made:
            fill_version(made, model)
        return folder
    with writing(repository):
        repository.mkdir(parents=True, exist_ok=True)
        workplace = choose_workplace(repository)
    with atomic_directory(folder, beside=workplace, replace=overwrite) as made:
        (made / str(version or 1)).mkdir()
        fill_version(made / str(version or 1), model)
        (made / CONFIG_FILE).write_text(model.config, encoding="utf-8", newline="\n")
        if model.labels_text is not None:
            (made / LABELS_FILE).write_bytes(model.labels_text.encode())
        for name, content in model.values.items():
            (made / WARM_UP_FOLDER).mkdir(exist_ok=True)
            (made / WARM_UP_FOLDER / name).write_bytes(content)
    return folder


def choose_workplace(repository: Path) -> Path:
    """Returns the folder to build a model in: beside the repository, where a server looks for none, if that can be."""
    outside = repository.absolute().parent
    same_system = outside.stat().st_dev == repository.stat().st_dev
    return outside if same_system and os.access(outside, os.W_OK | os.X_OK) else repository


def fill_version(folder: Path, model: TritonModel) -> None:
    """Copies an exported file, byte for byte, and the files of weights that it names into a version's folder."""
    if model.source is None:
        (folder / NO_MODEL_FILE).write_text(NO_MODEL_TEXT, encoding="utf-8")
        return
    copy_model(model.source, folder / MODEL_FILE)


def copy_model(source: Path, target: Path) -> None:
    """Copies an exported file, and the files of weights that it names, under the names that it knows them by.

    Raises:
        MasktoolError: a file of weights is missing or lies outside the model's folder.
    """
    for location, path in list_data_files(source):
        beside = target.parent / location
        if beside == target:
            raise MasktoolError("a file of weights has the name that the model gets", where=source, got=location)
        beside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, beside)
    shutil.copyfile(source, target)


def list_data_files(source: Path) -> Iterator[tuple[str, Path]]:
    """Yields the name by which a model knows each of its files of weights, and where that file is."""
    for location in list_named_files(source):
        yield location, find_beside(source, location)
