"""Makes the canonical graph of a source, for as many images at once as it keeps apart, and adds a mask to it."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from masktool.contract import Layout, Preprocessing
from masktool.errors import MasktoolError
from masktool.exporters.batch import lift_batch
from masktool.exporters.canonical import canonicalise
from masktool.exporters.fill import fill_model
from masktool.exporters.independence import Independence
from masktool.exporters.integer_images import check_gives_integers
from masktool.exporters.one_image import one_image_model, take_one_image
from masktool.exporters.onnx_file import find_image_input, input_size_of, layout_of
from masktool.exporters.propagate import mask_model
from masktool.exporters.refusals import refuse_files_of_another_kind
from masktool.exporters.runnable import RunnableModel
from masktool.exporters.settings import ExportSettings
from masktool.exporters.size_trial import trying_a_size
from masktool.exporters.sources import Source
from masktool.exporters.trial import TriedNetwork, try_batches


class Prepared(NamedTuple):
    """The canonical graph of a source: for any batch where that is proved to be right, else for one image.

    Attributes:
        model: the graph.
        layout: the layout of the image input.
        independence: whether an image's results depend on the images beside it.
        trial: the source, and what it was tried on.
        preprocessing: the steps from a photograph to the input; None where they are not known.
        copies: the number of copies of an image that fill a fixed batch that cannot be opened; 1 in any other graph.
    """

    model: ir.Model
    layout: Layout
    independence: Independence
    trial: TriedNetwork
    preprocessing: Preprocessing | None
    copies: int = 1

    @property
    def proved(self) -> bool:
        """Whether no image of a batch can change another's results."""
        return self.independence.verdict == "proved"


def prepare_graph(source: Source, plain: RunnableModel, preprocessing: Preprocessing | None) -> Prepared:
    """Returns the canonical graph of a source, for as many images at once as it keeps apart.

    Args:
        source: the source, which stays as it is.
        plain: the source in a session.
        preprocessing: the steps from a photograph to the input; None where they are not known.
    """
    if preprocessing is not None:
        check_gives_integers(find_image_input(source.model, source.image_input), preprocessing)
    model = canonicalise(source.model)
    layout = layout_of(find_image_input(model, source.image_input))
    trial, taken = try_batches(plain, source.model, layout, preprocessing)
    if taken is not source.model:
        model = canonicalise(taken)
    independence, copies = lift_batch(model, source.image_input, trial.domain, trial.size), 1
    if independence.verdict != "proved":
        model, copies = one_image_model(taken, source.image_input)
    return Prepared(model, layout, independence, trial, preprocessing, copies)


def add_mask(source: Source, prepared: Prepared, settings: ExportSettings) -> None:
    """Makes a prepared graph take a mask, in place.

    The mask is required where the caller says so, or where the source leaves its height or width open: no default of
    ones fits an image of any size.
    """
    required = settings.mask_required
    if required is None:
        required = input_size_of(source.model, source.image_input) is None
    if settings.baseline is None:
        carry_mask(source, prepared, settings, required=required)
    else:
        fill_model(
            prepared.model,
            source.image_input,
            prepared.layout,
            settings.baseline,
            prepared.preprocessing,
            mask_required=required,
        )
    settle_one_image(source, prepared, prepared.model)


def settle_one_image(source: Source, prepared: Prepared, model: ir.Model) -> None:
    """Makes a graph of the prepared network's take one image, in place, where copies of it fill a fixed batch."""
    if prepared.copies > 1:
        rows = prepared.trial.plain.count_rows(prepared.trial.probes[0].images[0])
        take_one_image(model, source.image_input, prepared.copies, rows)


def carry_mask(source: Source, prepared: Prepared, settings: ExportSettings, *, required: bool) -> None:
    """Carries a mask through every layer of a prepared graph, in place."""
    refuse_files_of_another_kind(prepared.model)
    if source.behind is None and not any(node.op_type == "Conv" for node in prepared.model.graph):
        raise MasktoolError(
            "not a convolutional network",
            where=source.name,
            expected="at least one Conv node",
            got="none",
        )
    with trying_a_size(source.model, source.image_input, settings.masking, settings.rule):
        mask_model(
            prepared.model,
            source.image_input,
            prepared.layout,
            mask_required=required,
            masking=settings.masking,
            rule=settings.rule,
        )
