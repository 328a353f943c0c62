"""The first look at a source, before anything is built of it: whether it opens and runs, and gives numbers on what."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from masktool.contract import Layout, Preprocessing, Size
from masktool.errors import MasktoolError, describe_exception
from masktool.exporters.bad_weights import find_spoiled_weights
from masktool.exporters.batch import open_to_measure
from masktool.exporters.bounded import TimeLimitError
from masktool.exporters.domains import Domain, choose_domain, describe_domain, find_domains
from masktool.exporters.inference import every_node
from masktool.exporters.one_image import with_batch
from masktool.exporters.parity import DEFECT, run_source
from masktool.exporters.probes import Probe, choose_sizes, sides_of, usual_size
from masktool.exporters.runnable import Outputs, RunnableModel
from masktool.exporters.storage import opens
from masktool.messages import parameter

OTHER_BATCHES = (2, 4, 8, 16, 3)
"""Images at once that a network is tried with where it runs with no single one: those that traces are made with."""


def open_source(model: ir.Model, image_input: str, path: Path | None) -> RunnableModel:
    """Opens a source as it was read.

    Args:
        model: the graph of the source.
        image_input: name of the image input.
        path: the path of the ``.onnx`` file that the graph was read from; None where there is none.

    Raises:
        MasktoolError: ONNX Runtime does not take the graph; the message blames the file only where it is refused too.
    """
    loops = any(node.op_type == "Loop" for node in every_node(model))
    try:
        return dataclasses.replace(
            RunnableModel.of(functools.partial(open_to_measure, model, image_input), image_input), loops=loops
        )
    except MasktoolError as error:
        if path is None or not opens(path):
            raise
        raise MasktoolError(
            "ONNX Runtime takes the file, but not the graph that masktool read from it",
            where=path,
            got=describe_exception(error.__cause__ or error),
            fix=DEFECT,
        ) from error


@dataclasses.dataclass(frozen=True)
class TriedNetwork:
    """A network that gives numbers, and the images and masks that it was tried on.

    Attributes:
        plain: the plain network in a session; the masked model where there is no plain network.
        domain: the range of numbers that the images are drawn from.
        probes: the images and masks; one probe for every size.
        usual: whether the images' size is the usual one, or that of the preprocessing or the graph.
    """

    plain: RunnableModel
    domain: Domain
    probes: Sequence[Probe]
    usual: bool = True

    @property
    def size(self) -> Size:
        """Height and width of the images that are measured first, or what their axes are."""
        return tuple(self.probes[0].masks.shape[2:])


def try_source(
    runnable: RunnableModel,
    model: ir.Model,
    layout: Layout,
    preprocessing: Preprocessing | None,
    recorded: object = None,
) -> TriedNetwork:
    """Finds out on what images a network gives numbers.

    Args:
        runnable: the source, or a masked model where there is no source.
        model: the graph of the source or the masked model.
        layout: the layout of the images.
        preprocessing: the steps from a photograph to the input; None where they are not known.
        recorded: name of the domain that an earlier trial found, then the only one tried; None tries all.

    Raises:
        MasktoolError: the network does not run, gives no numbers, or gives NaN and has weights that are NaN.
    """
    domains = find_domains(model, runnable.image_input, layout, runnable.image_type, preprocessing)
    domains = [domain for domain in domains if domain.name == recorded] or domains
    channels, sides = sides_of(runnable.image_shape, layout)
    computed = largest_tensor(model)

    def draw(domain: Domain, size: Size, most: int | None = None) -> Probe:
        return Probe.draw((channels, *size), layout, runnable.image_type, domain, computed=computed, most=most)

    def runs(size: Size) -> bool:
        try:
            run_source(runnable, draw(domains[0], size, most=1), alone=True)
        except TimeLimitError:
            raise
        except MasktoolError:
            return False
        return True

    sizes = choose_sizes(channels, sides, preprocessing, runs)
    drawn: dict[Domain, list[Probe]] = {}
    answers: dict[Domain, Outputs] = {}

    def run(domain: Domain) -> Outputs:
        drawn[domain] = [draw(domain, size) for size in sizes]
        answers[domain] = run_source(runnable, drawn[domain][0].first(1), alone=True)
        return answers[domain]

    chosen = choose_domain(run, domains)
    refuse_spoiled_weights(answers[chosen or domains[-1]], model)
    if chosen is None and runnable.image_type.kind in "iu":
        above_zero = dataclasses.replace(domains[-1], low=(1.0,))
        raise no_numbers_on_integers(domains[-1], above_zero, numbers_above=all_numbers(run(above_zero)))
    if chosen is None:
        tried = ", ".join(describe_domain(domain) for domain in domains)
        raise MasktoolError(
            "the source itself gives no numbers",
            where=f"random images of {tried}",
            got="NaN or infinity in every place of an output",
            fix="if it is made for other numbers, say how photographs become its input: " + parameter("preprocessing"),
        )
    return TriedNetwork(runnable, chosen, drawn[chosen], sizes[0] == usual_size(sides, preprocessing))


def try_batches(
    runnable: RunnableModel,
    model: ir.Model,
    layout: Layout,
    preprocessing: Preprocessing | None,
    recorded: object = None,
) -> tuple[TriedNetwork, ir.Model]:
    """Finds out on what images a network gives numbers, and how many it takes where it does not run on one.

    A trace writes down the batch that it was made with, whatever the file declares: such a network is one of a fixed
    batch.

    Args:
        runnable: the source.
        model: the graph of the source, which stays as it is.
        layout: the layout of the images.
        preprocessing: the steps from a photograph to the input; None where they are not known.
        recorded: as for :func:`try_source`.

    Returns:
        The trial, and the graph, with the batch that it runs with where it declares an open one and does not run with
        one image.

    Raises:
        MasktoolError: the network does not run, gives no numbers, or gives NaN and has weights that are NaN.
    """
    try:
        return try_source(runnable, model, layout, preprocessing, recorded), model
    except MasktoolError as error:
        if runnable.batch is not None or error.__cause__ is None:  # ONNX Runtime runs it, and its numbers are at fault
            raise
        for count in OTHER_BATCHES:
            alike = dataclasses.replace(runnable, image_shape=[count, *runnable.image_shape[1:]])
            try:
                trial = try_source(alike, model, layout, preprocessing, recorded)
            except TimeLimitError:
                raise
            except MasktoolError:
                continue
            if gives_rows(trial, count):
                return trial, with_batch(model, runnable.image_input, count)
            raise error.advised(f"with {count} at once it does, but gives no row for each image") from error.__cause__
        *most, last = OTHER_BATCHES
        raise error.advised(f"nor does it with {', '.join(map(str, most))} or {last} at once") from error.__cause__


def gives_rows(trial: TriedNetwork, count: int) -> bool:
    """Tells whether every output of a network has one row for each of several images."""
    images = np.repeat(trial.probes[0].images[:1], count, axis=0)
    return all(output.ndim and len(output) == count for output in trial.plain.run_once(images))


def largest_tensor(model: ir.Model) -> int:
    """Returns how many numbers the largest tensor holds that a graph computes, as far as lengths are known."""
    shapes = (value.shape for node in model.graph for value in node.outputs if value.shape is not None)
    return max((math.prod(side for side in shape if isinstance(side, int)) for shape in shapes), default=0)


def all_numbers(answers: Outputs) -> bool:
    """Tells whether outputs hold neither NaN nor infinity."""
    return all(np.isfinite(each).all() for each in answers)


def no_numbers_on_integers(domain: Domain, above_zero: Domain, *, numbers_above: bool) -> MasktoolError:
    """Returns the error of a network that takes integers and gives no numbers: no preprocessing changes integers."""
    above = f", though numbers on {describe_domain(above_zero)}" if numbers_above else ""
    return MasktoolError(
        "the source itself gives no numbers",
        where=f"images of integers, {describe_domain(domain)}",
        got=f"NaN or infinity in every place of an output{above}",
        fix="export it so that it gives numbers on all of these: photographs hold them",
    )


def refuse_spoiled_weights(answers: Outputs, model: ir.Model) -> None:
    """Raises MasktoolError where both outputs and weights hold NaN or infinity: no mask mends that."""
    if not all_numbers(answers) and (spoiled := find_spoiled_weights(model)):
        raise MasktoolError(
            "the network's weights hold NaN or infinity, and so do its answers",
            where=spoiled,
            fix="take weights from before they were spoiled",
        )
