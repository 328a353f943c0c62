"""What a file that ``masktool gradient`` wrote says of its gradients, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from masktool.contract import check_entries, damaged_metadata
from masktool.exporters.derivatives.write import DERIVATIVE_PROPERTY
from masktool.limits import check_limit

NAME = "derivative"
"""Name of the entry behind masktool's prefix, for errors."""
ENTRIES: Mapping[str, Any] = {
    "source": str,
    "gradients": Mapping[str, str],
    "output": str,
    "target": Literal["top", "sum", "weights"] | tuple[int, ...],
    "batched": bool,
    "objective": str,
    "weights": str | None,
    "figures": Mapping[str, Any],
    "tool_version": str,
}
"""What the entry holds at least, with the type of each of its own."""
FIGURES: Mapping[str, Any] = {"against": str, "points": str}
"""What its figures hold at least; the others are numbers."""


def read_derivative(properties: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Returns what the ``metadata_props`` of a file say of its gradients, JSON values by name; None for any other file.

    Raises:
        MasktoolError: the entry is damaged.
    """
    text = properties.get(DERIVATIVE_PROPERTY)
    if text is None:
        return None
    check_limit("text", len(text), where=f"metadata {DERIVATIVE_PROPERTY}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged_metadata(NAME, "JSON", error) from error
    if not isinstance(found, dict):
        raise damaged_metadata(NAME, "an object", type(found).__name__)
    check_entries(NAME, found, ENTRIES)
    check_entries(f"{NAME}, figures", found["figures"], FIGURES)
    numbers = {name: float for name in found["figures"] if name not in FIGURES}
    check_entries(f"{NAME}, figures", found["figures"], numbers)
    return found
