"""masktool: turns a trained CNN into an ONNX model that takes a mask, and explains predictions with it.

Names are loaded on first use, so that ``import masktool`` pulls in neither torch nor onnxruntime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from masktool.telemetry import switch_off_telemetry

switch_off_telemetry()

if TYPE_CHECKING:
    from masktool.contract import (
        Batching,
        ChannelOrder,
        DeviceProvider,
        FilePrecision,
        Independence,
        Interpolation,
        Layout,
        Loss,
        Masking,
        Metadata,
        OutputKind,
        PictureLayout,
        Preprocessing,
        ResizeRule,
        SamplerRule,
        Size,
        SourceTask,
    )
    from masktool.contract import __version__ as __version__
    from masktool.datasets.dataset import Problem
    from masktool.deployment.triton_config import TritonDevice
    from masktool.embedding.settings import ExplainInput, SamplesInput, TargetInput
    from masktool.errors import MasktoolError, UnsupportedNode, UnsupportedOperatorError
    from masktool.evaluation.bootstrap import Interval
    from masktool.evaluation.findings import Cell, Chart, Evaluation, Findings, Line, Table
    from masktool.evaluation.report import write_report
    from masktool.explainers.bands.band_explanation import BandExplanation
    from masktool.explainers.bands.baselines import BandBaseline
    from masktool.explainers.bands.groups import BandsLike
    from masktool.explainers.explanation import Explanation
    from masktool.explainers.model_outputs import ModelOutputs, Scale
    from masktool.explainers.regions import RegionLike
    from masktool.explainers.subject import ImageLike, Picture
    from masktool.explainers.target import (
        ClassScore,
        Combined,
        OutputShape,
        Place,
        SettledTarget,
        Target,
        TargetLike,
        TargetWords,
    )
    from masktool.explainers.targets.class_sum import ClassSum, SettledSum
    from masktool.explainers.targets.class_target import ClassTarget, SettledClass
    from masktool.explainers.targets.contrast import Contrast, SettledContrast
    from masktool.explainers.targets.detection import Detection, SettledDetection
    from masktool.explainers.targets.output_region import OutputRegion, SettledRegion
    from masktool.explainers.targets.output_slice import OutputSlice, SettledSlice
    from masktool.explainers.targets.output_value import OutputValue, SettledValue
    from masktool.explainers.targets.similarity import SettledSimilarity, Similarity
    from masktool.exporters import add_gradients_to
    from masktool.exporters.check import ExportCheck
    from masktool.exporters.derivatives.write import Derivative, differentiate
    from masktool.exporters.description import ModelDescription, TensorDescription, describe
    from masktool.exporters.parity import Verdict
    from masktool.exporters.result import Export, NodeRule, SourceSummary
    from masktool.exporters.settings import LabelsLike, PreprocessingLike, Preset
    from masktool.interface.bench.explanations import MethodFailure, MethodFigures
    from masktool.interface.bench.memory import MemoryFigures
    from masktool.interface.bench.passes import PassFigures
    from masktool.interface.bench.run import BenchReport, BenchSettings, measure_costs
    from masktool.interface.bench.spread import Clocks, Spread
    from masktool.interface.cache_entries import CacheEntry, clear_cache, list_cache
    from masktool.interface.calibrate import calibrate
    from masktool.interface.check import check_export
    from masktool.interface.doctor_finding import CheckState, DoctorFinding
    from masktool.interface.evaluate import evaluate
    from masktool.interface.explain import explain, explain_images, explain_targets
    from masktool.interface.explain_bands import explain_bands
    from masktool.interface.export import export
    from masktool.interface.export_explained import export_explained
    from masktool.interface.installation import doctor
    from masktool.interface.load import load
    from masktool.interface.options import ExportOptions, ModelLike
    from masktool.interface.package_server import package_docker, package_kserve
    from masktool.interface.package_triton import package_triton
    from masktool.maskers.settings import (
        Classifier,
        Infiller,
        Objective,
        OutLoss,
        Precision,
        Stages,
        Through,
        TrainingSettings,
    )
    from masktool.maskers.train import train_masker
    from masktool.progress import Advance, Progress, Say
    from masktool.runtime.gradients import Gradient
    from masktool.runtime.inputs import Inputs
    from masktool.runtime.session import MaskedSession

__all__ = [
    "Advance",
    "BandBaseline",
    "BandExplanation",
    "BandsLike",
    "Batching",
    "BenchReport",
    "BenchSettings",
    "CacheEntry",
    "Cell",
    "ChannelOrder",
    "Chart",
    "CheckState",
    "ClassScore",
    "ClassSum",
    "ClassTarget",
    "Classifier",
    "Clocks",
    "Combined",
    "Contrast",
    "Derivative",
    "Detection",
    "DeviceProvider",
    "DoctorFinding",
    "Evaluation",
    "ExplainInput",
    "Explanation",
    "Export",
    "ExportCheck",
    "ExportOptions",
    "FilePrecision",
    "Findings",
    "Gradient",
    "ImageLike",
    "Independence",
    "Infiller",
    "Inputs",
    "Interpolation",
    "Interval",
    "LabelsLike",
    "Layout",
    "Line",
    "Loss",
    "MaskedSession",
    "Masking",
    "MasktoolError",
    "MemoryFigures",
    "Metadata",
    "MethodFailure",
    "MethodFigures",
    "ModelDescription",
    "ModelLike",
    "ModelOutputs",
    "NodeRule",
    "Objective",
    "OutLoss",
    "OutputKind",
    "OutputRegion",
    "OutputShape",
    "OutputSlice",
    "OutputValue",
    "PassFigures",
    "Picture",
    "PictureLayout",
    "Place",
    "Precision",
    "Preprocessing",
    "PreprocessingLike",
    "Preset",
    "Problem",
    "Progress",
    "RegionLike",
    "ResizeRule",
    "SamplerRule",
    "SamplesInput",
    "Say",
    "Scale",
    "SettledClass",
    "SettledContrast",
    "SettledDetection",
    "SettledRegion",
    "SettledSimilarity",
    "SettledSlice",
    "SettledSum",
    "SettledTarget",
    "SettledValue",
    "Similarity",
    "Size",
    "SourceSummary",
    "SourceTask",
    "Spread",
    "Stages",
    "Table",
    "Target",
    "TargetInput",
    "TargetLike",
    "TargetWords",
    "TensorDescription",
    "Through",
    "TrainingSettings",
    "TritonDevice",
    "UnsupportedNode",
    "UnsupportedOperatorError",
    "Verdict",
    "add_gradients_to",
    "calibrate",
    "check_export",
    "clear_cache",
    "describe",
    "differentiate",
    "doctor",
    "evaluate",
    "explain",
    "explain_bands",
    "explain_images",
    "explain_targets",
    "export",
    "export_explained",
    "list_cache",
    "load",
    "measure_costs",
    "package_docker",
    "package_kserve",
    "package_triton",
    "train_masker",
    "write_report",
]

_MODULE_OF_NAME = {
    "Advance": "masktool.progress",
    "BandBaseline": "masktool.explainers.bands.baselines",
    "BandExplanation": "masktool.explainers.bands.band_explanation",
    "BandsLike": "masktool.explainers.bands.groups",
    "Batching": "masktool.contract",
    "BenchReport": "masktool.interface.bench.run",
    "BenchSettings": "masktool.interface.bench.run",
    "CacheEntry": "masktool.interface.cache_entries",
    "Cell": "masktool.evaluation.findings",
    "ChannelOrder": "masktool.contract",
    "Chart": "masktool.evaluation.findings",
    "CheckState": "masktool.interface.doctor_finding",
    "ClassScore": "masktool.explainers.target",
    "ClassSum": "masktool.explainers.targets.class_sum",
    "ClassTarget": "masktool.explainers.targets.class_target",
    "Combined": "masktool.explainers.target",
    "Contrast": "masktool.explainers.targets.contrast",
    "Classifier": "masktool.maskers.settings",
    "Clocks": "masktool.interface.bench.spread",
    "Derivative": "masktool.exporters.derivatives.write",
    "Detection": "masktool.explainers.targets.detection",
    "DeviceProvider": "masktool.contract",
    "DoctorFinding": "masktool.interface.doctor_finding",
    "Evaluation": "masktool.evaluation.findings",
    "ExplainInput": "masktool.embedding.settings",
    "Explanation": "masktool.explainers.explanation",
    "Export": "masktool.exporters.result",
    "ExportCheck": "masktool.exporters.check",
    "ExportOptions": "masktool.interface.options",
    "FilePrecision": "masktool.contract",
    "Findings": "masktool.evaluation.findings",
    "Gradient": "masktool.runtime.gradients",
    "ImageLike": "masktool.explainers.subject",
    "Independence": "masktool.contract",
    "Infiller": "masktool.maskers.settings",
    "Inputs": "masktool.runtime.inputs",
    "Interpolation": "masktool.contract",
    "Interval": "masktool.evaluation.bootstrap",
    "LabelsLike": "masktool.exporters.settings",
    "Layout": "masktool.contract",
    "Line": "masktool.evaluation.findings",
    "Loss": "masktool.contract",
    "MaskedSession": "masktool.runtime.session",
    "Masking": "masktool.contract",
    "MasktoolError": "masktool.errors",
    "MemoryFigures": "masktool.interface.bench.memory",
    "Metadata": "masktool.contract",
    "MethodFailure": "masktool.interface.bench.explanations",
    "MethodFigures": "masktool.interface.bench.explanations",
    "ModelDescription": "masktool.exporters.description",
    "ModelLike": "masktool.interface.options",
    "ModelOutputs": "masktool.explainers.model_outputs",
    "NodeRule": "masktool.exporters.result",
    "Objective": "masktool.maskers.settings",
    "OutLoss": "masktool.maskers.settings",
    "OutputKind": "masktool.contract",
    "OutputRegion": "masktool.explainers.targets.output_region",
    "OutputSlice": "masktool.explainers.targets.output_slice",
    "OutputValue": "masktool.explainers.targets.output_value",
    "PassFigures": "masktool.interface.bench.passes",
    "Place": "masktool.explainers.target",
    "Precision": "masktool.maskers.settings",
    "Preprocessing": "masktool.contract",
    "PreprocessingLike": "masktool.exporters.settings",
    "Preset": "masktool.exporters.settings",
    "Problem": "masktool.datasets.dataset",
    "Progress": "masktool.progress",
    "ResizeRule": "masktool.contract",
    "SamplerRule": "masktool.contract",
    "SamplesInput": "masktool.embedding.settings",
    "Say": "masktool.progress",
    "Scale": "masktool.explainers.model_outputs",
    "SettledClass": "masktool.explainers.targets.class_target",
    "SettledContrast": "masktool.explainers.targets.contrast",
    "SettledRegion": "masktool.explainers.targets.output_region",
    "SettledSimilarity": "masktool.explainers.targets.similarity",
    "SettledDetection": "masktool.explainers.targets.detection",
    "SettledSlice": "masktool.explainers.targets.output_slice",
    "SettledSum": "masktool.explainers.targets.class_sum",
    "SettledTarget": "masktool.explainers.target",
    "SettledValue": "masktool.explainers.targets.output_value",
    "Similarity": "masktool.explainers.targets.similarity",
    "SourceSummary": "masktool.exporters.result",
    "Spread": "masktool.interface.bench.spread",
    "Stages": "masktool.maskers.settings",
    "Table": "masktool.evaluation.findings",
    "Target": "masktool.explainers.target",
    "TargetInput": "masktool.embedding.settings",
    "TargetLike": "masktool.explainers.target",
    "TargetWords": "masktool.explainers.target",
    "TensorDescription": "masktool.exporters.description",
    "Through": "masktool.maskers.settings",
    "TrainingSettings": "masktool.maskers.settings",
    "TritonDevice": "masktool.deployment.triton_config",
    "UnsupportedNode": "masktool.errors",
    "UnsupportedOperatorError": "masktool.errors",
    "Verdict": "masktool.exporters.parity",
    "__version__": "masktool.contract",
    "add_gradients_to": "masktool.exporters",
    "calibrate": "masktool.interface.calibrate",
    "check_export": "masktool.interface.check",
    "clear_cache": "masktool.interface.cache_entries",
    "describe": "masktool.exporters.description",
    "differentiate": "masktool.exporters.derivatives.write",
    "doctor": "masktool.interface.installation",
    "evaluate": "masktool.interface.evaluate",
    "explain": "masktool.interface.explain",
    "explain_bands": "masktool.interface.explain_bands",
    "explain_images": "masktool.interface.explain",
    "explain_targets": "masktool.interface.explain",
    "export": "masktool.interface.export",
    "export_explained": "masktool.interface.export_explained",
    "list_cache": "masktool.interface.cache_entries",
    "load": "masktool.interface.load",
    "measure_costs": "masktool.interface.bench.run",
    "package_docker": "masktool.interface.package_server",
    "package_kserve": "masktool.interface.package_server",
    "package_triton": "masktool.interface.package_triton",
    "train_masker": "masktool.maskers.train",
    "write_report": "masktool.evaluation.report",
    "OutputShape": "masktool.explainers.target",
    "RegionLike": "masktool.explainers.regions",
    "Picture": "masktool.explainers.subject",
    "PictureLayout": "masktool.contract",
    "Size": "masktool.contract",
    "SourceTask": "masktool.contract",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module 'masktool' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_MODULE_OF_NAME[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from masktool.errors import MasktoolError

        raise MasktoolError(
            f"torch is not installed, which masktool.{name} needs", fix="pip install 'masktool[torch]'"
        ) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
