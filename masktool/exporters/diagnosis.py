"""Finds why a masked graph gives something else than its source, once a figure is beyond its limit.

Reasons are looked for in this order:

1. The same images twice give two answers: the source is random, or keeps numbers from run to run.
2. The source mixes the images of its batch: one image's answer follows the others'.
3. The source's own answers move with ONNX Runtime's optimisations, threads and batches. How far is measured, and the
   figures are judged against it; with the optimisations off both must still agree, and the masked graph must not mix
   the images of its batch.
4. The runtime fuses a quantised graph otherwise than its source, and computes other parts on integers. Where both agree
   with the optimisations off, how far the masked graph's own answers move is measured too, and counts likewise.
5. What is left is a defect of masktool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from masktool.errors import MasktoolError
from masktool.exporters.differences import relative_difference
from masktool.exporters.inference import every_node
from masktool.exporters.parity import DEFECT, judge_parity, source_like
from masktool.exporters.probes import Probe
from masktool.exporters.runnable import Outputs, RunnableModel
from masktool.exporters.storage import Running
from masktool.exporters.tolerance import is_quantised
from masktool.exporters.trial import TriedNetwork
from masktool.printable import list_some

RANDOM_OPERATORS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
OTHER_RUNS = (Running("EXTENDED"), Running("BASIC"), Running("OFF"), Running(threads=1))
"""Settings of ONNX Runtime that the source's spread is measured over, beside single images."""
UNFUSED = Running("OFF")
NAMED = 3
"""Nodes that a message names at most."""


def excuse(
    figures: Mapping[str, float],
    limits: Mapping[str, float],
    masked: RunnableModel,
    trial: TriedNetwork,
    model: ir.Model,
) -> dict[str, float]:
    """Returns the figures, and beside them those that tell whether the source excuses one beyond its limit.

    A quantised graph is measured without ONNX Runtime's optimisations in any case: they decide what is computed on
    integers.

    Args:
        figures: the measured figures by name.
        limits: the limits of the figures by name.
        masked: the exported model.
        trial: the source, and the images and masks that it was tried on.
        model: the source's model.

    Raises:
        MasktoolError: a figure is beyond its limit for a reason that lies in the source.
    """
    found, plain, probe = dict(figures), trial.plain, trial.probes[0]
    if is_quantised(model):
        found["ones_unfused"] = measure_unfused(masked, plain, trial.probes)
    if all(verdict.passed is not False for verdict in judge_parity(found, limits)):
        return found
    if cause := find_fault_of_source(plain, probe, model, alone=masked.one_by_one):
        raise cause
    if change := mixing_of(masked, probe):
        raise MasktoolError(
            "the masked graph mixes the images of a batch, which its source does not",
            got=f"an answer changes by {change:.2g} of the largest when the other images change",
            fix=DEFECT,
        )
    found["source_spread"] = max(measure_spread(plain, probe.images, alone=masked.one_by_one) for probe in trial.probes)
    found["ones_unfused"] = measure_unfused(masked, plain, trial.probes)
    if is_quantised(model) and found["ones_unfused"] <= limits["ones"]:
        found["masked_spread"] = measure_masked_spread(masked, trial.probes)
    return found


def find_fault_of_source(plain: RunnableModel, probe: Probe, model: ir.Model, *, alone: bool) -> MasktoolError | None:
    """Returns the error of a source that is not reproducible, or that mixes images; None where neither is found.

    Args:
        plain: the source.
        probe: the images to run the source on.
        model: the source's model.
        alone: whether the source is run on one image at a time, so that mixing the images of a batch does not matter.
    """
    first, second = plain.run_alone(probe.images), plain.run_alone(probe.images)
    if difference := relative_difference(first, second):
        return unsteady(model, difference)
    if not alone and (change := mixing_of(plain, probe)):
        return MasktoolError(
            "the network mixes the images of a batch: masks of one image would change each other's answers",
            got=f"an answer changes by {change:.2g} of the largest when the other images change",
            fix="export it with a fixed batch of 1",
        )
    return None


def unsteady(model: ir.Model, difference: float) -> MasktoolError:
    """Returns the error of a source whose answers to the same images differ, by ``difference`` times the largest."""
    what, got = "the same images twice give answers that differ", f"by {difference:.2g} of the largest"
    if random := find_nodes(model, is_random):
        trained = any(node.op_type == "Dropout" for node in random)
        fix = "export it in evaluation mode, in which Dropout does nothing"
        return MasktoolError(
            f"the network is random: {what}",
            where=name_nodes(random),
            got=got,
            fix=fix if trained else "export it without what draws random numbers",
        )
    if training := find_nodes(model, is_training):
        return MasktoolError(
            f"the network is in training mode: {what}",
            where=name_nodes(training),
            got=got,
            fix="export it in evaluation mode, in which its running statistics stay as they are",
        )
    return MasktoolError(
        f"the network's answers are not reproducible: {what}",
        got=f"{got}, though no node of it is known to draw random numbers",
        fix="export it without what keeps or draws numbers from run to run",
    )


def find_nodes(model: ir.Model, is_meant: Callable[[ir.Node], bool]) -> list[ir.Node]:
    """Returns the nodes of a model for which a condition holds, those in bodies and functions included."""
    return [node for node in every_node(model) if is_meant(node)]


def is_training(node: ir.Node) -> bool:
    """Tells whether a node updates running statistics, which ONNX Runtime does in place, from run to run.

    Up to opset 13, outputs for the statistics switch that on; from 14 on, an attribute does.
    """
    return node.op_type == "BatchNormalization" and (
        node.attributes.get_int("training_mode", 0) != 0 or any(output.name for output in node.outputs[1:])
    )


def is_random(node: ir.Node) -> bool:
    """Tells whether a node draws random numbers: a generator, or a Dropout that is not certain to be switched off."""
    if node.op_type != "Dropout":
        return node.op_type in RANDOM_OPERATORS
    training = node.inputs[2] if len(node.inputs) > 2 else None
    switch = None if training is None else ir.convenience.get_const_tensor(training)
    return training is not None and (switch is None or bool(switch.numpy().any()))


def name_nodes(nodes: Sequence[ir.Node]) -> str:
    """Returns operators and names of the first few nodes, in words."""
    return list_some([f"{node.op_type} node {(node.name or node.outputs[0].name)!r}" for node in nodes], NAMED)


def mixing_of(runnable: RunnableModel, probe: Probe) -> float:
    """Returns how far one image's outputs move when the other images of its batch change, relative to max |output|.

    Batches of one size are computed by the same kernels, so that an answer that follows its own image alone keeps
    every bit.
    """
    count = runnable.batch or len(probe.images)
    if count == 1:
        return 0.0
    batch = np.resize(probe.images, (count, *probe.images.shape[1:]))
    others = np.concatenate([batch[:1], np.flip(batch[1:], axis=-1)])
    ones = np.ones((count, *probe.masks.shape[1:]), probe.masks.dtype) if runnable.takes_mask else None
    found, expected = runnable.run(others, ones), runnable.run(batch, ones)
    return relative_difference(rows_of_first_image(found, count), rows_of_first_image(expected, count))


def rows_of_first_image(outputs: Outputs, count: int) -> Outputs:
    """Returns the first image's part of every output whose first axis is a multiple of the number of images."""
    return [each.reshape(count, -1)[:1] for each in outputs if each.ndim and each.shape[0] % count == 0]


def measure_spread(plain: RunnableModel, images: np.ndarray, *, alone: bool) -> float:
    """Returns how far a source's outputs move with optimisations, threads and batches, relative to max |output|."""
    sessions = [plain, *(plain.opened_again(running=running) for running in OTHER_RUNS)]
    expected, *found = [each.run_alone(images) if alone else each.run_plain(images) for each in sessions]
    if not alone and plain.batch is None:
        found.append(plain.run_alone(images))
    return max(relative_difference(each, expected) for each in found)


def measure_masked_spread(masked: RunnableModel, probes: Sequence[Probe]) -> float:
    """Returns how far a masked graph's outputs under a mask of ones move with optimisations and threads alone."""
    others = [masked.opened_again(running=running) for running in OTHER_RUNS]
    return max(
        relative_difference(other.run(probe.images, np.ones_like(probe.masks)), expected)
        for probe in probes
        for expected in [masked.run(probe.images, np.ones_like(probe.masks))]
        for other in others
    )


def measure_unfused(masked: RunnableModel, plain: RunnableModel, probes: Sequence[Probe]) -> float:
    """Returns the figure ``ones_unfused``: ``ones`` with ONNX Runtime's optimisations off in both sessions."""
    masked, plain = masked.opened_again(running=UNFUSED), plain.opened_again(running=UNFUSED)
    worst = 0.0
    for probe in probes:
        under_ones = masked.run(probe.images, np.ones_like(probe.masks))
        worst = max(
            worst, relative_difference(under_ones, source_like(under_ones, plain, probe, alone=masked.one_by_one))
        )
    return worst
