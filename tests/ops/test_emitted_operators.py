"""Every operator that a rule emits has a kernel on every provider, or is an exception that is argued for.

A rule that emits another operator fails here where that would leave a device. The reasons for the exceptions stand in
DESIGN.md, "Graphs that stay on the device".
"""

from __future__ import annotations

import onnx_ir as ir
import pytest
from networks.small_graphs import CLASSIFIER, parse

import masktool
from masktool.contract import DEVICE_PROVIDERS
from masktool.embedding.method import EMBEDDED_METHODS
from masktool.explainers.method import METHODS
from masktool.exporters.description import read_graph
from masktool.exporters.gradient import WITHOUT_INDICES
from masktool.ops.samples import SAMPLES
from ops.emitted_nodes import Leaving, note_leaving
from ops.gradient_models import add_gradients, mask_and_inline, rule_of
from ops.test_mask_rules import build

NO_GRADIENT = ("QuantizeLinear", "DequantizeLinear")
"""Operators whose samples have no gradients."""
RARE = {"GlobalLpPool", "LpPool"}
"""Without a kernel in most providers, so that the network's own nodes leave the device beside the rules' ones."""
EXCEPTIONS: Leaving = {
    "cuda": RARE | {"Cosh", "Sinh"},
    "webgpu": RARE
    | {"AveragePool-19", "MaxPool with indices", "SpaceToDepth"}
    | {"DequantizeLinear of float16", "QuantizeLinear"}
    | {"Expand of int64", "Reshape of int64", "Where of int64"},
    "tensorrt": {"DequantizeLinear of uint8", "MaxPool with indices", "opset 21"},
    "coreml": RARE
    | {"Einsum", "Expand", "Expand of int64", "Gather", "Log", "Neg", "Pad", "ScatterElements"}
    | {"Equal", "Greater", "Less"}
    | {"Abs", "Cosh", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Sinh", "SpaceToDepth"}
    | {"DequantizeLinear of uint8", "QuantizeLinear"},
    "directml": {"ScatterElements-18"},
}
"""What leaves each provider's device of all that rules emit for the samples. No more, and no less."""
FEW = 6
"""Masks or steps of a method: what is emitted does not depend on it."""
KINDS_OF_FILES = [
    {"output_kind": "logits", "classify": "scores = Gemm(flat, weight)"},
    {"output_kind": "probabilities", "classify": "z = Gemm(flat, weight) scores = Softmax(z)"},
    {"output_kind": "probabilities", "classify": "z = Gemm(flat, weight) p = Softmax(z) scores = Identity(p)"},
    {"output_kind": "sigmoid", "classify": "z = Gemm(flat, weight) scores = Sigmoid(z)"},
    {"output_kind": "logits", "classify": "scores = Gemm(flat, weight)", "masking": "partial"},
    {"output_kind": "logits", "classify": "scores = Gemm(flat, weight)", "masking": "fill", "baseline": "mean"},
    {"output_kind": "logits", "classify": "scores = Gemm(flat, weight)", "masking": "fill", "baseline": "image-mean"},
    {"output_kind": "logits", "classify": "scores = Gemm(flat, weight)", "masking": "fill", "baseline": "blur"},
]
FILE_EXCEPTIONS: Leaving = {
    **{provider: set() for provider in DEVICE_PROVIDERS},
    "webgpu": {"Equal of int64", "Unsqueeze of int64"},
    "coreml": {"Equal of int64"},
}
"""What leaves the device besides in whole files: the target's column, the losses."""
SMALL_NUMBERS = ("int64", "bool")
"""Types of what counts rows, classes and steps in a file that explains itself: a few numbers."""
EMBEDDED_EXCEPTIONS: Leaving = {
    **{provider: set() for provider in DEVICE_PROVIDERS},
    "webgpu": {"Loop"},
    "coreml": {"Flatten", "GatherElements", "GreaterOrEqual", "LessOrEqual", "Loop", "ReduceMin", "TopK"},
    "directml": {"Loop"},
}
"""What leaves the device besides in files that explain themselves."""


def test_rules_emit_what_stays_on_the_device() -> None:
    leaving: Leaving = {provider: set() for provider in DEVICE_PROVIDERS}
    for op_type, samples in SAMPLES.items():
        for sample in samples:
            model = mask_and_inline(build(sample), rule_of(sample))
            if op_type not in NO_GRADIENT:
                model = ir.from_proto(add_gradients(model))
            note_leaving(model, leaving)
    assert leaving == EXCEPTIONS


def test_max_pooling_stays_on_the_devices_that_gradients_are_written_for() -> None:
    leaving: Leaving = {provider: set() for provider in DEVICE_PROVIDERS}
    for sample in SAMPLES["MaxPool"]:
        model = add_gradients(mask_and_inline(build(sample), rule_of(sample)), indices_of_maxima=False)
        note_leaving(ir.from_proto(model), leaving)
    assert {provider: leaving[provider] for provider in WITHOUT_INDICES} == {
        provider: set() for provider in WITHOUT_INDICES
    }


def test_whole_files_stay_on_the_device(tmp_path) -> None:
    leaving: Leaving = {provider: set() for provider in DEVICE_PROVIDERS}
    for number, options in enumerate(KINDS_OF_FILES):
        others = dict(options)
        text = CLASSIFIER.format(batch="N", classify=others.pop("classify"))
        exported = masktool.export(parse(text), tmp_path / f"{number}.onnx", gradient="logit", **others)
        note_leaving(ir.from_proto(read_graph(exported.path)), leaving)
    for provider in DEVICE_PROVIDERS:
        leaving[provider] -= EXCEPTIONS[provider]
    assert leaving == FILE_EXCEPTIONS


@pytest.mark.parametrize("method", sorted(EMBEDDED_METHODS))
def test_files_that_explain_themselves_stay_on_the_device(tmp_path, method) -> None:
    path = tmp_path / "file.onnx"
    network = parse(CLASSIFIER.format(batch="N", classify="scores = Gemm(flat, weight)"))
    samples = FEW if METHODS[method].samples_option else None
    masktool.export_explained(network, path, method, n_samples=samples, output_kind="logits", class_output="scores")
    leaving: Leaving = {provider: set() for provider in DEVICE_PROVIDERS}
    note_leaving(ir.from_proto(read_graph(path)), leaving, own_only=False)
    for provider in DEVICE_PROVIDERS:
        found = {each for each in leaving[provider] if not each.endswith(SMALL_NUMBERS)}
        assert not found - EXCEPTIONS[provider] - EMBEDDED_EXCEPTIONS[provider], provider
