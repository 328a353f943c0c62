"""The folder that an image of masktool's own server is built from: a Dockerfile, the model, and what else goes in."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path
from string import Template

from masktool.contract import Metadata, __version__
from masktool.deployment.triton_repository import copy_model
from masktool.errors import MasktoolError
from masktool.exported_files import find_head_file
from masktool.files import atomic_directory
from masktool.messages import parameter

TEMPLATES = Path(__file__).parent / "templates"
PORT = 8080
HEALTH_PATH = "/v2/health/ready"
DOCKERFILE, IGNORED, CONSTRAINTS = "Dockerfile", ".dockerignore", "constraints.txt"
MODEL_FOLDER, WHEELS_FOLDER = "model", "wheels"
WHEELS_TEXT = "A wheel of masktool goes here, unless the package index that the image is built from has this version.\n"
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)([^;]*)(;.*)?$")
EXTRA = "serve"


@dataclasses.dataclass(frozen=True)
class Pins:
    """Versions of the packages that a server needs.

    Attributes:
        lines: a line for each package that is installed here: its name and version.
        missing: names of those that are not installed here, whose versions stay open.
    """

    lines: tuple[str, ...]
    missing: tuple[str, ...]


def write_image_folder(folder: Path, name: str, source: Path, metadata: Metadata, *, overwrite: bool) -> Pins:
    """Writes the folder that an image is built from, and returns the versions that it is pinned to.

    Args:
        folder: folder to write.
        name: name that the model is served under.
        source: exported file.
        metadata: what the file says about itself.
        overwrite: whether a folder that holds such an image is replaced.

    Raises:
        MasktoolError: there is such a folder and it is not to be replaced, or it cannot be written.
    """
    check_image_folder(folder, overwrite=overwrite)
    pins = find_pins()
    with atomic_directory(folder, replace=overwrite) as made:
        for each in (MODEL_FOLDER, WHEELS_FOLDER):
            (made / each).mkdir()
        copy_whole_model(source, metadata, made / MODEL_FOLDER / f"{name}.onnx")
        (made / WHEELS_FOLDER / "README.txt").write_text(WHEELS_TEXT, encoding="utf-8")
        (made / CONSTRAINTS).write_text("".join(line + "\n" for line in pins.lines), encoding="utf-8")
        values = {"version": __version__, "port": PORT, "health": HEALTH_PATH, "name": name}
        for each in (DOCKERFILE, IGNORED):
            text = Template((TEMPLATES / each.removeprefix(".")).read_text(encoding="utf-8")).substitute(values)
            (made / each).write_text(text, encoding="utf-8", newline="\n")
    return pins


def check_image_folder(folder: Path, *, overwrite: bool) -> None:
    """Raises a MasktoolError where a folder is there that is not to be replaced, or that holds something else."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not overwrite:
        raise MasktoolError(
            "there is a folder of this name already",
            where=folder,
            fix="choose another, or replace it with " + parameter("overwrite", True),
        )
    if not all((folder / each).exists() for each in (DOCKERFILE, IGNORED, MODEL_FOLDER, WHEELS_FOLDER)):
        raise MasktoolError("what is there holds no image of a server", where=folder, fix="choose another folder")


def copy_whole_model(source: Path, metadata: Metadata, target: Path) -> None:
    """Copies an exported file with its weights, and with its head where it has one, which keeps its name."""
    copy_model(source, target)
    if metadata.head is None:
        return
    head = find_head_file(source, metadata)
    if target.name == head.name:
        raise MasktoolError(
            "the file's head has the name that the model gets",
            where=head,
            fix="give another with " + parameter("model_name"),
        )
    copy_model(head, target.parent / head.name)


def find_pins() -> Pins:
    """Returns the versions, as installed here, of all packages that masktool's server needs."""
    waiting, found = [("masktool", EXTRA)], {"masktool": ""}
    while waiting:
        for name in list_requirements(*waiting.pop()):
            if name not in found:
                found[name] = read_installed_version(name) or ""
                waiting.append((name, ""))
    del found["masktool"]
    pinned = tuple(f"{name}=={version}" for name, version in sorted(found.items()) if version)
    return Pins(pinned, tuple(sorted(name for name, version in found.items() if not version)))


def list_requirements(name: str, extra: str) -> Iterator[str]:
    """Yields the normalised names of the packages that a package needs, on whichever system.

    Args:
        name: name of the package.
        extra: extra of it that is wanted; empty for none.
    """
    if read_installed_version(name) is None:
        return
    for line in importlib.metadata.requires(name) or ():
        match = REQUIREMENT.match(line.replace(" ", ""))
        if match is None:
            continue
        marker = match[3] or ""
        asked = re.search(r"extra==[\"']([^\"']+)", marker)
        if asked is None or asked[1] == extra:
            yield re.sub(r"[-_.]+", "-", match[1]).lower()


def read_installed_version(name: str) -> str | None:
    """Returns the version of a package that is installed; None where it is not."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
