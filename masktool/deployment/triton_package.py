"""A model's package for Triton: from open sessions to the models that are written into a repository."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from masktool.contract import MASK_INPUT
from masktool.deployment.batch_plan import BatchPlan, find_batch_obstacle, leaves_out_mask, plan_batch
from masktool.deployment.file_interface import FileInterface, read_interface
from masktool.deployment.text_format import Fields, write_fields
from masktool.deployment.triton_config import TritonSettings, list_interface, list_value_files, write_config
from masktool.deployment.triton_ensemble import list_ensemble_interface, make_steps, write_ensemble_config
from masktool.deployment.triton_repository import TritonModel, check_model_name, check_place, one_line, write_model
from masktool.deployment.warm_up import list_warm_ups, try_warm_ups
from masktool.errors import MasktoolError
from masktool.messages import Placeholder, parameter
from masktool.progress import Say
from masktool.runtime.session import MaskedSession

ANSWER_SUFFIX, EXPLANATION_SUFFIX = "_answer", "_explanation"
"""Ends of the names of an ensemble's models."""


@dataclasses.dataclass(frozen=True)
class PreparedModel:
    """A model for Triton, and what it was made from.

    Attributes:
        model: model to write.
        interface: what its file says of its inputs and outputs.
        plan: how requests go through it.
    """

    model: TritonModel
    interface: FileInterface
    plan: BatchPlan


def prepare_model(session: MaskedSession, name: str, settings: TritonSettings, say: Say) -> PreparedModel:
    """Returns the model that serves an exported file.

    Args:
        session: session of the file, on the CPU.
        name: name of the model.
        settings: how Triton runs it.
        say: function that is called with what a user should know, a line at a time.

    Raises:
        MasktoolError: the file cannot be served so.
    """
    check_model_name(name)
    interface = read_interface(session)
    planned = plan_batch(interface, settings.max_batch, on_gpu=settings.device == "gpu")
    plan, warm_ups, notes = try_warm_ups(session, interface, planned, list_warm_ups(session, interface))
    if plan.max_batch == 0 and settings.max_batch:
        raise MasktoolError("requests for this file cannot share a run", where=session.path, got=plan.reason)
    for line in (*describe_plan(name, interface, plan), *(f"note: {note}" for note in notes)):
        say(line)
    model = TritonModel(
        name,
        write_config(name, interface, plan, settings, warm_ups),
        write_fields(Fields.of(*list_interface(interface, plan))),
        session.path,
        interface.class_labels,
        list_value_files(warm_ups),
    )
    return PreparedModel(model, interface, plan)


def describe_plan(name: str, interface: FileInterface, plan: BatchPlan) -> list[str]:
    """Returns what a user should know of how requests go through a model, a line each."""
    lines = [f"{name}: up to {plan.max_batch} images a run, of several requests"]
    if plan.max_batch == 0:
        why = f": {plan.reason}" if plan.reason else ""
        lines = [f"{name}: one request a run, which holds whole arrays{why}"]
    names = ", ".join(each.name for each in interface.optional)
    if names and plan.max_batch:
        lines.append(f"note: {names} cannot be fed, and has its default; " + say_how_to_feed(interface))
    elif names:
        lines.append(f"note: {names} may be left out (Triton 23.11 or later)" + say_how_to_share(interface))
    if leaves_out_mask(interface, plan) and not interface.metadata.plain_branch:
        lines.append(
            "note: every run computes what a mask needs, though none can come; export with "
            + parameter("plain_branch", True)
        )
    if any(one_line(label) != label for label in interface.class_labels or ()):
        lines.append("note: labels of several lines stand on one line")
    if interface.metadata.labels is not None and interface.class_labels is None:
        lines.append("note: labels are left out: the class output has no column for each class")
    return lines


def say_how_to_feed(interface: FileInterface) -> str:
    """Returns how a file's optional inputs can be fed."""
    return "it can be with " + parameter("max_batch", 0) + " (Triton 23.11 or later)" + say_required(interface)


def say_how_to_share(interface: FileInterface) -> str:
    """Returns how requests can share runs without the optional inputs, as words behind others; empty where they cannot.

    Args:
        interface: what the file says of its inputs and outputs.
    """
    if find_batch_obstacle(interface) is not None:
        return ""
    return (
        "; requests share runs, without that, by " + parameter("max_batch", Placeholder("N")) + say_required(interface)
    )


def say_required(interface: FileInterface) -> str:
    """Returns how a mask can be fed in shared runs; empty where the file has no optional one."""
    if find_batch_obstacle(interface) is not None or all(each.name != MASK_INPUT for each in interface.optional):
        return ""
    return ", and with masks in them if exported with " + parameter("mask_required", True)


def prepare_pair(
    answer: MaskedSession, explanation: MaskedSession, name: str, settings: TritonSettings, say: Say
) -> list[TritonModel]:
    """Returns the models of "an answer now, and its explanation when asked", and the ensemble in front of them.

    Args:
        answer: session of the file that answers, which takes a mask and can do without.
        explanation: session of the file that explains itself.
        name: name of the ensemble, with which those of the models begin.
        settings: how Triton runs the models.
        say: function that is called with what a user should know, a line at a time.

    Raises:
        MasktoolError: the files do not go together, or cannot be served so.
    """
    first = prepare_model(answer, name + ANSWER_SUFFIX, prefer_batch(answer, settings), say)
    second = prepare_model(explanation, name + EXPLANATION_SUFFIX, settings, say)
    steps = make_steps(
        (first.model.name, first.interface, first.plan), (second.model.name, second.interface, second.plan)
    )
    asked = ", ".join(each.name for each in steps[1].outputs)
    say(f"{name}: the ensemble of both; who names the outputs and not {asked} gets the answer at its own price")
    ensemble = TritonModel(
        name,
        write_ensemble_config(check_model_name(name), steps),
        write_fields(Fields.of(*list_ensemble_interface(steps))),
        None,
        first.interface.class_labels,
    )
    return [first.model, second.model, ensemble]


def prefer_batch(session: MaskedSession, settings: TritonSettings) -> TritonSettings:
    """Returns settings by which a file that could take a mask shares its runs instead, where it can."""
    interface = read_interface(session)
    mask_left_out = dataclasses.replace(interface, optional=())
    plan = plan_batch(mask_left_out, settings.max_batch, on_gpu=settings.device == "gpu")
    return dataclasses.replace(settings, max_batch=plan.max_batch)


def write_models(
    repository: Path, models: Sequence[TritonModel], version: int | None, *, overwrite: bool
) -> list[Path]:
    """Writes models into a repository, and returns their folders; nothing is written where one of them cannot be.

    Args:
        repository: folder of all models.
        models: models, those first that others are made of.
        version: number of the version; None for the first of new models.
        overwrite: whether what is there is replaced.

    Raises:
        MasktoolError: there is such a model or version and it is not to be replaced, or it cannot be written.
    """
    for model in models:
        check_place(repository, model, version, overwrite=overwrite)
    return [write_model(repository, model, version, overwrite=overwrite) for model in models]
