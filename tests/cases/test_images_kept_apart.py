"""Networks that mix the images of a batch, or whose batch cannot be opened: one image at a time, behind one interface.

Right is what the plain model gives an image alone, whatever else is in the call.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from networks.small_graphs import parse
from PIL import Image

import masktool
from masktool.cli import run
from masktool.contract import Masking
from masktool.errors import MasktoolError, UnsupportedOperatorError
from masktool.exporters.batch import lift_batch
from masktool.exporters.canonical import canonicalise

FEATURES = """
    h = Conv <pads = [1, 1, 1, 1]> (x, kernel) a = Relu (h) p = GlobalAveragePool (a) f = Flatten (p)"""
TRAINED = """
    b, r, v = BatchNormalization <training_mode = 1> (a, six, none, mean, variance)
    e = ReduceMax <keepdims = 0> (b, maps) y = Gemm (e, weight)"""
MIXING = {
    "threshold over the batch": """
        s = Gemm (f, weight) q = Softmax (s) m = ReduceMax <keepdims = 0> (q) t = Constant <value_float = 0.5> ()
        c = Greater (m, t) z = Constant <value_float = 0.0> () n = Mul (q, z) y = Where (c, q, n)""",
    "if on the brightness of the batch": """
        m = ReduceMean <keepdims = 0> (f) t = Constant <value_float = 0.4> () c = Greater (m, t)
        s = Gemm (f, weight)
        y = If (c) <then_branch = yes () => (float[M, 4] u) { u = Neg (s) },
                    else_branch = no () => (float[M, 4] v) { v = Abs (s) }>""",
    "softmax over the batch": "s = Gemm (f, weight) q = Softmax <axis = 0> (s) y = Add (q, s)",
    "sort over the batch": """
        s = Gemm (f, weight) k = Constant <value_ints = [1]> () v, i = TopK <axis = 0> (s, k) y = Sub (s, v)""",
    "sum along the batch": """
        s = Gemm (f, weight) o = Constant <value_int = 0> () y = CumSum <reverse = 1> (s, o)""",
    "images by computed indices": """
        s = Gemm (f, weight) i = ArgMax <axis = 0, keepdims = 1> (s) b = GatherElements <axis = 0> (s, i)
        y = Sub (s, b)""",
    "gram matrix of the batch": """
        s = Gemm (f, weight) t = Transpose (s) g = MatMul (t, s) y = MatMul (s, g)""",
    "share of the batch's size": """
        s = Gemm (f, weight) n = Size (s) c = Cast <to = 1> (n) y = Div (s, c)""",
    "loop that carries from image to image": """
        s = Gemm (f, weight) n = Shape <start = 0, end = 1> (s) m = Squeeze (n) t = Constant <value = bool {1}> ()
        r = Constant <value_ints = [4]> () z = ConstantOfShape (r)
        l, y = Loop (m, t, z) <body = g (int64 i, bool c, float[4] before) => (bool d, float[4] after, float[4] out)
            { d = Identity (c) row = Gather <axis = 0> (s, i) after = Add (before, row) out = Identity (after) }>""",
    "loop over images that carries nothing": """
        s = Gemm (f, weight) n = Shape <start = 0, end = 1> (s) m = Squeeze (n) t = Constant <value = bool {1}> ()
        y = Loop (m, t) <body = g (int64 i, bool c) => (bool d, float[4] out)
            { d = Identity (c) row = Gather <axis = 0> (s, i) out = Abs (row) }>""",
    "statistics of the batch": TRAINED,
}
"""Behind :data:`FEATURES`, from ``f`` (N, 6) and ``a`` (N, 6, 8, 8) to ``y`` (N, 4)."""
NUMBER = """n = Shape <start = 0, end = 1> (s) k = Squeeze (n) i = Constant <value_int = 0> ()
    j = Constant <value_int = 1> () o = Constant <value_ints = [1]> () m = Add (n, o)"""
VARYING = {
    "images read backwards and written forwards": """
        y = Scan <num_scan_inputs = 1, scan_input_directions = [1], body = g (float[4] row) => (float[4] out)
            { out = Abs (row) }> (s)""",
    "images read forwards and written backwards": """
        y = Scan <num_scan_inputs = 1, scan_output_directions = [1], body = g (float[4] row) => (float[4] out)
            { out = Abs (row) }> (s)""",
    "images that meet those from the other end": """
        y = Scan <num_scan_inputs = 2, scan_input_directions = [0, 1], body = g (float[4] row, float[4] other) =>
            (float[4] out) { out = Sub (row, other) }> (s, s)""",
    "images turned around behind a threshold": """
        c = Constant <value_float = 9.0> ()
        d = Scan <num_scan_inputs = 1, scan_input_directions = [1], body = g (float[4] row) => (float[4] out)
            { out = Abs (row) }> (s)
        e = Sub (d, c) q = Relu (e) y = Add (s, q)""",
    "rounds of a Scan as many as images": f"""
        {NUMBER} t = Constant <value_int = 2> () u = Mul (k, t) l = Range (i, u, j) z = Constant <value_float = 0.0> ()
        c, d = Scan <num_scan_inputs = 1, body = g (float before, int64 row) => (float after, int64 out)
            {{ v = Constant <value_float = 1.0> () after = Add (before, v) out = Identity (row) }}> (z, l)
        y = Div (s, c)""",
    "places of images, one a round": f"""
        {NUMBER} z = Constant <value_ints = [0]> () c = Gather <axis = 1> (s, z) l = Range (i, k, j)
        d = Scan <num_scan_inputs = 1, scan_output_axes = [1], body = g (int64 row) => (float[1] out)
            {{ out = Gather <axis = 0> (c, row) }}> (l)
        e = ReduceSum (d, o) y = Add (s, e)""",
    "images behind the axis that a Scan writes last": """
        z = Constant <value_ints = [0]> () c = Gather <axis = 1> (s, z)
        d = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [-1], body = g (float[M] row) =>
            (float[M] out) { out = Abs (row) }> (c)
        e = ReduceMean (d, z) q = Transpose (e) y = Mul (s, q)""",
    "product of a row of the shape": """
        z = Shape (x) o = Constant <value_ints = [1, 2, 0, 3]> () l = Gather (z, o)
        t = Constant <value_ints = [2, 2]> () u = Reshape (l, t)
        i = Constant <value_int = 1> () c = Gather <axis = 0> (u, i)
        d = ReduceProd <keepdims = 0> (c) e = Cast <to = 1> (d) y = Div (s, e)""",
    "column of the shape": """
        z = Shape (x) o = Constant <value_ints = [1, 2, 0, 3]> () l = Gather (z, o)
        t = Constant <value_ints = [2, 2]> () u = Reshape (l, t)
        i = Constant <value_ints = [0]> () j = Constant <value_ints = [1]> ()
        c = Slice (u, i, j, j) d = ReduceSum <keepdims = 0> (c) e = Cast <to = 1> (d) y = Div (s, e)""",
    "table of the products of the shape": """
        z = Shape (x) t = Constant <value_ints = [4, 1]> () u = Reshape (z, t) v = Mul (u, z)
        i = Constant <value_int = 1> () c = Gather <axis = 0> (v, i) j = Constant <value_int = 0> () d = Gather (c, j)
        e = Cast <to = 1> (d) y = Div (s, e)""",
    "image resized to as many rows as images": f"""
        {NUMBER} t = Constant <value_ints = [6]> () u = Constant <value_ints = [8]> ()
        z = Concat <axis = 0> (n, t, n, u) c = Resize (a, , , z) e = ReduceMax <keepdims = 0> (c, maps)
        y = Gemm (e, weight)""",
    "image stretched by as much as images": f"""
        {NUMBER} z = Cast <to = 1> (n) c = Resize <axes = [2]> (a, , z) e = ReduceSum <keepdims = 0> (c, maps)
        y = Gemm (e, weight)""",
    "answer repeated as often as images": f"""
        {NUMBER} u = Unsqueeze (s, o) t = Constant <value_ints = [4]> () z = Concat <axis = 0> (n, n, t)
        c = Expand (u, z) y = ReduceSum <keepdims = 0> (c, o)""",
    "answer repeated once more than images": f"""
        {NUMBER} u = Unsqueeze (s, o) t = Constant <value_ints = [4]> () z = Concat <axis = 0> (o, m, t)
        c = Expand (u, z) y = ReduceSum <keepdims = 0> (c, o)""",
    "ones for each image, one more than images": f"""
        {NUMBER} z = Concat <axis = 0> (n, m) c = ConstantOfShape <value = float[1] {{1.0}}> (z)
        e = ReduceSum (c, o) y = Mul (s, e)""",
    "a row for each image, one longer than images": f"""
        {NUMBER} z = Concat <axis = 0> (n, m) t = Constant <value = float[1, 1] {{2.0}}> () c = Expand (t, z)
        e = ReduceSum (c, o) y = Mul (s, e)""",
    "answers as far apart as there are images": f"""
        {NUMBER} z = Constant <value_ints = [0]> () t = Constant <value_ints = [4]> () c = Slice (s, z, t, o, n)
        e = ReduceSum (c, o) y = Add (s, e)""",
    "lengths beyond what an integer holds": f"""
        {NUMBER} u = Constant <value_ints = [1073741824]> () v = Mul (n, u) l = Cast <to = 6> (v) q = Cast <to = 7> (l)
        d = Div (q, n) e = Cast <to = 1> (d) y = Add (s, e)""",
    "grid of as many rows as images": f"""
        th = Gemm (f, theta) l = Constant <value_ints = [-1, 2, 3]> () t = Reshape (th, l) {NUMBER}
        u = Constant <value_ints = [3]> () v = Constant <value_ints = [8]> () z = Concat <axis = 0> (n, u, n, v)
        c = AffineGrid (t, z) r = GridSample (x, c) b = Conv <pads = [1, 1, 1, 1]> (r, kernel)
        e = ReduceSum <keepdims = 0> (b, maps) y = Gemm (e, weight)""",
}
"""Behind ``s`` (N, 4), what each image is told depends on the order of the images or on how many there are."""
FIXED = {
    "a gain for each place of the batch": (3, "s = Gemm (f, weight) y = Mul (s, gains)"),
    "statistics of a fixed batch": (
        2,
        TRAINED,
    ),
    "written by indices": (
        1,
        """s = Gemm (f, weight) i = Constant <value = int64[1, 2] {0, 2}> () u = Constant <value_floats = [9.0]> ()
        y = ScatterND (s, i, u)""",
    ),
    "the batch dropped": (
        1,
        """s = Gemm (f, weight) z = Constant <value_ints = [0]> () v = Squeeze (s, z) w = Softmax <axis = 0> (v)
        y = Unsqueeze (w, z)""",
    ),
}
OPENED = {
    "channel shuffle with constants": """
        c1 = Constant <value_ints = [3, 2, 64]> () r1 = Reshape (a, c1) r2 = Transpose <perm = [1, 0, 2]> (r1)
        c2 = Constant <value_ints = [2, -1, 3, 8, 8]> () r3 = Reshape (r2, c2)
        i = Constant <value_int = 1> () g = Gather <axis = 0> (r3, i) j = Constant <value_int = 0> ()
        k = Gather <axis = 0> (r3, j) b = Concat <axis = 1> (k, g) e = GlobalAveragePool (b) d = Flatten (e)
        y = Gemm (d, weight)""",
    "LSTM that starts with zeros": """
        c1 = Constant <value_ints = [1, 6, 64]> () r1 = Reshape (a, c1) r2 = Transpose <perm = [1, 0, 2]> (r1)
        c2 = Constant <value_ints = [1, 1, 4]> () z = ConstantOfShape (c2)
        o, last, cell = LSTM <hidden_size = 4> (r2, lw, lr, , , z, z) c3 = Constant <value_ints = [1, 4]> ()
        y = Reshape (last, c3)""",
    "spatial transformer": """
        th = Gemm (f, theta) c1 = Constant <value_ints = [1, 2, 3]> () t = Reshape (th, c1)
        tt = Transpose <perm = [0, 2, 1]> (t) g = MatMul (base, tt) c2 = Constant <value_ints = [1, 8, 8, 2]> ()
        gr = Reshape (g, c2) w = GridSample (x, gr) b = Conv <pads = [1, 1, 1, 1]> (w, kernel)
        e = GlobalAveragePool (b) d = Flatten (e) y = Gemm (d, weight)""",
}
WEIGHTS = """float[6, 3, 3, 3] kernel, float[6, 4] weight, float[6] six, float[4] ones, float[6] none, float[6] mean,
    float[6] variance, int64[2] maps, int64[1] first, float[3, 1] gains,
    float[1, 16, 64] lw, float[1, 16, 4] lr, float[6, 6] theta, float[1, 64, 3] base"""


def network(body: str, batch: int | str = "N", output: str = "float y", beside: str = "") -> onnx.ModelProto:
    """Returns a graph from ``x`` (batch, 3, 8, 8), and what is beside it, to ``y``."""
    text = f"""<ir_version: 10, opset_import: ["" : 20]> g (float[{batch}, 3, 8, 8] x{beside}) => ({output}) <{WEIGHTS}>
        {{ {FEATURES} {body} }}"""
    model = onnx.parser.parse_model(text.replace("float y", f"float[{batch}, 4] y"))
    rng = np.random.default_rng(0)
    own = {
        "variance": np.ones(6),
        "ones": np.ones(4),
        "maps": np.array([2, 3]),
        "first": np.array([0]),
        "gains": np.array([[1.0], [2.0], [-3.0]]),
    }
    used = {name for node in model.graph.node for name in node.input}
    for declared in model.graph.value_info:
        shape = [axis.dim_value for axis in declared.type.tensor_type.shape.dim]
        element = onnx.helper.tensor_dtype_to_np_dtype(declared.type.tensor_type.elem_type)
        array = np.asarray(own.get(declared.name, rng.standard_normal(shape)), element)
        if declared.name in used:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, declared.name))
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    return model


def images(count: int = 3) -> np.ndarray:
    """Returns images (count, 3, 8, 8) that differ widely in brightness."""
    drawn = np.random.default_rng(5).random((count, 3, 8, 8)).astype(np.float32)
    return drawn * np.linspace(0.2, 3, count, dtype=np.float32)[:, None, None, None]


def run_alone(model: onnx.ModelProto, given: np.ndarray, batch: int = 1) -> list[np.ndarray]:
    """Returns the first row that the plain model gives each image in a batch of its own copies."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, {"x": np.repeat(image[None], batch, axis=0)})[0][:1] for image in given]


def export(model: onnx.ModelProto, folder: Path, masking: Masking, **options: Any) -> masktool.MaskedSession:
    onnx.save(model, folder / "plain.onnx")
    masktool.export(folder / "plain.onnx", folder / "masked.onnx", masking=masking, **options)
    return masktool.load(folder / "masked.onnx")


def refused_in_layer(model: onnx.ModelProto, masking: Masking, folder: Path) -> bool:
    """Checks that statistics over missing places are refused, and tells whether they were."""
    if masking != "layer" or "BatchNormalization" not in [node.op_type for node in model.graph.node]:
        return False
    with pytest.raises(UnsupportedOperatorError, match="mean and variance of the images at hand"):
        export(model, folder, masking)
    return True


def assert_no_image_changes_another(session: masktool.MaskedSession, expected: list[np.ndarray]) -> None:
    """Checks images under masks of ones against the plain model, and in company against themselves alone."""
    given, masks = images(), np.ones((3, 1, 8, 8), np.float32)

    def answer(given: np.ndarray, masks: np.ndarray) -> np.ndarray:
        return session.run(given, masks)["y"]

    scale = max(np.abs(each).max() for each in expected)
    assert np.abs(answer(given, masks) - np.concatenate(expected)).max() <= 1e-5 * scale
    masks[0, :, :, :4], masks[1, :, 2:] = 0, 0
    together = answer(given, masks)
    alone = np.concatenate([answer(given[i : i + 1], masks[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6 * scale)
    many = answer(given[:1], masks)
    one_by_one = np.concatenate([answer(given[:1], masks[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(many, one_by_one, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize("name", MIXING)
def test_a_network_that_mixes_images_takes_one_at_a_time(name: str, masking: Masking, tmp_path: Path) -> None:
    model = network(MIXING[name])
    if refused_in_layer(model, masking, tmp_path):
        return
    session = export(model, tmp_path, masking)
    assert session.metadata.batching == "one"
    assert session.metadata.independence == "mixing"
    assert session.metadata.batching_reason
    assert not {"batches", "one_image"} & set(session.metadata.parity)
    assert_no_image_changes_another(session, run_alone(model, images()))
    raw = onnxruntime.InferenceSession(tmp_path / "masked.onnx", providers=["CPUExecutionProvider"])
    assert raw.get_inputs()[0].shape[0] == 1  # so that no other runtime mixes them either
    with pytest.raises(Exception, match="Got invalid dimensions"):
        raw.run(None, {"x": images()})


@pytest.mark.parametrize("name", VARYING)
def test_what_varies_with_the_batch_is_not_proved_to_be_the_same(name: str, tmp_path: Path) -> None:
    model = network(f"s = Gemm (f, weight) {VARYING[name]}")
    alone = np.concatenate(run_alone(model, images()))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert not np.allclose(session.run(None, {"x": images()})[0], alone, rtol=1e-3)
    exported = export(model, tmp_path, "fill")
    assert exported.metadata.batching == "one"
    assert exported.metadata.independence in ("mixing", "unproved")
    assert_no_image_changes_another(exported, list(alone[:, None]))


BESIDE = {
    "sums over the images' places in another input": """
        l = Constant <value_ints = [1]> () m = ReduceSum <keepdims = 0> (t, l)""",
    "counts the images' places in another input": "l = Shape <start = 1, end = 2> (t) m = Cast <to = 1> (l)",
}


@pytest.mark.parametrize("name", BESIDE)
def test_another_input_may_have_the_images_on_its_last_axis(name: str, tmp_path: Path) -> None:
    model = network(f"s = Gemm (f, weight) {BESIDE[name]} y = Add (s, m)", beside=", float[4, N] t")
    onnx.save(model, tmp_path / "plain.onnx")
    found = masktool.export(tmp_path / "plain.onnx", tmp_path / "masked.onnx", masking="fill", image_input="x").metadata
    assert (found.batching, found.independence) == ("one", "mixing")
    session = onnxruntime.InferenceSession(tmp_path / "masked.onnx", providers=["CPUExecutionProvider"])
    assert {each.name: each.shape for each in session.get_inputs()}["t"] == [4, 1]


@pytest.mark.parametrize("masking", ["layer", "fill"])
def test_height_and_width_may_bear_the_name_of_the_batch(masking: Masking, tmp_path: Path) -> None:
    body = """s = Shape (x) o = Constant <value_ints = [2, 1, 0, 3]> () l = Gather (s, o) r = Reshape (x, l)
        b = Conv <pads = [1, 1, 1, 1]> (r, kernel) e = ReduceMean <keepdims = 0> (b, maps) y = Gemm (e, weight)"""
    model = network(body)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "N"
    independence = lift_batch(canonicalise(onnx_ir.from_proto(model)), "x")
    assert independence.verdict == "mixing"
    plain = network("y = Gemm (f, weight)")
    plain.graph.input[0].type.tensor_type.shape.CopyFrom(model.graph.input[0].type.tensor_type.shape)
    session = export(plain, tmp_path, masking)
    assert session.metadata.independence == "proved"
    assert_no_image_changes_another(session, run_alone(plain, images()))


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize("direction", [0, 1])
def test_a_scan_over_images_in_one_order_keeps_them_apart(direction: int, masking: Masking, tmp_path: Path) -> None:
    body = f"""s = Gemm (f, weight)
        y = Scan <num_scan_inputs = 1, scan_input_directions = [{direction}], scan_output_directions = [{direction}],
            body = g (float[4] row) => (float[4] out) {{ out = Abs (row) }}> (s)"""
    session = export(network(body), tmp_path, masking)
    assert session.metadata.independence == "proved"
    assert_no_image_changes_another(session, run_alone(network(body), images()))


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_batch_that_cannot_be_opened_takes_one_at_a_time(name: str, masking: Masking, tmp_path: Path) -> None:
    batch, body = FIXED[name]
    model = network(body, batch)
    if refused_in_layer(model, masking, tmp_path):
        return
    session = export(model, tmp_path, masking)
    assert session.metadata.batching == "one"
    assert_no_image_changes_another(session, run_alone(model, images(), batch))


@pytest.mark.parametrize("name", OPENED)
def test_a_fixed_batch_is_opened_by_where_its_images_lie(name: str, tmp_path: Path) -> None:
    model = network(OPENED[name], 1)
    session = export(model, tmp_path, "fill")
    assert session.metadata.batching == "any"
    assert session.metadata.independence == "proved"
    assert_no_image_changes_another(session, run_alone(model, images()))


@pytest.mark.parametrize("masking", ["layer", "fill"])
def test_an_output_that_is_not_batch_first_is_stacked(masking: Masking, tmp_path: Path) -> None:
    body = "y = Gemm (f, weight) c = Constant <value_ints = [3, -1, 2]> () z = Constant <value_ints = [0]> ()"
    body += " u = Unsqueeze (y, z) steps = Concat <axis = 0> (u, u, u)"
    model = network(body, output="float y, float[3, N, 4] steps")
    session = export(model, tmp_path, masking)
    assert session.metadata.batching == "one"
    assert "'steps'" in str(session.metadata.batching_reason)
    assert session.output_shapes == {"y": (None, 4), "steps": (None, 3, 1, 4)}
    found = session.run(images())
    np.testing.assert_array_equal(found["steps"], np.repeat(found["y"][:, None, None], 3, axis=1))


@pytest.mark.parametrize("batch", [1, "N"])
def test_boxes_are_selected_in_each_image_by_itself(batch: int | str, tmp_path: Path) -> None:
    body = """
        w = Conv (a, head) c = Constant <value_ints = [0, 5, 64]> () d = Reshape (w, c)
        i = Constant <value_ints = [0, 1, 2, 3]> () j = Constant <value_ints = [4]> ()
        e = Gather <axis = 1> (d, i) boxes = Transpose <perm = [0, 2, 1]> (e) g = Gather <axis = 1> (d, j)
        y = Sigmoid (g) m = Constant <value_ints = [64]> () o = Constant <value_floats = [0.5]> ()
        selected = NonMaxSuppression (boxes, y, m, o, o)"""
    text = f"""<ir_version: 10, opset_import: ["" : 20]> g (float[{batch}, 3, 8, 8] x) =>
        (float[{batch}, 64, 4] boxes, float[{batch}, 1, 64] y, int64[n, 3] selected)
        <float[6, 3, 3, 3] kernel, float[5, 6, 1, 1] head> {{ {FEATURES} {body} }}"""
    model = parse(text)
    onnx.save(model, tmp_path / "plain.onnx")
    masktool.export(tmp_path / "plain.onnx", tmp_path / "masked.onnx", masking="fill")
    session = masktool.load(tmp_path / "masked.onnx")
    assert session.metadata.batching == "one"
    found = session.run(images())
    plain = onnxruntime.InferenceSession(tmp_path / "plain.onnx", providers=["CPUExecutionProvider"])
    assert found["selected"].shape == (3,)
    masks = np.ones((2, 1, 8, 8), np.float32)
    masks[1, :, 2:] = 0
    with pytest.raises(MasktoolError, match=r"has another length under other masks has no score .output 'selected'"):
        list(session.masked_scores(images()[:1], [masks], output="selected"))
    for index, image in enumerate(images()):
        boxes, scores, selected = plain.run(None, {"x": image[None]})
        np.testing.assert_allclose(found["boxes"][index], boxes[0], rtol=1e-5)
        np.testing.assert_allclose(found["y"][index], scores[0], rtol=1e-5)
        np.testing.assert_array_equal(found["selected"][index], selected)


def test_rows_of_another_length_for_each_mask_are_given_one_by_one(tmp_path: Path) -> None:
    """Boxes (1, K, 4) of one image, K as many as are left: ONNX Runtime runs, and numpy cannot join them."""
    body = """
        w = Conv (a, head) c = Constant <value_ints = [1, 5, 64]> () d = Reshape (w, c)
        i = Constant <value_ints = [0, 1, 2, 3]> () j = Constant <value_ints = [4]> ()
        e = Gather <axis = 1> (d, i) boxes = Transpose <perm = [0, 2, 1]> (e) y = Gather <axis = 1> (d, j)
        m = Constant <value_ints = [64]> () o = Constant <value_floats = [0.5]> ()
        selected = NonMaxSuppression (boxes, y, m, o, o) k = Constant <value_int = 2> ()
        chosen = Gather <axis = 1> (selected, k) left = Gather <axis = 1> (boxes, chosen)"""
    text = f"""<ir_version: 10, opset_import: ["" : 20]> g (float[1, 3, 8, 8] x) => (float[1, n, 4] left)
        <float[6, 3, 3, 3] kernel, float[5, 6, 1, 1] head> {{ {FEATURES} {body} }}"""
    model = parse(text)
    onnx.save(model, tmp_path / "plain.onnx")
    masktool.export(tmp_path / "plain.onnx", tmp_path / "masked.onnx", masking="fill")
    session = masktool.load(tmp_path / "masked.onnx")
    plain = onnxruntime.InferenceSession(tmp_path / "plain.onnx", providers=["CPUExecutionProvider"])
    found = session.run(images())["left"]
    assert len({len(each) for each in found}) > 1
    for image, boxes in zip(images(), found, strict=True):
        np.testing.assert_allclose(boxes, plain.run(None, {"x": image[None]})[0][0], rtol=1e-5)
    masks = np.ones((2, 1, 8, 8), np.float32)
    masks[1, :, 2:] = 0
    with pytest.raises(MasktoolError, match=r"has another length under other masks has no score .output 'left'.$"):
        list(session.masked_scores(images()[:1], [masks], output="left"))


@pytest.mark.parametrize("batch", [800, 130])
def test_a_large_fixed_batch_is_opened_without_being_run(batch: int, tmp_path: Path) -> None:
    model = network("y = Gemm (f, weight)", batch)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 200
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 200
    session = export(model, tmp_path, "layer")
    assert session.metadata.batching == "any"
    assert session.metadata.parity["ones"] <= 1e-5


def test_a_large_fixed_batch_that_cannot_be_opened_is_beyond_a_limit(tmp_path: Path) -> None:
    model = network("s = Gemm (f, weight) y = Softmax <axis = 0> (s)", 1000)
    with pytest.raises(MasktoolError, match=r"at most 64 images of a fixed batch.*got 1000"):
        export(model, tmp_path, "fill")


GRADIENTS = {
    "softmax over the batch": ("N", MIXING["softmax over the batch"]),
    "a gain for each place of the batch": FIXED["a gain for each place of the batch"],
    "squares over the places of the batch": (2, "s = Gemm (f, weight) n = ReduceSumSquare (s, first) y = Div (s, n)"),
}


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_of_each_image_alone(name: str, masking: Masking, tmp_path: Path) -> None:
    batch, body = GRADIENTS[name]
    model = network(body, batch)
    session = export(model, tmp_path, masking, gradient="logit", class_output="y", output_kind="logits")
    given, masks = images(), np.ones((3, 1, 8, 8), np.float32)
    masks[1, :, 2:] = 0
    found = session.gradient(given, masks, target=[0, 1, 2], of=("image", "mask"))
    assert found.image is not None
    assert found.image.shape == given.shape
    for index in range(3):
        alone = session.gradient(given[index][None], masks[index][None], target=index, of=("image", "mask"))
        np.testing.assert_array_equal(found.image[index], alone.image[0])
        np.testing.assert_array_equal(found.mask[index], alone.mask[0])
    step = np.zeros_like(given)
    step[:, 1, 1, 1] = 1e-2
    up, down = session(given + step, masks), session(given - step, masks)
    slopes = ((up - down) / 2e-2)[range(3), range(3)]
    np.testing.assert_allclose(found.image[:, 1, 1, 1], slopes, rtol=0.02, atol=1e-3 * np.abs(slopes).max())


SAMPLES = {"lime": 40, "rise": 40, "smoothgrad": 5, "integrated-gradients": 5, "extremal": 5, "neuromask": 5}


@pytest.mark.parametrize(
    "method",
    ["attribution-mask", "grad-cam", "gradient", "input-x-gradient", "occlusion", *SAMPLES],
)
def test_every_method_explains_a_file_of_one_image(method: str, tmp_path: Path) -> None:
    """A softmax over one image is 1: the map is that of scores + 1, which any batch gives."""
    bodies = {"one": MIXING["softmax over the batch"], "any": "s = Gemm (f, weight) y = Add (s, ones)"}
    maps = {}
    for batching, body in bodies.items():
        folder = tmp_path / batching
        folder.mkdir()
        session = export(network(body), folder, "layer", gradient="logit", class_output="y", output_kind="logits")
        assert session.metadata.batching == batching
        found = masktool.explain(session, images()[:1], method, target=2, n_samples=SAMPLES.get(method))
        maps[batching] = np.asarray(found.model_attributions)
    scale = np.abs(maps["any"]).max()
    assert scale > 0
    np.testing.assert_allclose(maps["one"], maps["any"], rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("batch", [1, 7])
def test_a_map_does_not_depend_on_the_batch(batch: int, tmp_path: Path) -> None:
    session = export(network(MIXING["gram matrix of the batch"]), tmp_path, "layer", class_output="y")
    options = {"n_samples": 30, "target": 1}
    found, expected = (
        masktool.explain(session, images()[2:], "rise", perturbations_per_eval=size, **options).model_attributions
        for size in (batch, 16)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["softmax over the batch", "a gain for each place of the batch"])
def test_photographs_are_evaluated_one_by_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions under every mask are those of a network without what mixes: neither changes which class is first."""
    pytest.importorskip("matplotlib")
    batch, body = FIXED[name] if name in FIXED else ("N", MIXING[name])
    plain = "y = Gemm (f, weight)"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(f"photos/{index}.png")
    Path("pre.json").write_text('{"resize": "exact"}')
    found = {}
    for label, model in {"mixed": network(body, batch), "plain": network(plain)}.items():
        onnx.save(model, f"{label}.onnx")
        prepare = ["--preprocess", "pre.json", "--output-kind", "logits", "--class-output", "y"]
        assert run(["export", f"{label}.onnx", "-o", f"{label}.m.onnx", *prepare]) == 0
        quick = ["--order", "random", "--fraction", "0.3", "--fraction", "0.7", "-o", label]
        assert run(["evaluate", "missingness", f"{label}.m.onnx", "photos", "--mode", "layer", *quick]) == 0
        document = json.loads(Path(label, "missingness.json").read_text())
        found[label] = document
    assert masktool.load("mixed.m.onnx").metadata.one_by_one
    assert not masktool.load("plain.m.onnx").metadata.one_by_one
    assert found["mixed"]["tables"] == found["plain"]["tables"]
