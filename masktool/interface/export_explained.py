"""Files that explain themselves, from any model: :func:`export_explained`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from masktool.files import check_target
from masktool.streams import unheard

if TYPE_CHECKING:
    from masktool.embedding.settings import ExplainInput, SamplesInput, TargetInput
    from masktool.exporters.result import Export
    from masktool.exporters.sources import Model, Source

SOURCE_OPTIONS = ("arch", "input_size", "channels", "image_input", "trust_code")
"""The options of :class:`masktool.ExportOptions` that say how the model is read."""


@unheard()
def export_explained(
    model: Model | Source,
    path: str | os.PathLike[str],
    method: str = "occlusion",
    *,
    n_samples: int | None = None,
    seed: int = 0,
    chunk: int = 1,
    target: TargetInput = "top",
    on_request: ExplainInput = "always",
    portable: bool = False,
    samples_input: SamplesInput = "fixed",
    embed_preprocessing: bool = False,
    embed_overlay: bool = False,
    **options: Any,
) -> Export:
    """Exports a trained CNN as an ONNX model that gives a saliency map with every prediction, from one run.

    The file's outputs are the model's own, unchanged, then ``saliency_map`` (N, 1, H, W) float32, then what the method
    has besides. It holds standard operators only, so that any runtime for ONNX gives the map. With the defaults the
    image is the one input.

    Args:
        model: the model, as for :func:`masktool.export`.
        path: the path of the file to write; the file appears only when everything has succeeded.
        method: the name of the method: one of ``masktool.embedding.methods``.
        n_samples: the number of masks, or of steps in methods that take steps; None takes the method's default.
        seed: the seed of every random choice; choices are made once, here, so that every run gives the same map.
        chunk: the largest number of masks or steps that go through the network in one pass.
        target: the class to explain: the ``top`` prediction of each image, or an input ``target``, (1,) or one class
            per image, int64, -1 for the top prediction. The input is ``optional``, or ``required``, for runtimes that
            know no optional inputs (ONNX Runtime's in JavaScript).
        on_request: when to explain: ``always``, or where the input ``explain``, (1,) bool, is true. That input is
            ``optional``, with the default true, or ``required``. A run that does not explain costs what the plain
            model costs, and its ``saliency_map`` has no rows. The network then stands in the graph twice; its weights
            stand once, in ``NAME.data`` beside the file.
        portable: whether the file is written for other runtimes than ONNX Runtime too, as for
            :func:`masktool.export`; of a method's own inputs only those without a default remain.
        samples_input: whether the number of masks or steps is ``fixed``, or an input of the file, (1,) int64, named as
            the method's option: ``optional``, with the number given here as its default, or ``required``. For
            ``smoothgrad`` (``n_samples``) and ``integrated-gradients`` with ``rule="riemann"`` (``n_steps``).
        embed_preprocessing: whether the file takes one photograph as it is, (H, W, 3) uint8 RGB of any size, under the
            name of the image input, and resizes, crops and normalises it: the same pixels as Pillow's, to the last bit.
            The map stays in the pixels of the model's own input.
        embed_overlay: whether to add the output ``overlay``, uint8 RGB: the map over its picture in the colours of
            :meth:`masktool.Explanation.plot`. The picture is the photograph, (H, W, 3), where the file takes one, else
            what the model's input shows, (N, H, W, 3).
        **options: the method's own options, see ``masktool.explainers.methods``; and those of
            :func:`masktool.export`, but for ``mask_required``, ``gradient``, ``feature_map`` and ``plain_branch``.
            Where the method has a ``baseline`` or ``feature_map`` of its own, they are the method's.

    Returns:
        What was written, see :func:`masktool.export`; ``metadata.parity["explanation"]`` says how far the map lies from
        the one that the explainer gives in Python, as a share of that map's range.

    Raises:
        UnsupportedOperatorError: nodes without the mask or gradient rule that the method needs.
        MasktoolError: the method cannot be part of a file for this model, or an option cannot be used.
    """
    from masktool.embedding import embed_source
    from masktool.embedding.options import build_embedded_method
    from masktool.embedding.settings import EmbeddingSettings
    from masktool.exporters.settings import SourceSettings
    from masktool.exporters.sources import read_source
    from masktool.exporters.user_choices import read_settings, source_size
    from masktool.interface.explain import split_options

    check_target(path)
    own, of_export = split_options(method, options)
    built = build_embedded_method(method, own, n_samples)
    embedding = EmbeddingSettings(
        built, seed, chunk, target, on_request, samples_input, embed_preprocessing, embed_overlay
    )
    of_source = {name: of_export.pop(name) for name in SOURCE_OPTIONS if name in of_export}
    settings = read_settings(**of_export, portable=portable)
    of_source["input_size"] = source_size(model, of_source.get("input_size"), settings.preprocessing)
    return embed_source(read_source(model, SourceSettings(**of_source)), path, settings, embedding)
