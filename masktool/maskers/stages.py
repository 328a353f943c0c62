"""The stages of a CNN: where its activations change resolution, found by running it once with hooks.

1. Every module's output is recorded that is a map: a tensor (N, C, h, w) whose sides shrink alike with the image's.
2. A module is a chain when its parts run one behind the other, each on what the one before gave: what comes out of a
   part is all that the rest sees. A map's nesting is the number of modules around it that are no chains: within a
   residual block, or a branch, it is one view of several.
3. Resolutions count from large to small, in the order in which they first appear: a map that is larger than one before
   it, such as an attention matrix, opens no stage.
4. A resolution's stage is the last module that gives it among those of the least nesting: the deepest features, under
   the outermost name. A module that runs several times counts with its last run alone, which is all that a hook leaves.
5. Maps of a single pixel know nothing of places and are no stages.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from masktool.errors import MasktoolError
from masktool.maskers.settings import Stages
from masktool.messages import parameter

LAST = 2
"""Number of stages from the end of the classifier that ``last-two`` takes, on which the authors settled."""
SIDE_TOLERANCE = 2
"""Pixels by which a map's sides may differ from one common stride: convolutions without padding cut off a few."""
MAPS_LISTED = 12


@dataclasses.dataclass(frozen=True)
class Stage:
    """A module whose output the masker reads.

    Attributes:
        name: name of the module, as ``named_modules`` gives it.
        channels: number of channels of its output.
        size: (height, width) of its output.
        nesting: number of modules around it that are no chains, the network itself not counted.
    """

    name: str
    channels: int
    size: tuple[int, int]
    nesting: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.channels} x {self.size[0]} x {self.size[1]}"


class Call(NamedTuple):
    """One run of a module: the first tensor among its inputs, and its output."""

    given: Any
    output: Any


def list_maps(module: nn.Module, example: Tensor) -> tuple[Stage, ...]:
    """Returns every module whose output is a map, in the order of their last runs.

    Args:
        module: network in evaluation mode.
        example: images (N, C, H, W) that the network takes.
    """
    calls = record_calls(module, example)
    chains = find_chains(module, calls)
    found = []
    for name, runs in calls.items():
        output = runs[-1].output
        if isinstance(output, Tensor) and is_map(output, example):
            parts = name.split(".")
            around = {".".join(parts[:length]) for length in range(1, len(parts))}
            found.append(Stage(name, output.shape[1], (output.shape[2], output.shape[3]), len(around - chains)))
    return tuple(found)


def record_calls(module: nn.Module, example: Tensor) -> dict[str, list[Call]]:
    """Runs a module once and returns all runs of its parts by name, in the order in which the last ones ended."""
    calls: dict[str, list[Call]] = {}

    def note(name: str, given: Any, output: Any) -> None:
        calls[name] = [*calls.pop(name, ()), Call(given, output)]

    with hooks({name: part for name, part in module.named_modules() if name}, note), torch.no_grad():
        module(example)
    return calls


@contextlib.contextmanager
def hooks(parts: Mapping[str, nn.Module], note: Callable[[str, Any, Any], None]) -> Iterator[None]:
    """Calls ``note`` after each run of a part in the block, with the part's name, first input tensor and output."""

    def hook_for(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001 - torch's signature
            note(name, next((each for each in inputs if isinstance(each, Tensor)), None), output)

        return hook

    handles = [part.register_forward_hook(hook_for(name)) for name, part in parts.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_chains(module: nn.Module, calls: Mapping[str, Sequence[Call]]) -> set[str]:
    """Returns the names of the modules whose parts run one behind the other and nothing happens in between."""
    order = {name: position for position, name in enumerate(calls)}
    chains = set()
    for name, part in module.named_modules():
        inner = [f"{name}.{each}" for each, _ in part.named_children()]
        if name in calls and inner and all(len(calls.get(each, ())) == 1 for each in (name, *inner)):
            runs = [calls[each][0] for each in sorted(inner, key=order.__getitem__)]
            links = [(calls[name][0].given, runs[0].given), (runs[-1].output, calls[name][0].output)]
            links += [(first.output, second.given) for first, second in itertools.pairwise(runs)]
            if all(first is second for first, second in links):
                chains.add(name)
    return chains


def is_map(output: Tensor, example: Tensor) -> bool:
    """Tells whether an output is (N, C, h, w) with the image's proportions, give or take what padding does."""
    if output.ndim != 4 or len(output) != len(example) or not output.is_floating_point():
        return False
    (height, width), (h, w) = example.shape[2:], output.shape[2:]
    return h <= height and w <= width and abs(w - h * width / height) <= SIDE_TOLERANCE


def choose_stages(maps: Sequence[Stage], wanted: Stages, where: str) -> tuple[Stage, ...]:
    """Returns the stages that the masker reads, the finest first.

    Args:
        maps: modules whose outputs are maps, from :func:`list_maps`.
        wanted: ``last-two`` stages, ``all`` of them, or names of modules.
        where: name of the classifier, for messages.

    Raises:
        MasktoolError: a name is not that of a map, or no map is larger than one pixel; the message lists the maps.
    """
    known = {each.name: each for each in maps}
    if isinstance(wanted, str):
        found = find_stages(maps)
        chosen = found if wanted == "all" else found[-LAST:]
    else:
        if unknown := [name for name in wanted if name not in known]:
            raise MasktoolError(
                "no map comes out of such a module", where=", ".join(unknown), expected=f"some of {describe_maps(maps)}"
            )
        chosen = [known[name] for name in wanted]
    if not chosen or any(min(each.size) == 1 for each in chosen):
        raise MasktoolError(
            "no stage to read: a masker needs maps of more than one pixel",
            where=where,
            got=describe_maps(chosen or maps) or "no module whose output is a map (N, C, h, w)",
            fix="choose modules with " + parameter("stages") + ", or a larger " + parameter("input_size"),
        )
    return tuple(sorted(chosen, key=lambda each: each.size, reverse=True))


def find_stages(maps: Sequence[Stage]) -> list[Stage]:
    """Returns the stage of every resolution, from large to small."""
    stages: dict[tuple[int, int], Stage] = {}
    smallest = None
    for each in maps:
        opens = smallest is None or each.size <= smallest
        if min(each.size) > 1 and (opens or each.size in stages):
            if each.size not in stages or each.nesting <= stages[each.size].nesting:
                stages[each.size] = each
            smallest = min(each.size, smallest or each.size)
    return sorted(stages.values(), key=lambda each: each.size, reverse=True)


def describe_maps(maps: Sequence[Stage]) -> str:
    """Returns the maps' names and shapes for a message; where there are many, the stages first."""
    listed = list(maps) if len(maps) <= MAPS_LISTED else find_stages(maps) or list(maps)[-MAPS_LISTED:]
    more = f" and {len(maps) - len(listed)} more" if len(listed) < len(maps) else ""
    return ", ".join(map(str, listed)) + more


@contextlib.contextmanager
def reading(module: nn.Module, stages: Sequence[Stage]) -> Iterator[dict[str, Tensor]]:
    """Yields a mapping that holds, after each run of the module, the stages' activations by name."""
    activations: dict[str, Tensor] = {}

    def note(name: str, given: Any, output: Tensor) -> None:  # noqa: ARG001 - what hooks tells
        activations[name] = output

    with hooks({each.name: module.get_submodule(each.name) for each in stages}, note):
        yield activations
