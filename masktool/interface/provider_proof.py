"""A tiny masked network, run on a provider and on the CPU, and how far their scores are apart."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.execution_providers import CPU, ExecutionProvider

if TYPE_CHECKING:
    import onnx

SIDE, FILTERS, CLASSES = 16, 8, 5
OPSET = 18
FOLDER = "FOLDER"
"""Stands in a trial's options for a folder that is empty at first."""


class Proof(NamedTuple):
    """What runs on a provider showed.

    Attributes:
        difference: largest difference of a score from the CPU's, as a share of the range of the CPU's; infinite where a
            score is no number.
        first_seconds: seconds of the first run, in which some providers compile.
        next_seconds: seconds of the next run.
        reopened_seconds: seconds of the first run of a second session, where options keep what was compiled; None where
            they keep nothing.
    """

    difference: float
    first_seconds: float
    next_seconds: float
    reopened_seconds: float | None = None


class ProviderProof:
    """A network of two convolutions with a residual addition, exported with masks, and its scores on the CPU.

    Args:
        folder: folder for the exported files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        numbers = np.random.default_rng(0)
        self.image = numbers.standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
        self.masks = np.ones((4, 1, SIDE, SIDE), np.float32)
        self.masks[1, :, 3:9, 4:12] = 0
        self.masks[2:] = numbers.random((2, 1, SIDE, SIDE)) < [[[[0.5]]], [[[0.9]]]]

    def run(
        self, provider: ExecutionProvider, options: Mapping[str, str] | None = None
    ) -> tuple[Proof | None, str | None]:
        """Returns (what runs on a provider showed, None), or (None, the reason) where the provider does not load.

        Args:
            provider: provider to run on.
            options: options of the provider; a value ``FOLDER`` stands for a folder of its own.
        """
        folder = self.folder / f"{provider.name}-kept"
        given = {name: str(folder) if value == FOLDER else value for name, value in (options or {}).items()}
        session, reason = self._open(provider, given)
        if session is None:
            return None, reason
        scores, first = self._score(session)
        again, following = self._score(session)
        difference = max(self._differ(scores), self._differ(again))
        if FOLDER not in (options or {}).values():
            return Proof(difference, first, following), None
        del session
        session, reason = self._open(provider, given)
        if session is None:
            return None, reason
        scores, reopened = self._score(session)
        return Proof(max(difference, self._differ(scores)), first, following, reopened), None

    def _open(self, provider: ExecutionProvider, given: Mapping[str, str]) -> tuple[Any, str | None]:
        from masktool.runtime.provider_options import choose_providers
        from masktool.runtime.providers import try_providers

        return try_providers(self._path(provider.makes_defaults_constant), choose_providers([provider], given), None)

    def _score(self, session: Any) -> tuple[NDArray[np.float32], float]:
        started = time.perf_counter()
        (scores,) = session.run(["scores"], {"image": self.image, "mask": self.masks})
        return scores, time.perf_counter() - started

    def _differ(self, scores: NDArray[np.float32]) -> float:
        share = np.abs(scores - self._expected).max() / np.ptp(self._expected)
        return float(share) if np.isfinite(share) else np.inf

    @functools.cached_property
    def _expected(self) -> NDArray[np.float32]:
        from masktool.runtime.provider_options import choose_providers
        from masktool.runtime.providers import create_session

        return self._score(create_session(self._path(False), choose_providers([CPU]), None))[0]

    def _path(self, mask_required: bool) -> Path:
        """Returns the path of the exported network, with a mask that may be left out or that may not."""
        from masktool.interface.export import export

        path = self.folder / f"{'required' if mask_required else 'optional'}.onnx"
        if not path.exists():
            export(make_network(), path, mask_required=mask_required)
        return path


def make_network() -> onnx.ModelProto:
    """Returns a network with what masks meet in most: windows, strides, pooling, a residual addition, a mean."""
    import onnx.numpy_helper
    import onnx.parser

    text = f"""<ir_version: 8, opset_import: ["": {OPSET}]>
    proof (float[N, 3, {SIDE}, {SIDE}] image) => (float[N, {CLASSES}] scores) {{
        early = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, first)
        active = Relu(early)
        pooled = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(active)
        late = Conv<pads = [1, 1, 1, 1]>(pooled, second)
        sum = Add(late, pooled)
        last = Relu(sum)
        means = GlobalAveragePool(last)
        flat = Flatten(means)
        scores = Gemm(flat, weight)
    }}"""
    model = onnx.parser.parse_model(text)
    numbers = np.random.default_rng(1)
    shapes = {"first": (FILTERS, 3, 3, 3), "second": (FILTERS, FILTERS, 3, 3), "weight": (FILTERS, CLASSES)}
    for name, shape in shapes.items():
        values = numbers.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    return model
