"""What every peer is asked: one network, one photograph, one class; made once, and read in every peer's environment."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.floating[Any]]
Explain = Callable[[int], Map]
"""Explains the photograph with a seed."""
DRAWING = ("rise", "lime", "kernel-shap", "sobol", "hsic")
"""Methods whose number of samples is a setting."""
AGREEMENT, LONGER = 0.95, 10
"""Quality is equal where a map has this rank correlation with the peer's own map of so many times the samples."""
PLAIN, MASKED, FILLED = "plain.onnx", "masked.onnx", "filled.onnx"
"""Names of the files: the network for any batch, and its exports that mask every layer, or fill the input."""


@dataclasses.dataclass
class Problem:
    """A network, a photograph and a class.

    Attributes:
        folder: the folder with the files.
        target: the index of the class.
        mean: the number that is subtracted from each of the input's channels.
        std: the number that each is divided by then.
        scale: the factor of pixels before that.
        bgr: whether the input's channels are blue, green, red.
        probability: the probability of the class.
        counted: the images that went through the model so far, where a peer lets that be counted.
    """

    folder: Path
    target: int
    mean: list[float]
    std: list[float]
    scale: float
    bgr: bool
    probability: float
    counted: int = 0

    @classmethod
    def read(cls, folder: Path) -> Problem:
        """Reads a problem."""
        return cls(folder, **json.loads((folder / "problem.json").read_text()))

    @functools.cached_property
    def photograph(self) -> NDArray[np.uint8]:
        """The photograph as the network sees it, (height, width, 3) RGB."""
        return np.asarray(np.load(self.folder / "photograph.npy"))

    @functools.cached_property
    def image(self) -> NDArray[np.float32]:
        """The network's input, (1, 3, height, width)."""
        return self.prepare(self.photograph[None])

    @functools.cached_property
    def segments(self) -> NDArray[np.int32]:
        """The segments that all share where settings are equal, (height, width) labels from 0."""
        return np.asarray(np.load(self.folder / "segments.npy"))

    @functools.cached_property
    def weights(self) -> list[NDArray[np.float32]]:
        """Weight and bias of every convolution in turn."""
        with np.load(self.folder / "weights.npz") as found:
            return [found[name] for name in found.files]

    def prepare(self, pictures: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the network's input (n, 3, height, width) of RGB pictures (n, height, width, 3) in 0..255."""
        pixels = np.asarray(pictures, np.float32)[..., :: -1 if self.bgr else 1] * self.scale
        return np.ascontiguousarray(((pixels - self.mean) / self.std).transpose(0, 3, 1, 2), np.float32)

    def open_runtime(self) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Returns the function that gives the probabilities (n, K) of inputs in ONNX Runtime, on one thread."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(self.folder / PLAIN), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
            self.counted += len(images)
            (scores,) = session.run(None, {name: np.ascontiguousarray(images, np.float32)})
            return np.asarray(scores).reshape(len(images), -1)

        return predict

    def predict_pictures(self) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
        """Returns the function that gives the probabilities of RGB pictures (n, height, width, 3)."""
        predict = self.open_runtime()
        return lambda pictures: predict(self.prepare(pictures))

    def paint(self, values: NDArray[Any]) -> Map:
        """Returns the map that gives every segment its value."""
        return np.asarray(values, np.float64)[self.segments]
