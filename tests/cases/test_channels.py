"""How many channels an image has: what reaches the first convolution says less than running the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from masktool.cli import run
from masktool.errors import MasktoolError
from masktool.exporters.sources import load_source
from masktool.exporters.torch_export import find_channels
from masktool.runtime import load

SIDE = 32
SIZE = (SIDE, SIDE)


class Network(nn.Module):
    """A stem that may rearrange the image, one convolution and a head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(self.stem(x))).mean((2, 3)))


class Focus(Network):
    """YOLOv5's stem: four shifted quarters of the image, side by side."""

    def __init__(self) -> None:
        super().__init__(12)

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


class SpaceToDepth(Network):
    """TResNet's stem: blocks of 4 x 4 pixels become channels."""

    def __init__(self) -> None:
        super().__init__(48)

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_unshuffle(x, 4)


class Patches(Network):
    """Blocks of 2 x 2 pixels by reshaping and permuting."""

    def __init__(self) -> None:
        super().__init__(12)

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        return x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, 4 * c, h // 2, w // 2)


class Grey(Network):
    """Takes images of one channel and no other."""

    def __init__(self) -> None:
        super().__init__(1)


class Sum(Network):
    """Takes images of any number of channels."""

    def __init__(self) -> None:
        super().__init__(1)

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1, keepdim=True)


class Repeated(Network):
    """Takes grey images and makes three channels of them: its first convolution says 3."""

    def __init__(self) -> None:
        super().__init__(3)

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat(1, 3, 1, 1)


@pytest.mark.parametrize(("make", "channels"), [(Focus, 3), (SpaceToDepth, 3), (Patches, 3), (Grey, 1), (Sum, 3)])
def test_the_channels_are_those_that_the_network_runs_on(make, channels):
    assert find_channels(make().eval(), SIZE)[0] == channels


def test_where_both_run_the_note_says_which_was_taken():
    source = load_source(Sum().eval(), input_size=SIZE)
    assert source.notes == ("the model runs on images of 3 channels and of 1; 3 taken, --channels chooses",)
    assert load_source(Sum().eval(), input_size=SIZE, channels=4).notes == ()
    assert find_channels(Sum().eval(), SIZE, configured=4) == (4, ())
    assert find_channels(Grey().eval(), SIZE, configured=3) == (1, ())


@pytest.mark.parametrize("make", [Focus, SpaceToDepth, Grey])
@pytest.mark.parametrize("archive", [False, True])
def test_networks_with_such_stems_export_and_agree_with_torch(make, archive, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = make().eval()
    channels, _ = find_channels(network, SIZE)
    image = torch.rand(2, channels, SIDE, SIDE)
    words = ["-o", "out.onnx", "--masking", "fill", "--input-size", str(SIDE), str(SIDE)]
    if archive:
        torch.jit.trace(network, image).save("model.pt")
        words += ["--trust-code"]
    else:
        Path("factory.py").write_text("def build():\n    from cases_stem import network\n    return network\n")
        torch.save(network.state_dict(), "model.pt")
        monkeypatch.setitem(__import__("sys").modules, "cases_stem", type("Module", (), {"network": make()}))
        words += ["--arch", "factory.py:build"]
    assert run(["export", "model.pt", *words]) == 0
    with load("out.onnx") as session:
        found = session.run(image.numpy(), np.ones((1, 1, SIDE, SIDE), np.float32))
    (outputs,) = found.values() if isinstance(found, dict) else (found,)
    np.testing.assert_allclose(outputs, network(image).detach().numpy(), atol=1e-5)


def test_a_network_that_runs_on_neither_names_the_option(tmp_path: Path):
    with pytest.raises(MasktoolError, match="check --input-size and --channels"):
        load_source(Repeated().eval(), input_size=SIZE)
    assert load_source(Repeated().eval(), input_size=SIZE, channels=1).model.graph.inputs[0].shape[1] == 1


def test_a_graph_that_says_its_channels_takes_no_others(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.onnx.export(Grey().eval(), (torch.rand(1, 1, SIDE, SIDE),), "grey.onnx", dynamo=True, verbose=False)
    assert run(["export", "grey.onnx", "-o", "out.onnx", "--channels", "3"]) == 2
    assert "expected 1, got 3" in capsys.readouterr().err
