"""Measures a file that explains itself against the explainer in Python, on the images that parity is measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from PIL import Image

from masktool.contract import EXPLAIN_INPUT, SALIENCY_MAP, TARGET_INPUT, TOP_CLASS
from masktool.embedding.method import Comparison
from masktool.embedding.settings import EmbeddingSettings
from masktool.errors import MasktoolError
from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.subject import ImageLike
from masktool.exporters.parity import DEFECT
from masktool.exporters.storage import open_model
from masktool.exporters.tolerance import half_tolerance_of
from masktool.runtime.session import MaskedSession

LIMIT = 1e-4
"""Largest difference between the two maps, as a share of the range of Python's; where the network computes in 16 bits,
as much as its outputs may differ."""
OF_A_RUN = frozenset({"seed", "perturbations_per_eval", "providers", "threads"})
"""Settings of an explanation that belong to the run in Python and not to the method."""
MEASURED_IMAGES = 1
"""Images that are explained twice: an explanation takes as long as hundreds of the passes that parity needs."""


def measure_explanation(
    model: ir.Model,
    masked: Path,
    embedding: EmbeddingSettings,
    images: Sequence[ImageLike],
    comparison: Comparison,
    limit: float = LIMIT,
) -> tuple[float, dict[str, Any]]:
    """Returns the difference between the two maps as a share of the range of Python's, and the settings used there.

    Args:
        model: the model that explains itself.
        masked: the path of the masked file, with gradients where the method needs them.
        embedding: the method, and how it became part of the model.
        images: the images, as the model takes them: photographs, or arrays without the axis of the batch.
        comparison: the method in Python, and what the inputs hold that the method declares.
        limit: the largest difference, see :func:`limit_for`.

    Raises:
        MasktoolError: the difference is beyond the limit.
    """
    settings = ExplanationSettings(seed=embedding.seed, perturbations_per_eval=embedding.chunk)
    measured, worst, limit, used = images[:MEASURED_IMAGES], 0.0, max(limit, comparison.limit), {}
    with MaskedSession(masked, providers="cpu") as reference:
        image_input = reference.metadata.image_input
        explanations = [
            explain_all(reference, [image], [[None]], comparison.method, settings)[0][0] for image in measured
        ]
    session = open_model(model)  # once the other one is closed: each holds the network's weights
    for image, explanation in zip(measured, explanations, strict=True):
        used = {name: value for name, value in explanation.settings.items() if name not in OF_A_RUN}
        fed = np.asarray(image) if isinstance(image, Image.Image) else np.asarray(image)[None]
        (found,) = session.run([SALIENCY_MAP], {image_input: fed} | own_feed(session, comparison.feeds))
        worst = max(worst, share_of_range(np.asarray(found)[0, 0], explanation.model_attributions))
    if not worst <= limit:
        raise MasktoolError(
            "the map in the file is not the one that the explainer gives itself",
            where=embedding.method.title,
            expected=f"a difference of at most {limit:.0e} of the map's range",
            got=f"{worst:.1e}",
            fix=DEFECT,
        )
    return worst, used | dict(comparison.settings)


def limit_for(plain: ir.Model, image_input: str) -> float:
    """Returns the largest difference between the two maps, as a share of the range of Python's.

    Where a network computes in 16 bits, every layer rounds, and gradients are computed in float32 in the file alone.
    """
    return max(LIMIT, half_tolerance_of(plain, image_input))


def own_feed(session: Any, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Returns values for required inputs that the explanation adds: the top class, that it is wanted, the method's."""
    values = {**feeds, TARGET_INPUT: np.array([TOP_CLASS]), EXPLAIN_INPUT: np.array([True])}
    return {node.name: values[node.name] for node in session.get_inputs() if node.name in values}


def share_of_range(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Returns the largest difference between two maps (h, w) as a share of the range of the expected one.

    Where that is the same everywhere, it is a share of its value.
    """
    difference = float(np.abs(found - expected).max())
    span = float(np.ptp(expected)) or float(np.abs(expected).max())
    return difference / span if span else np.inf if difference else 0.0
