"""Measures on an open session which batch of masks runs the most of them in a second."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from masktool.contract import MASK_INPUT
from masktool.layouts import SPATIAL_AXES
from masktool.runtime.batching import BatchTrial, find_fastest_batch
from masktool.runtime.device import BindingError
from masktool.runtime.inputs import Inputs
from masktool.runtime.session import MaskedSession
from masktool.runtime.session_device import bind_model, run_bound


def measure_batch_size(session: MaskedSession, image: npt.ArrayLike, inputs: Inputs | None = None) -> list[BatchTrial]:
    """Returns the batches of masks that run ever more images per second; the last is the one to prefer.

    Measured in a few seconds, once for every shape of the image; whoever asks again gets the same. Another run of the
    program may find another one.

    Args:
        session: the session.
        image: preprocessed image, as for :meth:`MaskedSession.masked_scores`.
        inputs: values of the other inputs, as for a call of the session.
    """
    shape = np.shape(image)
    with session.guard:
        if shape not in session.batch_trials:
            alone = session.metadata.one_by_one
            session.batch_trials[shape] = [BatchTrial(1, math.nan)] if alone else time_batches(session, image, inputs)
        return session.batch_trials[shape]


def time_batches(session: MaskedSession, image: npt.ArrayLike, inputs: Inputs | None) -> list[BatchTrial]:
    """Returns trials of the session's model with masks that lie on its device, where it has one, else in memory."""
    size = [np.shape(image)[axis] for axis in SPATIAL_AXES[session.layout]]
    name = session.metadata.class_output or session.output_names[0]

    def hide_corner(masks: int) -> np.ndarray:  # masks of ones alone may take another way through the file
        kept = np.ones((masks, 1, *size), session.mask_type)
        kept.reshape(masks, -1)[:, 0] = 0
        return kept

    if session.device is not None:
        model, bound = bind_model(session, [name]), 0

        def run_there(masks: int) -> None:
            nonlocal bound
            if masks != bound:
                model.bind({**session.feed_image(image, inputs, [name], masks), MASK_INPUT: hide_corner(masks)})
                bound = masks
            run_bound(session, model, masks)

        try:
            return find_fastest_batch(run_there)
        except BindingError as error:
            session.leave_device(error)
    return find_fastest_batch(lambda masks: session.run(image, hide_corner(masks), inputs, [name]))
