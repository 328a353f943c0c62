"""Builds torchvision and timm models by name, with the preprocessing and labels of their own configurations."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from masktool.contract import Interpolation, Preprocessing
from masktool.errors import MasktoolError, first_line
from masktool.exporters.torch_sources.module_export import TORCH_FIX, quiet, require_torch
from masktool.messages import Placeholder, call

if TYPE_CHECKING:
    import torch

INTERPOLATIONS: Mapping[str, Interpolation] = {
    "nearest": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "lanczos": "lanczos",
    "box": "box",
    "hamming": "hamming",
}
IMAGENET_CLASSES = 1000
RGB = 3
SLOW_TO_INITIALISE = ("googlenet", "inception_v3")
"""Their random initialisation takes minutes, and is overwritten."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A module, and what its hub says about it.

    Attributes:
        module: the torch module, with or without trained weights.
        preprocessing: the preprocessing of the hub's default weights; None where the hub does not say or
            :class:`masktool.Preprocessing` cannot express it.
        labels: the names of the classes of the hub's default weights; None where the hub does not say.
        configuration: the hub's name of those weights, for messages; None for a module that is no hub's.
        n_classes: the number of classes of the hub's classifier; None where the hub does not say.
        files: the SHA-256, by path, of the files that a factory of the user's was made of and has read.
        channels: the number of channels of the images that the hub's weights were made for; None where the hub does
            not say.
    """

    module: torch.nn.Module
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    configuration: str | None = None
    n_classes: int | None = None
    files: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    channels: int | None = None


def is_published(hub_name: str) -> bool:
    """Tells whether a hub publishes weights of a model that it builds; torchvision does for every model."""
    hub, _, name = hub_name.partition(":")
    return hub != "timm" or bool(import_hub(hub).is_model_pretrained(name))


def build(hub_name: str, *, pretrained: bool, **options: Any) -> Architecture:
    """Builds the model ``torchvision:NAME`` or ``timm:NAME``.

    Args:
        hub_name: the hub and the name of the model: ``torchvision:NAME`` or ``timm:NAME``.
        pretrained: whether to download the default weights, or take them from the hub's own cache.
        options: as for :func:`make_module`.

    Raises:
        MasktoolError: the hub cannot be imported, does not know the name, or the weights cannot be downloaded.
    """
    require_torch(hub_name)
    hub, _, name = hub_name.partition(":")
    library = import_hub(hub)
    known = library.is_model(name) if hub == "timm" else name in library.models.list_models()
    if not known and not name.startswith("hf-hub:"):
        raise MasktoolError(f"unknown {hub} model", where=hub_name, fix=suggest_names(hub, library, name))
    try:
        with quiet():
            module = make_module(hub, library, name, pretrained, options)
            described = describe_timm(module) if hub == "timm" else describe_torchvision(library, name, module, options)
    except OSError as error:  # URLError, HTTPError and the hub clients' own errors are all OSErrors
        raise MasktoolError(
            f"cannot download the weights of {hub_name}",
            got=first_line(error),
            fix="fetch them where there is a connection, then: "
            + call("export", Placeholder("FILE"), ..., arch=hub_name),
        ) from error
    except Exception as error:  # a factory may raise anything about its arguments
        raise MasktoolError(f"cannot build {hub_name}", got=first_line(error)) from error
    if "channels" in options:  # the hub's mean and standard deviation are of others
        return dataclasses.replace(described, preprocessing=None, channels=options["channels"])
    return described


def make_module(hub: str, library: Any, name: str, pretrained: bool, options: Mapping[str, Any]) -> torch.nn.Module:
    """Builds a module by its hub's factory.

    Args:
        hub: ``torchvision`` or ``timm``.
        library: the imported hub.
        name: the name of the model, without the hub's.
        pretrained: whether the module has the hub's default weights.
        options: ``channels`` of the images, which the hubs name differently or not at all; other options are the
            factory's own.
    """
    options = dict(options)
    channels = options.pop("channels", None)
    if hub == "timm":
        if channels is not None:
            options["in_chans"] = channels
        module: torch.nn.Module = library.create_model(name, pretrained=pretrained, exportable=True, **options)
        return module
    module = make_torchvision_module(library, name, pretrained, options)
    if channels is not None:
        replace_stem(module, channels)
    return module


def make_torchvision_module(library: Any, name: str, pretrained: bool, options: dict[str, Any]) -> torch.nn.Module:
    """Builds a module by torchvision's factory; without weights, none are downloaded or initialised for minutes."""
    models = library.models
    if pretrained:
        options["weights"] = models.get_model_weights(name).DEFAULT
    elif "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None
    elif name in SLOW_TO_INITIALISE:
        options["init_weights"] = False
    module: torch.nn.Module = models.get_model(name, **{"weights": None, **options})
    return module


def replace_stem(module: torch.nn.Module, channels: int) -> None:
    """Gives the first convolution on RGB images a weight for another number of channels, as torchvision's users do."""
    import torch

    stem = next(part for part in module.modules() if isinstance(part, torch.nn.Conv2d) and part.in_channels == RGB)
    out_channels, _, *window = stem.weight.shape
    stem.weight = torch.nn.Parameter(stem.weight.new_empty((out_channels, channels, *window)))
    stem.in_channels = channels
    stem.reset_parameters()


def recognise(module: torch.nn.Module) -> Architecture:
    """Returns a module with its ``pretrained_cfg``'s preprocessing and labels, where it is timm's."""
    configuration = getattr(module, "pretrained_cfg", None)
    return (
        describe_timm(module)
        if isinstance(configuration, Mapping) and "mean" in configuration
        else Architecture(module)
    )


def import_hub(hub: str) -> Any:
    """Imports torchvision or timm.

    Raises:
        MasktoolError: the hub is not installed, or does not fit the installed torch.
    """
    if importlib.util.find_spec(hub) is None:
        raise MasktoolError(f"{hub} is not installed", fix=TORCH_FIX)
    try:
        with quiet():
            return importlib.import_module(hub)
    except (
        ImportError,
        RuntimeError,
        OSError,
    ) as error:  # a torchvision built for another torch, missing CUDA libraries
        raise MasktoolError(
            f"{hub} does not import",
            got=first_line(error),
            fix="install torch and torchvision builds that belong together (same release, both CPU or both CUDA)",
        ) from error


def suggest_names(hub: str, library: Any, name: str) -> str:
    """Returns advice on an unknown model name: the nearest names of the hub."""
    import difflib

    names = library.list_models() if hub == "timm" else library.models.list_models()
    near = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"see {hub}.list_models()"


def describe_torchvision(library: Any, name: str, module: torch.nn.Module, options: Mapping[str, Any]) -> Architecture:
    """Returns a torchvision module with the preprocessing and labels of its DEFAULT weights' entry."""
    weights = library.models.get_model_weights(name).DEFAULT
    categories = read_categories(weights)
    n_classes = options.get("num_classes", None if categories is None else len(categories))
    return Architecture(module, read_torchvision_transforms(weights), categories, str(weights), n_classes)


def read_torchvision_transforms(weights: Any) -> Preprocessing | None:
    """Reads the preprocessing of a torchvision weights entry; None where its transform is none for classification."""
    preset = weights.transforms()
    if not all(hasattr(preset, name) for name in ("crop_size", "resize_size", "mean", "std", "interpolation")):
        return None
    crop, resize = list(preset.crop_size), list(preset.resize_size)
    return Preprocessing(
        size=(crop[0], crop[-1]),
        resize="shortest" if len(resize) == 1 else "exact",
        resize_to=resize[0] if len(resize) == 1 else None,
        interpolation=INTERPOLATIONS[preset.interpolation.value],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def read_categories(weights: Any) -> tuple[str, ...] | None:
    """Returns the class names of a torchvision weights entry."""
    categories = weights.meta.get("categories")
    return tuple(categories) if categories else None


def describe_timm(module: Any) -> Architecture:
    """Returns a timm module with the preprocessing and labels of its ``pretrained_cfg``."""
    configuration = module.pretrained_cfg
    full_name = ".".join(part for part in (configuration.get("architecture"), configuration.get("tag")) if part)
    n_classes = getattr(module, "num_classes", None) or None  # 0 for a module that gives features
    return Architecture(
        module,
        read_timm_transforms(configuration),
        read_timm_labels(module),
        full_name,
        n_classes,
        channels=configuration["input_size"][0],
    )


def read_timm_transforms(configuration: Mapping[str, Any]) -> Preprocessing | None:
    """Reads the preprocessing of a timm configuration; None for crop modes that ``Preprocessing`` does not have."""
    channels, height, width = configuration["input_size"]
    crop_share, crop_mode = configuration["crop_pct"], configuration.get("crop_mode", "center")
    interpolation = INTERPOLATIONS.get(configuration["interpolation"])
    squashed = crop_mode == "squash" and crop_share == 1
    if interpolation is None or height != width or channels not in (1, 3) or not (crop_mode == "center" or squashed):
        return None
    return Preprocessing(
        size=(height, width),
        resize="exact" if squashed else "shortest",
        resize_to=None if squashed else math.floor(height / crop_share),
        interpolation=interpolation,
        channel_order="RGB" if channels == 3 else "L",
        mean=tuple(configuration["mean"]),
        std=tuple(configuration["std"]),
    )


def read_timm_labels(module: Any) -> tuple[str, ...] | None:
    """Returns the class names that the configuration carries, else ImageNet's where the classes are ImageNet's 1000."""
    from timm.data import ImageNetInfo

    configuration = module.pretrained_cfg
    names = configuration.get("label_names")
    if names:
        descriptions = configuration.get("label_descriptions") or {}
        return tuple(descriptions.get(name, name) for name in names)
    if configuration.get("num_classes") != IMAGENET_CLASSES:
        return None
    return tuple(ImageNetInfo().label_descriptions())
