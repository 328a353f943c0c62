"""RISE in a file: the same masks as in Python, bit for bit, and the same map with every option."""

from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from combinations import every_pair, every_value
from explainers.test_rise import collect

from embedding.against_python import assert_same_as_python, network
from masktool.embedding.flow import INT64, Flow
from masktool.embedding.method import Asked, ExplainedNetwork
from masktool.embedding.methods.rise import EmbeddedRise
from masktool.explainers.methods.rise import Rise

SIZE = (32, 32)


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(2, 3, *SIZE)).astype(np.float32)


def masks_in_graph(method, size, masking, seed=0):
    """Returns the masks of all rows, made by ONNX Runtime."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="masks")
    flow = Flow(graph)
    embedded = EmbeddedRise(method, ExplainedNetwork(None, None, SimpleNamespace(masking=masking), size, seed, 1))
    asked = Asked(None, None)
    asked = asked._replace(extra=embedded.prepare(flow, asked))
    rows = flow.typed(flow.constant(np.arange(embedded.n_rows), INT64), INT64)
    flow.outputs_are([embedded.masks(flow, rows, asked)])
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})
    return found


@every_pair(grid_size=[7, 8], size=[(32, 32), (224, 224), (227, 227), (45, 300)], masking=["layer", "fill"])
def test_masks_are_the_same_bits(size, masking, grid_size):
    method = Rise(n_masks=33, grid_size=grid_size, p=0.4, estimator="mean")
    found = masks_in_graph(method, size, masking, seed=5)
    assert (found[0] == 1).all()
    assert np.array_equal(found[1:], collect(method, size=size, masking=masking, seed=5))


@every_value(
    masking=["layer", "fill"],
    options=[
        {},
        {"p": 0.2, "grid_size": 4},
        {"binary": False},
        {"binary": True},
        {"normalisation": "expected"},
        {"normalisation": "expected", "binary": False, "grid_size": 8},
    ],
)
def test_every_option_gives_the_map_of_python(tmp_path, images, masking, options):
    of_export = {"masking": masking} | ({"baseline": "mean"} if masking == "fill" else {})
    assert_same_as_python(tmp_path, network(*SIZE), "rise", images, seed=2, of_export=of_export, n_masks=30, **options)


@pytest.mark.parametrize("size", [(224, 224), (227, 227)])
def test_larger_inputs(tmp_path, size):
    images = np.random.default_rng(1).normal(size=(1, 3, *size)).astype(np.float32)
    assert_same_as_python(tmp_path, network(*size), "rise", images, n_masks=24)


@pytest.mark.parametrize("chunk", [2, 7])
def test_several_masks_in_one_pass(tmp_path, images, chunk):
    assert_same_as_python(tmp_path, network(*SIZE), "rise", images, chunk=chunk, n_masks=27)  # 28 rows with the first


def test_channels_last(tmp_path, images):
    source = network(*SIZE, layout="NHWC")
    assert_same_as_python(tmp_path, source, "rise", images.transpose(0, 2, 3, 1), n_masks=20)


@pytest.mark.slow
def test_a_network_with_channels_last(tmp_path, data_dir):
    images = np.random.default_rng(1).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    source = data_dir / "weights" / "mobilenet_v1_0.25_224_tf2onnx_nhwc.onnx"
    assert_same_as_python(
        tmp_path, source, "rise", images, of_export={"output_kind": "probabilities"}, n_masks=20, chunk=3
    )


def test_pixels_that_no_mask_keeps_are_0(tmp_path, images):
    found = assert_same_as_python(tmp_path, network(*SIZE), "rise", images, n_masks=3, p=0.3)
    assert (found["saliency_map"] == 0).any()


def test_thousands_of_masks_whose_scores_hardly_differ(tmp_path, images):
    """The sums of thousands of scores are much larger than what the map is made of."""
    weight = 0.02 * np.random.default_rng(0).standard_normal((6, 4))
    source = network(*SIZE, weight=weight)
    found = assert_same_as_python(tmp_path, source, "rise", images[:1], n_masks=3999, p=0.3, chunk=8)
    assert np.ptp(found["saliency_map"]) < 1e-2 * np.abs(found["saliency_map"]).max()
