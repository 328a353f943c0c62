"""Runs files that explain themselves, and holds their maps and figures to those of the explainer in Python."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from networks.small_graphs import parse

import masktool
from masktool.embedding.options import build_embedded_method
from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation_settings import ExplanationSettings

SHARE = 1e-4
"""Of the range of Python's map, between the two maps; and between figures, which are in units of the map."""


def network(height, width, layout="NCHW", **weights):
    """Returns a classifier of four classes for images (N, 3, height, width), or (N, height, width, 3)."""
    images, first = f"3, {height}, {width}", "features = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, kernel)"
    if layout == "NHWC":
        images = f"{height}, {width}, 3"
        first = "channels = Transpose<perm = [0, 3, 1, 2]>(image) " + first.replace("image", "channels")
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    classifier (float[N, {images}] image) => (float[N, 4] logits)
    <float[6, 3, 3, 3] kernel, float[6, 4] weight>
    {{
        {first}
        active = Relu(features)
        pooled = GlobalAveragePool(active)
        flat = Flatten(pooled)
        logits = Gemm(flat, weight)
    }}
    """
    return parse(text, **weights)


def run(path, **feed):
    """Returns the outputs of a file by name."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, feed), strict=True))


def run_on(path, images, feed):
    """Returns the outputs of a file for images by name, whatever its image input is called."""
    names = [each.name for each in onnxruntime.InferenceSession(str(path)).get_inputs()]
    (image_input,) = set(names) - set(feed)
    return run(path, **{image_input: images}, **feed)


def explain_in_python(masked, method, image, seed=0, target=None):
    """Returns the explanation of one image by a masked file."""
    settings = ExplanationSettings(seed=seed, perturbations_per_eval=4)
    with masktool.load(masked, "cpu", threads=1) as session:
        ((found,),) = explain_all(session, [image], [[target]], method, settings)
    return found


def as_key(source):
    """Returns a model in a form that tells it from others: its bytes, or the path of its file."""
    return source.SerializeToString() if isinstance(source, onnx.ModelProto) else source


@functools.lru_cache(maxsize=16)
def masked_content(source, options):
    """Returns the bytes of a model's masked file, which is the same for many options of a method: exported once."""
    with tempfile.TemporaryDirectory() as folder:
        model = onnx.ModelProto.FromString(source) if isinstance(source, bytes) else source
        return masktool.export(model, Path(folder) / "masked.onnx", **dict(options)).path.read_bytes()


def assert_same_as_python(
    folder, source, method, images, *, seed=0, chunk=1, of_export=None, feed=None, in_python=None, **options
):
    """Exports a model with an explanation and with a mask, and compares what the two say of images; returns the former.

    Args:
        folder: the folder to write into.
        source: the model.
        method: the name of the method.
        images: the images, as the model takes them.
        seed: the seed of the method.
        chunk: the number of masks in one pass of the file.
        of_export: options of both exports.
        feed: values of the inputs that the method adds, by name.
        in_python: options that stand in for the file's in Python.
        options: the method's options.
    """
    of_export = {"output_kind": "logits"} | (of_export or {})
    path, masked = folder / "explained.onnx", folder / "masked.onnx"
    masktool.export_explained(source, path, method, seed=seed, chunk=chunk, **of_export, **options)
    built = build_embedded_method(method, options | (in_python or {}))
    wanted = options.get("feature_map")
    feature_map = tuple(wanted) if isinstance(wanted, list) else wanted  # a key of the cache
    gradients = {"gradient": "logit", "feature_map": feature_map} if built.needs_gradient else {}
    masked.write_bytes(masked_content(as_key(source), tuple((of_export | gradients).items())))
    found = run_on(path, images, feed or {})
    for position, image in enumerate(images):
        expected = explain_in_python(masked, built, image, seed)
        assert_same(found, position, expected)
    return found


def assert_same(found, position, expected):
    """Compares the map and the figures of one image with an explanation."""
    span = np.ptp(expected.model_attributions) or np.abs(expected.model_attributions).max()  # one segment has no range
    assert span > 0
    assert np.abs(found["saliency_map"][position, 0] - expected.model_attributions).max() <= SHARE * span
    figures = set(found) & set(expected.quality)
    assert figures or not expected.quality
    for name in figures:
        scale = 1 if name == "r2" else span
        assert abs(found[name][position] - expected.quality[name]) <= SHARE * scale, name
