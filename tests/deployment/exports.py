"""One exported file of each kind that there is."""

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

import masktool

IMAGE = "float[N,3,16,16] image"
SCORES = "float[N,4] scores"
NETWORK = """
    a = Conv<pads=[1,1,1,1]>(image, w) b = Relu(a) d = GlobalAveragePool(b) e = Flatten(d) scores = Gemm(e, v)
"""
AWKWARD = ('a "quoted" one', "back\\slash", "Öl, 紙 🦊", "two\nlines")
"""Labels that a file of lines, or a quoted text, could get wrong."""


def weights(*shape, seed=0, dtype=np.float32):
    return (np.random.default_rng(seed).standard_normal(shape) * 0.5).astype(dtype)


def save(path, inputs=IMAGE, outputs=SCORES, nodes=NETWORK, **tensors):
    tensors = {"w": weights(4, 3, 3, 3), "v": weights(4, 4)} | tensors
    text = f'<ir_version: 10, opset_import: ["": 18]> network ({inputs}) => ({outputs}) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in tensors.items() if name in used
    )
    onnx.save(model, path)
    return path


def mask(folder, name, source=None, **options):
    path = folder / f"{name}.masked.onnx"
    masktool.export(source or save(folder / f"{name}.onnx"), path, **options)
    return path


def explain(folder, name, method="occlusion", **options):
    source = folder / "network.onnx"
    if not source.exists():
        save(source)
    path = folder / f"{name}.explained.onnx"
    masktool.export_explained(source, path, method, output_kind="logits", **options)
    return path


def float16(folder):
    inputs, outputs = IMAGE.replace("float", "float16"), SCORES.replace("float", "float16")
    half = {"w": weights(4, 3, 3, 3, dtype=np.float16), "v": weights(4, 4, dtype=np.float16)}
    return mask(folder, "float16", save(folder / "float16.onnx", inputs, outputs, **half))


def mixing(folder):
    """Images that change one another's results, so that the file takes one at a time."""
    nodes = NETWORK.replace("scores =", "f =") + "m = ReduceMean<keepdims=1>(f, axis) scores = Sub(f, m)"
    return mask(folder, "mixing", save(folder / "mixing.onnx", nodes=nodes, axis=np.array([0])), masking="fill")


def fixed(folder):
    """A batch of one, in the graph as it came."""
    return mask(folder, "fixed", save(folder / "fixed.onnx", IMAGE.replace("N", "1"), SCORES.replace("N", "1")))


def open_size(folder):
    source = save(folder / "open.onnx", "float[N,3,H,W] image")
    return mask(folder, "open", source, preprocessing=masktool.Preset("imagenet"))


def several(folder):
    """Two images and two outputs, one of them a map."""
    nodes = NETWORK.replace("(image, w)", "(both, w)").replace("a =", "both = Add(image, depth) a =", 1)
    source = save(
        folder / "several.onnx",
        f"{IMAGE}, float[N,3,16,16] depth",
        f"{SCORES}, float[N,4,16,16] b",
        nodes,
    )
    return mask(folder, "several", source, image_input="image", class_output="scores")


def numbers(folder):
    """Inputs of whole numbers and of truth values."""
    nodes = NETWORK.replace("scores =", "f =") + (
        "g = Cast<to=1>(shift) h = Add(f, g) i = Cast<to=1>(chosen) scores = Mul(h, i)"
    )
    source = save(folder / "numbers.onnx", f"{IMAGE}, int64[N,4] shift, bool[N,4] chosen", nodes=nodes)
    return mask(folder, "numbers", source, image_input="image", class_output="scores", masking="fill")


def branch(folder):
    """Weights of more than 1 MiB, which stand beside the file, once for both networks."""
    nodes = NETWORK.replace("Gemm(e, v)", "Gemm(q, v)").replace("scores", "p = MatMul(e, u) q = MatMul(p, t) scores")
    source = save(folder / "branch.onnx", nodes=nodes, u=weights(4, 70_000), t=weights(70_000, 4) / 70)
    path = mask(folder, "branch", source, plain_branch=True)
    assert (folder / "branch.masked.onnx.data").stat().st_size > 1 << 20
    return path


KINDS = {
    "masked": lambda folder: mask(folder, "masked", labels=AWKWARD, output_kind="logits"),
    "required": lambda folder: mask(folder, "required", mask_required=True),
    "sixteen": lambda folder: mask(folder, "sixteen", precision="fp16"),
    "float16": float16,
    "gradient": lambda folder: mask(folder, "gradient", gradient="logit", output_kind="logits"),
    "mixing": mixing,
    "fixed": fixed,
    "open": open_size,
    "several": several,
    "numbers": numbers,
    "branch": branch,
    "portable": lambda folder: mask(folder, "portable", portable=True),
    "occlusion": lambda folder: explain(folder, "occlusion"),
    "figures": lambda folder: explain(folder, "figures", "lime", n_samples=60, segments="grid"),
    "segments": lambda folder: explain(folder, "segments", "lime", n_samples=60, segments="input"),
    "target": lambda folder: explain(folder, "target", target="required"),
    "asked": lambda folder: explain(folder, "asked", on_request="required", target="optional"),
    "perhaps": lambda folder: explain(folder, "perhaps", on_request="optional"),
    "steps": lambda folder: explain(folder, "steps", "smoothgrad", samples_input="required", n_samples=4),
    "photograph": lambda folder: explain(
        folder, "photograph", preprocessing="imagenet", embed_preprocessing=True, embed_overlay=True
    ),
}
"""By kind: a function that writes one into a folder, and returns its path."""
