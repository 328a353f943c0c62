"""What a preset says of a torch module, and where its input's size comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from masktool.contract import DEFAULT_SIZE, Preprocessing
from masktool.demo import program_path
from masktool.errors import MasktoolError
from masktool.exporters.settings import Preset
from masktool.exporters.torch_sources.hub import Architecture
from masktool.exporters.torch_sources.modules import LoadedModule, load_module
from masktool.exporters.user_choices import module_preprocessing

IMAGENET = Preset("imagenet", None, None)


def convolution(channels: int = 3, preprocessing: Preprocessing | None = None) -> LoadedModule:
    return LoadedModule(Architecture(torch.nn.Conv2d(channels, 4, 3), preprocessing), "net")


def write_file(folder: Path, **document: object) -> Preset:
    (folder / "pre.json").write_text(json.dumps(document))
    return Preset(str(folder / "pre.json"), None, None)


def test_nothing_said_leaves_it_to_the_hub():
    assert module_preprocessing(convolution(), (32, 48), None) is None


def test_the_size_that_is_asked_for_counts_before_the_hubs():
    known = convolution(preprocessing=Preprocessing(size=(64, 64)))
    assert module_preprocessing(known, (32, 48), IMAGENET).size == (32, 48)
    assert module_preprocessing(known, None, IMAGENET).size == (64, 64)


def test_an_exported_program_knows_its_size():
    assert module_preprocessing(load_module(program_path()), None, IMAGENET).size == (64, 64)


def test_a_files_size_counts_where_nothing_else_does(tmp_path: Path):
    assert module_preprocessing(convolution(), None, write_file(tmp_path, size=[40, 30], resize_to=40)).size == (
        40,
        30,
    )
    without = write_file(tmp_path, resize_to=256)
    assert module_preprocessing(convolution(), None, without).size == DEFAULT_SIZE


def test_one_channel():
    options = Preset(None, (0.5,), (0.25,))
    found = module_preprocessing(convolution(1), (28, 28), options)
    assert (found.channel_order, found.mean, found.std) == ("L", (0.5,), (0.25,))
    with pytest.raises(MasktoolError, match="preset for colour images"):
        module_preprocessing(convolution(1), (28, 28), IMAGENET)


def test_no_size_at_all():
    with pytest.raises(MasktoolError, match="input size unknown"):
        module_preprocessing(convolution(), None, IMAGENET)
