"""Tells the kind of a model file by its content."""

from __future__ import annotations

import enum
import json
import struct
import tarfile
import zipfile
from pathlib import Path

from masktool.data_files import URL, cannot_read
from masktool.errors import MasktoolError, reported_as
from masktool.limits import check_limit
from masktool.messages import parameter

HEAD_BYTES = 512
"""Number of bytes read from the start of a file; every signature below lies within them."""
ZIP_SIGNATURE = b"PK\x03\x04"
PICKLE_PROTOCOL = b"\x80"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
TFLITE_SIGNATURE = b"TFL3"
SAFETENSORS_LENGTH = struct.Struct("<Q")
"""A safetensors file starts with the byte length of its JSON header, 64 bits, little endian."""
COPY_AGAIN = "copy or download the file again"
MODEL_KINDS = "an .onnx, .pt2, TorchScript, state dict (.pt, .pth, .th) or .safetensors file"


class FileKind(enum.Enum):
    """Kinds of model file; the value of each is its name in messages."""

    ONNX = "ONNX model"
    PT2 = "torch.export archive"
    TORCHSCRIPT = "TorchScript archive"
    TORCH_SAVE = "torch.save file"
    SAFETENSORS = "safetensors file"


HOLD_WEIGHTS_ALONE = (FileKind.TORCH_SAVE, FileKind.SAFETENSORS)
"""Kinds whose files may hold the weights of a network without the network."""


def refuse_architecture(arch: str | None, where: object) -> None:
    """Raises MasktoolError for an architecture beside a model that is a network already.

    Args:
        arch: the architecture that the user gave; None for none.
        where: the model's name.
    """
    if arch is not None:
        raise MasktoolError(
            "the model says itself what its architecture is",
            where=where,
            got=parameter("arch", arch),
            fix="leave that out: it belongs to a state dict",
        )


def detect_kind(path: Path) -> FileKind:
    """Returns the kind of a model file.

    Whatever carries no signature is taken for ONNX, which has none: a protobuf message starts with its first field.

    Raises:
        MasktoolError: the file is missing, empty, a directory, damaged, or of a kind that is not supported.
    """
    head = _read_head(path)
    with reported_as("cannot tell what kind of model file it is", where=path, fix=COPY_AGAIN):
        return _kind_of_content(path, head)


def _kind_of_content(path: Path, head: bytes) -> FileKind:
    if zipfile.is_zipfile(path):
        return _kind_of_zip(path)
    if head.startswith(ZIP_SIGNATURE):
        raise MasktoolError("truncated or damaged archive", where=path, fix=COPY_AGAIN)
    if head.startswith(PICKLE_PROTOCOL) or tarfile.is_tarfile(path):
        return FileKind.TORCH_SAVE
    if _is_safetensors(path, head):
        return FileKind.SAFETENSORS
    if head.startswith(HDF5_SIGNATURE) or head[4:8] == TFLITE_SIGNATURE:
        raise MasktoolError(
            "a Keras or TensorFlow Lite file",
            where=path,
            expected=MODEL_KINDS,
            fix="convert it with `python -m tf2onnx.convert` first",
        )
    return FileKind.ONNX


def _read_head(path: Path) -> bytes:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise MasktoolError(
            "a pipe or a device", where=path, expected=MODEL_KINDS, fix="save it as a file first: it is read twice"
        )
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except FileNotFoundError as error:
        if URL.match(str(path)):
            raise cannot_read(path, error, MODEL_KINDS) from error
        raise MasktoolError("no such model file", where=path, fix="check the path") from error
    except IsADirectoryError as error:
        raise MasktoolError("a directory", where=path, expected=MODEL_KINDS) from error
    except OSError as error:
        raise MasktoolError("cannot read the model", where=path, got=error.strerror) from error
    if not head:
        raise MasktoolError("empty model file", where=path, fix=COPY_AGAIN)
    return head


def _kind_of_zip(path: Path) -> FileKind:
    with reported_as("truncated or damaged archive", where=path, fix=COPY_AGAIN), zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    parts = [member.partition("/")[2] for member in members]
    if any(member.endswith(("models/model.json", "serialized_exported_program.json")) for member in members):
        return FileKind.PT2
    if "constants.pkl" in parts or any(part.startswith("code/") for part in parts):
        return FileKind.TORCHSCRIPT
    if "data.pkl" in parts:
        return FileKind.TORCH_SAVE
    raise MasktoolError("an archive that holds no model", where=path, expected=MODEL_KINDS)


def _is_safetensors(path: Path, head: bytes) -> bool:
    if len(head) <= SAFETENSORS_LENGTH.size or head[SAFETENSORS_LENGTH.size : SAFETENSORS_LENGTH.size + 1] != b"{":
        return False
    (length,) = SAFETENSORS_LENGTH.unpack_from(head)
    if length + SAFETENSORS_LENGTH.size > path.stat().st_size:
        raise MasktoolError("truncated safetensors file", where=path, fix=COPY_AGAIN)
    with path.open("rb") as stream:
        stream.seek(SAFETENSORS_LENGTH.size)
        try:
            return isinstance(json.loads(stream.read(length)), dict)
        except (ValueError, RecursionError):
            return False


def check_archive(path: Path) -> None:
    """Checks the checksums of a zip archive of torch's, which torch itself does not look at.

    Raises:
        MasktoolError: a member is damaged, or unpacks to more than the limit.
    """
    with reported_as("truncated or damaged archive", where=path, fix=COPY_AGAIN), zipfile.ZipFile(path) as archive:
        packed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
        check_limit("program", sum(entry.file_size for entry in packed), where=path)  # torch packs code alone
        damaged = archive.testzip()
    if damaged is not None:
        raise MasktoolError(
            "damaged archive: the checksum of a member is wrong", where=path, got=repr(damaged), fix=COPY_AGAIN
        )
