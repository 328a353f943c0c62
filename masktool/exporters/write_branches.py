"""Measures and writes a file that holds the plain network beside the masked one."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from masktool.exporters.parity import check_parity, measure_branches
from masktool.exporters.plain_branch import add_plain_branch, opened_alone, shares_weights
from masktool.exporters.reopen import answer
from masktool.exporters.runnable import RunnableModel
from masktool.exporters.saturation import advise_on_difference
from masktool.exporters.storage import staging
from masktool.exporters.tolerance import limits_of, widened, without_unfused
from masktool.exporters.write import (
    Compare,
    ExpectedAnswer,
    complete,
    declare_batches,
    declare_ranks,
    finish_file,
    measure_model,
)

if TYPE_CHECKING:
    from masktool.exporters.masked import MaskedNetwork
    from masktool.exporters.result import Export


def write_branches(network: MaskedNetwork, path: str | os.PathLike[str], compare: Compare | None) -> Export:
    """Checks, measures and writes a masked network with the plain one beside it; both are used up.

    The figures are those of the masked network alone, as in any other file, and those of the file besides: under a mask
    of ones the file runs the other one.

    Args:
        network: the network with and without a mask.
        path: the path of the file to write.
        compare: as for :func:`masktool.exporters.write.write_masked`.

    Raises:
        MasktoolError: as for :func:`masktool.exporters.write.write_masked`.
    """
    prepared, source, trial = network.prepared, network.source, network.prepared.trial
    model, probe = prepared.model, trial.probes[0]
    metadata = complete(network.metadata, model, prepared.layout)
    declare_batches(model, metadata.image_input)
    limits = without_unfused(limits_of(model, source.image_input), source.model)
    with opened_alone(model, metadata.image_input) as masked:
        figures = measure_model(masked, trial, source, metadata, limits)
        declare_ranks(model, masked, probe)
        shared = shares_weights(network.plain)
        add_plain_branch(model, network.plain, metadata.image_input)
        with staging(Path(path), model, share_weights=shared) as staged:
            file = RunnableModel.of(staged.open, metadata.image_input)
            figures = {**figures, **measure_branches(file, masked, trial.probes, trial.plain)}
            compared = {name: each for name, each in figures.items() if isinstance(each, float)}
            check_parity(compared, limits, advise_on_difference(source.model))
            metadata = dataclasses.replace(metadata, parity=figures)
            measured = ExpectedAnswer(probe, answer(file, probe), widened(limits, figures)["ones"])
            del file
            return finish_file(staged, Path(path), metadata, source, measured, compare)
