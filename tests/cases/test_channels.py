"""How many channels an image has: what reaches the first convolution says less than running the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from masktool import export
from masktool.cli import run
from masktool.errors import MasktoolError
from masktool.exporters.sources import load_source
from masktool.exporters.torch_sources.module_export import find_channels
from masktool.runtime import MaskedSession

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
    assert source.notes == ("the model runs on images of 3 channels and of 1; 3 taken, channels chooses",)
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
    with MaskedSession("out.onnx") as session:
        found = session.run(image.numpy(), np.ones((1, 1, SIDE, SIDE), np.float32))
    (outputs,) = found.values() if isinstance(found, dict) else (found,)
    np.testing.assert_allclose(outputs, network(image).detach().numpy(), atol=1e-5)


def test_a_network_that_runs_on_neither_names_the_option(tmp_path: Path):
    with pytest.raises(MasktoolError, match="check input_size and channels"):
        load_source(Repeated().eval(), input_size=SIZE)
    assert load_source(Repeated().eval(), input_size=SIZE, channels=1).model.graph.inputs[0].shape[1] == 1


def test_a_graph_that_says_its_channels_takes_no_others(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.onnx.export(Grey().eval(), (torch.rand(1, 1, SIDE, SIDE),), "grey.onnx", dynamo=True, verbose=False)
    assert run(["export", "grey.onnx", "-o", "out.onnx", "--channels", "3"]) == 2
    assert "expected 1, got 3" in capsys.readouterr().err


# ONNX models that leave their channels open

PLAIN = "c = Conv (x, w)"
BODIES: dict[str, tuple[str, tuple[int, ...]]] = {
    "convolution": (PLAIN, (8, 3, 3, 3)),
    "groups": ("c = Conv <group = 3> (x, w)", (6, 1, 3, 3)),
    "mean": ("s = Sub (x, mean) c = Conv (s, w)", (8, 3, 3, 3)),
    "normalisation": ("s = BatchNormalization (x, one, nil, nil, one) c = Conv (s, w)", (8, 3, 3, 3)),
    "last": ("s = Transpose <perm = [0, 3, 1, 2]> (x) c = Conv (s, w)", (8, 3, 3, 3)),
    "pool": ("s = MaxPool <kernel_shape = [2, 2]> (x) c = Conv (s, w)", (8, 3, 3, 3)),
}


def open_channels(kind: str, channels: int | str | None, *, shaped: bool = True) -> onnx.ModelProto:
    body, kernel = BODIES[kind]
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]> g (float[N,8,8,8] x) => (float[N,K] y) {{
        {body} r = Relu (c) p = GlobalAveragePool (r) y = Flatten (p) }}"""
    )
    random, ones = np.random.default_rng(0), np.ones(3, np.float32)
    weight = random.standard_normal(kernel).astype(np.float32)
    arrays = {"w": weight, "mean": random.random((1, 3, 1, 1)).astype(np.float32), "one": ones, "nil": 0 * ones}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    shape = model.graph.input[0].type.tensor_type.shape
    dim = shape.dim[3 if kind == "last" else 1]
    dim.Clear()
    if isinstance(channels, int):
        dim.dim_value = channels
    elif channels is not None:
        dim.dim_param = channels
    if not shaped:
        model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


def agrees(model: onnx.ModelProto, folder: Path, channels: int, *, last: bool = False) -> None:
    shape = (2, 8, 8, channels) if last else (2, channels, 8, 8)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    with MaskedSession(folder / "m.onnx") as session:
        np.testing.assert_allclose(session.run(x, np.ones((1, 1, 8, 8), np.float32))["y"], expected, atol=1e-6)


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize("channels", [None, "C"])
@pytest.mark.parametrize("kind", [kind for kind in BODIES if kind != "pool"])
def test_open_channels_are_those_of_the_first_convolution(kind: str, channels, masking, tmp_path: Path) -> None:
    model = open_channels(kind, channels)
    export(model, tmp_path / "m.onnx", masking=masking)
    agrees(model, tmp_path, 3, last=kind == "last")


def test_open_channels_that_nothing_settles_are_asked_for(tmp_path: Path) -> None:
    model = open_channels("pool", "C")
    with pytest.raises(MasktoolError, match=r"number of input channels is not fixed.*; add channels=C"):
        export(model, tmp_path / "m.onnx")
    export(load_source(model, channels=3), tmp_path / "m.onnx")
    agrees(model, tmp_path, 3)


def test_open_channels_take_what_the_user_says_where_it_can_be(tmp_path: Path) -> None:
    model = open_channels("mean", "C")  # three numbers make three channels of one
    export(load_source(model, channels=1), tmp_path / "m.onnx")
    agrees(model, tmp_path, 1)
    for kind, wrong in (("mean", 4), ("convolution", 1), ("convolution", 4)):
        with pytest.raises(MasktoolError, match=rf"its own number of channels.*expected 3, got {wrong}"):
            load_source(open_channels(kind, "C"), channels=wrong)


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize("kind", ["convolution", "pool", "last"])
def test_an_image_without_a_shape_is_of_the_one_that_the_user_says(kind: str, masking, tmp_path: Path) -> None:
    model = open_channels(kind, "C", shaped=False)
    with pytest.raises(
        MasktoolError, match=r"'x' float of unknown shape; if 'x' is the image: image_input=.x., channels=C"
    ):
        load_source(model)
    source = load_source(model, image_input="x", channels=3, input_size=(8, 8))
    export(source, tmp_path / "m.onnx", masking=masking)
    agrees(model, tmp_path, 3, last=kind == "last")
