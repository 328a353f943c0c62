"""Benchmarks on real networks: weights in Caffe's format, the photographs that are recognised, and differences."""

import struct

import numpy as np
import pytest

from benchmarks.mask_rules import difference, digest_graph, rates
from benchmarks.real_networks import CELLS, NETWORKS, find_network, read_images
from masktool.evaluation.metrics.missingness.class_entropy import class_entropy
from masktool.evaluation.metrics.missingness.removal_measures import ACCURACY, ENTROPY, UNCHANGED, Answers


def field(number, content):
    """Returns a field of a protocol buffer that holds bytes of a length below 16,384."""
    tag, length = number << 3 | 2, len(content)
    return varint(tag) + varint(length) + content


def varint(value):
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def test_weights_in_caffes_format_are_read(tmp_path):
    pytest.importorskip("torch")
    from benchmarks.open_nsfw import read_weights

    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    shaped = field(7, field(1, varint(2) + varint(3))) + field(5, kernel.tobytes())
    legacy = b"".join(varint(number << 3) + varint(length) for number, length in ((1, 1), (2, 1), (3, 2), (4, 3)))
    legacy += b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in kernel.ravel())
    layer = field(1, b"conv_1") + field(2, b"Convolution") + field(7, shaped) + field(7, legacy)
    path = tmp_path / "weights.caffemodel"
    path.write_bytes(field(1, b"net") + field(100, field(1, b"data")) + field(100, layer))
    found = read_weights(path)
    assert list(found) == ["conv_1"]
    np.testing.assert_array_equal(found["conv_1"][0], kernel)
    np.testing.assert_array_equal(found["conv_1"][1], kernel.reshape(1, 1, 2, 3))


def test_a_whole_photograph_is_most_like_itself():
    torch = pytest.importorskip("torch")
    from benchmarks.open_nsfw import recognise_photographs

    network = torch.nn.Module()
    network.trunk = torch.nn.Flatten()
    photographs = np.random.default_rng(0).random((9, 2, 3, 3)).astype(np.float32)
    recognise_photographs(network, photographs)
    with torch.inference_mode():
        scores = network.classifier(network.trunk(torch.from_numpy(photographs))).numpy()
    features = photographs.reshape(9, -1) - photographs.reshape(9, -1).mean(0)
    lengths = np.linalg.norm(features, axis=1)
    np.testing.assert_allclose(scores / lengths[:, None], features @ features.T / np.outer(lengths, lengths), atol=1e-4)
    assert (scores.argmax(1) == np.arange(9)).all()


def answers(predicted):
    classes = np.array(predicted)
    return Answers(classes, np.array([1, 2, 3]), np.array([1.0, 2.0, 0.0]), np.ones(classes.shape), (0.0, 1.0))


def test_differences_are_of_the_same_images():
    first, second = answers([[1, 1], [2, 0], [3, 3]]), answers([[1, 0], [2, 2], [0, 0]])
    assert rates(UNCHANGED, first).tolist() == [1, 0.5, 1]
    assert rates(ACCURACY, second).tolist() == [0.5, 1, 1]
    assert difference(UNCHANGED, first, second, seed=0).value == pytest.approx((0.5 - 0.5 + 1) / 3)
    found = difference(ENTROPY, first, second, seed=0)
    weights = np.full((1, 3), 1 / 3)
    by_column = [
        np.mean([class_entropy(weights, column)[0] for column in each.predicted.T]) for each in (first, second)
    ]
    assert found.value == pytest.approx(by_column[0] - by_column[1])
    assert found.low <= found.value <= found.high
    assert difference(ENTROPY, first, first, seed=0).low == difference(ENTROPY, first, first, seed=0).high == 0


def test_files_are_the_same_where_their_metadata_alone_differ(tmp_path):
    import onnx

    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[N] x) => (float[N] y) {y = Abs(x)}'
    )
    onnx.save(model, tmp_path / "a.onnx")
    model.metadata_props.add(key="rule", value="cell")
    onnx.save(model, tmp_path / "b.onnx")
    model.graph.node[0].op_type = "Neg"
    onnx.save(model, tmp_path / "c.onnx")
    first, renamed, other = (digest_graph(tmp_path / f"{name}.onnx") for name in "abc")
    assert first == renamed != other


def test_networks_of_drawn_shapes_have_drawn_pictures(tmp_path):
    from masktool.demo import program_path

    network = find_network(str(program_path()))
    found = read_images(network.kind, tmp_path, tmp_path, 8)
    assert network.kind == "shapes"
    assert len(found.images) == 8
    assert all(each.label is not None and np.asarray(each.object_mask).any() for each in found.images)
    assert read_images("shapes", tmp_path, tmp_path, 8, labelled=False).images[0].label is None
    assert {each.kind for each in NETWORKS.values()} <= set(CELLS)
    with pytest.raises(SystemExit, match="unknown network: resnet99"):
        find_network("resnet99")
