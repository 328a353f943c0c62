"""Archives of ``torch.export`` that hold no code are read from a checked copy, which is the same program."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from masktool.errors import MasktoolError
from masktool.exporters.torch_sources.archives import load_program
from masktool.exporters.torch_sources.module_export import quiet
from masktool.exporters.torch_sources.pt2_grammar import (
    UnknownFormError,
    guard,
    identifier,
    integer_expression,
    module_path,
)
from masktool.exporters.torch_sources.pt2_operators import operator
from tests.trust.hostile import MODEL, SIDE, WEIGHTS, Members, Net, benign_members, program_of, write_members

Dim = torch.export.Dim


class Attention(nn.Module):
    """Patches, a position for each, attention, two outputs under names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.positions = nn.Parameter(torch.randn(1, 16, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens = self.patches(image).flatten(2).transpose(1, 2) + self.positions
        seen = self.norm(tokens + self.attention(tokens, tokens, tokens)[0])
        return {"out": self.head(seen.mean(1)), "aux": seen}


class Strided(nn.Module):
    """Strides and pools, whose conditions on open heights and widths torch notes in the archive."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        small = self.second(nn.functional.max_pool2d(self.first(image).relu(), 2))
        large = nn.functional.interpolate(small, size=image.shape[-2:], mode="bilinear")
        return self.head((large + self.first.weight.mean()).mean((2, 3)))


class Tied(Net):
    """Two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.twin = self.conv


OPEN = ({0: Dim("batch"), 2: Dim.AUTO, 3: Dim.AUTO},)
NETWORKS = {
    "fixed": (Net, None),
    "open batch": (Net, ({0: Dim("batch")},)),
    "bounded": (Net, ({0: Dim("batch"), 2: Dim("h", min=8, max=64)},)),
    "open": (Strided, OPEN),
    "tied": (Tied, OPEN),
    "attention": (Attention, ({0: Dim("batch")},)),
    "half": (lambda: Net().double(), None),
}


def write_network(path: Path, name: str) -> torch.Tensor:
    """Writes an archive of a network and returns images that it takes."""
    make, shapes = NETWORKS[name]
    network = make().eval()
    images = torch.rand(2, 3, SIDE, SIDE, dtype=next(network.parameters()).dtype)
    with quiet():
        torch.export.save(torch.export.export(network, (images,), dynamic_shapes=shapes), path)
    return images


@pytest.mark.parametrize("name", NETWORKS)
def test_the_checked_copy_is_the_same_program(name, tmp_path: Path):
    images = write_network(tmp_path / "net.pt2", name)
    checked, trusted = (load_program(tmp_path / "net.pt2", trust) for trust in (False, True))
    for found, expected in zip(
        torch.utils._pytree.tree_leaves(checked.module()(images)),
        torch.utils._pytree.tree_leaves(trusted.module()(images)),
        strict=True,
    ):
        assert torch.equal(found, expected)
    assert len(checked._guards_code) == len(trusted._guards_code)
    assert [node.target for node in checked.graph.nodes] == [node.target for node in trusted.graph.nodes]


def test_the_copy_keeps_the_conditions_on_the_image(tmp_path: Path):
    write_network(tmp_path / "net.pt2", "open")
    program = load_program(tmp_path / "net.pt2", trust_code=False)
    assert program._guards_code
    with pytest.raises(AssertionError, match="Guard failed"):
        program.module()(torch.rand(2, 3, 3, 3))


def test_an_archive_of_training_mode_is_read(tmp_path: Path):
    with quiet():
        program = torch.export.export(Net().train(), (torch.rand(2, 3, SIDE, SIDE),))
        torch.export.save(program, tmp_path / "net.pt2")
    load_program(tmp_path / "net.pt2", trust_code=False)


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s0', integer=True).__class__",
        "__import__('os')",
        "Symbol('s0', integer=True, cls=type)",
        "Symbol('open', integer=True)",
        "Add(Symbol('s0'), lambda: 1)",
        "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
        "Integer('9')",
        "Mul(*[1, 2])",
        "Function('f')(1)",
        "[i for i in (1, 2)]",
        "s0 if s0 else s1",
        "(" * 2000 + "1" + ")" * 2000,
        "u99999999999",
        "x",
        "1.5",
        "Add(" * 60 + "1" + ")" * 60,
        "S\u03b1",
        7,
        None,
    ],
)
def test_lengths_that_are_more_than_integer_arithmetic_are_refused(text):
    with pytest.raises(UnknownFormError):
        integer_expression(text, "here")


@pytest.mark.parametrize(
    "text", ["Mul(Integer(-2), Symbol('s0', positive=True, integer=True))", "Pow(Symbol('s0'), Integer(2))", "u0", "7"]
)
def test_lengths_that_torch_writes_are_taken(text):
    assert integer_expression(text, "here") == text


@pytest.mark.parametrize(
    "text",
    [
        "L['x'].size().__class__ != 1",
        "L['x'].numpy()[0] != 1",
        "L['x'].size(0) != 1",
        "open('x') != 1",
        "max(L['x'].size()[0], key=print) != 1",
        "L['x') or print('].size()[0] != 1",
        "9 ** 9 ** 9 != 1",
        "(x := 1) != 2",
        "x != 1",
        "'a' != 1",
    ],
)
def test_conditions_that_are_more_than_lengths_are_refused(text):
    with pytest.raises(UnknownFormError):
        guard(text, "here")


@pytest.mark.parametrize("name", ["a b", "a)", "class", "", "a\n", "ä", "a" * 1000, 3, None, ["a"]])
def test_names_that_are_no_identifiers_are_refused(name):
    with pytest.raises(UnknownFormError):
        identifier(name, "here")


@pytest.mark.parametrize("path", ["a.__class__", 'a")', "a..b", ".a", "__dict__", "a b", 3])
def test_paths_that_are_none_of_modules_are_refused(path):
    with pytest.raises(UnknownFormError):
        module_path(path, "here")


@pytest.mark.parametrize(
    "name",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.aten._index_put_impl_.default",
        "torch.ops.aten.add.overloads",
        "torch.ops.aten.add.Nothing",
        "torch.ops.aten.set_.source_Storage",
        "torch.ops.higher_order.cond",
        "torch.ops.os.system.default",
        "torch.hub.load",
        "torch.load",
        "_operator.attrgetter",
        "#evil:op",
        "math.pow",
        3,
    ],
)
def test_operators_that_reach_beyond_their_tensors_are_refused(name):
    with pytest.raises(UnknownFormError):
        operator(name, "here")


def change_first_weight(members: Members, **changes: object) -> None:
    name = f"{WEIGHTS}model_weights_config.json"
    config = json.loads(members[name])
    next(iter(config["config"].values()))["tensor_meta"] |= changes
    members[name] = json.dumps(config).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"sizes": [{"as_int": 10**12}]},
        {"storage_offset": {"as_int": 10**9}},
        {"strides": [{"as_int": 10**9}] * 4},
        {"strides": [{"as_int": -1}] * 4},
        {"strides": []},
        {"dtype": 99},
        {"layout": 1},
    ],
)
def test_weights_beyond_their_bytes_are_refused(changes, tmp_path: Path):
    members = benign_members()
    change_first_weight(members, **changes)
    write_members(tmp_path / "net.pt2", members)
    with pytest.raises(MasktoolError, match="may run code"):
        load_program(tmp_path / "net.pt2", trust_code=False)


def test_an_empty_member_does_not_allocate_what_its_table_says(tmp_path: Path):
    members = benign_members()
    change_first_weight(members, sizes=[{"as_int": 10**6}, {"as_int": 10**6}], strides=[{"as_int": 1}] * 2)
    members[f"{WEIGHTS}weight_0"] = b""
    write_members(tmp_path / "net.pt2", members)
    with pytest.raises(MasktoolError, match="bytes of a member of 0"):
        load_program(tmp_path / "net.pt2", trust_code=False)


def test_a_member_that_is_there_twice_or_unknown_is_refused(tmp_path: Path):
    members = benign_members()
    write_members(tmp_path / "net.pt2", members)
    with zipfile.ZipFile(tmp_path / "net.pt2", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(f"net/{MODEL}", b"{}")
    write_members(tmp_path / "more.pt2", {**members, "models/other.json": members[MODEL]})
    for name in ("net.pt2", "more.pt2"):
        with pytest.raises(MasktoolError, match=r"none of a program's"):
            load_program(tmp_path / name, trust_code=False)


def test_a_field_that_nobody_knows_is_refused(tmp_path: Path):
    members = benign_members()
    program = program_of(members)
    program["graph_module"]["graph"]["nodes"][0]["effect"] = "x"
    write_members(tmp_path / "net.pt2", {**members, MODEL: json.dumps(program).encode()})
    with pytest.raises(MasktoolError, match=r"nodes holds 'effect'"):
        load_program(tmp_path / "net.pt2", trust_code=False)


@pytest.mark.parametrize("seed", range(40))
def test_any_change_of_an_archive_ends_in_an_error_or_a_program(seed, tmp_path: Path):
    stream = io.BytesIO()
    random = np.random.default_rng(seed)
    members = benign_members() if seed == 0 else dict(MEMBERS or benign_members())
    MEMBERS.update(members)
    if seed % 2:  # within a member, its checksum right
        name = list(members)[random.integers(len(members))]
        content = bytearray(members[name] or b" ")
        for _ in range(3):
            content[random.integers(len(content))] = random.integers(256)
        members[name] = bytes(content)
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"net/{name}", content)
    content = bytearray(stream.getvalue())
    if not seed % 2:
        for _ in range(3):
            content[random.integers(len(content))] = random.integers(256)
    (tmp_path / "net.pt2").write_bytes(content)
    with contextlib.suppress(MasktoolError):
        load_program(tmp_path / "net.pt2", trust_code=False)


MEMBERS: Members = {}
