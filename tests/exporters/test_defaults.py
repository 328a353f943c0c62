"""An input with a default is read by one node, whatever is added to a file later."""

import onnx
import pytest
from networks.small_graphs import classifier

import masktool


def readers(path):
    return [node.op_type for node in onnx.load(path).graph.node if "mask" in node.input]


@pytest.mark.parametrize("gradient", [None, "logit"])
@pytest.mark.parametrize("options", [{}, {"masking": "partial"}, {"masking": "fill", "baseline": "blur"}], ids=str)
def test_one_node_reads_the_mask(tmp_path, options, gradient):
    path = tmp_path / "masked.onnx"
    masktool.export(classifier(), path, gradient=gradient, output_kind="logits", **options)
    assert readers(path) == ["LeakyRelu"]


def test_gradients_are_added_behind_the_node_that_stands_there(tmp_path):
    masktool.export(classifier(), tmp_path / "masked.onnx", output_kind="logits")
    masktool.add_gradients_to(tmp_path / "masked.onnx", tmp_path / "gradient.onnx", loss="logit")
    assert readers(tmp_path / "gradient.onnx") == ["LeakyRelu"]


def test_a_file_from_before_gets_the_node_with_its_gradients(tmp_path):
    masktool.export(classifier(), tmp_path / "masked.onnx", output_kind="logits")
    model = onnx.load(tmp_path / "masked.onnx")
    (reader,) = [node for node in model.graph.node if "mask" in node.input]
    for node in model.graph.node:
        node.input[:] = ["mask" if name == reader.output[0] else name for name in node.input]
    model.graph.node.remove(reader)
    onnx.save(model, tmp_path / "before.onnx")
    assert len(readers(tmp_path / "before.onnx")) > 1
    masktool.add_gradients_to(tmp_path / "before.onnx", tmp_path / "gradient.onnx", loss="logit")
    assert readers(tmp_path / "gradient.onnx") == ["LeakyRelu"]


def test_a_required_mask_has_no_default_to_fall_back_to(tmp_path):
    masktool.export(classifier(), tmp_path / "masked.onnx", mask_required=True)
    assert "LeakyRelu" not in readers(tmp_path / "masked.onnx")
