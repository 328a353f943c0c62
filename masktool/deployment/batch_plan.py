"""Whether a server may put requests for a file together, and how many images then go through at once.

Triton's batches have one row for each request in every input and output. A file that takes one image at a time, whose
independence of images is not proved, or whose inputs have no such row, is served without: a request then holds whole
arrays, and an image may meet any number of masks.

Source: triton-inference-server/onnxruntime_backend, src/onnxruntime.cc (ValidateInputs: optional inputs only where
``max_batch_size`` is 0; CompareDimsSupported: with a batch the first dimension of all must be -1).
"""

from __future__ import annotations

import dataclasses

from masktool.contract import MASK_INPUT
from masktool.deployment.file_interface import FileInterface, ServedTensor
from masktool.errors import MasktoolError
from masktool.messages import join, parameter
from masktool.runtime.batching import choose_batch_size

MOST_BATCH = 4096
"""Largest batch that may be asked for."""


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """How requests for a file go through it.

    Attributes:
        max_batch: most images in a run that a server puts together; 0 where it puts none together.
        reason: reason why there is no batch; None where there is one, or none was asked for.
    """

    max_batch: int
    reason: str | None = None

    def tensors(self, interface: FileInterface) -> tuple[ServedTensor, ...]:
        """Returns the inputs that requests may hold: without a batch the optional ones too."""
        return interface.required if self.max_batch else (*interface.required, *interface.optional)


def plan_batch(interface: FileInterface, asked: int | None, *, on_gpu: bool) -> BatchPlan:
    """Returns how requests for a file go through it.

    Args:
        interface: what the file says of its inputs and outputs.
        asked: most images in a run; 0 for no batch; None to choose.
        on_gpu: whether the file will run on a GPU.

    Raises:
        MasktoolError: a batch was asked for that the file cannot take.
    """
    reason = find_batch_obstacle(interface)
    if asked == 0:
        return BatchPlan(0)
    if asked is not None:
        if reason is not None:
            raise MasktoolError(
                "requests for this file cannot share a run",
                where=interface.path,
                got=parameter("max_batch", asked),
                fix=join("", [f"{reason}; leave that out, or give ", parameter("max_batch", 0)]),
            )
        return BatchPlan(asked)
    if reason is None and interface.optional:
        reason = f"optional inputs ({', '.join(each.name for each in interface.optional)}) forbid more"
    if reason is not None:
        return BatchPlan(0, reason)
    return BatchPlan(choose_batch_size(None, interface.size, on_gpu=on_gpu))


def find_batch_obstacle(interface: FileInterface) -> str | None:
    """Returns the reason why requests for a file cannot share a run; None where they can."""
    metadata = interface.metadata
    if metadata.takes_photograph:
        return "the file takes one photograph at a time"
    if metadata.batching == "one":
        return "the file takes one image at a time"
    if metadata.independence != "proved":
        return "it is not proved that no image of a batch changes another's results"
    alone = [each for each in interface.required if not each.in_batch or len(each.shape) < 2]
    alone += [each for each in interface.outputs if not each.in_batch]
    if alone:
        return f"there is no row for each image in {', '.join(each.name for each in alone)}"
    return None


def leaves_out_mask(interface: FileInterface, plan: BatchPlan) -> bool:
    """Tells whether a file takes a mask that no request can give, since requests share runs."""
    return plan.max_batch > 0 and any(each.name == MASK_INPUT for each in interface.optional)
