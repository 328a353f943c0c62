"""An answer now, and its explanation when asked: two models over one network behind one name.

Triton's ensembles have no conditions, and need none here: of an ensemble whose client names the outputs that it wants,
Triton leaves out every step that only others come from. So one step answers, another explains, both from the same
image, and whoever does not ask for an output of the explanation pays for the answer alone. A model in Python (business
logic) could do the same, and would take Triton's Python backend and a copy of every image through another process; it
is needed only where code has to decide, by the answer, whether to explain.

Source: triton-inference-server/core, src/ensemble_scheduler/ensemble_scheduler.cc (EnsembleContext: "Prune ensemble
first if not all outputs are requested"), ensemble_utils.cc (ValidateTensorMapping: optional inputs need no tensor).
"""

from __future__ import annotations

import dataclasses

from masktool.contract import EXPLAIN_INPUT, MASK_INPUT
from masktool.deployment.batch_plan import BatchPlan
from masktool.deployment.file_interface import FileInterface, ServedTensor
from masktool.deployment.text_format import Fields, Value, Word, write_fields
from masktool.deployment.triton_config import DATA_TYPES, LABELS_FILE, list_dims
from masktool.errors import MasktoolError
from masktool.messages import parameter

PLATFORM = "ensemble"
NEWEST = -1
"""In place of a version: the one that is served."""


@dataclasses.dataclass(frozen=True)
class EnsembleStep:
    """One model in an ensemble.

    Attributes:
        model: name of the model in the repository.
        interface: what its file says of its inputs and outputs.
        plan: how requests go through it.
        outputs: outputs that the ensemble takes from it.
    """

    model: str
    interface: FileInterface
    plan: BatchPlan
    outputs: tuple[ServedTensor, ...]


def make_steps(
    answer: tuple[str, FileInterface, BatchPlan], explanation: tuple[str, FileInterface, BatchPlan]
) -> tuple[EnsembleStep, EnsembleStep]:
    """Returns the steps of an ensemble; what both files give comes from the one that answers.

    Args:
        answer: name, interface and plan of the model that answers.
        explanation: those of the model that explains.

    Raises:
        MasktoolError: the files are not of one network, or do not go together.
    """
    first, second = answer[1], explanation[1]
    check_two_files(first, second)
    given = {each.name for each in first.outputs}
    rest = tuple(each for each in second.outputs if each.name not in given)
    return EnsembleStep(*answer, first.outputs), EnsembleStep(*explanation, rest)


def check_two_files(answer: FileInterface, explanation: FileInterface) -> None:
    """Raises a MasktoolError unless one file answers, and the other explains that network's answers."""
    if explanation.metadata.takes_mask or not answer.metadata.takes_mask:
        wrong, kind = (explanation, "explains itself") if explanation.metadata.takes_mask else (answer, "takes a mask")
        raise MasktoolError(
            "an answer and its explanation come of two files: one that takes a mask, and one that explains itself",
            where=wrong.path,
            expected=f"a file that {kind}",
            got="one that takes a mask" if wrong.metadata.takes_mask else "one that explains itself",
            fix="give them as the model and as " + parameter("explained"),
        )
    if answer.metadata.source_sha256 != explanation.metadata.source_sha256:
        raise MasktoolError(
            "the two files are not of one network",
            where=explanation.path,
            expected=f"an export of {answer.metadata.source}, as {answer.path} is",
            got=f"one of {explanation.metadata.source}",
            fix="export both from one file",
        )
    asks = {each.name for each in (*explanation.required, *explanation.optional)}
    if EXPLAIN_INPUT in asks:
        raise MasktoolError(
            "the file explains on request already, and holds the network that answers besides",
            where=explanation.path,
            fix="package it alone, or leave out " + parameter("on_request") + " when it is exported",
        )
    if any(each.name == MASK_INPUT for each in answer.required):
        raise MasktoolError(
            "the file that answers cannot do without a mask",
            where=answer.path,
            fix="export it with " + parameter("mask_required", False),
        )
    check_common_inputs(answer, explanation)


def check_common_inputs(answer: FileInterface, explanation: FileInterface) -> None:
    """Raises a MasktoolError where both files have an input of one name and of other types or axes."""
    known = {each.name: each for each in answer.required}
    for other in explanation.required:
        own = known.get(other.name)
        if own is not None and (own.dtype, own.shape) != (other.dtype, other.shape):
            raise MasktoolError(
                "the two files take different inputs of one name",
                where=f"{explanation.path}, input {other.name!r}",
                expected=f"{own.dtype} {own.shape}",
                got=f"{other.dtype} {other.shape}",
                fix="export both with the same preprocessing and size, and let neither prepare photographs",
            )


def plan_ensemble(steps: tuple[EnsembleStep, ...]) -> BatchPlan:
    """Returns how requests go through an ensemble: with a batch only where every step has one."""
    return BatchPlan(min(step.plan.max_batch for step in steps))


def write_ensemble_config(name: str, steps: tuple[EnsembleStep, ...]) -> str:
    """Returns the text of an ensemble's ``config.pbtxt``.

    Args:
        name: name of the ensemble.
        steps: its models, the one that answers first.
    """
    return write_fields(
        Fields.of(
            ("name", name),
            ("platform", PLATFORM),
            ("max_batch_size", plan_ensemble(steps).max_batch),
            *list_ensemble_interface(steps),
            ("version_policy", Fields.of(("latest", Fields.of(("num_versions", 1))))),
            ("ensemble_scheduling", Fields.of(*(("step", describe_step(step)) for step in steps))),
        )
    )


def list_ensemble_interface(steps: tuple[EnsembleStep, ...]) -> list[tuple[str, Value]]:
    """Returns the fields for inputs and outputs of an ensemble: each input once, whichever steps it goes to."""
    batched = plan_ensemble(steps).max_batch > 0
    inputs = {each.name: (each, step) for step in reversed(steps) for each in step.interface.required}
    first = steps[0].interface
    labelled = first.metadata.class_output if first.class_labels is not None else None
    return [
        *(("input", describe_ensemble_io(step, each, batched)) for each, step in inputs.values()),
        *(
            ("output", describe_ensemble_io(step, each, batched, labelled=each.name == labelled))
            for step in steps
            for each in step.outputs
        ),
    ]


def describe_ensemble_io(step: EnsembleStep, tensor: ServedTensor, batched: bool, *, labelled: bool = False) -> Fields:
    """Returns the message for an ensemble's input or output: as clients of the step's model see it.

    An ensemble without a batch holds the whole shape, the batch of a step that has one included. There is no
    ``reshape``, which the step's model has done already.
    """
    dims = list_dims(tensor, step.plan.max_batch > 0)
    return Fields.of(
        ("name", tensor.name),
        ("data_type", Word(DATA_TYPES[tensor.dtype])),
        ("dims", [-1, *dims] if step.plan.max_batch and not batched else dims),
        ("label_filename", LABELS_FILE if labelled else None),
    )


def describe_step(step: EnsembleStep) -> Fields:
    """Returns the message for a step, whose tensors have the names that they have in the file."""

    def map_name(name: str) -> Fields:
        return Fields.of(("key", name), ("value", name))

    return Fields.of(
        ("model_name", step.model),
        ("model_version", NEWEST),
        *(("input_map", map_name(each.name)) for each in step.interface.required),
        *(("output_map", map_name(each.name)) for each in step.outputs),
    )
