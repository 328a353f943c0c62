"""Gaussian noise in the graph: :class:`masktool.explainers.gaussian_noise.GaussianNoise`, number by number."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from masktool.embedding.compact import store_integers
from masktool.embedding.flow import FLOAT, INT64, Flow
from masktool.explainers.gaussian_noise import (
    CONGRUENCES,
    POWER_STRIDE,
    Congruence,
    GaussianNoise,
    normal_quantiles,
    quantile_scale,
)


def emit_powers_along(flow: Flow, noise: GaussianNoise) -> dict[str, ir.Value]:
    """Emits what every copy of the noise is made from, once: powers of the multipliers, (1, length) each."""
    numbers = flow.typed(
        flow.emit("Range", flow.integer(0), flow.integer(noise.length), flow.integer(1)), INT64, [noise.length]
    )
    return {
        f"powers_{index}": flow.reshape(emit_powers(flow, part, numbers), 1, -1)
        for index, part in enumerate(CONGRUENCES)
    }


def emit_copies(flow: Flow, noise: GaussianNoise, copies: ir.Value, along: Mapping[str, ir.Value]) -> ir.Value:
    """Emits the noise of copies (m,) int64: (m, length) float32.

    Args:
        flow: the graph to emit into.
        noise: the noise.
        copies: the numbers of the copies.
        along: what :func:`emit_powers_along` returned.
    """
    first, second, third = (
        emit_states(flow, noise, index, copies, along[f"powers_{index}"]) for index in range(len(CONGRUENCES))
    )
    period = flow.integer(CONGRUENCES[0].period)
    combined = flow.emit("Add", flow.emit("Sub", first, second), flow.emit("Add", third, period))
    levels = flow.emit("Div", flow.emit("Mod", combined, period), flow.integer(2))
    quantiles = flow.emit("Gather", flow.constant(normal_quantiles(), ir.DataType.INT16), levels)
    return flow.emit("Mul", flow.as_type(quantiles, FLOAT), flow.floats(quantile_scale()))


def emit_states(flow: Flow, noise: GaussianNoise, index: int, copies: ir.Value, along: ir.Value) -> ir.Value:
    """Emits the states of one part of the generator for copies (m,), (m, length) int64."""
    part = CONGRUENCES[index]
    modulus = flow.integer(part.modulus)
    exponents = flow.emit("Mul", copies, flow.integer(noise.length % part.period))
    begin = flow.emit("Mul", emit_powers(flow, part, exponents), flow.integer(noise.starts[index]))
    begin = flow.reshape(flow.emit("Mod", begin, modulus), -1, 1)
    return flow.emit("Mod", flow.emit("Mul", begin, along), modulus)


def emit_powers(flow: Flow, part: Congruence, exponents: ir.Value) -> ir.Value:
    """Emits the powers of the multiplier of one part, modulo its modulus, for exponents (k,) int64 from 0."""
    folded, stride = flow.emit("Mod", exponents, flow.integer(part.period)), flow.integer(POWER_STRIDE)
    places = flow.emit("Div", folded, stride), flow.emit("Mod", folded, stride)
    coarse, fine = (
        flow.as_type(flow.emit("Gather", store_integers(flow, powers), place), INT64)
        for powers, place in zip(part.power_lists(), places, strict=True)
    )
    return flow.emit("Mod", flow.emit("Mul", coarse, fine), flow.integer(part.modulus))
