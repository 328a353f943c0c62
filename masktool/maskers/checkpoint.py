"""Checkpoints: a training kept in one file, written whole or not at all, from which only the same training resumes."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from masktool.errors import MasktoolError, first_line
from masktool.exporters.source_kinds import check_archive
from masktool.exporters.torch_sources.weights import check_unpickler, find_cause
from masktool.files import atomic_path
from masktool.messages import parameter
from masktool.printable import cut_text

VERSION = 1
SHOWN = 60
"""Most characters of a value that a message shows."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint's file.

    Attributes:
        identity: everything that decides the course of the training, JSON values by name.
        state: state of the training, from :meth:`masktool.maskers.training.Training.state`.
        records: record of every step so far: its figures by name.
        steps: number of steps of the whole training.
    """

    identity: Mapping[str, Any]
    state: Mapping[str, Any]
    records: list[dict[str, float]]
    steps: int

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return bool(self.state["done"] == self.steps)

    def save(self, path: Path) -> None:
        """Writes the checkpoint to a file.

        Raises:
            MasktoolError: the directory cannot be written.
        """
        with atomic_path(path) as temporary, temporary.open("wb") as stream:  # of a path torch wants a stem
            torch.save({"version": VERSION, **dataclasses.asdict(self)}, stream)


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Returns the checkpoint in a file; None where there is no file. The file may hold data only, nothing that runs.

    Raises:
        MasktoolError: the checkpoint is damaged, or another version's.
    """
    if not path.exists():
        return None
    check_unpickler(path)
    try:
        if zipfile.is_zipfile(path):
            check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content.pop("version") != VERSION:
            raise ValueError("written by another version of masktool")
        return Checkpoint(**content)
    except Exception as error:  # unpickling raises whatever damaged bytes lead it to
        unread = isinstance(error, pickle.UnpicklingError)
        reason = find_cause(str(error)) if unread else first_line(error)
        fix = "delete it, and train from the start"
        raise MasktoolError("cannot read the checkpoint", where=path, got=reason, fix=fix) from error


def check_identity(saved: Mapping[str, Any], current: Mapping[str, Any], path: Path) -> None:
    """Raises MasktoolError where a checkpoint belongs to another training; the message says how the two differ."""
    names = [name for name in {**saved, **current} if saved.get(name) != current.get(name)]
    if names:
        raise MasktoolError(
            "the checkpoint is another training's",
            where=path,
            expected=", ".join(f"{name} {cut_text(str(saved.get(name)), SHOWN)}" for name in names),
            got=", ".join(f"{name} {cut_text(str(current.get(name)), SHOWN)}" for name in names),
            fix="give the settings of that training, or leave "
            + parameter("resume")
            + " out and choose another "
            + parameter("checkpoint"),
        )


def digest_weights(module: nn.Module) -> str:
    """Returns the SHA-256 of a module's weights and buffers, names included."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
