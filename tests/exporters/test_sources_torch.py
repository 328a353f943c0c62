"""Modules of every output form, .pt2 and TorchScript archives; and what each of them refuses."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest

import masktool
from masktool.errors import MasktoolError
from masktool.exporters.class_output import choose_class_output
from masktool.exporters.onnx_file import find_image_input
from masktool.exporters.sources import Source, load_source
from masktool.exporters.torch_sources import module_export

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # inside torch.export
SIZE = (8, 10)


class Classifier(nn.Module):
    """A small classifier whose result takes the form that a test asks for."""

    def __init__(self, form: Callable[[Any, Any], Any] | None = None, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 5)
        self.form = form

    def forward(self, images):
        features = torch.relu(self.norm(self.conv(images)))
        scores = self.linear(features.mean(dim=(2, 3)))
        return scores if self.form is None else self.form(scores, features)


Pair = collections.namedtuple("Pair", "features scores")


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


FORMS = {
    "tensor": (None, ["logits"]),
    "tuple": (lambda scores, features: (features, scores), ["output_0", "output_1"]),
    "list with a head that is off": (lambda scores, _: [None, scores], ["logits"]),
    "namedtuple": (lambda scores, features: Pair(features, scores), ["features", "scores"]),
    "mapping": (lambda scores, features: {"out": features, "aux": None, "scores": scores}, ["out", "scores"]),
}


@pytest.mark.parametrize(("form", "names"), FORMS.values(), ids=FORMS)
def test_modules_of_every_output_form(
    form: Callable[..., Any] | None, names: list[str], capfd: pytest.CaptureFixture[str]
):
    module = Classifier(form)
    source = load_source(module, input_size=SIZE)
    assert [value.name for value in source.model.graph.outputs] == names
    assert choose_class_output(source.model).name in ("logits", "output_1", "scores")
    assert (source.name, source.sha256) == ("Classifier", None)
    image = find_image_input(source.model)
    assert (image.name, list(image.shape)[1:]) == ("image", [3, *SIZE])
    assert not isinstance(image.shape[0], int)
    assert source.model.opset_imports[""] == 20
    assert_reference_agrees(source)
    assert capfd.readouterr() == ("", "")


KINDS = {
    "a map beside the scores": lambda scores, features: (scores, features.mean(1, keepdim=True).sigmoid()),
    "the map first": lambda scores, features: (features, scores),
    "no class output": lambda _, features: features,
    "an index": lambda scores, _: (scores, scores.argmax(1)),
    "decisions": lambda scores, features: (scores, features > 0),
    "a table": lambda scores, _: (scores, torch.arange(12).reshape(4, 3)),
    "double precision": lambda scores, features: (scores, features.double()),
}


def exported_program(module: nn.Module, folder: Path) -> Path:
    path, shapes = folder / "model.pt2", ({0: torch.export.Dim("n")},)
    with module_export.quiet():
        program = torch.export.export(module.eval(), (torch.randn(2, 3, *SIZE),), dynamic_shapes=shapes)
        torch.export.save(program, path)
    return path


@pytest.mark.parametrize("form", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("archived", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_framework_figure_covers_every_output(form: Callable[..., Any], archived: bool, tmp_path: Path):
    torch.manual_seed(0)
    module = Classifier(form)
    model = exported_program(module, tmp_path) if archived else module
    source = load_source(model, input_size=SIZE)
    metadata = masktool.export(source, tmp_path / "masked.onnx", masking="fill").metadata
    assert 0 <= metadata.parity["framework"] <= 1e-5
    for index in range(len(source.model.graph.outputs)):
        altered = dataclasses.replace(source, reference=altering(source.reference, index))
        found = masktool.export(altered, tmp_path / "altered.onnx", masking="fill").metadata.parity["framework"]
        assert found == pytest.approx(1, rel=0.01)  # of an output that is twice itself, or the other decision


def altering(reference: Callable[..., list[np.ndarray]], index: int) -> Callable[..., list[np.ndarray]]:
    """Returns a reference one of whose outputs is half of what it was, a decision the other one."""

    def run(images: np.ndarray) -> list[np.ndarray]:
        outputs = reference(images)
        outputs[index] = ~outputs[index] if outputs[index].dtype == bool else outputs[index] / 2
        return outputs

    return run


def test_a_nested_result_of_an_archive(tmp_path: Path):
    path = exported_program(
        Classifier(lambda scores, features: {"scores": scores, "rest": [(features, None)]}), tmp_path
    )
    source = load_source(path)
    assert len(source.model.graph.outputs) == 2
    assert_reference_agrees(source)


def test_the_modes_of_a_module_and_its_parts_are_given_back():
    module = Classifier().train()
    module.norm.eval()  # a frozen batch norm
    statistics = module.norm.running_mean.clone()
    source = load_source(module, input_size=SIZE)
    source.reference(np.ones((2, 3, *SIZE), np.float32))
    assert (module.training, module.conv.training, module.norm.training) == (True, True, False)
    assert torch.equal(module.norm.running_mean, statistics)


def test_channels_come_from_the_first_convolution_and_half_precision_stays():
    source = load_source(Classifier(channels=1).half(), input_size=SIZE)
    image = find_image_input(source.model)
    assert (list(image.shape)[1:], image.dtype) == ([1, *SIZE], onnx_ir.DataType.FLOAT16)
    (scores,) = source.reference(np.zeros((3, 1, *SIZE), np.float32))
    assert scores.dtype == np.float32


def test_a_module_that_takes_any_number_of_arguments():
    source = load_source(nn.DataParallel(Classifier()), input_size=SIZE)
    assert not isinstance(find_image_input(source.model).shape[0], int)
    assert_reference_agrees(source)


def test_a_module_that_is_written_for_one_batch_runs_image_by_image():
    class Fixed(Classifier):
        def forward(self, images):
            return self.linear(torch.relu(self.conv(images)).mean(dim=(2, 3)).view(2, 4))

    source = load_source(Fixed(), input_size=SIZE)
    assert find_image_input(source.model).shape[0] == 2
    (scores,) = source.reference(np.zeros((3, 3, *SIZE), np.float32))
    assert scores.shape == (3, 5)


def test_a_module_needs_its_input_size():
    with pytest.raises(MasktoolError, match=r"input size unknown .Classifier.; add input_size=\(H, W\)"):
        load_source(Classifier())


def test_a_module_that_does_not_run():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 5))
    with pytest.raises(MasktoolError, match=r"does not run on an image .input .2, 3, 8, 10..: mat1 and mat2") as error:
        load_source(module, input_size=SIZE)
    assert str(error.value).endswith("check input_size and channels")


def test_a_module_that_torch_cannot_export(capfd: pytest.CaptureFixture[str]):
    class Branches(Classifier):
        def forward(self, images):
            return super().forward(images if images.sum() > 0 else -images)

    with pytest.raises(MasktoolError, match=r"torch cannot export the model to ONNX: .*causes of this error") as error:
        load_source(Branches(), input_size=SIZE)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_module_without_tensors():
    with pytest.raises(MasktoolError, match=r"the model gives no tensor.*got int"):
        load_source(Classifier(lambda *_: 3), input_size=SIZE)


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.save(Classifier().state_dict(), tmp_path / "weights.pt")
    monkeypatch.setattr(module_export.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MasktoolError, match=r"torch is not installed, which .* needs; pip install 'masktool\[torch\]'"):
        load_source(tmp_path / "weights.pt")
    with pytest.raises(MasktoolError, match=r"torch is not installed, which timm:resnet18 needs"):
        load_source("timm:resnet18")


# torch.export archives


def exported(tmp_path: Path, batch: int | None) -> Path:
    path = tmp_path / "model.bin"  # the extension tells nothing
    example = torch.randn(batch or 2, 3, *SIZE)
    shapes = None if batch else ({0: torch.export.Dim("n")},)
    with module_export.quiet():
        program = torch.export.export(Classifier().eval(), (example,), dynamic_shapes=shapes)
        with path.open("wb") as stream:
            torch.export.save(program, stream)
    return path


def test_a_pt2_with_a_symbolic_batch(tmp_path: Path):
    source = load_source(exported(tmp_path, None))
    assert find_image_input(source.model).shape[0] == onnx_ir.SymbolicDim("batch")
    assert source.name == "model.bin"
    assert_reference_agrees(source)


def test_a_pt2_with_a_fixed_batch_stays_fixed(tmp_path: Path):
    source = load_source(exported(tmp_path, 1))
    assert find_image_input(source.model).shape[0] == 1
    assert_reference_agrees(source)


def test_a_pt2_of_another_size(tmp_path: Path):
    with pytest.raises(MasktoolError, match=r"input size fixed by the model .*expected 8 x 10, got 9 x 9"):
        load_source(exported(tmp_path, None), input_size=(9, 9))


def test_a_pt2_that_takes_no_image(tmp_path: Path):
    path = tmp_path / "rows.pt2"
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.randn(4, 3),)), path)
    with pytest.raises(MasktoolError, match=r"not an image model .*expected one input .N, C, H, W., got .*4, 3"):
        load_source(path)


# TorchScript


@pytest.mark.parametrize("make", [torch.jit.script, lambda module: torch.jit.trace(module, torch.randn(1, 3, *SIZE))])
def test_torchscript(tmp_path: Path, make: Callable[[Any], Any], capfd: pytest.CaptureFixture[str]):
    class Plain(nn.Module):  # torch.jit.script knows no functions held as attributes
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.linear = nn.Linear(4, 5)

        def forward(self, images):
            return self.linear(torch.relu(self.conv(images)).mean(dim=(2, 3)))

    path = tmp_path / "archive.pt"
    with module_export.quiet():
        make(Plain().eval()).save(str(path))
    source = load_source(path, input_size=SIZE, trust_code=True)
    assert find_image_input(source.model).name == "image"
    assert choose_class_output(source.model, source.claims)[:2] == ("logits", None)  # the name is masktool's own
    assert_reference_agrees(source)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(MasktoolError, match=r"input size unknown .*archive\.pt.; add input_size="):
        load_source(path, trust_code=True)
