"""The rule of samplers narrower than their stride: what is kept at the end of a ResNet, and what says which rule it is.

Masks are read out of the exported graph itself: the mask that its global pooling counts.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.bottlenecks import bottleneck_resnet
from networks.small_graphs import classifier, parse
from onnx.utils import Extractor

import masktool
from masktool.cli import run as run_command
from masktool.contract import MASK_INPUT, Metadata, SamplerRule
from masktool.errors import MasktoolError
from masktool.exporters.parity import open_session
from masktool.interface.study import is_mode, masking_of, mode_of
from masktool.sampler_rules import DEFAULT_RULE, choose_rule

SIDE = 224
GEOMETRY = {8: 0.66, 16: 0.31, 24: 0.04}
"""Share of the positions of one kept square at which a bottleneck ResNet has nothing left under the published rule, by
its side in pixels; computed once from strides and kernels alone."""
EVERY = 4
"""Pixels between the positions tried, as those shares have them. At every pixel they are .72, .40 and .03: what a
square hits depends on where it lies in the grid of strides."""
SHARE_TOLERANCE = 0.005
"""Half a step of what the shares are rounded to."""
CELL = 16
RULES: tuple[SamplerRule, ...] = ("published", "cell")


class LastMask:
    """The mask in front of the global pooling of an exported file, as a function of the mask that is fed."""

    def __init__(self, path: Path) -> None:
        model = onnx.load(path)
        (name,) = {
            node.input[0]
            for node in model.graph.node
            if node.op_type == "GlobalAveragePool" and "MaxPool" in node.input[0]
        }
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        self.session = open_session(Extractor(model).extract_model(["image", MASK_INPUT], [name]).SerializeToString())
        self.image = np.zeros((1, 3, SIDE, SIDE), np.float32)

    def __call__(self, masks: np.ndarray) -> np.ndarray:
        """Returns masks (M, 7, 7) for masks (M, 224, 224)."""
        feeds = (
            {"image": self.image, MASK_INPUT: part[:, None]} for part in np.array_split(masks, len(masks) // 50 + 1)
        )
        return np.concatenate([self.session.run(None, feed)[0] for feed in feeds])[:, 0]


@pytest.fixture(scope="module")
def last_masks(tmp_path_factory: pytest.TempPathFactory) -> dict[SamplerRule, LastMask]:
    """The last mask of a narrow ResNet-50, by rule."""
    folder, network = tmp_path_factory.mktemp("rules"), bottleneck_resnet()
    for rule in RULES:
        masktool.export(network, folder / f"{rule}.onnx", output_kind="logits", rule=rule)
    return {rule: LastMask(folder / f"{rule}.onnx") for rule in RULES}


def squares(side: int) -> np.ndarray:
    """Returns masks that keep one square each."""
    begins = range(0, SIDE - side + 1, EVERY)
    masks = np.zeros((len(begins) ** 2, SIDE, SIDE), np.float32)
    for index, mask in enumerate(masks):
        row, column = begins[index // len(begins)], begins[index % len(begins)]
        mask[row : row + side, column : column + side] = 1
    return masks


@pytest.mark.parametrize("side", GEOMETRY)
def test_no_square_vanishes_under_the_cell_rule_and_many_under_the_published(last_masks, side):
    masks = squares(side)
    empty = {rule: float((last_masks[rule](masks).max((1, 2)) == 0).mean()) for rule in RULES}
    assert empty["cell"] == 0
    assert empty["published"] == pytest.approx(GEOMETRY[side], abs=SHARE_TOLERANCE)


def test_the_last_16_rows_leave_a_row_of_the_end_under_the_cell_rule_alone(last_masks):
    masks = np.zeros((1, SIDE, SIDE), np.float32)
    masks[:, -16:] = 1
    assert {rule: float(last_masks[rule](masks).sum()) for rule in RULES} == {"published": 0, "cell": 7}


def test_of_few_cells_most_of_the_end_survives_under_the_cell_rule(last_masks):
    rng, cells = np.random.default_rng(0), SIDE // CELL
    masks = (rng.random((200, cells, cells)) < 0.1).astype(np.float32).repeat(CELL, 1).repeat(CELL, 2)
    shares = {rule: float(last_masks[rule](masks).mean()) for rule in RULES}
    assert shares["published"] == pytest.approx(0.30, abs=0.015)
    assert shares["cell"] == pytest.approx(0.75, abs=0.015)


def test_a_larger_mask_never_keeps_less(last_masks):
    rng = np.random.default_rng(1)
    small = (rng.random((20, SIDE, SIDE)) < 0.01).astype(np.float32)
    large = np.maximum(small, rng.random((20, SIDE, SIDE)) < 0.01)
    assert (last_masks["cell"](small) <= last_masks["cell"](large)).all()
    assert (last_masks["published"](small) <= last_masks["cell"](small)).all()


@pytest.fixture(scope="module")
def shortcut() -> onnx.ModelProto:
    """A strided block whose shortcut is a convolution of 1 x 1, for images (N, 3, 16, 16)."""
    return parse(
        """<ir_version: 10, opset_import: ["" : 18]> net (float[N, 3, 16, 16] image) => (float[N, 4] logits)
        <float[4, 3, 3, 3] v, float[4, 3, 1, 1] w> {
        a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (image, v) b = Conv <strides = [2, 2]> (image, w)
        c = Add (a, b) d = Relu (c) e = GlobalAveragePool (d) logits = Flatten (e) }"""
    )


def run(path: Path, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the first output of a file."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image, "mask": mask})[0]


def test_the_default_is_the_constant_and_a_file_says_its_rule(shortcut, tmp_path):
    for rule in (None, *RULES):
        written = masktool.export(shortcut, tmp_path / "masked.onnx", output_kind="logits", rule=rule).metadata
        assert written.rule == (rule or DEFAULT_RULE)
        found = {entry.key: entry.value for entry in onnx.load(tmp_path / "masked.onnx").metadata_props}
        assert json.loads(found["masktool.rule"]) == written.rule
        assert Metadata.from_properties(found) == written


def test_a_file_that_says_no_rule_is_of_the_published_one(shortcut, tmp_path):
    written = masktool.export(shortcut, tmp_path / "masked.onnx", output_kind="logits", rule="cell").metadata
    properties = written.to_properties()
    del properties["masktool.rule"]
    old = Metadata.from_properties(properties)
    assert old is not None
    assert old.rule == "published"
    filled = masktool.export(shortcut, tmp_path / "filled.onnx", output_kind="logits", masking="fill").metadata
    assert filled.rule is None
    assert Metadata.from_properties(filled.to_properties()) == filled


def test_what_lies_beside_the_sampled_place_counts_under_the_cell_rule_alone(shortcut, tmp_path):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 3, 16, 16)).astype(np.float32)
    mask = np.zeros((1, 1, 16, 16), np.float32)
    mask[..., 5, 7] = 1  # every other row and column is looked at, from 0
    found = {}
    for rule in RULES:
        masktool.export(shortcut, tmp_path / "masked.onnx", output_kind="logits", rule=rule)
        found[rule] = run(tmp_path / "masked.onnx", image, mask)
    assert (found["published"] == 0).all()
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in shortcut.graph.initializer}
    kept = image[0, :, 5, 7]
    # one place of the end is kept, where filling made all that both convolutions see the one kept pixel
    expected = np.maximum(weights["v"].sum((2, 3)) @ kept + weights["w"][:, :, 0, 0] @ kept, 0)
    np.testing.assert_allclose(found["cell"][0], expected, rtol=1e-4)


def test_info_and_every_explanation_say_the_rule(shortcut, tmp_path, capsys):
    path = tmp_path / "masked.onnx"
    masktool.export(shortcut, path, output_kind="logits", rule="cell")
    assert run_command(["info", str(path)]) == 0
    assert "masked by masktool (layer, rule cell)" in capsys.readouterr().out
    image = np.random.default_rng(0).standard_normal((3, 16, 16)).astype(np.float32)
    explanation = masktool.explain(path, image, method="occlusion", sliding_window_shapes=8, strides=8)
    assert explanation.model["rule"] == "cell"
    assert json.loads(explanation.to_json())["model"]["rule"] == "cell"
    assert "layer masking, cell rule" in explanation.subtitle()


@pytest.mark.parametrize("masking", ["partial", "fill"])
def test_other_modes_have_no_rule(masking):
    with pytest.raises(MasktoolError, match="only layer masking has a rule for samplers narrower than their stride"):
        choose_rule(masking, "cell")
    assert choose_rule(masking, None) is None


def test_an_unknown_rule_is_refused(tmp_path):
    with pytest.raises(MasktoolError, match=r"unknown rule: expected cell \| published, got other"):
        masktool.export(classifier(), tmp_path / "masked.onnx", rule="other")  # type: ignore[arg-type]


def test_modes_of_evaluations_can_say_the_rule(shortcut, tmp_path):
    assert masking_of("layer-cell") == {"masking": "layer", "rule": "cell"}
    assert masking_of("layer") == {"masking": "layer"}
    for rule in RULES:
        metadata = masktool.export(shortcut, tmp_path / "masked.onnx", output_kind="logits", rule=rule).metadata
        assert mode_of(metadata) == ("layer" if rule == DEFAULT_RULE else f"layer-{rule}")
        assert is_mode(mode_of(metadata), f"layer-{rule}")
        assert is_mode(mode_of(metadata), "layer") == (rule == DEFAULT_RULE)
