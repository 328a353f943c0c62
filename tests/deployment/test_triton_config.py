"""A configuration has the file's own names, types and shapes; a request made of it alone gives what masktool gives."""

import shutil

import numpy as np
import pytest

import masktool
from masktool.contract import MASK_INPUT

from .exports import AWKWARD, KINDS
from .pbtxt import read_pbtxt
from .triton_backend import TYPES, Backend

BATCHED = {"required", "open", "occlusion", "figures"}
"""Kinds of which requests share runs without being asked to."""
SHARED_WHEN_ASKED = {"masked", "sixteen", "float16", "several", "numbers", "branch", "fixed"}
"""Kinds of which they do without the optional mask."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_backend_loads_it(packaged, kind):
    model = packaged.package(kind)
    model.check()
    assert model.batched == (kind in BATCHED)
    assert model.config.one("name") == kind
    assert (model.config.one("dynamic_batching") is not None) == model.batched


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_request_made_of_the_configuration_alone(packaged, kind, rows):
    model = packaged.package(kind)
    request = model.make_request(rows)
    fits = all(value.shape[0] == rows for value in request.values()) or rows == 1
    if not fits and not model.batched and kind not in ("asked", "segments", "steps"):
        rows = 1  # one image at a time, or one photograph
        request = model.make_request(rows)
    if "explain" in request:
        request["explain"][:] = True
    if kind == "steps":
        request["n_samples"][:] = 3
    if kind == "segments":
        request["segments"] = np.arange(256, dtype=np.int32).reshape(16, 16) // 64
    assert_same(model.run(request), ask_masktool(packaged.export(kind), request))


@pytest.mark.parametrize("kind", sorted(SHARED_WHEN_ASKED))
def test_without_the_mask_requests_share_runs(packaged, kind):
    model = packaged.package(kind, max_batch=4)
    model.check()
    assert model.batched
    assert MASK_INPUT not in {each.one("name") for each in model.config.all("input")}
    request = model.make_request(3)
    together = model.run(request)
    assert_same(together, ask_masktool(packaged.export(kind), request))
    for index in range(3):
        alone = model.run({name: value[index : index + 1] for name, value in request.items()})
        assert_same(alone, {name: value[index : index + 1] for name, value in together.items()})
    assert any("mask cannot be fed" in line for line in packaged.said[f"{kind}-4"])
    assert any("what a mask needs" in line for line in packaged.said[f"{kind}-4"]) == (kind != "branch")


def test_one_image_meets_many_masks(packaged):
    model = packaged.package("masked")
    request = model.make_request(1)
    request["mask"] = (np.random.default_rng(1).random((5, 1, 16, 16)) > 0.4).astype(np.float32)
    found = model.run(request)
    assert found["scores"].shape == (5, 4)
    assert np.ptp(found["scores"][:, 0]) > 1e-4
    assert_same(found, ask_masktool(packaged.export("masked"), request))


def ask_masktool(path, request):
    """The same request to masktool's own session."""
    with masktool.load(path, "cpu") as session:
        inputs = dict(request)
        image, masks = inputs.pop(session.metadata.image_input), inputs.pop(MASK_INPUT, None)
        if session.has_gradient:
            target = inputs.pop("target")
            gradient = session.gradient(image, masks, inputs, target=target, of=("image", "mask", "feature_map"))
            return {"objective": gradient.objective, "scores": gradient.scores, "gradient_image": gradient.image}
        return session.run(image, masks, inputs)


def assert_same(found, expected):
    for name, value in expected.items():
        own = found[name].reshape(value.shape)
        scale = max(float(np.abs(value.astype(np.float64)).max(initial=0)), 1)
        assert np.abs(own.astype(np.float64) - value).max(initial=0) <= 1e-4 * scale, name


@pytest.mark.parametrize("kind", KINDS)
def test_every_warm_up_runs(packaged, kind):
    """What Triton feeds a model while it loads it; one that fails would keep it from loading."""
    model = packaged.package(kind)
    warm_ups = model.config.all("model_warmup")
    assert warm_ups
    folder = packaged.folder / "repository" / kind / "warmup"
    for warm_up in warm_ups:
        feed = {}
        for each in warm_up.all("inputs"):
            value = each.one("value")
            dtype, dims = TYPES[value.one("data_type")][1], value.one("dims")
            content = np.zeros(dims, dtype)
            if stored := value.one("input_data_file"):
                content = np.frombuffer((folder / stored).read_bytes(), dtype).reshape(dims)
                assert content.any()
            feed[each.one("key")] = np.stack([content] * warm_up.one("batch_size")) if model.batched else content
        model.run(feed)
    assert (kind == "asked") == any(warm_up.one("name").startswith("explanation") for warm_up in warm_ups)


def test_labels_stand_beside_the_class_output_alone(packaged):
    model = packaged.package("masked")
    assert [each.one("label_filename") for each in model.config.all("output")] == ["labels.txt"]
    text = (packaged.folder / "repository" / "masked" / "labels.txt").read_text(encoding="utf-8")
    assert text.split("\n") == [label.replace("\n", " ") for label in AWKWARD] + [""]
    assert any("labels of several lines" in line for line in packaged.said["masked"])


def test_labels_of_one_column_are_left_out(packaged, tmp_path):
    """Triton would take the first label for every answer."""
    source = packaged.folder / "binary.onnx"
    from .exports import NETWORK, save, weights

    save(source, outputs="float[N,1] scores", nodes=NETWORK, v=weights(4, 1))
    masktool.export(source, tmp_path / "binary.masked.onnx", output_kind="binary", labels=("no", "yes"))
    said = []
    masktool.package_triton(tmp_path / "binary.masked.onnx", tmp_path / "repository", say=said.append)
    config = read_pbtxt((tmp_path / "repository" / "binary" / "config.pbtxt").read_text())
    assert config.one("output").one("label_filename") is None
    assert not (tmp_path / "repository" / "binary" / "labels.txt").exists()
    assert any("labels are left out" in line for line in said)


def test_devices_and_tensorrt(packaged):
    plain = packaged.package("required", device="gpu", instances=2, tensorrt=True, queue_delay=500)
    assert plain.config.one("instance_group") == [("count", 2), ("kind", "KIND_GPU")]
    assert plain.config.one("dynamic_batching").one("max_queue_delay_microseconds") == 500
    assert read_precision(plain.config) == "FP32"
    assert read_precision(packaged.package("sixteen", tensorrt=True).config) == "FP16"
    assert packaged.package("required").config.one("optimization") is None
    with pytest.raises(masktool.MasktoolError, match="TensorRT runs on GPUs alone"):
        packaged.package("required", device="cpu", tensorrt=True)


def read_precision(config):
    accelerator = config.one("optimization").one("execution_accelerators").one("gpu_execution_accelerator")
    assert accelerator.one("name") == "tensorrt"
    assert accelerator.one("parameters").one("key") == "precision_mode"
    return accelerator.one("parameters").one("value")


@pytest.mark.parametrize("kind", ["mixing", "target", "asked", "photograph", "gradient"])
def test_a_batch_that_the_file_cannot_take_is_refused(packaged, kind):
    with pytest.raises(masktool.MasktoolError, match=r"cannot share a run .*max_batch=0"):
        packaged.package(kind, max_batch=4)


def test_weights_beside_the_file_keep_their_name(packaged):
    packaged.package("branch")
    folder = packaged.folder / "repository" / "branch" / "1"
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "branch.masked.onnx.data"}
    for name, origin in (("model.onnx", "branch.masked.onnx"), ("branch.masked.onnx.data", "branch.masked.onnx.data")):
        assert (folder / name).read_bytes() == (packaged.folder / origin).read_bytes()


def test_the_check_of_the_backend_can_fail(packaged, tmp_path):
    packaged.package("masked")
    shutil.copytree(packaged.folder / "repository" / "masked", tmp_path / "masked")
    text = (tmp_path / "masked" / "config.pbtxt").read_text()
    for old, new in (
        ("[-1, 3, 16, 16]", "[-1, 3, 16, 17]"),
        ("TYPE_FP32", "TYPE_FP16"),
        ("optional: true", "optional: false"),
        ("max_batch_size: 0", "max_batch_size: 4"),
        ('"scores"', '"score"'),
    ):
        assert old in text
        with pytest.raises((AssertionError, KeyError)):
            Backend(read_pbtxt(text.replace(old, new)), tmp_path / "masked" / "1").check()
