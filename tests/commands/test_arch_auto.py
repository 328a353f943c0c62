"""``--arch auto`` and the refusal without ``--arch``, as the commands show them."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from masktool.cli import run
from masktool.exporters.torch_sources import hub_search
from masktool.interface import kept_exports
from masktool.interface.models import find_model
from masktool.interface.options import ModelChoice

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # inside torch.export
SIZE = ("--input-size", "64", "64")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torchvision_models: ModuleType) -> Path:
    """The current directory, with the weights of a SqueezeNet in it, which are looked for among a few networks."""
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    torch.save(torchvision_models.squeezenet1_1(num_classes=6).state_dict(), tmp_path / "weights.pt")
    whole = hub_search.list_networks
    monkeypatch.setattr(
        hub_search, "list_networks", lambda *hub: [name for name in whole(*hub) if name.startswith(("squeeze", "vgg"))]
    )
    return tmp_path


def test_export_without_arch_ends_in_the_word_that_is_missing(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["export", "weights.pt"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "got the keys and shapes of torchvision:squeezenet1_1" in err
    assert err.endswith("; add --arch torchvision:squeezenet1_1\n")


def test_export_takes_the_recognised_architecture_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["export", "weights.pt", "--arch", "auto", *SIZE, "--json"]) == 0
    out, err = capsys.readouterr()
    notes = json.loads(out)["notes"]
    assert notes[0] == "architecture recognised from keys and shapes: torchvision:squeezenet1_1"
    assert notes[1] == "torchvision:squeezenet1_1 built with num_classes=6, as the weights want it"
    assert f"note: {notes[0]}" in err


@pytest.mark.slow
def test_an_export_of_a_recognised_architecture_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch):
    choice, said = ModelChoice("weights.pt", arch="auto", input_size=(64, 64)), []
    kept = find_model(choice, said.append)
    again = find_model(choice, said.append)
    assert kept == again
    assert said[0] == f"model: weights.pt is not masked; exporting it to {kept}"
    assert said[1] == f"model: weights.pt is not masked; using its export {kept}"
    monkeypatch.setattr(kept_exports, "package_versions", lambda names: dict.fromkeys(names, "another"))
    assert find_model(choice, said.append) != kept


@pytest.mark.slow
def test_training_takes_the_recognised_architecture(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["train-masker", "weights.pt", "--arch", "auto", "--data", "nowhere"]) == 2
    err = capsys.readouterr().err
    assert "nowhere" in err
    assert "arch" not in err
