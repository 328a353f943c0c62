"""Finds which of the hubs' architectures a state dict is of, or names those to choose from.

Keys and shapes do not tell everything: strides, padding, activations and anti-aliasing leave no trace in them. So
networks with the same keys and shapes are run on the same weights, and count as one only where all results agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masktool.contract import DEFAULT_SIZE, Preprocessing
from masktool.errors import MasktoolError
from masktool.exporters.torch_sources import hub
from masktool.exporters.torch_sources.arch import ARCH_FORMS
from masktool.exporters.torch_sources.fitting import RGB, shapes_of
from masktool.exporters.torch_sources.hub_names import AUTO
from masktool.exporters.torch_sources.hub_search import Fit, Search, parameters_on_meta, search_hubs
from masktool.exporters.torch_sources.module_export import flatten_outputs, quiet
from masktool.messages import Message, Placeholder, join, parameter
from masktool.printable import list_some

if TYPE_CHECKING:
    import torch

NAMES_SHOWN = 10
IMAGES_COMPARED = 2
"""Outputs that are the same for both images would be no evidence."""
COMPARED_SIZE_RATIO = 2
"""Networks are compared on images of half their size, in a quarter of the time, where they run on such."""
SAME_OUTPUT = 1e-9
"""Relative difference in float64 of two networks that compute the same: rounding gives 1e-12, another epsilon of a
batch norm more than 1e-8."""
ADVICE_ON_FORMS = "add " + parameter("arch", Placeholder(ARCH_FORMS))


@dataclasses.dataclass(frozen=True)
class Recognised:
    """The only architecture of the hubs that a state dict fits.

    Attributes:
        name: ``torchvision:NAME`` or ``timm:NAME``.
        notes: notes for the user on the choice, one sentence each.
    """

    name: str
    notes: tuple[str, ...]


def recognise_architecture(state: Mapping[str, torch.Tensor], path: Path) -> Recognised:
    """Finds the one architecture of the installed hubs that a state dict fits.

    Args:
        state: the state dict, its wrappers' prefixes stripped.
        path: the path of the state dict's file.

    Raises:
        MasktoolError: no architecture fits, or several do that do not compute the same; the message names them.
    """
    search = search_hubs(shapes_of(state))
    fits = order_fits(search.fits, path)
    where = Message(str(path), ", ") + parameter("arch", AUTO)
    if not fits:
        failure = describe_failure(search)
        raise MasktoolError("no architecture recognised", where=where, got=failure, fix=ADVICE_ON_FORMS)
    found = choose_unique(search.fits, state)
    if found is None:
        raise MasktoolError("several architectures fit", where=where, got=list_names(fits), fix=advise_choice(fits))
    missed = [f"{failure.what}, and was not searched" for failure in search.failures]
    return dataclasses.replace(found, notes=(*found.notes, *missed))


def refuse_without_architecture(state: Mapping[str, torch.Tensor], path: Path) -> MasktoolError:
    """Returns the refusal of a state dict without an architecture, which names those that it fits."""
    search = search_hubs(shapes_of(state))
    fits = order_fits(search.fits, path)
    if not fits:
        return refuse_bare(path, describe_failure(search), ADVICE_ON_FORMS)
    found = choose_unique(search.fits, state)
    fix = advise_choice(fits) if found is None else "add " + parameter("arch", found.name)
    return refuse_bare(path, f"the keys and shapes of {list_names(fits)}", fix)


def refuse_bare(path: Path, got: str, fix: str) -> MasktoolError:
    """Returns the refusal of a state dict without an architecture."""
    what, expected = "a state dict holds weights only", "an architecture beside it"
    return MasktoolError(what, where=path, expected=expected, got=got, fix=fix)


def order_fits(fits: Sequence[Fit], path: Path) -> list[Fit]:
    """Returns fits, the most likely first: those with published weights, then those that the file's name names."""
    return sorted(fits, key=lambda fit: (not hub.is_published(fit.name), -length_in_name(fit.name, path)))


def length_in_name(name: str, path: Path) -> int:
    """Returns the length of a model's name where a file's name contains it, as in downloaded files; else 0."""
    model = name.rpartition(":")[2]
    return len(model) if model in path.name else 0


def choose_unique(fits: Sequence[Fit], state: Mapping[str, torch.Tensor]) -> Recognised | None:
    """Returns the one architecture that all fits amount to; None where two of them do not compute the same.

    A fit without weights published by its hub gives way to those with weights, and is named in a note.

    Args:
        fits: the networks in the order of the search; the first of those that agree is taken, whatever the file is
            called.
        state: the state dict that the networks fit.
    """
    competing = [fit for fit in fits if hub.is_published(fit.name)] or list(fits)
    first, *others = competing
    if any(not compute_the_same(first, other, state) for other in others):
        return None
    notes = [f"architecture recognised from keys and shapes: {first.name}"]
    notes += [describe_twin(first, other) for other in others]
    notes += [
        f"{fit.name} has these keys and shapes too, but no published weights: name it if the weights were trained as it"
        for fit in fits
        if fit not in competing
    ]
    return Recognised(first.name, tuple(notes))


def describe_twin(first: Fit, other: Fit) -> str:
    """Returns a note that another name stands for the same network, and whether its hub prepares images alike."""
    own, others = (build_outline(fit).preprocessing for fit in (first, other))
    difference = "" if own == others else f", resized and cropped otherwise: {first.name}'s preprocessing is taken"
    return f"{other.name} is the same network{difference}"


def compute_the_same(first: Fit, second: Fit, state: Mapping[str, torch.Tensor]) -> bool:
    """Tells whether two networks with a state dict's weights prepare images alike and give the same outputs on them.

    Networks that cannot be compared count as different.
    """
    import torch

    one, other = load_outline(first, state), load_outline(second, state)
    if normalisation(one.preprocessing) != normalisation(other.preprocessing):
        return False
    height, width = one.preprocessing.size if one.preprocessing else DEFAULT_SIZE
    for ratio in (COMPARED_SIZE_RATIO, 1):
        shape = (IMAGES_COMPARED, one.channels or RGB, height // ratio, width // ratio)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        try:
            with quiet(), torch.inference_mode():
                pair = [flatten_outputs(each.module(images)) for each in (one, other)]
        except Exception:  # the size may not suit them; the networks' code may raise anything
            continue
        return equal_outputs(*pair)
    return False


def equal_outputs(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    """Tells whether the outputs of two networks are the same, and depend on the image."""
    if len(first) != len(second) or not first:
        return False
    return all(
        one.shape == other.shape and is_evidence(one) and largest(one - other) <= SAME_OUTPUT * largest(one)
        for one, other in zip(first.values(), second.values(), strict=True)
    )


def is_evidence(output: torch.Tensor) -> bool:
    """Tells whether an output is finite and differs between two images by more than the tolerance for equal outputs."""
    return bool(output.isfinite().all()) and largest(output[0] - output[1]) > SAME_OUTPUT * largest(output)


def largest(values: torch.Tensor) -> float:
    """Returns the largest absolute value in a tensor."""
    return float(values.abs().max())


def normalisation(preprocessing: Preprocessing | None) -> Any:
    """Returns the fields of a preprocessing that change the numbers of pixels; None where there is no preprocessing."""
    return None if preprocessing is None else (preprocessing.mean, preprocessing.std, preprocessing.channel_order)


def build_outline(fit: Fit) -> hub.Architecture:
    """Builds a network without weights, on the meta device."""
    with parameters_on_meta():
        return hub.build(fit.name, pretrained=False, **fit.options)


def load_outline(fit: Fit, state: Mapping[str, torch.Tensor]) -> hub.Architecture:
    """Builds a network with a state dict's weights, in float64 and evaluation mode."""
    known = build_outline(fit)
    known.module.load_state_dict(state, strict=False, assign=True)
    known.module.double().eval()
    return known


def list_names(fits: Sequence[Fit]) -> str:
    """Returns the names of the first fits and the number of the others, in words."""
    return list_some([fit.name for fit in fits], NAMES_SHOWN)


def advise_choice(fits: Sequence[Fit]) -> Message:
    """Returns advice for several architectures that fit and do not compute the same."""
    why = "; keys and shapes hold no strides, padding, activations or preprocessing, so whoever trained them must tell"
    return "add " + parameter("arch", fits[0].name) + ", or whichever of these the weights were trained as" + why


def describe_failure(search: Search) -> Message:
    """Returns the message that no network fits: which hubs were searched, what comes nearest, and which were not."""
    said: list[str] = []
    if search.searched:
        said.append(f"keys and shapes of no network of {' or '.join(search.searched)}")
    if search.nearest is not None:
        name, differences = search.nearest
        said.append(f"{name} comes nearest, with {differences.describe()}")
    return join("; ", [*said, *(failure.message for failure in search.failures)])
