"""Copies a ``torch.export`` archive in memory with nothing but what was checked, so that reading needs no consent.

torch's reader unpickles (weights, constants, sample inputs, two older formats), evaluates (lengths, conditions, names),
imports (keys of mappings) and opens native libraries (``data/aotinductor``), as the file says. None of that can be
switched off, so the reader is given a copy of the archive:

1. Members other than those of one program are refused by name; those that only inform are left out.
2. The program goes through :mod:`masktool.exporters.torch_sources.pt2_program`, which rebuilds it from what it knows.
3. Weights and constants are raw numbers, by the archive's own tables, and lie within their member.
4. Sample inputs are a pickle, always. The copy gets an image of zeros of the same shape instead, because torch checks
   inputs against the conditions only where there is one.

The copy is made from the bytes that were checked: another reader of zip or of JSON finds nothing else in it.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from masktool.errors import MasktoolError
from masktool.exporters.torch_sources.pt2_grammar import (
    UnknownFormError,
    flag,
    module_path,
    record,
    shown_form,
    table,
    text,
)
from masktool.exporters.torch_sources.pt2_program import FIXED_SIZE, check_program, image_sizes, tensor_form
from masktool.exporters.trust import refuse_code
from masktool.limits import check_limit
from masktool.messages import parameter

PROGRAM = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"
FORMAT = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
"""The content of members whose content is fixed."""
CONTAINER = {".data/version": b"6\n"}
"""torch's version of the zip, without which its reader takes none."""
LEFT_OUT = re.compile(r"\.data/.*|version|\.format_version|extra/.*|" + re.escape(SAMPLES))
"""Members that torch needs no more, or that only inform."""
LIBRARIES = "data/aotinductor/"
OLD_PROGRAM = "serialized_exported_program.json"
PAYLOAD_FOLDERS: Mapping[str, str] = {"weight": "data/weights/", "constant": "data/constants/"}
PAYLOAD = re.compile(r"(data/weights/weight|data/constants/tensor)_\d+")
OBJECT = re.compile(r"data/constants/(custom|opaque)_obj_\d+")
PAYLOAD_FORM = record(
    {
        "path_name": text(r"(weight|tensor)_\d+"),
        "is_param": flag,
        "use_pickle": flag,
        "tensor_meta": tensor_form(FIXED_SIZE),
    }
)
TABLE_FORM = record({"config": table(module_path, PAYLOAD_FORM)})
ITEM_SIZES: Mapping[int, int] = {
    **dict.fromkeys((1, 2, 12, 29, 30, 31, 32, 33), 1),
    **dict.fromkeys((3, 6, 13, 28), 2),
    **dict.fromkeys((4, 7, 9, 34), 4),
    **dict.fromkeys((5, 8, 10, 35), 8),
    11: 16,
}
"""Bytes of an element, by torch's number of its type (ScalarType in torch's schema)."""
FIX = "save the state dict instead and give " + parameter("arch") + ", or export the network to .onnx"


def copy_archive(path: Path) -> io.BytesIO:
    """Returns an archive with the same program and weights, in which nothing runs when torch reads it.

    Raises:
        MasktoolError: the file is damaged, or holds what cannot be checked to be free of code.
    """
    copy = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
            names = list_members(source)
            program = check_program(read_member(source, names[PROGRAM]), PROGRAM)
            write(target, PROGRAM, json.dumps(program).encode())
            write(target, SAMPLES, make_samples(image_sizes(program)))
            for name, content in {**FORMAT, **CONTAINER}.items():
                write(target, name, content)
            for kind, folder in PAYLOAD_FOLDERS.items():
                copy_payloads(source, target, names, f"{folder}model_{kind}s_config.json", folder)
    except UnknownFormError as error:
        raise refuse_code(path, str(error), otherwise=FIX) from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError, RecursionError) as error:
        raise MasktoolError(
            "truncated or damaged archive", where=path, got=error, fix="copy or download the file again"
        ) from error
    copy.seek(0)
    return copy


def list_members(source: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Returns the members of the program, by their names below the archive's folder.

    Raises:
        UnknownFormError: a member is unknown, is there twice, is compressed, or means code.
    """
    entries = source.infolist()
    if any(entry.filename == OLD_PROGRAM for entry in entries):
        raise UnknownFormError("the archive is of torch 2.7 or older, whose weights and inputs are pickled")
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        folder, _, name = entry.filename.partition("/")
        if not folder or entry.filename.split("/")[0] != entries[0].filename.split("/")[0] or name in found:
            raise UnknownFormError(f"member {shown_form(entry.filename)} is none of a program's")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise UnknownFormError(f"member {shown_form(name)} is compressed, which torch's own are not")
        if name in FORMAT and source.read(entry) != FORMAT[name]:
            raise UnknownFormError(f"member {name} is {shown_form(source.read(entry))}, expected {FORMAT[name]!r}")
        check_member(name)
        found[name] = entry
    needed = (PROGRAM, *(f"{folder}model_{kind}s_config.json" for kind, folder in PAYLOAD_FOLDERS.items()))
    if missing := [name for name in needed if name not in found]:
        raise UnknownFormError(f"{missing[0]} is missing")
    return found


def check_member(name: str) -> None:
    """Raises UnknownFormError for the name of a member that means code, or that no program has."""
    if name.startswith(LIBRARIES):
        raise UnknownFormError(f"{shown_form(name)} is part of a compiled library, which runs as soon as it is opened")
    if name in (f"{folder}model.pt" for folder in PAYLOAD_FOLDERS.values()):
        raise UnknownFormError(f"{name} is pickled, as torch 2.8 and older wrote it")
    if OBJECT.fullmatch(name):
        raise UnknownFormError(f"{name} is an object, which is pickled")
    tables = (f"{folder}model_{kind}s_config.json" for kind, folder in PAYLOAD_FOLDERS.items())
    plain = name == PROGRAM or name in FORMAT or name in tables or PAYLOAD.fullmatch(name) or LEFT_OUT.fullmatch(name)
    if not plain:
        raise UnknownFormError(f"member {shown_form(name)} is none of a program's")


def read_member(source: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    """Returns a member of an archive as JSON values.

    Raises:
        MasktoolError: the member is longer than the limit.
        ValueError: the member is no JSON.
    """
    check_limit("program", entry.file_size, where=entry.filename)
    return json.loads(source.read(entry).decode())


def make_samples(sizes: list[int] | None) -> bytes:
    """Returns sample inputs in torch's file format: an image of zeros, or none where ``sizes`` is None."""
    import torch

    if sizes is None:
        return b""
    stream = io.BytesIO()
    torch.save(((torch.zeros(()).expand(sizes),), {}), stream)  # one number on disk, whatever the sizes
    return stream.getvalue()


def copy_payloads(
    source: zipfile.ZipFile, target: zipfile.ZipFile, names: Mapping[str, zipfile.ZipInfo], listing: str, folder: str
) -> None:
    """Copies weights or constants, which a table in the archive describes.

    Raises:
        UnknownFormError: a weight or constant is no raw tensor, or reaches beyond its bytes.
    """
    content = read_member(source, names[listing])
    refuse_pickles(content, listing)
    config = TABLE_FORM(content, listing)
    write(target, listing, json.dumps(config).encode())
    copied: set[str] = set()
    for name, payload in config["config"].items():
        member = folder + payload["path_name"]
        if member not in names:
            raise UnknownFormError(f"{listing}, {name}: {member} is missing")
        check_within_bytes(payload["tensor_meta"], names[member].file_size, f"{listing}, {name}")
        if member not in copied:
            copied.add(member)
            write(target, member, source.read(names[member]))


def refuse_pickles(content: Any, listing: str) -> None:
    """Raises UnknownFormError, with the reason, for payloads that are pickled: before anything else is said of them."""
    config = content.get("config") if isinstance(content, dict) else None
    for name, payload in config.items() if isinstance(config, dict) else ():
        kind = payload.get("path_name") if isinstance(payload, dict) else None
        if isinstance(payload, dict) and (payload.get("use_pickle") is not False or "obj" in str(kind)):
            raise UnknownFormError(f"{listing}: {shown_form(name)} is pickled ({shown_form(kind)})")


def check_within_bytes(tensor: Mapping[str, Any], size: int, place: str) -> None:
    """Raises UnknownFormError for a tensor that reaches beyond its bytes: torch would allocate what it states."""
    shape = [each["as_int"] for each in tensor["sizes"]]
    strides = [each["as_int"] for each in tensor["strides"]]
    item = ITEM_SIZES.get(tensor["dtype"])
    if item is None or len(shape) != len(strides):
        raise UnknownFormError(f"{place} is no tensor")
    reach = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    needed = 0 if math.prod(shape) == 0 else (tensor["storage_offset"]["as_int"] + reach + 1) * item
    if needed > size:
        raise UnknownFormError(f"{place} needs {needed} bytes of a member of {size}")


def write(target: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Adds a member below the folder in which torch looks."""
    target.writestr(f"archive/{name}", content)
