"""Finds the networks of torchvision and timm that have exactly the keys and shapes of a state dict.

All networks are begun: on torch's meta device a layer costs microseconds and holds no numbers, and one is given up
as soon as some of its parameters have shapes that the state dict does not hold. No table of signatures is kept.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import re
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from masktool.errors import MasktoolError
from masktool.exporters.torch_sources import hub
from masktool.exporters.torch_sources.fitting import (
    CHANNEL_AXIS,
    RGB,
    Differences,
    Shape,
    Shapes,
    compare_shapes,
    find_options,
    shapes_of,
)
from masktool.exporters.torch_sources.hub_names import TIMM, TORCHVISION
from masktool.exporters.torch_sources.module_export import quiet

if TYPE_CHECKING:
    import torch

MARKED_CLASSES = 1009
"""Number of classes that candidates are built with: a prime, which no other layer has for its width, marks the head."""
MOST_STRANGE = 8
"""Parameters of shapes that the state dict lacks, before a candidate is given up: some networks make layers that they
throw away (timm's EfficientNet tries its squeeze-and-excitation), or have auxiliary heads that the weights lack."""

CUT_DOWN = re.compile(r"_pruned$|^vit_small_resnet50d")
"""Names of the networks that timm builds larger, and then cuts; these few are built whole."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """A network of a hub's that has all keys and shapes of a state dict.

    Attributes:
        name: ``torchvision:NAME`` or ``timm:NAME``.
        options: the options of the network's factory, as for :func:`masktool.exporters.torch_sources.hub.make_module`.
    """

    name: str
    options: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Search:
    """The result of a search of the installed hubs for a state dict's network.

    Attributes:
        fits: the networks that fit, in the order of the hubs' lists, torchvision's classifiers first.
        nearest: name and differences of the network that differs in the fewest keys; None where a network fits, or
            none comes near.
        searched: the hubs that were searched, with their versions.
        failures: the errors for which hubs were not searched.
    """

    fits: tuple[Fit, ...]
    nearest: tuple[str, Differences] | None
    searched: tuple[str, ...]
    failures: tuple[MasktoolError, ...]


class StrangeShapes(BaseException):
    """Ends the building of a candidate network; it is no ``Exception``, which a factory might catch."""


class ShapeWatch:
    """Ends a module's building when too many parameters have shapes that a state dict does not hold.

    Args:
        given: shapes of the state dict.
        limit: the number of parameters of other shapes up to which the building goes on.
    """

    def __init__(self, given: Shapes, limit: float = MOST_STRANGE) -> None:
        self.limit = limit
        self.left = collections.Counter(given.values())
        self.windows = {without_channels(shape) for shape in self.left if len(shape) == 4}
        self.thread = threading.get_ident()
        self.strange = 0

    def look_at(self, parameter: torch.nn.Parameter | None) -> None:
        """Counts a parameter registered in the watch's own thread; raises StrangeShapes where too many are strange."""
        if parameter is None or threading.get_ident() != self.thread or self.holds(tuple(parameter.shape)):
            return
        self.strange += 1
        if self.strange > self.limit:
            raise StrangeShapes

    def holds(self, shape: Shape) -> bool:
        """Tells whether the state dict may hold one more parameter of a shape, for any number of classes or channels.

        Vectors are not counted: some networks make norms and scales that they throw away.
        """
        if self.left[shape] > 0:
            self.left[shape] -= len(shape) > 1
            return True
        if shape[:1] == (MARKED_CLASSES,):
            return True
        return len(shape) == 4 and shape[CHANNEL_AXIS] == RGB and without_channels(shape) in self.windows


def without_channels(shape: Shape) -> Shape:
    """Returns the shape of a convolution's weight without its axis of input channels."""
    return (*shape[:CHANNEL_AXIS], *shape[CHANNEL_AXIS + 1 :])


def search_hubs(given: Shapes) -> Search:
    """Finds the networks of the installed hubs with a state dict's keys and shapes.

    Args:
        given: the shapes of the state dict by key, without the step counters of batch norms.
    """
    fits: list[Fit] = []
    searched, failures = [], []
    near: list[tuple[str, Differences]] = []
    for name in (TORCHVISION, TIMM):
        try:
            library = hub.import_hub(name.rstrip(":"))
        except MasktoolError as error:
            failures.append(error)
            continue
        searched.append(f"{name.rstrip(':')} {library.__version__}")
        with quiet():
            for candidate in list_networks(name, library):
                found = try_network(name, library, candidate, given)
                if isinstance(found, Fit):
                    fits.append(found)
                elif found is not None:
                    near.append((f"{name}{candidate}", found))
    nearest = min(near, key=lambda each: len(each[1]), default=None)
    if fits or nearest is None or 2 * len(nearest[1]) > len(given):
        nearest = None
    return Search(tuple(fits), nearest, tuple(searched), tuple(failures))


def list_networks(name: str, library: Any) -> list[str]:
    """Returns the names of a hub's networks on images, classifiers first."""
    if name == TIMM:
        return list(library.list_models())
    models = library.models
    return [each for module in (models, models.segmentation, models.detection) for each in models.list_models(module)]


def try_network(name: str, library: Any, candidate: str, given: Shapes) -> Fit | Differences | None:
    """Returns how a network fits a state dict or differs from it; None where its building was given up."""
    expected = outline(name, library, candidate, given, {"num_classes": MARKED_CLASSES})
    if expected is None:
        return None
    differences = compare_shapes(given, expected)
    attempts = [options] if (options := find_options(differences)) else []
    if len(differences) <= MOST_STRANGE:  # as it is built by default: without a head, or with one of another kind
        attempts.append({})
    for options in attempts:
        built = outline(name, library, candidate, given, options)
        if built is not None:
            closer = compare_shapes(given, built)
            if not closer:
                return Fit(f"{name}{candidate}", options)
            differences = min(differences, closer, key=len)
    return differences


def outline(name: str, library: Any, candidate: str, given: Shapes, options: Mapping[str, Any]) -> Shapes | None:
    """Returns the shapes of a network's state dict; None where the network was given up or cannot be built."""
    from torch.nn.modules.module import register_module_parameter_registration_hook

    watch = ShapeWatch(given, MOST_STRANGE if CUT_DOWN.search(candidate) is None else math.inf)
    handle = register_module_parameter_registration_hook(lambda _module, _name, parameter: watch.look_at(parameter))
    try:
        with parameters_on_meta():
            module = hub.make_module(name.rstrip(":"), library, candidate, False, options)
        return shapes_of(module.state_dict())
    except StrangeShapes:
        return None
    except Exception:  # a factory may raise anything about options that it does not take
        return None
    finally:
        handle.remove()


@contextlib.contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Makes tensors on the meta device where layers make their parameters.

    ``torch.device("meta")`` would move ``arange`` and ``linspace`` there too, of which some factories compute widths
    and rates.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    makers = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
    tensor = torch.Tensor
    fillers = {tensor.fill_, tensor.zero_, tensor.normal_, tensor.uniform_}
    fillers |= {tensor.erfinv_, tensor.mul_, tensor.add_, tensor.clamp_}  # of what was filled: a truncated normal

    class OnMeta(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func in makers and kwargs.get("device") is None:
                return func(*args, **{**kwargs, "device": "meta"})
            if func in fillers and args[0].is_meta:
                return args[0]
            return func(*args, **kwargs)

    with OnMeta():
        yield
