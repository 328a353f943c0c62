"""Which file is used: the model that is named, ``$MASKTOOL_MODEL`` or the built-in model; exported first if need be."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from masktool.contract import Metadata
from masktool.errors import MasktoolError
from masktool.exported_files import LAST, find_head_file, is_masked, metadata_of
from masktool.interface.options import ModelChoice, ModelLike
from masktool.messages import call, differently, join, parameter
from masktool.progress import Say
from masktool.runtime.gradients import describe_differentiated
from masktool.runtime.session import MaskedSession

MODEL_VARIABLE = "MASKTOOL_MODEL"
ANOTHER_MODEL = differently(python="the argument model", command="-m")


def find_model(choice: ModelChoice, say: Say) -> Path:
    """Returns the path of a masked model, exporting it into the cache where it is not masked yet.

    Args:
        choice: the model, and what its masked file must hold.
        say: function that is called with which file was chosen and why.

    Raises:
        MasktoolError: there is no such model, or the model cannot be exported.
    """
    model = choice.model
    if model is None and (model := os.environ.get(MODEL_VARIABLE) or None):
        say(f"model: {model} (from ${MODEL_VARIABLE})")
    if model is None:
        return find_built_in(choice, say)
    if masked := masked_file(model):
        return find_masked(choice, masked, say)
    from masktool.interface.kept_exports import keep_export

    return keep_export(dataclasses.replace(choice, model=model), say)


def find_built_in(choice: ModelChoice, say: Say) -> Path:
    """Returns the path of the built-in model."""
    from masktool.demo import model_path

    path = model_path()
    if not choice.gradient:
        say(
            f"model: {path.name} (built in, knows simple shapes only; "
            + ANOTHER_MODEL
            + f" or ${MODEL_VARIABLE} chooses another)"
        )
    return find_masked(choice, path, say)


def masked_file(model: ModelLike) -> Path | None:
    """Returns the path of a model that ``masktool export`` wrote; None for any other model."""
    return Path(model) if isinstance(model, str | os.PathLike) and is_masked(Path(model)) else None


def known_metadata(model: ModelLike | None) -> Metadata | None:
    """Returns what a model that ``masktool export`` wrote, open or not, says about itself; None for any other model.

    Args:
        model: the model, as for :func:`masktool.load`.
    """
    if isinstance(model, MaskedSession):
        return model.metadata
    named = os.environ.get(MODEL_VARIABLE) or None if model is None else model
    path = None if named is None else masked_file(named)
    return None if path is None else metadata_of(path)


def file_of(model: ModelLike | None) -> object:
    """Returns the path of a model as messages name it, where the model is a file or an open session."""
    if isinstance(model, MaskedSession):
        return model.path
    return os.environ.get(MODEL_VARIABLE) if model is None else model


def explains_itself(model: ModelLike | None) -> bool:
    """Tells whether a model is a file that explains itself."""
    metadata = known_metadata(model)
    return metadata is not None and not metadata.takes_mask


def find_masked(choice: ModelChoice, path: Path, say: Say) -> Path:
    """Returns the path of an exported file, or where gradients are asked for, of a copy in the cache that holds them.

    Raises:
        MasktoolError: an option was given that the file's export has settled.
    """
    refuse_part(path)
    refuse_settled(choice, path)
    if choice.head is not None:
        check_head(choice.head, path)
    if choice.feature_map and not choice.gradient:
        return find_with_feature_maps(choice, path, say)
    metadata = metadata_of(path) if choice.gradient else None
    if choice.gradient and (metadata is None or not metadata.has_gradients):
        from masktool.exporters.added_gradients import check_takes_gradients
        from masktool.interface.kept_exports import keep_gradients

        check_takes_gradients(metadata, path)
        return keep_gradients(choice, path, say)
    if metadata is not None and choice.gradient_output is not None:
        check_gradient_output(choice.gradient_output, metadata, path)
    return path


def check_gradient_output(output: str, metadata: Metadata, path: Path) -> None:
    """Raises MasktoolError where the gradients that a file holds are not of an output that was named.

    Args:
        output: the name of the output, which may be that in the source.
        metadata: the metadata of the file, which holds gradients.
        path: the path of the file.
    """
    if metadata.gradient_output != (metadata.renamed or {}).get(output, output):
        raise MasktoolError(
            "the file holds gradients of something else",
            where=path,
            expected=f"output {output!r}",
            got=describe_differentiated(metadata.gradient_output),
            fix=f"export {metadata.source} again: "
            + call("export", metadata.source, "NEW.onnx", gradient_output=output),
        )


def check_head(head: str, path: Path) -> None:
    """Raises MasktoolError where an exported file has no head, or one that begins behind another feature map.

    Args:
        head: the name of the feature map, or ``last`` for any.
        path: the path of the file.
    """
    metadata = metadata_of(path)
    assert metadata is not None  # the file is masktool's
    find_head_file(path, metadata)
    if head not in (LAST, metadata.feature_map):
        raise MasktoolError(
            "the file's head begins behind another feature map",
            where=path,
            expected=head,
            got=metadata.feature_map,
            fix="export it again: " + call("export", metadata.source, "NEW.onnx", head=head),
        )


def gives_feature_maps(names: Sequence[str], metadata: Metadata) -> bool:
    """Tells whether an exported file gives feature maps: those of these names, or any for ``last``."""
    return bool(metadata.feature_maps) and set(names) <= {LAST, *metadata.feature_maps}


def find_with_feature_maps(choice: ModelChoice, path: Path, say: Say) -> Path:
    """Returns the path of an exported file that gives feature maps, or of a copy in the cache that does.

    Raises:
        MasktoolError: the file has gradients or a head, with other feature maps, or explains itself.
    """
    metadata = metadata_of(path)
    assert metadata is not None  # the file is masktool's
    if gives_feature_maps(choice.feature_map, metadata):
        return path
    if metadata.has_gradients or choice.head is not None or not metadata.takes_mask:
        names = choice.feature_map
        raise MasktoolError(
            "the file does not give the feature map",
            where=path,
            expected=", ".join(names),
            got=", ".join(metadata.feature_maps) or "none",
            fix="export it again: "
            + call("export", metadata.source, "NEW.onnx", feature_map=names[0] if len(names) == 1 else names),
        )
    from masktool.interface.kept_exports import keep_feature_maps

    return keep_feature_maps(choice, path, say)


def refuse_part(path: Path) -> None:
    """Raises MasktoolError for a head, whose image is another network's feature map."""
    metadata = metadata_of(path)
    if metadata is not None and metadata.behind is not None:
        raise MasktoolError(
            f"the file is a head: it holds the layers behind the feature map {metadata.behind!r} alone",
            where=path,
            fix=f"name the file of the whole network, which was exported from {metadata.source}",
        )


def refuse_settled(choice: ModelChoice, path: Path) -> None:
    """Raises MasktoolError where an option was given that the export of the model has settled already."""
    given = (
        (choice.arch, parameter("arch", choice.arch)),
        (choice.channels, parameter("channels", choice.channels)),
        (choice.image_input, parameter("image_input", choice.image_input)),
        (choice.masking, parameter("masking", choice.masking)),
        (choice.baseline, parameter("baseline", choice.baseline)),
        (choice.class_output, parameter("class_output", choice.class_output)),
        (choice.output_kind, parameter("output_kind", choice.output_kind)),
        (choice.preprocessing, parameter("preprocessing")),
        (choice.labels, parameter("labels")),
        (choice.precision, parameter("precision", choice.precision)),
        (choice.rule, parameter("rule", choice.rule)),
    )
    if asked := [text for value, text in given if value is not None]:
        raise MasktoolError(
            f"the model {'explains itself' if explains_itself(path) else 'is masked'} already",
            where=path,
            got=join(" ", asked),
            fix="leave that out, or name the plain model with " + ANOTHER_MODEL,
        )
