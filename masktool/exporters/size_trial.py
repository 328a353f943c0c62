"""Finds out by trial whether a fixed input size settles the refusal of a network with an open height and width."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx_ir as ir

from masktool.contract import Masking, SamplerRule
from masktool.errors import UnsupportedOperatorError
from masktool.exporters.canonical import canonicalise
from masktool.exporters.foreseen import foresee_abort
from masktool.exporters.onnx_file import fix_size, layout_of, open_size_of, usual_size_of
from masktool.exporters.propagate import mask_model
from masktool.messages import SIZE, parameter


@contextlib.contextmanager
def trying_a_size(model: ir.Model, image_input: str, masking: Masking, rule: SamplerRule | None) -> Iterator[None]:
    """Adds to the refusal of nodes that a fixed input size settles it, where a trial shows that.

    Args:
        model: the graph of the source as it was read, not the canonical one.
        image_input: name of the image input.
        masking: ``layer`` or ``partial``.
        rule: rule of samplers narrower than their stride.
    """
    try:
        yield
    except UnsupportedOperatorError as error:
        if None not in open_size_of(image_of(model, image_input)):
            raise
        names = {node.name for node in error.nodes}
        if not size_settles(names, model, image_input, masking, rule):
            raise
        raise UnsupportedOperatorError(error.nodes, fix=advise_size(error)) from error


def advise_size(error: UnsupportedOperatorError) -> str:
    """Returns what to do about nodes that a fixed input size settles."""
    return f"a fixed size settles {'it' if len(error.nodes) == 1 else 'them'}: add " + parameter("input_size", SIZE)


def image_of(model: ir.Model, image_input: str) -> ir.Value:
    """Returns the image input of a model."""
    return next(value for value in model.graph.inputs if value.name == image_input)


def size_settles(
    names: set[str], model: ir.Model, image_input: str, masking: Masking, rule: SamplerRule | None
) -> bool:
    """Tells whether, at the usual input size, all nodes can be masked, or at least those named ``names`` are gone."""
    fixed = model.clone()
    image = image_of(fixed, image_input)
    left = {node.name for node in fixed.graph}
    try:
        fix_size(image, usual_size_of(image))
        foresee_abort(fixed, image, model.graph.name)
        fixed = canonicalise(fixed)
        left = {node.name for node in fixed.graph}
        layout = layout_of(image_of(fixed, image_input))
        mask_model(fixed, image_input, layout, mask_required=False, masking=masking, rule=rule)
    except UnsupportedOperatorError:
        return False
    except Exception:  # the usual size need not be one that the network takes: then only nodes that are gone count
        return not names & left
    return True
