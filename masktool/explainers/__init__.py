"""Explaining predictions: one method per file in ``methods/``, the explanation that comes of it, and its picture."""

from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation import Explanation

__all__ = ["Explanation", "explain_all"]
