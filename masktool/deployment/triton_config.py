"""A model's ``config.pbtxt`` for Triton's ONNX Runtime backend, from what the file says of itself.

Source: triton-inference-server/common, protobuf/model_config.proto; what the backend takes of it,
triton-inference-server/onnxruntime_backend, src/onnxruntime.cc.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from masktool.deployment.batch_plan import BatchPlan
from masktool.deployment.file_interface import FileInterface, ServedTensor
from masktool.deployment.text_format import Fields, Value, Word, write_fields
from masktool.deployment.warm_up import WarmUp
from masktool.errors import MasktoolError
from masktool.messages import parameter
from masktool.option_checks import check_choice, check_count

TritonDevice = Literal["auto", "cpu", "gpu"]
KINDS = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}
BACKEND = "onnxruntime"
LABELS_FILE = "labels.txt"
WARM_UP_FOLDER = "warmup"
"""Folder, beside the versions, of values that warm-ups are fed; the name is Triton's."""
DEFAULT_QUEUE_DELAY = 2000
"""Microseconds that a request waits for others: a fiftieth of what 8 images of 224 pixels take on a CPU."""
DATA_TYPES = {np.dtype(name): f"TYPE_{name.upper()}" for name in ("bool", "int8", "int16", "int32", "int64")}
DATA_TYPES |= {np.dtype(name): f"TYPE_{name.upper()}" for name in ("uint8", "uint16", "uint32", "uint64")}
DATA_TYPES |= {np.dtype(f"float{bits}"): f"TYPE_FP{bits}" for bits in (16, 32, 64)}
"""Triton's names of the types that files have."""


@dataclasses.dataclass(frozen=True)
class TritonSettings:
    """How Triton runs a model.

    Attributes:
        max_batch: most images in a run that Triton puts together; 0 for none; None to choose.
        instances: copies of the model that run side by side on each device.
        device: ``cpu``, ``gpu``, or ``auto`` for GPUs where there are any.
        tensorrt: whether ONNX Runtime hands to TensorRT what that can run.
        queue_delay: microseconds that a request waits for others to share its run.
    """

    max_batch: int | None = None
    instances: int = 1
    device: TritonDevice = "auto"
    tensorrt: bool = False
    queue_delay: int = DEFAULT_QUEUE_DELAY

    def __post_init__(self) -> None:
        if self.max_batch is not None:
            check_count("max_batch", self.max_batch, 0)
        check_count("instances", self.instances)
        check_count("queue_delay", self.queue_delay, 0)
        check_choice("device", self.device, tuple(KINDS))
        if self.tensorrt and self.device == "cpu":
            raise MasktoolError(
                "TensorRT runs on GPUs alone",
                got=parameter("device", self.device),
                fix="leave that out, or leave out " + parameter("tensorrt"),
            )


def write_config(
    name: str, interface: FileInterface, plan: BatchPlan, settings: TritonSettings, warm_ups: Sequence[WarmUp]
) -> str:
    """Returns the text of a model's ``config.pbtxt``.

    Args:
        name: name of the model, which is its folder's.
        interface: what the file says of its inputs and outputs.
        plan: how requests go through it.
        settings: how Triton runs it.
        warm_ups: requests that Triton makes before the model is ready.
    """
    return write_fields(
        Fields.of(
            ("name", name),
            ("backend", BACKEND),
            ("max_batch_size", plan.max_batch),
            *list_interface(interface, plan),
            ("version_policy", Fields.of(("latest", Fields.of(("num_versions", 1))))),
            ("instance_group", Fields.of(("count", settings.instances), ("kind", Word(KINDS[settings.device])))),
            ("dynamic_batching", describe_batching(plan, settings)),
            ("optimization", describe_accelerator(interface) if settings.tensorrt else None),
            *(("model_warmup", each) for each in describe_warm_ups(interface, plan, warm_ups)),
        )
    )


def list_interface(interface: FileInterface, plan: BatchPlan) -> list[tuple[str, Value]]:
    """Returns the fields for inputs and outputs, in which all versions of a model agree."""
    optional = {each.name for each in interface.optional}
    labelled = interface.metadata.class_output if interface.class_labels is not None else None
    batched = plan.max_batch > 0
    return [
        *(("input", describe_io(each, batched, optional=each.name in optional)) for each in plan.tensors(interface)),
        *(("output", describe_io(each, batched, labelled=each.name == labelled)) for each in interface.outputs),
    ]


def describe_io(tensor: ServedTensor, batched: bool, *, optional: bool = False, labelled: bool = False) -> Fields:
    """Returns the message for an input or output; with a batch, without the axis of that.

    A message has one dimension at least: what has one number for each image is brought from and to that by ``reshape``.
    """
    is_number = batched and len(tensor.shape) == 1
    return Fields.of(
        ("name", tensor.name),
        ("data_type", Word(DATA_TYPES[tensor.dtype])),
        ("dims", list_dims(tensor, batched)),
        ("reshape", Fields.of(("shape", [])) if is_number else None),
        ("label_filename", LABELS_FILE if labelled else None),
        ("optional", True if optional else None),
    )


def list_dims(tensor: ServedTensor, batched: bool) -> list[int]:
    """Returns the dimensions that clients see of an input or output, without the axis of a batch; -1: of any length."""
    return [-1 if length is None else length for length in tensor.shape[1 if batched else 0 :]] or [1]


def describe_batching(plan: BatchPlan, settings: TritonSettings) -> Fields | None:
    """Returns how requests are put together; None where they are not."""
    if plan.max_batch < 2:
        return None
    preferred = sorted({plan.max_batch // 2, plan.max_batch} - {1})
    return Fields.of(("preferred_batch_size", preferred), ("max_queue_delay_microseconds", settings.queue_delay))


def describe_accelerator(interface: FileInterface) -> Fields:
    """Returns the message that has ONNX Runtime run on TensorRT what that can, in the file's own precision."""
    half = interface.metadata.precision == "fp16" or any(each.dtype == np.float16 for each in interface.required)
    precision = Fields.of(("key", "precision_mode"), ("value", "FP16" if half else "FP32"))
    accelerator = Fields.of(("name", "tensorrt"), ("parameters", precision))
    return Fields.of(("execution_accelerators", Fields.of(("gpu_execution_accelerator", accelerator))))


def describe_warm_ups(interface: FileInterface, plan: BatchPlan, warm_ups: Sequence[WarmUp]) -> list[Fields]:
    """Returns the messages of the warm-ups: one image; of a file that takes a mask or none, a full batch too."""
    sizes = [1] + ([plan.max_batch] if plan.max_batch > 1 and interface.metadata.takes_mask else [])
    return [
        Fields.of(
            ("name", f"{each.name}, {size}"),
            ("batch_size", size),
            *(("inputs", describe_fed_value(each, name, batched=plan.max_batch > 0)) for name in each.values),
        )
        for each in warm_ups
        for size in sizes
    ]


def describe_fed_value(warm_up: WarmUp, name: str, *, batched: bool) -> Fields:
    """Returns the message for an input's value in a warm-up: zeros, or the name of a file."""
    value = warm_up.values[name]
    stored = ("input_data_file", name_value_file(warm_up, name)) if value.any() else ("zero_data", True)
    described = Fields.of(
        ("data_type", Word(DATA_TYPES[value.dtype])), ("dims", list(value.shape[1 if batched else 0 :]) or [1]), stored
    )
    return Fields.of(("key", name), ("value", described))


def name_value_file(warm_up: WarmUp, name: str) -> str:
    """Returns the name of the file that holds the value of an input in a warm-up."""
    position = list(warm_up.values).index(name)
    return f"{warm_up.name}.{position}"


def list_value_files(warm_ups: Sequence[WarmUp]) -> dict[str, bytes]:
    """Returns the contents of the files that hold values of warm-ups, by the files' names."""
    return {
        name_value_file(each, name): value.tobytes()
        for each in warm_ups
        for name, value in each.values.items()
        if value.any()
    }
