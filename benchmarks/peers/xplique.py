"""Xplique, on the network in TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow
from xplique.attributions import (
    HsicAttributionMethod,
    KernelShap,
    Lime,
    Occlusion,
    Rise,
    SobolAttributionMethod,
)

from benchmarks.peers.problem import Explain, Map, Problem

DISTRIBUTION = "xplique"
WINDOW, STRIDE = 32, 16
FIRES = (
    (16, 64), (16, 64), None, (32, 128), (32, 128), None, (48, 192), (48, 192), (64, 256), (64, 256),
)  # fmt: skip
"""SqueezeNet 1.1: channels of each module's squeezing and of either expanding convolution; None is a pool."""
layers = tensorflow.keras.layers


def build_network(problem: Problem) -> Any:
    """Returns SqueezeNet 1.1 with the problem's weights, from (n, height, width, 3) to the probabilities."""
    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    given = iter(problem.weights)

    def convolve(value: Any, channels: int, side: int, **options: Any) -> Any:
        layer = layers.Conv2D(channels, side, activation="relu", **options)
        found = layer(value)
        layer.set_weights([next(given).transpose(2, 3, 1, 0), next(given)])
        return found

    pool = layers.MaxPool2D(3, 2)
    image = layers.Input((*problem.image.shape[2:], 3))
    value = pool(convolve(image, 64, 3, strides=2))
    for fire in FIRES:
        if fire is None:
            value = pool(value)
            continue
        squeezed = convolve(value, fire[0], 1)
        sides = [convolve(squeezed, fire[1], 1), convolve(squeezed, fire[1], 3, padding="same")]
        value = layers.Concatenate()(sides)
    value = layers.GlobalAveragePooling2D()(convolve(value, 1000, 1))
    return tensorflow.keras.Model(image, layers.Softmax()(value))


def explain_by(kind: Any, problem: Problem, options: dict[str, Any]) -> Explain:
    """Returns the function that explains by a method of Xplique's."""
    network = build_network(problem)
    image = problem.image.transpose(0, 2, 3, 1)
    target = np.eye(1000, dtype=np.float32)[[problem.target]]
    check_network(problem, network, image)
    method = kind(network, **options)

    def explain(seed: int) -> Map:
        tensorflow.random.set_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # Xplique draws from it
        return np.asarray(method.explain(image, target))[0, ..., 0]

    return explain


def check_network(problem: Problem, network: Any, image: Any) -> None:
    """Raises ValueError unless the network gives the probability that the problem's own network gives."""
    found, expected = float(network(image)[0, problem.target]), problem.probability
    if abs(found - expected) > 1e-3:
        raise ValueError(f"another network: probability {found}, expected {expected}")


def options_of(samples: int | None, batch: int | None, name: str, equal: dict[str, Any]) -> dict[str, Any]:
    """Returns the options of a method: none but the batch where its defaults are asked for."""
    options = {} if samples is None else {name: samples, **equal}
    return options if batch is None else {**options, "batch_size": batch}


def rise(problem: Problem, samples: int | None, batch: int | None) -> Explain:
    equal = {"grid_size": 7, "preservation_probability": 0.5}
    return explain_by(Rise, problem, options_of(samples, batch, "nb_samples", equal))


def segmented(kind: Any, problem: Problem, samples: int | None, batch: int | None) -> Explain:
    """Returns the function that explains by a method that hides segments."""
    equal = {"map_to_interpret_space": lambda _: tensorflow.constant(problem.segments), "ref_value": np.zeros(3)}
    return explain_by(kind, problem, options_of(samples, batch, "nb_samples", equal))


def lime(problem: Problem, samples: int | None, batch: int | None) -> Explain:
    return segmented(Lime, problem, samples, batch)


def kernel_shap(problem: Problem, samples: int | None, batch: int | None) -> Explain:
    return segmented(KernelShap, problem, samples, batch)


def occlusion(problem: Problem, samples: int | None, batch: int | None) -> Explain:
    equal = {"patch_size": WINDOW, "patch_stride": STRIDE}
    options = {} if samples is None else equal
    return explain_by(Occlusion, problem, options if batch is None else {**options, "batch_size": batch})


def sobol(problem: Problem, samples: int | None, batch: int | None) -> Explain:
    designs = None if samples is None else power_of_two(samples / (8 * 8 + 2))
    return explain_by(SobolAttributionMethod, problem, options_of(designs, batch, "nb_design", {}))


def hsic(problem: Problem, samples: int | None, batch: int | None) -> Explain:
    return explain_by(HsicAttributionMethod, problem, options_of(samples, batch, "nb_design", {}))


def power_of_two(value: float) -> int:
    """Returns the power of two nearest to a number on a scale of factors, at least 1."""
    return int(2 ** max(round(float(np.log2(value))), 0))


METHODS = {
    "rise": rise,
    "lime": lime,
    "kernel-shap": kernel_shap,
    "occlusion": occlusion,
    "sobol": sobol,
    "hsic": hsic,
}
