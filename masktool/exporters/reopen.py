"""Opens and runs the written file: the last step of an export that changed the graph after it was measured.

The measurement ran on the graph before its gradients. Here the file itself answers for one image, and has to say what
the measured graph said. Where nothing but metadata came in between, every byte of the file is compared instead, see
:meth:`masktool.exporters.storage.Staging.holds_what_was_opened`.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from masktool.contract import FEATURE_MAP_OUTPUTS, GRADIENT_PREFIX, MASK_INPUT, OBJECTIVE, WEIGHTS_INPUT, Metadata
from masktool.errors import MasktoolError, reported_as
from masktool.exporters.differences import relative_difference
from masktool.exporters.parity import DEFECT
from masktool.exporters.probes import Probe, feed_of
from masktool.exporters.runnable import Outputs, RunnableModel
from masktool.exporters.storage import open_session

SUM_TOLERANCE = 1e-3
"""Relative to the sum of magnitudes: what float32, or an output of 16 bits, may be off by in the sum of its values."""


def answer(runnable: RunnableModel, probe: Probe) -> Outputs:
    """Returns every output but gradients for the first image of a probe under its first mask."""
    return runnable.run(probe.images[:1], probe.masks[:1])


def check_written(
    path: Path, metadata: Metadata, probe: Probe, expected: Outputs, tolerance: float, fix: str = DEFECT
) -> None:
    """Opens and runs a file that was written, and compares its outputs with those of the graph that was measured.

    Args:
        path: the path of the file.
        metadata: the metadata of the file.
        probe: the images and masks of the measurement.
        expected: the outputs that :func:`answer` gave for the graph that was measured.
        tolerance: the largest difference from the expected outputs that is allowed, relative to max |output|.
        fix: what to do where the difference is larger.

    Raises:
        MasktoolError: the file does not open or run, or gives other outputs.
    """
    with reported_as("the file that was written does not run", where=path.name, fix=DEFECT):
        runnable = RunnableModel.of(functools.partial(open_session, str(path)), metadata.image_input)
        session = runnable.session
        feed = {runnable.image_input: probe.images[:1], MASK_INPUT: probe.masks[:1]} | feed_of(runnable.others, 1)
        results = dict(zip([output.name for output in session.get_outputs()], session.run(None, feed), strict=True))
    difference = relative_difference([np.asarray(results[name]) for name in runnable.outputs], expected)
    if not difference <= tolerance:
        raise MasktoolError(
            "the file that was written gives something else than the graph that was measured",
            where=path.name,
            expected=f"a difference of at most {tolerance:.1e} relative to max |output|",
            got=f"{difference:.1e}",
            fix=fix,
        )
    if metadata.has_gradients:  # else an output of the network's own may be called so
        check_gradients(results, feed, metadata, path)
    if metadata.gradient_output is not None:
        check_objective(results, feed[WEIGHTS_INPUT], metadata.gradient_output, path)


def check_gradients(
    results: dict[str, np.ndarray], feed: dict[str, np.ndarray], metadata: Metadata, path: Path
) -> None:
    """Raises MasktoolError where a gradient has another shape than its image, mask or feature map."""
    sources = {"image": feed[metadata.image_input], "mask": feed[MASK_INPUT]}
    sources |= {name: results[name] for name in FEATURE_MAP_OUTPUTS if name in results}
    for name, source in sources.items():
        gradient = results.get(GRADIENT_PREFIX + name)
        if gradient is not None and gradient.shape != source.shape:
            raise MasktoolError(
                "a gradient in the file that was written has another shape than what it is the gradient of",
                where=f"output {GRADIENT_PREFIX + name!r} of {path.name}",
                expected=list(source.shape),
                got=list(gradient.shape),
                fix=DEFECT,
            )


def check_objective(results: dict[str, np.ndarray], weights: np.ndarray, output: str, path: Path) -> None:
    """Raises MasktoolError where a file does not differentiate the sum of an output's values times their weights.

    Args:
        results: the file's outputs by name.
        weights: the weights that it was fed, in the output's shape with one row.
        output: the name of the output.
        path: the path of the file.
    """
    weighed = results[output].astype(np.float64) * weights
    expected = weighed.reshape(len(weighed), -1).sum(axis=1)
    found, scale = results[OBJECTIVE], float(np.abs(weighed).sum())
    if found.shape != expected.shape or not np.allclose(
        found, expected, rtol=0, atol=SUM_TOLERANCE * scale, equal_nan=True
    ):
        raise MasktoolError(
            "the file that was written differentiates something else than the weighed sum of the output",
            where=f"output {output!r} of {path.name}",
            expected=expected.tolist(),
            got=found.tolist(),
            fix=DEFECT,
        )
