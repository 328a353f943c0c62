"""Feature maps of a file, as methods ask for them by name; the first one where none is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.messages import Placeholder, call, parameter
from masktool.runtime.session import MaskedSession


def positions_of_maps(title: str, names: Sequence[str], session: MaskedSession) -> list[int]:
    """Returns where feature maps stand among those that a file has gradients of; of all, where none is named.

    Args:
        title: the method that asks.
        names: the names of the feature maps.
        session: the session of the file.

    Raises:
        MasktoolError: the file has no feature map, or none of one of the names.
    """
    metadata = session.metadata
    if not metadata.feature_maps:
        raise without_feature_map(title, metadata.copies, session.path)
    if others := [name for name in names if name not in metadata.feature_maps]:
        wanted = names[0] if len(names) == 1 else tuple(names)
        raise MasktoolError(
            "the file holds another feature map",
            where=", ".join(others),
            got=", ".join(metadata.feature_maps),
            fix="export it again: " + call("export", metadata.source, ..., gradient="logit", feature_map=wanted),
        )
    return [metadata.feature_maps.index(name) for name in names or metadata.feature_maps]


def choose_activations(
    title: str, name: str | None, maps: Mapping[str, NDArray[np.float32]]
) -> tuple[str, NDArray[np.float32]]:
    """Returns the name and the activations (c, h, w) of one of a task's feature maps; the first where none is named.

    Raises:
        MasktoolError: the file gives no feature map, or none of that name, or numbers that are not finite.
    """
    if not maps:
        raise without_activations(title)
    chosen = next(iter(maps)) if name is None else name
    if chosen not in maps:
        raise MasktoolError(
            "the file gives another feature map",
            where=chosen,
            got=", ".join(maps),
            fix="export it again with " + parameter("feature_map", chosen),
        )
    if not np.isfinite(maps[chosen]).all():
        raise MasktoolError(
            "the activations are not finite", where=f"feature map {chosen}", expected="numbers", got="NaN or infinity"
        )
    return chosen, maps[chosen]


def without_feature_map(title: str, copies: int, where: object) -> MasktoolError:
    """Returns the error for a network without a feature map.

    Args:
        title: the method that asks for one.
        copies: the number of copies of the one image that fill the network's fixed batch.
        where: the network.
    """
    copied = f"every map is of {copies} copies of the image, which fill its fixed batch"
    return MasktoolError(
        f"{title} needs a feature map (1, c, h, w), and the network has none",
        where=where,
        got=copied if copies > 1 else None,
        fix="occlusion, rise and gradient need none",
    )


def without_activations(title: str, where: object = None, source: object = Placeholder("MODEL")) -> MasktoolError:
    """Returns the error for a file that gives no feature map without gradients.

    Args:
        title: the method that asks for one.
        where: the file.
        source: what the file was exported from.
    """
    return MasktoolError(
        f"{title} needs a feature map (1, c, h, w), which the file does not give",
        where=where,
        fix="export it again: " + call("export", source, ..., feature_map="last"),
    )
