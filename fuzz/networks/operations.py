"""The operations that random networks are made of: what each computes in torch, and how exporters spell it in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fuzz.networks.program import Parameters, operation
from fuzz.networks.writer import OnnxWriter

aten = torch.ops.aten
Weights = Mapping[str, np.ndarray]
Names = Sequence[str]


def mirrored(pads: Sequence[int]) -> list[int]:
    """Returns (top, left) as ONNX's pads, begins and then ends."""
    return [*pads, *pads]


# Convolution


def conv_attributes(p: Parameters) -> dict[str, Any]:
    """Returns the attributes of a Conv node, its pads apart."""
    return {
        "kernel_shape": p["kernel"],
        "strides": p["stride"],
        "dilations": p["dilation"],
        "group": p["groups"],
    }


def spell_conv(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes one Conv node."""
    return str(w.node("Conv", x[0], *(w.weight(t[k]) for k in t), pads=mirrored(p["padding"]), **conv_attributes(p)))


def spell_conv_behind_pad(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Pads by a node of its own, as TensorFlow's converters do."""
    top, left = p["padding"]
    padded = w.node("Pad", x[0], w.integers(0, 0, top, left, 0, 0, top, left), w.weight(np.array(0.0)))
    return str(w.node("Conv", padded, *(w.weight(t[k]) for k in t), **conv_attributes(p)))


def spell_conv_plus_bias(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Adds the bias by a node of its own."""
    plain = spell_conv(w, x, p, {"weight": t["weight"]})
    return str(w.node("Add", plain, w.weight(t["bias"][:, None, None]))) if "bias" in t else plain


def spell_conv_between_transposes(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Goes to channels last and back on both sides, as an unoptimised conversion from TensorFlow."""
    last = w.node("Transpose", x[0], perm=[0, 2, 3, 1])
    return spell_conv(w, [w.node("Transpose", last, perm=[0, 3, 1, 2])], p, t)


@operation("conv", spell_conv, spell_conv_behind_pad, spell_conv_plus_bias, spell_conv_between_transposes)
def run_conv(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """A convolution."""
    options = (p["stride"], p["padding"], p["dilation"], p["groups"])
    return call(aten.conv2d.default, x[0], t["weight"], t.get("bias"), *options)


# Normalisation


def spell_batch_norm(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes one BatchNormalization node."""
    names = [w.weight(t[k]) for k in ("scale", "shift", "mean", "variance")]
    return str(w.node("BatchNormalization", x[0], *names, epsilon=p["epsilon"]))


def spell_scale_and_shift(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Folds it into Mul and Add."""
    factor = t["scale"] / np.sqrt(t["variance"] + p["epsilon"])
    shift = t["shift"] - t["mean"] * factor
    scaled = w.node("Mul", x[0], w.weight(factor[:, None, None]))
    return str(w.node("Add", scaled, w.weight(shift[:, None, None])))


@operation("batch_norm", spell_batch_norm, spell_scale_and_shift)
def run_batch_norm(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """Batch normalisation in evaluation mode."""
    names = ("scale", "shift", "mean", "variance")
    return call(aten._native_batch_norm_legit_no_training.default, x[0], *(t[k] for k in names), 0.1, p["epsilon"])[0]


def spell_instance_norm(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes one InstanceNormalization node."""
    return str(w.node("InstanceNormalization", x[0], w.weight(t["scale"]), w.weight(t["shift"]), epsilon=p["epsilon"]))


@operation("instance_norm", spell_instance_norm)
def run_instance_norm(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """Statistics of each channel over the kept places."""
    return call(aten.instance_norm.default, x[0], t["scale"], t["shift"], None, None, True, 0.1, p["epsilon"], False)


# Activations


def spell_silu(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes x · σ(x)."""
    return str(w.node("Mul", x[0], w.node("Sigmoid", x[0])))


def spell_hard_swish(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes the operator, from opset 14 on."""
    return str(w.node("HardSwish", x[0])) if w.opset >= 14 else spell_hard_swish_written_out(w, x, p, t)


def spell_hard_swish_written_out(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes x · clip(x + 3, 0, 6) / 6."""
    moved = w.node("Add", x[0], w.weight(np.array(3.0)))
    clipped = w.node("Clip", moved, w.weight(np.array(0.0)), w.weight(np.array(6.0)))
    return str(w.node("Div", w.node("Mul", x[0], clipped), w.weight(np.array(6.0))))


def spell_relu6(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes a Clip."""
    return str(w.node("Clip", x[0], w.weight(np.array(0.0)), w.weight(np.array(6.0))))


def spell_relu6_as_min(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes Relu and Min."""
    return str(w.node("Min", w.node("Relu", x[0]), w.weight(np.array(6.0))))


def spell_gelu(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes x / 2 · (1 + erf(x / √2))."""
    error = w.node("Erf", w.node("Div", x[0], w.weight(np.array(np.sqrt(2.0)))))
    return str(
        w.node("Mul", w.node("Mul", x[0], w.node("Add", error, w.weight(np.array(1.0)))), w.weight(np.array(0.5)))
    )


def spell_gelu_operator(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes the operator, from opset 20 on."""
    return str(w.node("Gelu", x[0])) if w.opset >= 20 else spell_gelu(w, x, p, t)


def spell_hard_sigmoid(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes the operator with torch's slope."""
    return str(w.node("HardSigmoid", x[0], alpha=1 / 6, beta=0.5))


def spell_as(op_type: str, **attributes: Any) -> Callable[..., str]:
    """Returns the spelling of an activation that is one node."""
    return lambda w, x, p, t: str(w.node(op_type, x[0], **attributes))


def run_activation(target: Any, *arguments: Any) -> Callable[..., Any]:
    """Returns the torch side of an activation."""
    return lambda call, x, p, t: call(target, x[0], *arguments)


operation("relu", spell_as("Relu"))(run_activation(aten.relu.default))
operation("leaky_relu", spell_as("LeakyRelu", alpha=0.1))(run_activation(aten.leaky_relu.default, 0.1))
operation("relu6", spell_relu6, spell_relu6_as_min)(run_activation(aten.hardtanh.default, 0.0, 6.0))
operation("sigmoid", spell_as("Sigmoid"))(run_activation(aten.sigmoid.default))
operation("tanh", spell_as("Tanh"))(run_activation(aten.tanh.default))
operation("silu", spell_silu)(run_activation(aten.silu.default))
operation("hard_swish", spell_hard_swish, spell_hard_swish_written_out)(run_activation(aten.hardswish.default))
operation("hard_sigmoid", spell_hard_sigmoid)(run_activation(aten.hardsigmoid.default))
operation("gelu", spell_gelu, spell_gelu_operator)(run_activation(aten.gelu.default))


# Pooling and resizing


def pool_attributes(w: OnnxWriter, p: Parameters) -> dict[str, Any]:
    """Returns what both kinds of pool share."""
    return {
        "kernel_shape": p["kernel"],
        "strides": p["stride"],
        "pads": mirrored(p["padding"]),
        "ceil_mode": int(p["ceil"]),
    }


def spell_max_pool(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes one MaxPool node."""
    return str(w.node("MaxPool", x[0], dilations=p["dilation"], **pool_attributes(w, p)))


def spell_average_pool(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes one AveragePool node."""
    return str(w.node("AveragePool", x[0], count_include_pad=int(p["count_padding"]), **pool_attributes(w, p)))


@operation("max_pool", spell_max_pool)
def run_max_pool(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """Maximum over windows."""
    return call(aten.max_pool2d.default, x[0], p["kernel"], p["stride"], p["padding"], p["dilation"], p["ceil"])


@operation("average_pool", spell_average_pool)
def run_average_pool(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """Mean over windows."""
    return call(aten.avg_pool2d.default, x[0], p["kernel"], p["stride"], p["padding"], p["ceil"], p["count_padding"])


def spell_nearest(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Resizes by a scale, as torch's exporters do."""
    options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return spell_resize(w, x[0], options)


def spell_bilinear(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Likewise, between pixels' centres."""
    return spell_resize(w, x[0], {"mode": "linear", "coordinate_transformation_mode": "half_pixel"})


def spell_resize(w: OnnxWriter, x: str, options: Mapping[str, Any]) -> str:
    """Writes a Resize by 2; opset 11 wants a region of interest, though none is used."""
    region = w.weight(np.zeros(0)) if w.opset < 13 else ""
    return str(w.node("Resize", x, region, w.weight(np.array([1.0, 1.0, 2.0, 2.0])), **options))


@operation("upsample_nearest", spell_nearest)
def run_nearest(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """Twice the height and width, pixels repeated."""
    return call(aten.upsample_nearest2d.vec, x[0], None, [2.0, 2.0])


@operation("upsample_bilinear", spell_bilinear)
def run_bilinear(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """Twice the height and width, pixels blended."""
    return call(aten.upsample_bilinear2d.vec, x[0], None, False, [2.0, 2.0])


# Joins and rearrangements


operation("add", lambda w, x, p, t: str(w.node("Add", *x)), lambda w, x, p, t: str(w.node("Sum", *x)))(
    lambda call, x, p, t: call(aten.add.Tensor, *x)
)
operation("multiply", lambda w, x, p, t: str(w.node("Mul", *x)))(lambda call, x, p, t: call(aten.mul.Tensor, *x))
operation("subtract", lambda w, x, p, t: str(w.node("Sub", *x)))(lambda call, x, p, t: call(aten.sub.Tensor, *x))
operation("concat", lambda w, x, p, t: str(w.node("Concat", *x, axis=1)))(
    lambda call, x, p, t: call(aten.cat.default, list(x), 1)
)


def spell_slice(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Slices the channels."""
    return str(w.node("Slice", x[0], w.integers(p["start"]), w.integers(p["end"]), w.integers(1)))


def spell_split(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Splits the channels in two or three, and goes on with one part."""
    start, end, channels = p["start"], p["end"], p["channels"]
    sizes = [size for size in (start, end - start, channels - end) if size]
    index = 1 if start else 0
    if len(sizes) == 1:
        return x[0]
    if w.opset >= 13:
        parts = w.node("Split", x[0], w.integers(*sizes), outputs=len(sizes), axis=1)
    else:
        parts = w.node("Split", x[0], outputs=len(sizes), axis=1, split=sizes)
    return str(parts[index])


@operation("channels", spell_slice, spell_split)
def run_channels(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """Some of the channels."""
    return call(aten.slice.Tensor, x[0], 1, p["start"], p["end"])


def cuts(p: Parameters) -> tuple[list[int], list[int], list[int], list[int]]:
    """Returns starts, ends, axes and steps of what picks every so-many-th place."""
    return list(p["start"]), [2**31 - 1] * 2, [2, 3], list(p["step"])


def spell_steps(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes one Slice of both axes."""
    return str(w.node("Slice", x[0], *(w.integers(*operand) for operand in cuts(p))))


def spell_steps_apart(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes a Slice for each axis, as torch's exporters do."""
    value = x[0]
    for operands in zip(*cuts(p), strict=True):
        value = w.node("Slice", value, *(w.integers(operand) for operand in operands))
    return value


def spell_steps_channels_last(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Goes to channels last, slices and goes back, as Swin transformers do."""
    starts, ends, _, steps = cuts(p)
    last = w.node("Transpose", x[0], perm=[0, 2, 3, 1])
    cut = w.node("Slice", last, *(w.integers(*operand) for operand in (starts, ends, [1, 2], steps)))
    return str(w.node("Transpose", cut, perm=[0, 3, 1, 2]))


def spell_steps_as_gather(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Lists the places of each axis."""
    value = x[0]
    for axis, start, step, length in zip((2, 3), p["start"], p["step"], p["sides"], strict=True):
        value = w.node("Gather", value, w.integers(*range(start, length, step)), axis=axis)
    return value


def spell_steps_as_pool(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Pools windows of one place, as TensorFlow's residual networks do; where it begins later, slices."""
    if any(p["start"]):
        return spell_steps(w, x, p, t)
    return str(w.node("MaxPool", x[0], kernel_shape=[1, 1], strides=p["step"]))


@operation(
    "steps",
    spell_steps,
    spell_steps_apart,
    spell_steps_channels_last,
    spell_steps_as_gather,
    spell_steps_as_pool,
)
def run_steps(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """Every so-many-th place along both axes."""
    rows = call(aten.slice.Tensor, x[0], 2, p["start"][0], 2**31 - 1, p["step"][0])
    picked = call(aten.slice.Tensor, rows, 3, p["start"][1], 2**31 - 1, p["step"][1])
    return picked.contiguous() if isinstance(picked, torch.Tensor) else picked  # for views of it


def spell_shuffle(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Reshape, Transpose, Reshape."""
    channels, height, width = p["shape"]
    cut = w.reshape(x[0], p["groups"], channels // p["groups"], height, width)
    return w.reshape(w.node("Transpose", cut, perm=[0, 2, 1, 3, 4]), channels, height, width)


@operation("shuffle", spell_shuffle)
def run_shuffle(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """Channels dealt out of groups in turn."""
    channels, height, width = p["shape"]
    cut = call(aten.view.default, x[0], [-1, p["groups"], channels // p["groups"], height, width])
    turned = call(aten.permute.default, cut, [0, 2, 1, 3, 4])
    return call(aten.reshape.default, turned, [-1, channels, height, width])


# From maps to vectors


def spell_global_mean(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes GlobalAveragePool."""
    return str(w.node("GlobalAveragePool", x[0]))


def spell_reduced_mean(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes ReduceMean."""
    return w.along("ReduceMean", x[0], [2, 3], keepdims=1)


def spell_mean_channels_last(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Takes the mean of channels that stand last, and goes back."""
    last = w.node("Transpose", x[0], perm=[0, 2, 3, 1])
    return str(w.node("Transpose", w.along("ReduceMean", last, [1, 2], keepdims=1), perm=[0, 3, 1, 2]))


@operation("global_mean", spell_global_mean, spell_reduced_mean, spell_mean_channels_last)
def run_global_mean(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """(N, C, 1, 1)."""
    return call(aten.mean.dim, x[0], [2, 3], True)


def spell_global_max(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes GlobalMaxPool."""
    return str(w.node("GlobalMaxPool", x[0]))


def spell_reduced_max(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes ReduceMax."""
    return w.along("ReduceMax", x[0], [2, 3], keepdims=1)


@operation("global_max", spell_global_max, spell_reduced_max)
def run_global_max(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """(N, C, 1, 1)."""
    return call(aten.amax.default, x[0], [2, 3], True)


def spell_flatten(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes Flatten."""
    return str(w.node("Flatten", x[0], axis=1))


def spell_flatten_as_reshape(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes Reshape."""
    return w.reshape(x[0], p["features"])


@operation("flatten", spell_flatten, spell_flatten_as_reshape)
def run_flatten(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """(N, C·H·W)."""
    value = getattr(x[0], "value", x[0])
    return call(aten.view.default, x[0], [value.shape[0], p["features"]])


def spell_gemm(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes Gemm with the weight as torch stores it."""
    return str(w.node("Gemm", x[0], w.weight(t["weight"]), w.weight(t["bias"]), transB=1))


def spell_matmul(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes MatMul and Add."""
    return str(w.node("Add", w.node("MatMul", x[0], w.weight(t["weight"].T)), w.weight(t["bias"])))


@operation("linear", spell_gemm, spell_matmul)
def run_linear(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """A fully connected layer."""
    return call(aten.linear.default, x[0], t["weight"], t["bias"])


operation("softmax", lambda w, x, p, t: str(w.node("Softmax", x[0], axis=1)))(
    lambda call, x, p, t: call(aten.softmax.int, x[0], 1)
)


# Attention


def spell_tokens(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Reshape and Transpose."""
    return str(w.node("Transpose", w.reshape(x[0], p["channels"], p["places"]), perm=[0, 2, 1]))


def spell_tokens_channels_last(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Transpose and Reshape."""
    return w.reshape(w.node("Transpose", x[0], perm=[0, 2, 3, 1]), p["places"], p["channels"])


@operation("tokens", spell_tokens, spell_tokens_channels_last)
def run_tokens(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """(N, C, H, W) to (N, H·W, C)."""
    flat = call(aten.view.default, x[0], [-1, p["channels"], p["places"]])
    return call(aten.permute.default, flat, [0, 2, 1])


def spell_attention(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Softmax(q kᵀ / √d) v, written out."""
    query, key, value = (w.node("MatMul", x[0], w.weight(t[name].T)) for name in ("query", "key", "value"))
    turned = w.node("Transpose", key, perm=[0, 2, 1])
    scores = w.node("Mul", w.node("MatMul", query, turned), w.weight(np.array(p["scale"])))
    return str(w.node("MatMul", w.node("Softmax", scores, axis=-1), value))


@operation("attention", spell_attention)
def run_attention(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """One head of self-attention over places."""
    query, key, value = (call(aten.linear.default, x[0], t[name]) for name in ("query", "key", "value"))
    scores = call(aten.matmul.default, query, call(aten.permute.default, key, [0, 2, 1]))
    weights = call(aten.softmax.int, call(aten.mul.Tensor, scores, p["scale"]), -1)
    return call(aten.matmul.default, weights, value)


def spell_layer_norm(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes LayerNormalization, from opset 17 on."""
    if w.opset < 17:
        return spell_layer_norm_written_out(w, x, p, t)
    return str(w.node("LayerNormalization", x[0], w.weight(t["scale"]), w.weight(t["shift"]), axis=-1, epsilon=1e-5))


def spell_layer_norm_written_out(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """(x − mean) / √(variance + ε) · scale + shift."""
    centred = w.node("Sub", x[0], w.along("ReduceMean", x[0], [-1], keepdims=1))
    variance = w.along("ReduceMean", w.node("Mul", centred, centred), [-1], keepdims=1)
    spread = w.node("Sqrt", w.node("Add", variance, w.weight(np.array(1e-5))))
    scaled = w.node("Mul", w.node("Div", centred, spread), w.weight(t["scale"]))
    return str(w.node("Add", scaled, w.weight(t["shift"])))


@operation("layer_norm", spell_layer_norm, spell_layer_norm_written_out)
def run_layer_norm(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """Statistics of each token over its channels."""
    return call(aten.layer_norm.default, x[0], [p["channels"]], t["scale"], t["shift"], 1e-5)


def spell_mean_of_tokens(w: OnnxWriter, x: Names, p: Parameters, t: Weights) -> str:
    """Writes ReduceMean."""
    return w.along("ReduceMean", x[0], [1], keepdims=0)


@operation("mean_of_tokens", spell_mean_of_tokens)
def run_mean_of_tokens(call: Callable[..., Any], x: Sequence[Any], p: Parameters, t: Mapping[str, torch.Tensor]) -> Any:
    """(N, C)."""
    return call(aten.mean.dim, x[0], [1], False)
