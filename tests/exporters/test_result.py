"""What ``masktool.export`` gives back agrees with what stands in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from networks.small_graphs import classifier, parse

import masktool
from masktool.exporters import storage


@pytest.mark.parametrize("options", [{}, {"masking": "fill"}, {"gradient": "logit"}], ids=["layer", "fill", "gradient"])
def test_it_says_what_the_file_says(tmp_path: Path, options: dict[str, str]):
    exported = masktool.export(classifier(), tmp_path / "masked.onnx", **options)
    found = masktool.describe(tmp_path / "masked.onnx")
    assert exported.path == found.path
    assert exported.metadata == found.metadata
    assert exported.rules == found.rules
    assert sum(exported.rule_counts.values()) == sum(node.rule is not None for node in found.rules)
    assert exported.n_bytes == found.n_bytes == (tmp_path / "masked.onnx").stat().st_size
    assert exported.source.n_nodes == len(classifier().graph.node)


def test_the_weights_beside_the_file_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "LARGEST_WEIGHTS", 0)
    monkeypatch.setattr(storage, "SMALLEST_OUTSIDE", 16)
    exported = masktool.export(classifier(), tmp_path / "masked.onnx")
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert exported.n_bytes == sum(sizes) == masktool.describe(exported.path).n_bytes


def test_notes_tell_of_inputs_and_of_new_names(tmp_path: Path):
    text = """<ir_version: 10, opset_import: ["" : 20]>
    scaled (float[N, 3, 8, 8] image, float[N, 6, 1, 1] scale) => (float[N, 6] loss)
    <float[6, 3, 3, 3] kernel>
    { h = Conv (image, kernel) s = Mul (h, scale) p = GlobalAveragePool (s) loss = Flatten (p) }"""
    exported = masktool.export(
        parse(text), tmp_path / "m.onnx", image_input="image", class_output="loss", gradient="logit"
    )
    assert exported.notes == (
        "the model's output 'loss' is called 'model_loss' in the file; output takes both names",
        "the image is 'image'; to be fed besides: 'scale' float (N, 6, 1, 1)",
    )
    assert exported.source.outputs == ("'loss' float (N, 6)",)
