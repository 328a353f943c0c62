"""A file that holds the plain network beside the masked one: what it gives, which of both runs, how it is written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from networks.families import FAMILIES, HEAD
from networks.small_graphs import classifier, parse

import masktool
from masktool import MasktoolError
from masktool.contract import Metadata
from masktool.exporters.check import check_masked
from masktool.exporters.plain_branch import BRANCHES, SHARED_BYTES, masked_alone
from masktool.exporters.sources import load_source
from masktool.exporters.storage import open_session, weights_path

RNG = np.random.default_rng(0)
WIDE = """<ir_version: 10, opset_import: ["" : 18]>
wide (float[N, 3, 16, 16] image) => (float[N, 600] scores, float[N, 8, 8, 8] maps)
<float[8, 3, 3, 3] a, float[8] d, float[8, 8, 3, 3] e, float[512, 8, 1, 1] b, float[512, 600] c>
{ h = Conv<pads = [1, 1, 1, 1]>(image, a, d) g = Relu(h) maps = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(g)
  k = Conv<pads = [1, 1, 1, 1]>(maps, e) r = Add(k, maps) s = Relu(r) w = Conv(s, b) v = Relu(w)
  m = GlobalAveragePool(v) f = Flatten(m) scores = MatMul(f, c) }"""
PADDED = """<ir_version: 10, opset_import: ["" : 18]>
padded (float[N, 3, 9, 9] image) => (float[N, 4] scores)
<float[4, 3, 3, 3] a, int64[8] pads>
{ h = Conv<pads = [1, 1, 1, 1]>(image, a) z = Constant<value_float = 0.0>() n = Pad(h, pads, z)
  p = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(n) m = GlobalAveragePool(p) scores = Flatten(m) }"""
MIXING = """<ir_version: 10, opset_import: ["" : 18]>
mixing (float[N, 3, 8, 8] image) => (float[N, 4] scores)
<float[4, 3, 3, 3] a, int64[1] first>
{ h = Conv<pads = [1, 1, 1, 1]>(image, a) t = ReduceMean<keepdims = 1>(h, first) n = Add(h, t) r = Relu(n)
  m = GlobalAveragePool(r) scores = Flatten(m) }"""


def wide() -> onnx.ModelProto:
    """Returns a network of two outputs whose weights are more than 1 MiB."""
    return parse(WIDE)


def images(count: int, size: int = 16) -> np.ndarray:
    return RNG.standard_normal((count, 3, size, size)).astype(np.float32)


def masks(count: int, size: int = 16) -> np.ndarray:
    kept = np.ones((count, 1, size, size), np.float32)
    for index in range(count):
        kept[index, 0, index : index + 3, 2:5] = 0
    return kept


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The plain network, its masked file, and the file of both networks."""
    folder = tmp_path_factory.mktemp("files")
    found = {name: folder / f"{name}.onnx" for name in ("plain", "masked", "both")}
    onnx.save(wide(), found["plain"])
    masktool.export(found["plain"], found["masked"])
    masktool.export(found["plain"], found["both"], plain_branch=True)
    return found


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_without_a_mask_it_is_the_plain_network_and_under_masks_the_masked_one(
    files: dict[str, Path], count: int
) -> None:
    plain, masked, both = (open_session(str(path)) for path in files.values())
    batch, kept = {"image": images(count)}, {"mask": masks(count)}
    assert_same(both.run(None, batch), plain.run(None, batch))
    assert_same(both.run(None, batch | {"mask": np.ones_like(kept["mask"])}), plain.run(None, batch))
    assert_same(both.run(None, batch | {"mask": np.ones((1, 1, 16, 16), np.float32)}), plain.run(None, batch))
    assert_same(both.run(None, batch | kept), masked.run(None, batch | kept))
    alone = {"image": batch["image"][:1]}
    assert_same(both.run(None, alone | kept), masked.run(None, alone | kept))


@pytest.mark.parametrize(
    "kept",
    [
        np.ones((4, 1, 16, 16), np.float32),
        np.full((1, 1, 16, 16), 2, np.float32),
        np.full((1, 1, 16, 16), 0.5, np.float32),
        np.where(np.arange(256).reshape(1, 1, 16, 16) == 7, np.nan, 1).astype(np.float32),
        np.where(np.arange(256).reshape(1, 1, 16, 16) == 7, np.inf, 1).astype(np.float32),
    ],
    ids=["more masks of ones than images", "above 1", "soft", "NaN among ones", "infinity among ones"],
)
def test_every_other_mask_gives_what_the_masked_file_gives(files: dict[str, Path], kept: np.ndarray) -> None:
    masked, both = open_session(str(files["masked"])), open_session(str(files["both"]))
    feed = {"image": images(1), "mask": kept}
    assert_same(both.run(None, feed), masked.run(None, feed))


def kernels_run(path: Path, feed: dict[str, np.ndarray], folder: Path) -> set[str]:
    """Returns the beginnings of the names of the convolutions that one run of a file computes, as a profile says."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session.run(None, feed)
    events = json.loads(Path(session.end_profiling()).read_text())
    names = [each["name"] for each in events if each.get("cat") == "Node" and "Conv" in each["args"]["op_name"]]
    return {"plain" if name.startswith("plain/") else "masked" for name in names}


@pytest.mark.parametrize(("mask", "expected"), [(None, "plain"), (1.0, "plain"), (0.0, "masked"), (np.nan, "masked")])
def test_only_one_of_the_networks_runs(
    files: dict[str, Path], tmp_path: Path, mask: float | None, expected: str
) -> None:
    feed = {"image": images(2)}
    if mask is not None:
        kept = np.ones((2, 1, 16, 16), np.float32)
        kept[1, 0, 15, 15] = mask
        feed["mask"] = kept
    assert kernels_run(files["both"], feed, tmp_path) == {expected}


def test_weights_stand_once_in_a_file_beside_it(files: dict[str, Path]) -> None:
    model = onnx.load(files["both"], load_external_data=False)
    (node,) = [node for node in model.graph.node if node.op_type == "If"]
    plain, masked = (
        {tensor.name: tensor for tensor in attribute.g.initializer}
        for attribute in sorted(node.attribute, key=lambda each: each.name, reverse=True)
    )
    outside = {name for name, tensor in plain.items() if tensor.data_location == onnx.TensorProto.EXTERNAL}
    assert {"plain/b", "plain/c", "plain/e"} <= outside
    for name in outside:
        assert list(plain[name].external_data) == list(masked[name.removeprefix("plain/")].external_data)
    today, both = files["masked"].stat().st_size, files["both"].stat().st_size
    assert both + weights_path(files["both"]).stat().st_size <= 1.05 * today
    assert masktool.describe(files["both"]).n_bytes == both + weights_path(files["both"]).stat().st_size


def test_the_graph_is_standard_and_no_name_stands_twice(files: dict[str, Path]) -> None:
    onnx.checker.check_model(str(files["both"]), full_check=True)
    today, both = (ir.load(files[name]) for name in ("masked", "both"))
    onnx.shape_inference.infer_shapes(onnx.load(files["both"]), check_type=True, strict_mode=True, data_prop=True)
    nodes = Counter(node.name for node in both.graph.all_nodes())
    values = Counter(value.name for node in both.graph.all_nodes() for value in node.outputs)
    weights = Counter(name for graph in both.graphs() for name in graph.initializers)
    assert max(*nodes.values(), *values.values(), *weights.values()) == 1
    assert not set(values) & set(weights)
    assert (both.ir_version, both.opset_imports) == (today.ir_version, today.opset_imports)
    ends = ([*model.graph.inputs, *model.graph.outputs] for model in (today, both))
    for old, new in zip(*ends, strict=True):
        assert (old.name, old.type, old.shape) == (new.name, new.type, new.shape)
    assert set(both.functions) == set(today.functions)


def test_a_small_network_stays_one_file(tmp_path: Path) -> None:
    exported = masktool.export(classifier(), tmp_path / "both.onnx", plain_branch=True)
    assert [path.name for path in tmp_path.iterdir()] == ["both.onnx"]
    assert exported.n_bytes < SHARED_BYTES


def test_what_is_taken_out_of_it_is_the_masked_file(files: dict[str, Path]) -> None:
    today, both = (ir.load(files[name]) for name in ("masked", "both"))
    alone = masked_alone(both, files["both"])
    assert [(node.name, node.op_type) for node in alone.graph] == [(node.name, node.op_type) for node in today.graph]
    assert set(alone.graph.initializers) == set(today.graph.initializers)
    assert [value.name for value in alone.graph.outputs] == [value.name for value in today.graph.outputs]
    assert Metadata.from_properties(alone.metadata_props).plain_branch is False  # type: ignore[union-attr]
    assert any(node.name == BRANCHES for node in both.graph)  # the file's own graph stays as it was


@pytest.mark.parametrize("options", [{"masking": "partial"}, {"masking": "fill", "baseline": "blur"}], ids=str)
def test_in_the_other_modes(tmp_path: Path, options: dict[str, str]) -> None:
    masktool.export(wide(), tmp_path / "masked.onnx", **options)
    masktool.export(wide(), tmp_path / "both.onnx", plain_branch=True, **options)
    plain = open_session(wide().SerializeToString())
    masked, both = (open_session(str(tmp_path / f"{name}.onnx")) for name in ("masked", "both"))
    feed = {"image": images(3)}
    assert_same(both.run(None, feed), plain.run(None, feed))
    feed["mask"] = masks(3)
    assert_same(both.run(None, feed), masked.run(None, feed))


def test_a_required_mask_of_ones_runs_the_plain_network(tmp_path: Path) -> None:
    masktool.export(wide(), tmp_path / "both.onnx", plain_branch=True, mask_required=True)
    feed = {"image": images(2), "mask": np.ones((2, 1, 16, 16), np.float32)}
    assert [node.name for node in open_session(str(tmp_path / "both.onnx")).get_inputs()] == ["image", "mask"]
    assert kernels_run(tmp_path / "both.onnx", feed, tmp_path) == {"plain"}
    with masktool.load(tmp_path / "both.onnx") as session:
        found = session.run(feed["image"])
    assert_same(list(found.values()), open_session(wide().SerializeToString()).run(None, {"image": feed["image"]}))


def test_a_pad_in_front_of_a_pool_of_maxima(tmp_path: Path) -> None:
    """Up to version 1.31 ONNX Runtime would pad the pool with −∞, wherever all values are negative."""
    network = parse(PADDED, a=np.full((4, 3, 3, 3), -1.0), pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    exported = masktool.export(network, tmp_path / "both.onnx", plain_branch=True)
    assert exported.metadata.parity["plain_branch"] == exported.metadata.parity["left_out"] == 0
    whole = np.ones((1, 3, 9, 9), np.float32)
    (found,) = open_session(str(tmp_path / "both.onnx")).run(None, {"image": whole})
    session = open_session(network.SerializeToString(), without=["Pad_Fusion"])
    assert_same([found], session.run(None, {"image": whole}))


def test_one_image_at_a_time(tmp_path: Path) -> None:
    network = parse(MIXING, first=np.array([0]))
    for name, options in {"masked": {}, "both": {"plain_branch": True}}.items():
        exported = masktool.export(network, tmp_path / f"{name}.onnx", masking="fill", **options)
    assert exported.metadata.batching == "one"
    batch, kept = images(2, 8), masks(2, 8)
    with masktool.load(tmp_path / "masked.onnx") as masked, masktool.load(tmp_path / "both.onnx") as both:
        for given in (None, np.ones_like(kept), kept):
            np.testing.assert_array_equal(both.run(batch, given)["scores"], masked.run(batch, given)["scores"])


def test_parity_is_that_of_the_masked_network_and_of_the_file(files: dict[str, Path]) -> None:
    today, both = (masktool.describe(files[name]).metadata.parity for name in ("masked", "both"))  # type: ignore
    assert set(both) == set(today) | {"plain_branch", "masked_branch"}
    assert {name: both[name] for name in today} == dict(today)
    assert both["plain_branch"] == both["masked_branch"] == 0


@pytest.mark.parametrize("with_source", [False, True])
def test_a_check_measures_both_networks(files: dict[str, Path], with_source: bool) -> None:
    checked = check_masked(files["both"], load_source(files["plain"]) if with_source else None)
    assert not checked.failed
    assert {"plain_branch", "masked_branch", "left_out", "invariance"} <= {each.figure for each in checked.verdicts}


@pytest.mark.parametrize(("prefix", "figure"), [("plain/", "plain_branch"), ("", "record")])
def test_a_check_finds_what_was_changed(tmp_path: Path, prefix: str, figure: str) -> None:
    masktool.export(classifier(), tmp_path / "both.onnx", plain_branch=True)
    model = onnx.load(tmp_path / "both.onnx")
    for node in model.graph.node:
        for tensor in (each for attribute in node.attribute for each in attribute.g.initializer):
            if tensor.name == f"{prefix}kernel":
                changed = onnx.numpy_helper.to_array(tensor) * np.linspace(0.5, 2, 27).reshape(3, 3, 3)
                tensor.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.float32), tensor.name))
    onnx.save(model, tmp_path / "both.onnx")
    assert figure in {each.figure for each in check_masked(tmp_path / "both.onnx", None).failed}


def test_a_graph_that_lost_its_branches_is_refused(files: dict[str, Path]) -> None:
    model = ir.load(files["masked"])
    model.metadata_props.update(ir.load(files["both"]).metadata_props)
    with pytest.raises(MasktoolError, match="does not hold the two networks"):
        masked_alone(model, "lost.onnx")


def test_both_files_move_together(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    for path in (files["both"], weights_path(files["both"])):
        (tmp_path / "away" / path.name).write_bytes(path.read_bytes())
    batch = images(1)
    with masktool.load(tmp_path / "away" / "both.onnx") as moved, masktool.load(files["masked"]) as masked:
        np.testing.assert_array_equal(moved.run(batch)["scores"], masked.run(batch)["scores"])
    weights_path(tmp_path / "away" / "both.onnx").unlink()
    with pytest.raises(MasktoolError, match=r"missing external data .*: expected both\.onnx\.data; put that file"):
        masktool.load(tmp_path / "away" / "both.onnx")
    weights_path(tmp_path / "away" / "both.onnx").symlink_to(weights_path(files["both"]))
    with pytest.raises(MasktoolError, match="a link out of the model's folder"):
        masktool.load(tmp_path / "away" / "both.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": "logit"}, "computes them in every run"),
        ({"portable": True}, "which no portable file allows"),
        ({"head": "last"}, "begins at a feature map, which it does not give"),
    ],
)
def test_refusals(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(MasktoolError, match=message):
        masktool.export(classifier(), tmp_path / "both.onnx", plain_branch=True, **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_it_is_no_source_again(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MasktoolError, match="takes a mask already"):
        masktool.export(files["both"], tmp_path / "again.onnx")


def test_half_precision(tmp_path: Path) -> None:
    for name, options in {"masked": {}, "both": {"plain_branch": True}}.items():
        exported = masktool.export(wide(), tmp_path / f"{name}.onnx", precision="fp16", **options)  # type: ignore
    assert exported.metadata.parity["fp32"]["scores"] < 1e-2
    masked, both = (open_session(str(tmp_path / f"{name}.onnx")) for name in ("masked", "both"))
    feed = {"image": images(2), "mask": masks(2)}
    for found, expected in zip(both.run(None, feed), masked.run(None, feed), strict=True):
        assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()  # rounded in other places, on a CPU
    assert not masktool.check_export(tmp_path / "both.onnx", wide()).failed


@pytest.mark.parametrize("family", FAMILIES)
def test_in_every_family_of_networks(family: str, tmp_path: Path) -> None:
    network = parse(HEAD + FAMILIES[family])
    masktool.export(network, tmp_path / "masked.onnx")
    masktool.export(network, tmp_path / "both.onnx", plain_branch=True)
    plain = open_session(network.SerializeToString())
    masked, both = (open_session(str(tmp_path / f"{name}.onnx")) for name in ("masked", "both"))
    feed = {"image": images(3, 12)}
    assert_same(both.run(None, feed), plain.run(None, feed))
    feed["mask"] = masks(3, 12)
    assert_same(both.run(None, feed), masked.run(None, feed))


def test_a_quantised_network(tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{"image": images(1)} for _ in range(3)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    onnx.save(wide(), tmp_path / "float.onnx")
    quantize_static(tmp_path / "float.onnx", tmp_path / "quantised.onnx", Images())
    for name, options in {"masked": {}, "both": {"plain_branch": True}}.items():
        exported = masktool.export(tmp_path / "quantised.onnx", tmp_path / f"{name}.onnx", **options)  # type: ignore
    assert exported.metadata.parity["plain_branch"] == exported.metadata.parity["masked_branch"] == 0
    quantised, masked, both = (open_session(str(tmp_path / f"{name}.onnx")) for name in ("quantised", "masked", "both"))
    feed = {"image": images(2)}
    assert_same(both.run(None, feed), quantised.run(None, feed))
    feed["mask"] = masks(2)
    assert_same(both.run(None, feed), masked.run(None, feed))
