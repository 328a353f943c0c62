"""Files of torch: state dicts, safetensors, ``torch.export`` archives and TorchScript, none of which may run code."""

from __future__ import annotations

import functools
import io
import zipfile
from pathlib import Path

import numpy as np

from fuzz.children import Bounds
from fuzz.mutations import mutate_bytes
from fuzz.targets.target import TARGETS, Target

FACTORY = """
import torch

def build():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                               torch.nn.Flatten(), torch.nn.Linear(4, 3))
"""


@functools.cache
def parents() -> list[tuple[bytes, str]]:
    """Returns the files that mutants descend from."""
    import torch
    from safetensors.torch import save

    from masktool.demo import program_path

    torch.manual_seed(0)
    scope: dict[str, object] = {}
    exec(FACTORY, scope)
    module = scope["build"]().eval()  # type: ignore[operator]
    script, state, legacy = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.jit.save(torch.jit.trace(module, torch.zeros(1, 3, 8, 8)), script)
    torch.save(module.state_dict(), state)
    torch.save(module.state_dict(), legacy, _use_new_zipfile_serialization=False)
    return [
        (state.getvalue(), ".pt"),
        (legacy.getvalue(), ".pt"),
        (save(module.state_dict()), ".safetensors"),
        (program_path().read_bytes(), ".pt2"),
        (script.getvalue(), ".pt"),
    ]


def draw(rng: np.random.Generator) -> tuple[bytes, str]:
    """Breaks the bytes of a file, or of one member of an archive, whose checksum is then right again."""
    content, suffix = parents()[int(rng.integers(len(parents())))]
    if zipfile.is_zipfile(io.BytesIO(content)) and rng.random() < 0.7:
        return mutate_member(content, rng), suffix
    return mutate_bytes(content, rng), suffix


def mutate_member(content: bytes, rng: np.random.Generator) -> bytes:
    """Returns an archive with one member broken, removed, renamed or repeated."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(stream, "w") as target:
        members = source.infolist()
        chosen, fault = int(rng.integers(len(members))), int(rng.integers(6))
        for index, member in enumerate(members):
            data, name = source.read(member), member.filename
            if index == chosen and fault == 0:
                continue
            if index == chosen and fault == 1:
                name = "../" + name
            data = mutate_bytes(data, rng) if index == chosen and fault > 1 else data
            target.writestr(name, data)
    return stream.getvalue()


def run(path: Path, option: int) -> str:
    """Exports it, as a state dict with its architecture or as it is."""
    import masktool

    factory = path.with_name("factory_of_mutants.py")
    factory.write_text(FACTORY, encoding="utf-8")
    arch = f"{factory}:build" if option % 2 or path.suffix == ".safetensors" else None
    masktool.export(path, path.with_name("masked.onnx"), arch=arch, input_size=(16, 16))
    return ""


TARGETS["checkpoints"] = Target(draw, run, Bounds(seconds=60, megabytes=6000))
