"""All mask rules: importing a family's file enters its rules in the table."""

from __future__ import annotations

from reference import attention, elementwise, layout, norms, reductions, windows
from reference.registry import RULES

FAMILIES = (attention, elementwise, layout, norms, reductions, windows)
__all__ = ["FAMILIES", "RULES"]
