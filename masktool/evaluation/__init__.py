"""Evaluations of how far explanations, and the masking beneath them, can be trusted. They run on exported files alone.

A part (:class:`masktool.evaluation.part.Part`, one per file in ``parts/``) measures one image at a time and sums up
afterwards; :func:`run_part` runs it on a data set. Metrics are plain functions over arrays, one idea per file in
``metrics/``.
"""

from masktool.evaluation.findings import Evaluation, Findings
from masktool.evaluation.maps import MethodChoice
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.part import PARTS, Part
from masktool.evaluation.results import write_evaluation
from masktool.evaluation.running import run_part

__all__ = ["PARTS", "Evaluation", "Findings", "MethodChoice", "NamedModel", "Part", "run_part", "write_evaluation"]
