"""State dicts without an architecture: which of torchvision's and timm's they fit, and what is said of none or many."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from masktool.errors import MasktoolError
from masktool.exporters.source_kinds import detect_kind
from masktool.exporters.sources import load_source
from masktool.exporters.torch_sources import hub, hub_search
from masktool.exporters.torch_sources.fitting import compare_shapes, find_options, shapes_of
from masktool.exporters.torch_sources.hub_names import TIMM, TORCHVISION
from masktool.exporters.torch_sources.recognition import equal_outputs
from masktool.exporters.torch_sources.weights import build_with_weights, load_torch_file

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.usefixtures("torchvision_models"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # inside torch.export
]


@pytest.fixture(autouse=True)
def timm(torchvision_models: ModuleType) -> ModuleType:  # timm imports torchvision
    return pytest.importorskip("timm")


@pytest.fixture
def few_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the search see some families alone, which is all that a test of one network needs."""
    whole = hub_search.list_networks
    families = "resnet1", "resnet2", "resnetblur18", "squeezenet", "efficientnet_b", "tf_efficientnet_b", "googlenet"

    def list_few(name: str, library: Any) -> list[str]:
        return [each for each in whole(name, library) if each.startswith(families)]

    monkeypatch.setattr(hub_search, "list_networks", list_few)


def make(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return hub.build(name, pretrained=False, **options).module.eval()


def save(folder: Path, content: object) -> Path:
    path = folder / "weights.pt"
    torch.save(content, path)
    return path


def refusal(path: Path, arch: str | None = None) -> str:
    with pytest.raises(MasktoolError) as error:
        load_source(path, arch=arch)
    assert "\n" not in str(error.value)
    return str(error.value)


# Of all networks


def test_the_refusal_of_a_bare_state_dict_names_its_architecture(tmp_path: Path):
    path = save(tmp_path, make("torchvision:resnet18").state_dict())
    text = refusal(path)
    assert "the keys and shapes of torchvision:resnet18, timm:resnet18, timm:resnetblur18;" in text
    assert text.endswith('; add arch="torchvision:resnet18"')


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("torchvision:resnet18", {"num_classes": 10, "channels": 1}, marks=pytest.mark.slow),
        ("torchvision:squeezenet1_1", {"num_classes": 10}),
        pytest.param("torchvision:mobilenet_v3_small", {}, marks=pytest.mark.slow),
        pytest.param("torchvision:fcn_resnet50", {"aux_loss": True}, marks=pytest.mark.slow),
        pytest.param("timm:resnet10t", {"num_classes": 7}, marks=pytest.mark.slow),
    ],
)
def test_a_unique_architecture_is_taken(tmp_path: Path, name: str, options: dict[str, Any]):
    module = make(name, **options)
    known, notes = build_with_weights("auto", module.state_dict(), tmp_path / "weights.pt")
    assert notes[0] == f"architecture recognised from keys and shapes: {name}"
    assert {f"{name} built with {key}={value}, as the weights want it" for key, value in options.items()} <= {*notes}
    images = torch.randn(2, options.get("channels", 3), 64, 64)
    with torch.no_grad():
        expected, found = module(images), known.module.eval()(images)
    for key in expected if isinstance(expected, dict) else [...]:
        assert torch.equal(found[key], expected[key])


# Of a few families


@pytest.mark.slow
def test_names_of_one_network_count_as_one(tmp_path: Path, few_networks: None):
    state = make("torchvision:resnet18", num_classes=10).state_dict()
    known, notes = build_with_weights("auto", state, tmp_path / "weights.pt")
    assert type(known.module).__module__ == "torchvision.models.resnet"
    assert notes == (
        "architecture recognised from keys and shapes: torchvision:resnet18",
        "timm:resnet18 is the same network, resized and cropped otherwise: torchvision:resnet18's preprocessing is "
        "taken",
        "timm:resnetblur18 has these keys and shapes too, but no published weights: name it if the weights were "
        "trained as it",
        "torchvision:resnet18 built with num_classes=10, as the weights want it",
    )


@pytest.mark.slow
def test_networks_that_compute_different_things_are_named(tmp_path: Path, few_networks: None):
    state = make("timm:tf_efficientnet_b0", num_classes=5).state_dict()
    names = "timm:efficientnet_b0, timm:tf_efficientnet_b0"
    path = save(tmp_path, state)
    text = refusal(path, "auto")
    assert text.startswith(f'several architectures fit ({path}, arch="auto"): {names}')
    assert 'add arch="timm:efficientnet_b0", or whichever of these the weights were trained as' in text
    assert f"the keys and shapes of {names}" in refusal(path)


@pytest.mark.slow
def test_the_name_of_the_file_comes_first(tmp_path: Path, few_networks: None):
    path = tmp_path / "tf_efficientnet_b0_tuned.pt"
    torch.save(make("timm:tf_efficientnet_b0").state_dict(), path)
    text = refusal(path)
    assert "shapes of timm:tf_efficientnet_b0, timm:efficientnet_b0" in text
    assert 'add arch="timm:tf_efficientnet_b0", or whichever' in text


@pytest.mark.parametrize("arch", [None, pytest.param("auto", marks=pytest.mark.slow)])
def test_the_nearest_is_named_where_nothing_fits(tmp_path: Path, few_networks: None, arch: str | None):
    state = make("torchvision:squeezenet1_1", num_classes=4).state_dict()
    state["features.3.crush.weight"] = state.pop("features.3.squeeze.weight")
    text = refusal(save(tmp_path, state), arch)
    assert "keys and shapes of no network of torchvision 0" in text
    assert "torchvision:squeezenet1_1 comes nearest, with 1 missing: features.3.squeeze.weight" in text
    assert "1 unexpected: features.3.crush.weight" in text
    assert text.endswith("add arch=torchvision:NAME, timm:NAME, package.module:factory or path/to/file.py:factory")


def test_nothing_is_called_near_that_shares_few_keys(tmp_path: Path, few_networks: None):
    text = refusal(save(tmp_path, torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 5)).state_dict()))
    assert "no network of" in text
    assert "nearest" not in text


@pytest.mark.slow
def test_wrapped_weights_are_recognised(tmp_path: Path, few_networks: None):
    state = {f"module.{key}": value for key, value in make("torchvision:squeezenet1_1").state_dict().items()}
    path = save(tmp_path, {"epoch": 3, "state_dict": state})
    _, notes = build_with_weights("auto", load_torch_file(path, detect_kind(path), trust_code=False), path)
    assert notes == ("architecture recognised from keys and shapes: torchvision:squeezenet1_1",)


@pytest.mark.slow
def test_safetensors_are_recognised_in_any_order_of_keys(tmp_path: Path, few_networks: None):
    from safetensors.torch import save_file

    state = make("torchvision:googlenet", aux_logits=False).state_dict()
    save_file(dict(sorted(state.items())), tmp_path / "weights.safetensors")
    assert 'add arch="torchvision:googlenet"' in refusal(tmp_path / "weights.safetensors")


@pytest.mark.slow
def test_published_weights_of_imagenet(data_dir: Path, tmp_path: Path, few_networks: None):
    path = data_dir / "weights" / "squeezenet11_caffe2_fp32.onnx"
    graph = onnx.load(path).graph
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    names = [name for node in graph.node if node.op_type == "Conv" for name in node.input[1:]]
    keys = make("torchvision:squeezenet1_1").state_dict()
    state = {key: torch.from_numpy(arrays[name].copy()) for key, name in zip(keys, names, strict=True)}
    source = load_source(save(tmp_path, state), arch="auto")
    images = np.random.default_rng(0).normal(0, 60, (1, 3, 224, 224)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {session.get_inputs()[0].name: images})
    (found,) = source.reference(images)
    np.testing.assert_allclose(torch.from_numpy(found).softmax(1), expected.reshape(1, 1000), atol=1e-5)


@pytest.mark.slow
def test_published_weights_that_no_hub_has(data_dir: Path, few_networks: None):
    text = refusal(data_dir / "weights" / "cifar_resnet20.th", "auto")
    assert text.startswith("no architecture recognised")


@pytest.mark.parametrize("name", ["efficientnet_b1_pruned", "fastvit_mci0", "vit_small_patch14_dinov2"])
def test_networks_that_are_cut_or_have_no_head_are_recognised(timm: ModuleType, name: str):
    with hub_search.parameters_on_meta():
        given = shapes_of(hub.make_module("timm", timm, name, False, {}).state_dict())
    found = hub_search.try_network(TIMM, timm, name, given)
    assert isinstance(found, hub_search.Fit)
    with hub_search.parameters_on_meta():
        built = hub.make_module("timm", timm, name, False, found.options)
    assert shapes_of(built.state_dict()) == given


def test_a_detector_is_recognised(torchvision_models: ModuleType):
    library = hub.import_hub("torchvision")
    with hub_search.parameters_on_meta():
        module = hub.make_module("torchvision", library, "retinanet_resnet50_fpn", False, {})
    found = hub_search.try_network(TORCHVISION, library, "retinanet_resnet50_fpn", shapes_of(module.state_dict()))
    assert found == hub_search.Fit("torchvision:retinanet_resnet50_fpn", {})


# What cannot be searched


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    whole = hub.import_hub

    def import_hub(name: str) -> Any:
        if name in missing:
            raise MasktoolError(f"{name} is not installed", fix="pip install 'masktool[torch]'")
        return whole(name)

    monkeypatch.setattr(hub, "import_hub", import_hub)


def test_a_hub_that_is_missing_is_said(tmp_path: Path, few_networks: None, monkeypatch: pytest.MonkeyPatch):
    without(monkeypatch, "timm")
    state = make("torchvision:resnet18").state_dict()
    _, notes = build_with_weights("auto", state, tmp_path / "weights.pt")
    assert notes == (
        "architecture recognised from keys and shapes: torchvision:resnet18",
        "timm is not installed, and was not searched",
    )


def test_without_any_hub_the_refusal_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save(tmp_path, make("torchvision:resnet18").state_dict())
    without(monkeypatch, "torchvision", "timm")
    text = refusal(path)
    assert "torchvision is not installed; pip install 'masktool[torch]'" in text
    assert "add arch=torchvision:NAME" in text


# Parts


def test_outputs_that_do_not_depend_on_the_image_are_no_evidence():
    varying, constant = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.ones(2, 2)
    assert equal_outputs({"a": varying}, {"b": varying.clone()})
    assert not equal_outputs({"a": varying}, {"b": varying + 1e-6})
    assert not equal_outputs({"a": constant}, {"b": constant})
    assert not equal_outputs({"a": varying / 0}, {"b": varying / 0})
    assert not equal_outputs({"a": varying}, {"b": varying, "c": varying})
    assert not equal_outputs({}, {})


def test_options_are_read_off_the_differences():
    expected = {"stem": (8, 3, 3, 3), "inner": (8, 8, 3, 3), "head.weight": (1000, 8), "head.bias": (1000,)}
    tuned = {**expected, "stem": (8, 1, 3, 3), "head.weight": (4, 8), "head.bias": (4,)}
    assert find_options(compare_shapes(tuned, expected)) == {"num_classes": 4, "channels": 1}
    assert find_options(compare_shapes({**tuned, "inner": (9, 9, 3, 3)}, expected)) == {"channels": 1}
    assert find_options(compare_shapes(expected, expected)) == {}


def test_the_search_leaves_modules_of_other_threads_and_later_ones_alone():
    watch = hub_search.ShapeWatch({})
    strange = torch.nn.Linear(3, 5)
    thread = threading.Thread(target=watch.look_at, args=(strange.weight,))
    thread.start()
    thread.join()
    assert watch.strange == 0
    watch.look_at(strange.weight)
    assert watch.strange == 1
    timm = hub.import_hub("timm")
    assert hub_search.outline(TIMM, timm, "resnet18", {"weight": (1,)}, {}) is None
    module = make("timm:resnet18")  # nothing is watched any more, nor made on the meta device
    assert not any(value.is_meta for value in module.state_dict().values())
    assert len(shapes_of(module.state_dict())) == 102
