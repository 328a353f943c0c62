"""Reads a state dict without running code from the file, and fits it to its architecture."""

from __future__ import annotations

import dataclasses
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masktool.errors import MasktoolError, first_line, reported_as
from masktool.exporters.source_kinds import FileKind, check_archive
from masktool.exporters.torch_sources.arch import build_architecture
from masktool.exporters.torch_sources.fitting import compare_shapes, find_options, shapes_of
from masktool.exporters.torch_sources.hub import Architecture
from masktool.exporters.torch_sources.hub_names import AUTO, is_hub_name
from masktool.exporters.torch_sources.module_export import is_module, quiet
from masktool.exporters.torch_sources.recognition import recognise_architecture, refuse_without_architecture
from masktool.exporters.trust import refuse_code
from masktool.messages import Message, parameter

if TYPE_CHECKING:
    import torch

    StateDict = dict[str, torch.Tensor]

NESTING_KEYS = ("state_dict", "model_state_dict", "model", "net", "module", "weights")
"""Under these, training programs keep the state dict beside optimizer state, epoch and the like."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""Put before every key by DataParallel, torch.compile and Lightning modules."""
KEYS_SHOWN = 3
SAFE_TORCH = (2, 10)
"""The first release of torch whose ``weights_only`` no crafted file can break."""
WEIGHTS_FIX = "save model.state_dict() and give " + parameter("arch")
ADVICE = ("Weights only load failed", "weights_only", "torch.load", "torch.serialization", "safe_globals")
"""Words of torch's advice on how to read a file after all."""
LEGACY_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
"""torchvision's published DenseNet files carry keys of an older layout, which its own loader renames."""


def load_torch_file(path: Path, kind: FileKind, trust_code: bool) -> Any:
    """Reads a ``torch.save`` or safetensors file.

    Returns:
        A state dict with its prefixes stripped, or (``trust_code``) a ``torch.nn.Module``.

    Raises:
        MasktoolError: the file is damaged, holds no weights, or holds pickled objects and ``trust_code`` is off.
    """
    content = _load_safetensors(path) if kind is FileKind.SAFETENSORS else _load_pickle(path, trust_code)
    return unwrap_content(content, path)


def _load_safetensors(path: Path) -> StateDict:
    from safetensors.torch import load_file

    with reported_as("damaged safetensors file", where=path, fix="copy or download the file again"):
        return load_file(path)


def _load_pickle(path: Path, trust_code: bool) -> Any:
    import pickle

    import torch

    if not trust_code:
        check_unpickler(path)
    if zipfile.is_zipfile(path):
        check_archive(path)
    elif not trust_code and tarfile.is_tarfile(path):  # torch reads none as weights alone
        raise refuse_code(path, "a tar of pickles, as torch wrote it before 0.1.10", otherwise=WEIGHTS_FIX)
    try:
        with quiet():
            return torch.load(path, map_location="cpu", weights_only=not trust_code)
    except Exception as error:  # unpickling raises whatever the file's objects lead it to
        if trust_code or not isinstance(error, pickle.UnpicklingError):
            raise MasktoolError("cannot unpickle", where=path, got=first_line(error)) from error
        raise refuse_pickle(path, str(error)) from error


def check_unpickler(path: Path) -> None:
    """Raises MasktoolError where the installed torch reads even weights alone unsafely (CVE-2026-24747)."""
    import torch

    release = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if release < SAFE_TORCH:
        why = f"torch {torch.__version__} does not keep code out of weights; 2.10 is the first that does"
        raise refuse_code(path, why, otherwise="pip install --upgrade torch, or save the weights as .safetensors")


def refuse_pickle(path: Path, reason: str) -> MasktoolError:
    """Returns the refusal of a file that torch does not read as weights alone: it holds other objects or damage."""
    return refuse_code(path, find_cause(reason), otherwise=WEIGHTS_FIX)


def find_cause(reason: str) -> str:
    """Returns why torch does not read a file as weights alone, without torch's own advice, which is to read it with the
    code that is in it, or names an argument that no user of masktool can give.
    """
    if found := re.search(r"GLOBAL ([\w.]+)", reason):
        return f"it pickles {found.group(1)} besides weights"
    told = re.search(r"WeightsUnpickler error:\s*(\S.*)", reason)
    detail = told.group(1).strip() if told else first_line(ValueError(reason))
    cause = "torch cannot read it as weights alone: it is damaged, or holds something besides weights"
    return cause if any(word in detail for word in ADVICE) else f"{cause} ({detail})"


def unwrap_content(content: Any, path: Path) -> Any:
    """Returns the module or state dict inside the content of a file.

    Raises:
        MasktoolError: the content holds neither a module nor a state dict.
    """
    if is_module(content):
        return content
    if isinstance(content, Mapping):
        if is_state_dict(content):
            return strip_prefixes(dict(content))
        for key in NESTING_KEYS:
            if key in content and (is_module(content[key]) or is_state_dict(content[key])):
                return unwrap_content(content[key], path)
    keys = ", ".join(map(str, list(content)[:KEYS_SHOWN])) if isinstance(content, Mapping) else None
    got = type(content).__name__ if keys is None else f"keys {keys}" if keys else "no keys"
    raise MasktoolError("no weights in the file", where=path, expected="a state dict", got=got)


def is_state_dict(content: Any) -> bool:
    """Tells whether an object maps names to tensors and nothing else."""
    import torch

    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items())
    )


def strip_prefixes(state: StateDict) -> StateDict:
    """Removes from every key of a state dict the prefixes that a wrapper has put before all of them."""
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state):
            return strip_prefixes({key.removeprefix(prefix): value for key, value in state.items()})
    return state


def build_with_weights(arch: str | None, state: StateDict, path: Path) -> tuple[Architecture, tuple[str, ...]]:
    """Builds an architecture and loads a state dict into it.

    ``auto`` stands for the one architecture of a hub's that the state dict fits. A hub's architecture is built again
    with the file's number of classes or channels, or with or without auxiliary heads, where the file was saved from
    such a network.

    Returns:
        The architecture with weights, its labels dropped where the classes differ; and notes for the user.

    Raises:
        MasktoolError: no architecture is given or found, or keys or shapes of the state dict do not fit it.
    """
    state = {LEGACY_DENSENET_KEY.sub(r"\1\2.", key): value for key, value in state.items()}
    notes: list[str] = []
    if arch is None:
        raise refuse_without_architecture(state, path)
    if arch == AUTO:
        recognised = recognise_architecture(state, path)
        arch, notes = recognised.name, [*recognised.notes]
    known = build_architecture(arch)
    differences = compare_shapes(shapes_of(state), shapes_of(known.module.state_dict()))
    options = find_options(differences) if is_hub_name(arch) else {}
    if options:
        known = build_architecture(arch, **options)
        notes += [f"{arch} built with {key}={value}, as the weights want it" for key, value in options.items()]
    check_fit(known.module, state, arch, path)
    known.module.load_state_dict(state, strict=False)  # all that may be missing are batch norm's counters
    if "num_classes" in options:
        known = dataclasses.replace(known, labels=None)
    return known, (*notes, *note_input_transform(known.module, arch))


def note_input_transform(module: torch.nn.Module, arch: str) -> Iterator[str]:
    """Yields a warning where torchvision's own weights of an architecture expect a step that is not in the module.

    GoogLeNet and Inception v3 rescale the image's channels first where they are built with ``transform_input``, as they
    are for published weights; no key or shape tells whether others were trained so.
    """
    if is_hub_name(arch) and getattr(module, "transform_input", None) is False:
        yield (
            f"{arch} built without transform_input: right for weights that were trained so; those that torchvision "
            "publishes expect transform_input=True, which a factory of your own can give"
        )


def check_fit(module: torch.nn.Module, state: Mapping[str, torch.Tensor], arch: str, path: Path) -> None:
    """Raises MasktoolError when keys are missing, unexpected or of another shape, with counts and a few of each."""
    differences = compare_shapes(shapes_of(state), shapes_of(module.state_dict()))
    if differences:
        raise MasktoolError(
            "the state dict does not fit the architecture",
            where=Message(str(path), ", ") + parameter("arch", arch),
            got=differences.describe(),
            fix="give the architecture that the weights were trained with",
        )
