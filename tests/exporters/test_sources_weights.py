"""State dicts in their containers, architectures by name, and pickled modules, which run nothing unless trusted."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from networks.small_graphs import classifier

from masktool.errors import MasktoolError
from masktool.exporters.onnx_file import find_image_input
from masktool.exporters.settings import SourceSettings
from masktool.exporters.sources import Source, load_source, read_sources
from masktool.exporters.torch_sources.modules import load_module

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # inside torch.export
SIZE = (8, 10)
FACTORY = """
import torch

def small():
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    return torch.nn.Sequential(*layers, torch.nn.Linear(4, 5))

def fails():
    raise ValueError("no\\nweights here")

def three():
    return 3

constant = 4
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a module of factories in it."""
    (tmp_path / "own_factories.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small_state() -> dict[str, Any]:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ).state_dict()


def assert_reference_agrees(source: Source, batch: int = 3) -> None:
    image = find_image_input(source.model)
    shape = [batch, *list(image.shape)[1:]]
    images = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    proto = onnx_ir.to_proto(source.model).SerializeToString()
    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])
    step = image.shape[0] if isinstance(image.shape[0], int) else batch
    runs = [session.run(None, {image.name: images[i : i + step]}) for i in range(0, batch, step)]
    for found, expected in zip(map(np.concatenate, zip(*runs, strict=True)), source.reference(images), strict=True):
        assert expected.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


# State dicts


def nested(state: dict[str, Any]) -> dict[str, Any]:
    return {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}


CONTAINERS = {
    "plain": lambda state: state,
    "nested, DataParallel": nested,
    "compiled": lambda state: {"model": {f"_orig_mod.module.{key}": value for key, value in state.items()}},
    "no counters": lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("contain", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("new_format", [True, False])
def test_state_dicts_in_their_containers(folder: Path, contain: Callable[..., Any], new_format: bool):
    from masktool.exporters.source_kinds import detect_kind
    from masktool.exporters.torch_sources.weights import build_with_weights, load_torch_file

    path = folder / "weights.th"
    state = small_state()
    torch.save(contain(state), path, _use_new_zipfile_serialization=new_format)
    loaded = load_torch_file(path, detect_kind(path), trust_code=False)
    known, notes = build_with_weights("own_factories:small", loaded, path)
    assert notes == ()
    assert all(torch.equal(value, state[key]) for key, value in known.module.state_dict().items())


@pytest.mark.parametrize("arch", ["own_factories:small", "own_factories.py:small"])
def test_safetensors_with_either_form_of_factory(folder: Path, arch: str):
    from safetensors.torch import save_file

    state = small_state()
    save_file(state, folder / "weights.bin")
    source = load_source(folder / "weights.bin", arch=arch, input_size=SIZE)
    assert source.name == "weights.bin"
    assert source.preprocessing is None
    assert_reference_agrees(source)
    kernel = next(value for value in source.model.graph.initializers.values() if value.shape.rank() == 4)
    np.testing.assert_array_equal(kernel.const_value.numpy().shape, state["0.weight"].shape)


def test_an_architecture_is_of_a_state_dict_alone(folder: Path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    torch.save(network, folder / "module.pt")
    for model in (network, "timm:resnet18", "module.pt"):
        with pytest.raises(MasktoolError, match=r"says itself what its architecture is .*; leave that out"):
            load_source(model, arch="own_factories:small", input_size=SIZE, trust_code=True)


def test_one_architecture_for_two_models_is_of_the_one_that_is_weights(folder: Path):
    torch.save(small_state(), folder / "weights.pt")
    onnx.save(classifier(), folder / "network.onnx")
    settings = SourceSettings("own_factories:small", (8, 8))
    found = read_sources(("weights.pt", "network.onnx"), settings)
    assert [each and each.name for each in found] == ["weights.pt", "network.onnx"]
    with pytest.raises(MasktoolError, match="says itself what its architecture is"):
        read_sources(("network.onnx", None), settings)


def test_a_state_dict_that_does_not_fit_is_told_key_by_key(folder: Path):
    state = small_state()
    state["4.weight"] = torch.zeros(6, 4)
    del state["0.bias"]
    for number in range(5):
        state[f"extra.{number}"] = torch.zeros(1)
    torch.save(state, folder / "weights.pt")
    with pytest.raises(MasktoolError) as error:
        load_source(folder / "weights.pt", arch="own_factories:small", input_size=SIZE)
    text = str(error.value)
    assert "does not fit the architecture" in text
    assert 'weights.pt, arch="own_factories:small"' in text
    assert "1 missing: 0.bias | 5 unexpected: extra.0, extra.1, extra.2, ... | 1 of another shape: " in text
    assert "4.weight (6, 4) instead of (5, 4)" in text


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (None, r"a state dict holds weights only .*add arch=torchvision:NAME, timm:NAME"),
        ("resnet18", r"not an architecture .arch.: expected auto, torchvision:NAME.*got resnet18"),
        ("nowhere_to_be_found:net", r"cannot import .arch=.nowhere_to_be_found..: ModuleNotFoundError"),
        ("missing.py:net", r"no such file .arch=.missing\.py"),
        ("own_factories:net", r"no such factory .*expected one of small, fails, three, got net"),
        ("own_factories:constant", r"no such factory .*got constant"),
        ("own_factories:fails", r"the factory fails .arch=.own_factories:fails..: no"),
        ("own_factories:three", r"the factory gives no module .*expected a torch\.nn\.Module, got int"),
    ],
)
def test_architectures_that_cannot_be_built(folder: Path, arch: str | None, message: str):
    torch.save(small_state(), folder / "weights.pt")
    with pytest.raises(MasktoolError, match=message) as error:
        load_source(folder / "weights.pt", arch=arch, input_size=SIZE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "lr": 0.1}, r"no weights in the file .*expected a state dict, got keys epoch, lr"),
        ([torch.zeros(1)], r"no weights in the file .*got list"),
        ({}, "no weights in the file .*got no keys"),
    ],
)
def test_files_without_weights(tmp_path: Path, content: object, message: str):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(MasktoolError, match=message):
        load_source(tmp_path / "weights.pt", arch="own_factories:small", input_size=SIZE)


# Pickled modules


class Marker:
    """Unpickling it leaves a mark, as a harmful file would."""

    unpickled = False

    def __setstate__(self, state: object) -> None:
        type(self).unpickled = True


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickled_module_is_refused_and_not_run(tmp_path: Path, new_format: bool):
    path = tmp_path / "model.pt"
    content = {"state_dict": small_state(), "options": Marker()}
    content["options"].text = "x"
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    Marker.unpickled = False
    with pytest.raises(MasktoolError, match=r"may run code from it .*it pickles [\w.]*\.Marker besides") as error:
        load_source(path, arch="own_factories:small", input_size=SIZE)
    assert "trust_code=True" in str(error.value)
    assert not Marker.unpickled


def test_a_trusted_module(tmp_path: Path):
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 8, 5)), tmp_path / "model.pt")
    source = load_source(tmp_path / "model.pt", input_size=SIZE, trust_code=True)
    assert source.name == "model.pt"
    assert_reference_agrees(source)


def test_a_trusted_file_that_does_not_unpickle(tmp_path: Path):
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"a": 1}, protocol=4)[:-3])
    with pytest.raises(MasktoolError, match=r"cannot unpickle .*model\.pt"):
        load_source(tmp_path / "model.pt", input_size=SIZE, trust_code=True)


# Real weights


@pytest.mark.slow
def test_the_published_cifar_resnet_keeps_its_accuracy(data_dir: Path):
    source = load_source(
        data_dir / "weights" / "cifar_resnet20.th",
        arch=f"{Path(__file__).parents[1] / 'networks' / 'cifar_resnet.py'}:resnet20",
        input_size=(32, 32),
    )
    cifar = np.load(data_dir / "cifar" / "cifar10_test_lossless.npz")
    pixels = (cifar["images"] / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    images = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    session = onnxruntime.InferenceSession(
        onnx_ir.to_proto(source.model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {"image": images})[0].argmax(axis=1)
    (expected,) = source.reference(images)
    np.testing.assert_array_equal(found, expected.argmax(axis=1))
    assert (found == cifar["labels"]).mean() == pytest.approx(0.9443, abs=5e-5)  # 322 of 341


def test_a_step_that_published_weights_expect_is_told(torchvision_models: ModuleType, tmp_path: Path):
    """No key tells transform_input; torchvision builds its own weights' network with it, and others without."""
    module = torchvision_models.googlenet(weights=None, init_weights=False, num_classes=2)
    torch.save(module.state_dict(), tmp_path / "googlenet.pt")
    notes = load_module(tmp_path / "googlenet.pt", arch="torchvision:googlenet").notes
    assert [note for note in notes if "those that torchvision publishes expect transform_input=True" in note]
    torch.save(torchvision_models.squeezenet1_1(weights=None).state_dict(), tmp_path / "squeezenet.pt")
    assert not load_module(tmp_path / "squeezenet.pt", arch="torchvision:squeezenet1_1").notes
