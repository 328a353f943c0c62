"""Exported files of each kind, made once, and the repository that they are packaged into."""

from pathlib import Path

import pytest

import masktool

from .exports import KINDS
from .pbtxt import read_pbtxt
from .triton_backend import Backend


class Packaged:
    """A kind of file, exported and packaged when it is first asked for."""

    def __init__(self, folder):
        self.folder, self.paths, self.said = folder, {}, {}

    def export(self, kind) -> Path:
        if kind not in self.paths:
            self.paths[kind] = KINDS[kind](self.folder)
        return self.paths[kind]

    def package(self, kind, repository="repository", **options):
        """The opened model, as Triton's backend opens it."""
        name, said = f"{kind}-{'-'.join(map(str, options.values()))}".strip("-"), []
        place = self.folder / repository
        if not (place / name).exists():
            masktool.package_triton(self.export(kind), place, model_name=name, say=said.append, **options)
            self.said[name] = [str(line) for line in said]
        config = read_pbtxt((place / name / "config.pbtxt").read_text())
        return Backend(config, place / name / "1")


@pytest.fixture(scope="session")
def packaged(tmp_path_factory):
    return Packaged(tmp_path_factory.mktemp("packages"))
