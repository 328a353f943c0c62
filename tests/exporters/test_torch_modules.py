"""torch modules from every place that export takes them from, and what no module can be made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnx_ir
import pytest
from networks.small_graphs import classifier

import masktool
from masktool import MasktoolError, demo
from masktool.contract import SALIENCY_MAP
from masktool.exporters.sources import load_source, source_from_module
from masktool.exporters.torch_sources import hub
from masktool.exporters.torch_sources.hub import Architecture
from masktool.exporters.torch_sources.module_export import quiet
from masktool.exporters.torch_sources.modules import FROZEN_NOTE, load_module
from masktool.files import sha256_of
from masktool.interface.check import check_export

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # inside torch.export
SIZE = (8, 10)
FACTORY = """
import torch

class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
        self.drop, self.linear = torch.nn.Dropout(), torch.nn.Linear(4, 5)

    def forward(self, images):
        return self.linear(self.drop(torch.relu(self.norm(self.conv(images))).mean(dim=(2, 3))))
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A module whose class can be imported from the current directory."""
    (tmp_path / "small_factory.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    namespace: dict[str, type[nn.Module]] = {}
    exec(FACTORY, namespace)
    torch.manual_seed(0)
    return namespace["Small"]().eval()


def program(module: nn.Module, path: Path, batch: int | None = None) -> Path:
    """Saves a ``torch.export`` archive, its batch open unless it is given."""
    shapes = None if batch else ({0: torch.export.Dim("n")},)
    with quiet():
        torch.export.save(
            torch.export.export(module, (torch.randn(batch or 2, 3, *SIZE),), dynamic_shapes=shapes), path
        )
    return path


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def test_a_module_in_memory_is_itself(small: nn.Module) -> None:
    loaded = load_module(small)
    assert loaded.known.module is small
    assert (loaded.name, loaded.sha256, loaded.notes, loaded.frozen) == ("Small", None, (), False)


def test_a_state_dict_and_its_architecture(small: nn.Module) -> None:
    path = Path("weights.pt")
    torch.save(small.state_dict(), path)
    loaded = load_module(path, arch="small_factory.py:Small")
    assert (loaded.name, loaded.notes, loaded.frozen) == ("weights.pt", (), False)
    assert loaded.sha256 not in (None, sha256_of(path))  # of the factory's code too, which decides as much
    assert torch.equal(loaded.known.module.eval()(images()), small(images()))
    with pytest.raises(MasktoolError, match="a state dict holds weights only"):
        load_module(path)


def test_safetensors(small: nn.Module) -> None:
    from safetensors.torch import save_file

    save_file(small.state_dict(), "weights.safetensors")
    loaded = load_module("weights.safetensors", arch="small_factory.py:Small")
    assert torch.equal(loaded.known.module.eval()(images()), small(images()))


def test_a_pickled_module_is_trusted_first(small: nn.Module) -> None:
    from small_factory import Small  # what a pickle names must be importable

    module = Small()
    module.load_state_dict(small.state_dict())
    torch.save(module, "model.pt")
    with pytest.raises(MasktoolError, match="trust_code=True"):
        load_module("model.pt")
    loaded = load_module("model.pt", trust_code=True)
    assert loaded.name == "model.pt"
    assert torch.equal(loaded.known.module.eval()(images()), small(images()))


def test_a_hub_name(torchvision_models: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert torchvision_models is not None
    asked: list[tuple[str, bool]] = []

    def make(_: str, __: object, name: str, pretrained: bool, ___: object) -> nn.Module:
        asked.append((name, pretrained))
        return nn.Identity()

    monkeypatch.setattr(hub, "make_module", make)
    monkeypatch.setattr(hub, "describe_torchvision", lambda *_: Architecture(nn.Identity(), configuration="weights"))
    loaded = load_module("torchvision:resnet18")
    assert asked == [("resnet18", True)]
    assert (loaded.name, loaded.sha256, loaded.known.configuration) == ("torchvision:resnet18", None, "weights")


# torch.export archives


def test_a_program_comes_unflattened_and_frozen(small: nn.Module) -> None:
    path = program(small, Path("model.pt2"))
    loaded = load_module(path)
    assert (loaded.name, loaded.sha256, loaded.notes, loaded.frozen) == (
        "model.pt2",
        sha256_of(path),
        (FROZEN_NOTE,),
        True,
    )
    module = loaded.known.module
    assert {"conv", "norm", "linear"} <= {name for name, _ in module.named_modules()}
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module.training
    inputs = images().requires_grad_()
    torch.testing.assert_close(module(inputs), small(inputs))
    (found,) = torch.autograd.grad(module(inputs).sum(), inputs)  # frozen weights, but gradients pass
    (expected,) = torch.autograd.grad(small(inputs).sum(), inputs)
    torch.testing.assert_close(found, expected)


def test_the_parts_of_a_program_show_what_they_give(small: nn.Module) -> None:
    module = load_module(program(small, Path("model.pt2"))).known.module
    seen = []
    module.get_submodule("conv").register_forward_hook(lambda _, __, output: seen.append(output))
    module(images())
    torch.testing.assert_close(seen, [small.conv(images())])


def test_the_built_in_network() -> None:
    loaded = load_module(demo.program_path())
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = torch.export.load(demo.program_path()).module()(pictures)
    torch.testing.assert_close(loaded.known.module(pictures), expected)


def test_a_program_of_a_fixed_batch_is_refused(small: nn.Module) -> None:
    with pytest.raises(MasktoolError) as error:
        load_module(program(small, Path("model.pt2"), batch=1))
    assert str(error.value) == (
        "the torch.export archive has a fixed batch (model.pt2): expected any batch, got 1; "
        "export it with dynamic_shapes=({0: torch.export.Dim('batch')},)"
    )


def test_a_program_exported_in_training_mode_is_refused(small: nn.Module) -> None:
    path = program(small.train(), Path("model.pt2"))
    with pytest.raises(MasktoolError, match=r"exported in training mode .*: batch_norm, dropout; call model\.eval"):
        load_module(path)


# What is no torch module


def saved_onnx(small: nn.Module) -> object:
    onnx.save(classifier(), "plain.onnx")
    return "plain.onnx"


def saved_masked(small: nn.Module) -> object:
    onnx.save(classifier(), "plain.onnx")
    masktool.export("plain.onnx", "masked.onnx")
    return Path("masked.onnx")


def traced(small: nn.Module) -> torch.jit.ScriptModule:
    with quiet():
        return torch.jit.trace(small, images())


def saved_torchscript(small: nn.Module) -> object:
    script = traced(small)
    with quiet():
        script.save("script.pt")
    return "script.pt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (saved_onnx, "not a torch model (plain.onnx): EXPECTED, got an ONNX model; "
                     "give the torch model that it was exported from"),
        (saved_masked, "not a torch model (masked.onnx): EXPECTED, got an ONNX model; "
                       "give the torch model that it was exported from: plain.onnx"),
        (lambda _: classifier(), "not a torch model (classifier): EXPECTED, got an ONNX model; "
                                 "give the torch model that it was exported from"),
        (lambda _: onnx_ir.from_proto(classifier()), "not a torch model (classifier): EXPECTED, got an ONNX model; "
                                                     "give the torch model that it was exported from"),
        (saved_torchscript, "not a torch model (script.pt): EXPECTED, got a TorchScript archive; "
                            "save the state dict of the module that it was made from, and give arch"),
        (traced, "not a torch model: EXPECTED, got a TorchScript module; give the module that it was made from"),
        (lambda _: 3, "not a torch model: EXPECTED, got int"),
        (lambda _: "nowhere.pt", "no such model file (nowhere.pt); check the path"),
    ],
)  # fmt: skip
def test_what_is_no_torch_module_is_refused_in_one_line(
    small: nn.Module, make: Callable[[nn.Module], object], message: str
) -> None:
    with pytest.raises(MasktoolError) as error:
        load_module(make(small))
    assert str(error.value) == message.replace("EXPECTED", "expected a torch module, its weights or a hub's name")


# Another module in the place of the one that was loaded


class WithMap(nn.Module):
    """A classifier and a map from its own trunk."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, nn.Conv2d(4, 1, 1)

    def forward(self, images):
        seen = []
        hook = self.trunk.get_submodule("conv").register_forward_hook(lambda _, __, output: seen.append(output))
        scores = self.trunk(images)
        hook.remove()
        saliency = nn.functional.interpolate(torch.sigmoid(self.head(seen[0])), images.shape[2:])
        return {"logits": scores, SALIENCY_MAP: saliency}


@pytest.mark.parametrize("archived", [False, True])
def test_a_joint_module_is_exported_with_its_map(small: nn.Module, archived: bool) -> None:
    loaded = load_module(program(small, Path("model.pt2")) if archived else small)
    joint = WithMap(loaded.known.module).eval()
    known = dataclasses.replace(loaded.known, module=joint)
    source = source_from_module(dataclasses.replace(loaded, known=known), SIZE, 3)
    assert (source.name, source.sha256, source.notes) == (loaded.name, loaded.sha256, loaded.notes)
    metadata = masktool.export(
        dataclasses.replace(source, masker={"stages": ["conv"]}), "masker.onnx", masking="fill"
    ).metadata
    assert (metadata.class_output, metadata.masker) == ("logits", {"stages": ["conv"]})
    assert metadata.parity["framework"] <= 1e-5
    with masktool.load("masker.onnx") as session, torch.no_grad():
        assert session.output_names == ["logits", SALIENCY_MAP]
        found = session.run(images().numpy())
        for name, expected in joint(images()).items():
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-5)
    assert found[SALIENCY_MAP].shape == (3, 1, *SIZE)
    assert not check_export(Path("masker.onnx"), source).failed
    with pytest.raises(MasktoolError, match=r"not the file's source .*leave it out: the masking model in the file"):
        check_export(Path("masker.onnx"), load_source(small, input_size=SIZE))
