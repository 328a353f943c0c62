"""The batch is followed through a graph: what keeps images apart is proved, what mixes them is named.

Every verdict is held against ONNX Runtime: where independence was proved, an image gives the same alone and in company;
where a node was named as mixing, its company is seen to change it.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common
import onnxruntime
import pytest

from masktool.exporters.canonical import canonicalise
from masktool.exporters.independence import Independence, prove_independence

TOLERANCE = 1e-5

APART = {
    "softmax_over_channels": "y = Softmax <axis = 1> (x)",
    "channel_shuffle": """
        s = Constant <value_ints = [0, 2, 2, 36]> () t = Constant <value_ints = [-1, 4, 6, 6]> ()
        a = Reshape (x, s) b = Transpose <perm = [0, 2, 1, 3]> (a) y = Reshape (b, t)""",
    "images_merged_with_channels": """
        s = Constant <value_ints = [-1, 2, 36]> () t = Constant <value_ints = [2, -1, 2, 6, 6]> ()
        i = Constant <value_int = 1> ()
        a = Reshape (x, s) b = Transpose <perm = [1, 0, 2]> (a) c = Reshape (b, t) y = Gather <axis = 0> (c, i)""",
    "windows": """
        s = Constant <value_ints = [-1, 4, 2, 3, 2, 3]> () t = Constant <value_ints = [-1, 4, 9]> ()
        u = Constant <value_ints = [-1, 16, 9]> ()
        a = Reshape (x, s) b = Transpose <perm = [0, 2, 4, 1, 3, 5]> (a) c = Reshape (b, t)
        d = Softmax <axis = 1> (c) y = Reshape (d, u)""",
    "attention": """
        s = Constant <value_ints = [0, 4, 36]> ()
        q = Reshape (x, s) k = Transpose <perm = [0, 2, 1]> (q) w = MatMul (q, k) y = MatMul (w, q)""",
    "class_token": """
        n = Shape <start = 0, end = 1> (x) r = Constant <value_ints = [1, 36]> () c = Concat <axis = 0> (n, r)
        z = Constant <value = float[1, 1, 36] {1.0}> ()
        s = Constant <value_ints = [0, 4, 36]> () q = Reshape (x, s)
        e = Expand (z, c) y = Concat <axis = 1> (q, e)""".replace(
        "float[1, 1, 36] {1.0}", "float[1, 1, 36] {" + ", ".join(["1.0"] * 36) + "}"
    ),
    "test_time_flip": """
        i = Constant <value_ints = [5, 4, 3, 2, 1, 0]> ()
        f = Gather <axis = 3> (x, i) a = Concat <axis = 0> (x, f) b = Sigmoid (a)
        c, d = Split <axis = 0, num_outputs = 2> (b) y = Add (c, d)""",
    "own_indices": """
        k = Constant <value_ints = [2]> () s = Constant <value_ints = [0, -1]> () q = Reshape (x, s)
        v, i = TopK <axis = 1> (q, k) y = GatherElements <axis = 1> (q, i)""",
    "embedding": """
        t = Constant <value_floats = [1.0, -2.0, 3.0, 5.0]> () i = ArgMax <axis = 1, keepdims = 0> (x)
        y = Gather <axis = 0> (t, i)""",
    "length_free_of_the_batch": """
        s = Size (x) n = Shape <start = 0, end = 1> (x) e = Div (s, n) f = Cast <to = 1> (e) y = Div (x, f)""",
    "einsum": """
        s = Constant <value_ints = [0, 4, 36]> () q = Reshape (x, s) y = Einsum <equation = "bij,bkj->bik"> (q, q)""",
    "view_by_computed_places": """
        n = Shape <start = 0, end = 1> (x) z = Constant <value_int = 0> () o = Constant <value_int = 1> ()
        m = Squeeze (n) r = Range (z, m, o) t = Constant <value_int = 144> () s = Mul (r, t)
        a = Constant <value_ints = [1]> () p = Unsqueeze (s, a) c = Constant <value_ints = [3, 1, 143]> ()
        i = Add (p, c) f = Constant <value_ints = [-1]> () q = Reshape (x, f) y = Gather (q, i)""",
    "same_course_for_all": """
        k = Constant <value_int = 3> () t = Constant <value = bool {1}> ()
        y = Loop (k, t, x) <body = g (int64 i, bool c, float[M, 4, 6, 6] a) => (bool d, float[M, 4, 6, 6] b)
            { d = Identity (c) b = Sin (a) }>""",
    "one_image_a_round": """
        y = Scan <num_scan_inputs = 1, body = g (float[4, 6, 6] a) => (float b) {
            b = ReduceMax <keepdims = 0> (a) }> (x)""",
}
MIXING = {
    "maximum_of_all": ("m = ReduceMax <keepdims = 0> (x) y = Div (x, m)", "ReduceMax", "maximum over the batch"),
    "softmax_over_the_batch": ("y = Softmax <axis = 0> (x)", "Softmax", "normalises over the batch"),
    "sort_over_the_batch": (
        "k = Constant <value_ints = [1]> () v, i = TopK <axis = 0> (x, k) y = Sub (x, v)",
        "TopK",
        "sorts over the batch",
    ),
    "sum_along_the_batch": ("a = Constant <value_int = 0> () y = CumSum <reverse = 1> (x, a)", "CumSum", "sums over"),
    "computed_images": (
        """i = ArgMax <axis = 0, keepdims = 0> (x) y = GatherElements <axis = 0> (x, j)
        a = Constant <value_ints = [0]> () j = Unsqueeze (i, a)""",
        "ArgMax",
        "over the batch",
    ),
    "gram_matrix": (
        "f = Flatten (x) t = Transpose <perm = [1, 0]> (f) g = MatMul (t, f) y = MatMul (f, g)",
        "MatMul",
        "sums over the batch",
    ),
    "pairs_of_images": ("f = Flatten (x) y = Gemm <transB = 1> (f, f)", "Gemm", "images with other images"),
    "share_of_the_size": ("s = Size (x) f = Cast <to = 1> (s) y = Div (x, f)", "Div", "how many images"),
    "image_by_place": (
        "i = Constant <value_ints = [-1]> () a = Gather <axis = 0> (x, i) y = Sub (x, a)",
        "Gather",
        "place",
    ),
    "reversed_batch": (
        """s = Constant <value_ints = [-1]> () e = Constant <value_ints = [-100]> () a = Constant <value_ints = [0]> ()
        y = Slice (x, s, e, a, s)""",
        "Slice",
        "place",
    ),
    "view_that_reaches_the_next_image": (
        """n = Shape <start = 0, end = 1> (x) z = Constant <value_int = 0> () o = Constant <value_int = 1> ()
        m = Squeeze (n) r = Range (z, m, o) t = Constant <value_int = 144> () s = Mul (r, t)
        a = Constant <value_ints = [1]> () p = Unsqueeze (s, a) c = Constant <value_ints = [3, 1, -1]> ()
        i = Add (p, c) f = Constant <value_ints = [-1]> () q = Reshape (x, f) y = Gather (q, i)""",
        "Gather",
        "how many images",
    ),
    "place_in_the_batch": (
        """n = Shape <start = 0, end = 1> (x) z = Constant <value_int = 0> () o = Constant <value_int = 1> ()
        u = Constant <value_ints = [-1, 1, 1, 1]> ()
        m = Squeeze (n) r = Range (z, m, o) f = Cast <to = 1> (r) g = Reshape (f, u) y = Mul (x, g)""",
        "Mul",
        "how many images",
    ),
    "brightness_of_all_decides": (
        """m = ReduceMean <keepdims = 0> (x) z = Constant <value_float = 0.5> () c = Greater (m, z)
        y = If (c) <then_branch = g () => (float[M, 4, 6, 6] a) { a = Neg (x) },
                    else_branch = h () => (float[M, 4, 6, 6] b) { b = Identity (x) }>""",
        "ReduceMean",
        "mean over the batch",
    ),
    "number_decides": (
        """n = Size (x) z = Constant <value_int = 144> () c = Greater (n, z)
        y = If (c) <then_branch = g () => (float[M, 4, 6, 6] a) { a = Neg (x) },
                    else_branch = h () => (float[M, 4, 6, 6] b) { b = Identity (x) }>""",
        "If",
        "how many images",
    ),
    "carried_from_image_to_image": (
        """r = Constant <value_ints = [4, 6, 6]> () s = ConstantOfShape (r)
        l, y = Scan <num_scan_inputs = 1, scan_input_directions = [1], scan_output_directions = [1],
            body = g (float[4, 6, 6] c, float[4, 6, 6] a) => (float[4, 6, 6] d, float[4, 6, 6] b)
            { d = Add (c, a) b = Identity (d) }> (s, x)""",
        "Scan",
        "from image to image",
    ),
    "scale_of_all": (
        "q, s, z = DynamicQuantizeLinear (x) y = DequantizeLinear (q, s, z)",
        "DynamicQuantizeLinear",
        "one scale over the whole batch",
    ),
    "statistics_of_all": (
        """g = Constant <value_floats = [1.0, 1.0, 1.0, 1.0]> () z = Constant <value_floats = [0.0, 0.0, 0.0, 0.0]> ()
        y, m, v = BatchNormalization <training_mode = 1> (x, g, z, z, g)""",
        "BatchNormalization",
        "training mode",
    ),
}
UNPROVED = {
    "noise": ("r = RandomNormalLike (x) y = Add (x, r)", "RandomNormalLike", "random numbers"),
    "unheard_of": ("y = BlackmanThing (x)", "BlackmanThing", "nothing is known"),
}
NO_ROWS = {
    "time_first": ("y = Transpose <perm = [1, 0, 2, 3]> (x)", "axis 1"),
    "several_rows": ("s = Constant <value_ints = [-1, 36]> () y = Reshape (x, s)", "several rows per image"),
    "constant": ("z = Identity (x) y = Constant <value_floats = [1.0, 2.0]> ()", "no row per image"),
}


def parse(text: str) -> onnx.ModelProto:
    """Returns a graph from ``x`` (N, 4, 6, 6) to ``y``; nodes are put into order."""
    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 20]> g (float[N, 4, 6, 6] x) => (float[A, B, C, D] y) {{ {text} }}'
    )
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    proto = ir.from_proto(model)
    onnx_ir.passes.common.TopologicalSortPass()(proto)
    return ir.to_proto(proto)


def judge(model: onnx.ModelProto) -> Independence:
    return prove_independence(canonicalise(ir.from_proto(model)), "x")


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": images})
    return np.asarray(result)


def company(seed: int = 0) -> np.ndarray:
    """Returns images (3, 4, 6, 6); the first is the one looked at, the last outshines it."""
    images = np.random.default_rng(seed).standard_normal((3, 4, 6, 6)).astype(np.float32)
    images[2] += 3
    return images


@pytest.mark.parametrize("name", APART)
def test_what_keeps_images_apart_is_proved(name: str) -> None:
    model = parse(APART[name])
    found = judge(model)
    assert found.verdict == "proved", found.describe()
    together, alone = run(model, company()), run(model, company()[:1])
    assert len(together) == 3
    assert np.abs(together[:1] - alone).max() <= TOLERANCE * np.abs(alone).max()


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_images_is_named(name: str) -> None:
    text, op_type, reason = MIXING[name]
    model = parse(text)
    found = judge(model)
    assert found.verdict == "mixing"
    assert found.findings[0].op_type == op_type
    assert reason in found.describe()
    together, alone = run(model, company()), [run(model, image[None]) for image in company()]
    differences = [together[i : i + 1] - alone[i] for i in range(3) if together[i : i + 1].shape == alone[i].shape]
    assert len(differences) < 3 or max(np.abs(difference).max() for difference in differences) > TOLERANCE


@pytest.mark.parametrize("name", UNPROVED)
def test_what_is_not_known_is_unproved(name: str) -> None:
    text, op_type, reason = UNPROVED[name]
    found = judge(parse(text))
    assert found.verdict == "unproved"
    assert found.findings[0].op_type == op_type
    assert reason in found.describe()


@pytest.mark.parametrize("name", NO_ROWS)
def test_an_output_without_a_row_per_image_is_named(name: str) -> None:
    text, reason = NO_ROWS[name]
    found = judge(parse(text))
    assert found.verdict == "mixing"
    assert reason in found.describe()


def test_a_state_of_zeros_for_every_image_keeps_them_apart() -> None:
    text = """
        n = Shape <start = 0, end = 1> (x) o = Constant <value_ints = [1]> () h = Constant <value_ints = [5]> ()
        c = Concat <axis = 0> (o, n, h) z = ConstantOfShape (c)
        s = Constant <value_ints = [0, 4, 36]> () q = Reshape (x, s) t = Transpose <perm = [1, 0, 2]> (q)
        p, last, cell = LSTM <hidden_size = 5> (t, w, r, , , z, z) y = Transpose <perm = [1, 0, 2]> (last)"""
    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 20]> g
        (float[N, 4, 6, 6] x, float[1, 20, 36] w, float[1, 20, 5] r) => (float[N, 1, 5] y) {{ {text} }}"""
    )
    assert judge(model).verdict == "proved"


def test_other_inputs_with_the_batch_of_the_images_are_followed() -> None:
    model = parse("f = Flatten (x) t = Transpose <perm = [1, 0]> (z) y = MatMul (f, t)")
    model.graph.input.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["N", 144]))
    found = judge(model)
    assert found.verdict == "mixing"
    assert "every image with every other" in found.describe()


def test_a_node_that_contradicts_its_operator_is_unproved() -> None:
    model = parse("y = Transpose <perm = [1, 2]> (x)")
    found = prove_independence(ir.from_proto(model), "x")
    assert found.verdict == "unproved"
    assert "do not fit the operator" in found.describe()
