"""torchvision and timm: their own preprocessing and labels, state dicts for their architectures, failing downloads."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import masktool
from masktool.contract import Preprocessing
from masktool.errors import MasktoolError
from masktool.exporters.source_kinds import detect_kind
from masktool.exporters.sources import load_source
from masktool.exporters.torch_sources import hub as hubs
from masktool.exporters.torch_sources.weights import build_with_weights, load_torch_file

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.usefixtures("torchvision_models"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # inside torch.export
]
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.fixture
def timm(torchvision_models: ModuleType) -> ModuleType:  # timm imports torchvision
    return pytest.importorskip("timm")


def test_torchvision_configuration():
    known = hubs.build("torchvision:resnet50", pretrained=False)
    assert known.preprocessing == Preprocessing(size=(224, 224), resize_to=232, **IMAGENET)
    assert known.configuration == "ResNet50_Weights.IMAGENET1K_V2"
    assert (len(known.labels), known.labels[0]) == (1000, "tench")


def test_torchvision_configuration_with_another_filter():
    known = hubs.build("torchvision:efficientnet_b0", pretrained=False)
    assert known.preprocessing == Preprocessing(size=(224, 224), resize_to=256, interpolation="bicubic", **IMAGENET)


def test_torchvision_models_without_classes_have_no_preprocessing(torchvision_models: ModuleType):
    weights = torchvision_models.get_model_weights("lraspp_mobilenet_v3_large").DEFAULT
    assert hubs.read_torchvision_transforms(weights) is None


def test_timm_configuration(timm: ModuleType):
    known = hubs.build("timm:resnet18.a1_in1k", pretrained=False)
    assert known.preprocessing == Preprocessing(size=(224, 224), resize_to=235, interpolation="bicubic", **IMAGENET)
    assert known.configuration == "resnet18.a1_in1k"
    assert (len(known.labels), known.labels[0]) == (1000, "tench, Tinca tinca")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"crop_mode": "squash", "crop_pct": 1.0}, ("exact", None)),
        ({"crop_mode": "squash"}, None),
        ({"crop_mode": "border"}, None),
        ({"interpolation": "random"}, None),
        ({"input_size": (3, 224, 192)}, None),
        ({"input_size": (4, 224, 224)}, None),
        ({"crop_pct": 0.875}, ("shortest", 256)),
        ({"crop_pct": 0.9}, ("shortest", 248)),
    ],
)
def test_timm_crops(changes: dict[str, Any], expected: tuple[str, int | None] | None):
    configuration = {"input_size": (3, 224, 224), "crop_pct": 0.95, "interpolation": "bicubic", **IMAGENET, **changes}
    read = hubs.read_timm_transforms(configuration)
    assert (None if read is None else (read.resize, read.resize_to)) == expected


def test_a_timm_module_carries_its_configuration(timm: ModuleType):
    module = timm.create_model("resnet10t", num_classes=7)
    known = hubs.recognise(module)
    assert (known.module, known.preprocessing.size) == (module, (176, 176))
    plain = torch.nn.Identity()
    assert hubs.recognise(plain) == hubs.Architecture(plain)


def saved(tmp_path: Path, module: Any) -> tuple[dict[str, Any], Path]:
    path = tmp_path / "weights.pth"
    torch.save(module.state_dict(), path)
    return load_torch_file(path, detect_kind(path), trust_code=False), path


def test_a_state_dict_with_the_hubs_configuration(tmp_path: Path, torchvision_models: ModuleType):
    torch.manual_seed(0)
    module = torchvision_models.squeezenet1_1(weights=None).eval()
    _, path = saved(tmp_path, module)
    source = load_source(path, arch="torchvision:squeezenet1_1", input_size=(64, 64))
    assert source.preprocessing == Preprocessing(size=(64, 64), resize_to=73, **IMAGENET)
    assert len(source.labels) == 1000
    assert source.configuration == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = module(images).numpy()
    (found,) = source.reference(images.numpy())
    assert found == pytest.approx(expected, abs=1e-6)
    configured = "in the hub's configuration SqueezeNet1_1_Weights.IMAGENET1K_V1"
    kept = masktool.export(source, tmp_path / "kept.onnx")
    assert kept.notes == (f"preprocessing and labels as {configured}",)
    names = [f"class {index}" for index in range(1000)]
    relabelled = masktool.export(source, tmp_path / "relabelled.onnx", labels=names)
    assert relabelled.notes == (f"preprocessing as {configured}",)
    overruled = masktool.export(source, tmp_path / "overruled.onnx", preprocessing="tf", labels=names)
    assert overruled.notes == ()


def test_a_finetuned_head_sets_the_number_of_classes_and_drops_the_labels(
    tmp_path: Path, torchvision_models: ModuleType
):
    state, path = saved(tmp_path, torchvision_models.resnet18(num_classes=7))
    known, notes = build_with_weights("torchvision:resnet18", state, path)
    assert known.module.fc.out_features == 7
    assert torch.equal(known.module.fc.weight, state["fc.weight"])
    assert known.labels is None
    assert known.preprocessing.size == (224, 224)
    assert notes == ("torchvision:resnet18 built with num_classes=7, as the weights want it",)


def test_weights_without_auxiliary_heads(tmp_path: Path, torchvision_models: ModuleType):
    module = torchvision_models.googlenet(weights=None, aux_logits=False, init_weights=False)
    state, path = saved(tmp_path, module)
    known, notes = build_with_weights("torchvision:googlenet", state, path)
    assert notes[0] == "torchvision:googlenet built with aux_logits=False, as the weights want it"
    assert "publishes expect transform_input=True" in notes[1]
    assert len(known.labels) == 1000


def test_the_older_keys_of_published_densenets(tmp_path: Path, torchvision_models: ModuleType):
    state, path = saved(tmp_path, torchvision_models.densenet121(weights=None))
    old = {
        key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2.") if "denselayer" in key else key: value
        for key, value in state.items()
    }
    assert old.keys() != state.keys()
    known, notes = build_with_weights("torchvision:densenet121", old, path)
    assert notes == ()
    assert all(torch.equal(value, state[key]) for key, value in known.module.state_dict().items())


def test_another_hub_architecture_does_not_fit(tmp_path: Path, torchvision_models: ModuleType):
    state, path = saved(tmp_path, torchvision_models.resnet18(weights=None))
    with pytest.raises(
        MasktoolError, match=r"does not fit the architecture .*arch=.torchvision:resnet34..: 80 missing: layer1"
    ):
        build_with_weights("torchvision:resnet34", state, path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet19", r"unknown torchvision model .*did you mean resnet18"),
        ("torchvision:qqqqqqqq", r"unknown torchvision model .*see torchvision\.list_models"),
        ("timm:resnet18xx", r"unknown timm model .*did you mean resnet18"),
    ],
)
def test_unknown_names(name: str, message: str):
    with pytest.raises(MasktoolError, match=message):
        load_source(name)


@pytest.mark.parametrize("hub", ["torchvision", "timm"])
def test_a_download_that_fails_is_one_line(
    hub: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def fail(*_: object) -> None:
        print("Downloading: ...")
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(hubs, "make_module", fail)
    with pytest.raises(MasktoolError) as error:
        load_source(f"{hub}:resnet18")
    assert str(error.value) == (
        f"cannot download the weights of {hub}:resnet18: <urlopen error Name or service not known>; "
        f'fetch them where there is a connection, then: masktool.export(FILE, ..., arch="{hub}:resnet18")'
    )
    assert capfd.readouterr() == ("", "")


def test_a_hub_that_is_not_installed_or_does_not_import(monkeypatch: pytest.MonkeyPatch):
    def break_import(name: str) -> None:
        raise RuntimeError(f"operator {name}::nms does not exist\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(hubs.importlib, "import_module", break_import)
        with pytest.raises(
            MasktoolError, match=r"torchvision does not import: operator torchvision::nms does not exist; "
        ):
            load_source("torchvision:resnet18")
    real = hubs.importlib.util.find_spec
    monkeypatch.setattr(hubs.importlib.util, "find_spec", lambda name: None if name == "timm" else real(name))
    with pytest.raises(MasktoolError, match=r"timm is not installed; pip install 'masktool\[torch\]'"):
        load_source("timm:resnet18")
