"""Exports of models that are not masked yet, kept in the cache: what identifies an export, and how it is made."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from masktool.baselines import choose_baseline
from masktool.contract import Preprocessing, __version__
from masktool.data_files import URL, check_readable, is_there
from masktool.errors import MasktoolError
from masktool.exporters import add_gradients_to
from masktool.exporters.added_gradients import add_feature_maps_to
from masktool.exporters.cache import (
    PACKAGES,
    TORCH_PACKAGES,
    ExportRequest,
    Files,
    MadeFrom,
    find_kept,
    make_kept,
    package_versions,
)
from masktool.exporters.imported_files import MOST_DATA, data_beside, imported_packages, imported_since
from masktool.exporters.settings import Preset
from masktool.exporters.sources import Source, load_source
from masktool.exporters.storage import fingerprint
from masktool.exporters.torch_sources.hub_names import AUTO, is_hub_name, names_hub_model
from masktool.exporters.user_choices import source_size
from masktool.files import sha256_of
from masktool.identity import digest_files, digest_model, mark_files
from masktool.interface.cache_entries import hold_limit, read_limit
from masktool.interface.export import export
from masktool.interface.options import ModelChoice
from masktool.option_checks import check_count, check_size
from masktool.progress import Say
from masktool.sampler_rules import choose_rule

ONNX_SUFFIX = ".onnx"
"""Suffix of files that are read without torch; any other file may need torch."""


def keep_export(choice: ModelChoice, say: Say) -> Path:
    """Exports a model into the cache, unless the same export is there already, and returns its path.

    Raises:
        MasktoolError: there is no such model, or the model cannot be exported.
    """
    name, request = name_of(choice.model), request_export(choice)
    if kept := find_kept(request, say):
        say(f"model: {name} is not masked; using its export {kept}{describe_unwatched(choice.arch)}")
        return kept
    say(f"model: {name} is not masked; exporting it{describe_needs(choice)} to {request.model}")
    return make_entry(request, say)


def describe_needs(choice: ModelChoice) -> str:
    """Returns what an export gets besides a mask, as words behind others; empty where it gets nothing."""
    found = ((name_gradients(choice), choice.gradient), ("a head", choice.head), ("feature maps", choice.feature_map))
    needs = [word for word, needed in found if needed]
    return f" with {' and '.join(needs)}" if needs else ""


def name_gradients(choice: ModelChoice) -> str:
    """Returns a word for the gradients that are wanted."""
    return "gradients" if choice.gradient_output is None else f"gradients of output {choice.gradient_output!r}"


def keep_gradients(choice: ModelChoice, path: Path, say: Say) -> Path:
    """Writes an exported file with gradients into the cache, unless it is there already, and returns the new path."""
    request = request_gradients(choice, path)
    if kept := find_kept(request, say):
        say(f"model: {path.name} with {name_gradients(choice)}, in {kept}")
        return kept
    what = "them" if choice.gradient_output is None else f"those of output {choice.gradient_output!r}"
    say(f"model: {path.name} holds no gradients; adding {what}, in {request.model}")
    return make_entry(request, say)


def keep_feature_maps(choice: ModelChoice, path: Path, say: Say) -> Path:
    """Writes an exported file with feature maps into the cache, unless it is there already, and returns its path."""

    def make(target: Path) -> MadeFrom:
        add_feature_maps_to(path, target, choice.feature_map)
        return MadeFrom()

    parts = identify_options(choice) | identify_source(choice, os.fspath(path))
    request = ExportRequest(file_stem(str(path)), parts, make, name_source(str(path)))
    if kept := find_kept(request, say):
        say(f"model: {path.name} with feature maps, in {kept}")
        return kept
    say(f"model: {path.name} gives no such feature map; adding it, in {request.model}")
    return make_entry(request, say)


def make_entry(request: ExportRequest, say: Say) -> Path:
    """Makes an entry of the cache, removes old ones to keep its limit, and returns the path of the exported file."""
    read_limit()  # one that is none is told before the work
    model = make_kept(request)
    hold_limit(request.entry, say)
    return model


def describe_unwatched(arch: str | None) -> str:
    """Returns a warning of what a user's factory may depend on that the cache does not watch; empty for a hub name."""
    if arch is None or arch == AUTO or is_hub_name(arch):
        return ""
    return (
        f" (not watched: the environment, the network, and files that native code opens, beyond {MOST_DATA} data files "
        f"beside {arch.rpartition(':')[0]})"
    )


def request_gradients(choice: ModelChoice, path: Path) -> ExportRequest:
    """Returns the request for a copy of an exported file with gradients added."""

    def make(target: Path) -> MadeFrom:
        add_gradients_to(path, target, feature_map=choice.feature_map, gradient_output=choice.gradient_output)
        return MadeFrom()

    parts = identify_options(choice) | identify_source(choice, os.fspath(path))
    return ExportRequest(file_stem(str(path)), parts, make, name_source(str(path)))


def request_export(choice: ModelChoice) -> ExportRequest:
    """Returns the request for the export of a model that is not masked yet.

    Raises:
        MasktoolError: the model is neither a file nor a hub name, or a model in memory cannot be read.
    """
    options = identify_options(choice)
    if isinstance(choice.model, str | os.PathLike):
        name = os.fspath(choice.model)
        parts = options | identify_source(choice, name)
        make = functools.partial(make_export, choice, read=source_of_choice)
        return ExportRequest(file_stem(name), parts, make, name_source(name))
    source = source_of_choice(choice)
    parts = options | identify_graph(source) | {"torch": package_versions(TORCH_PACKAGES)}
    make = functools.partial(make_export, choice, read=lambda _: source)
    return ExportRequest(file_stem(source.name), parts, make, name_of(choice.model))


def source_of_choice(choice: ModelChoice) -> Source:
    """Reads a model that is not masked yet."""
    return load_source(
        choice.model,
        arch=choice.arch,
        input_size=source_size(choice.model, choice.input_size, choice.preprocessing),
        channels=choice.channels,
        image_input=choice.image_input,
        trust_code=choice.trust_code,
    )


def make_export(choice: ModelChoice, target: Path, *, read: Callable[[ModelChoice], Source]) -> MadeFrom:
    """Writes an export, and returns the files and packages that it turned out to be made from."""
    before = set(sys.modules)
    source = read(choice)
    export(
        source,
        target,
        masking=choice.masking or "layer",
        baseline=choice.baseline,
        preprocessing=choice.preprocessing,
        labels=choice.labels,
        mask_required=choice.mask_required or None,
        gradient="logit" if choice.gradient and choice.gradient_output is None else None,
        gradient_output=choice.gradient_output,
        feature_map=choice.feature_map,
        class_output=choice.class_output,
        output_kind=choice.output_kind,
        precision=choice.precision,
        head=choice.head,
        rule=choice.rule,
    )
    return describe_factory(choice.arch, source.files, before) if source.files and choice.arch else MadeFrom()


def describe_factory(arch: str, files: Files, before: set[str]) -> MadeFrom:
    """Returns the files and packages that an export was made from whose architecture a user's factory built.

    Args:
        arch: the factory, as the user named it: ``package.module:factory`` or ``path/to/file.py:factory``.
        files: the SHA-256 by path of the code and other files that the factory was made of when it was called.
        before: the names of the modules that had been imported before; the forward pass may import more.
    """
    place = arch.rpartition(":")[0]
    late = imported_since(before, place)
    data = [path for path in data_beside(place) if str(path) not in files]
    return MadeFrom({**files, **digest_files(late)}, mark_files(data), imported_packages())


def name_of(model: object) -> str:
    """Returns the name of a model in messages."""
    return os.fspath(model) if isinstance(model, str | os.PathLike) else f"{type(model).__name__} in memory"


def name_source(name: str) -> str:
    """Returns the absolute path of a file; a hub name unchanged."""
    return name if is_hub_name(name) else str(Path(name).absolute())


def file_stem(name: str) -> str:
    """Returns a file name's stem for a path, a hub name or the name of a model in memory."""
    stem = name.replace(":", "-") if names_hub_model(name) else Path(name).stem
    return re.sub(r"[^\w.-]+", "_", stem) or "model"


def identify_options(choice: ModelChoice) -> dict[str, object]:
    """Returns what decides an export besides the model: the options, and the versions of masktool and its packages.

    A user's file that an option names is identified by its content.

    Raises:
        MasktoolError: a size, a number of channels, a baseline or a rule is none.
    """
    return {
        "tool": __version__,
        "arch": choice.arch,
        "factory": None if choice.arch is None else factory_digest(choice.arch),
        "input_size": None if choice.input_size is None else check_size("input_size", choice.input_size),
        "channels": None if choice.channels is None else check_count("channels", choice.channels),
        "preprocessing": identify_value(choice.preprocessing),
        "labels": identify_value(choice.labels),
        "masking": choice.masking or "layer",
        "baseline": choose_baseline(choice.masking or "layer", choice.baseline),
        "rule": choose_rule(choice.masking or "layer", choice.rule),
        "image_input": choice.image_input,
        "gradient": choice.gradient,
        **({"mask_required": True} if choice.mask_required else {}),  # an export without it keeps its name
        "feature_map": choice.feature_map,
        **({"head": choice.head} if choice.head else {}),  # likewise
        **({"gradient_output": choice.gradient_output} if choice.gradient_output else {}),
        "class_output": choice.class_output,
        "output_kind": choice.output_kind,
        "precision": choice.precision,
        "packages": package_versions(PACKAGES),
    }


def identify_value(value: Any) -> object:
    """Returns an option's value ready for JSON: for a path the digest of the file, where there is one."""
    if isinstance(value, str | os.PathLike):
        return sha256_of(Path(value)) if Path(value).is_file() else os.fspath(value)
    if isinstance(value, Preset):
        return dataclasses.asdict(value) | {"name_or_file": identify_value(value.name_or_file)}
    if isinstance(value, Preprocessing):
        return dataclasses.asdict(value)
    if value is None:
        return None
    return [str(each) for each in value] if isinstance(value, Iterable) else str(value)  # the export refuses the latter


def identify_source(choice: ModelChoice, name: str) -> dict[str, object]:
    """Returns what identifies a model that is named by a path or a hub name.

    The code of an ``arch`` factory is known only once the factory has run: the cache records it then, to check it
    later.

    Raises:
        MasktoolError: the source is neither a file nor a hub name.
    """
    if names_hub_model(name):
        return {"name": name, "torch": package_versions(TORCH_PACKAGES)}
    path = Path(name)
    if not path.is_file():
        if is_there(path) or URL.match(name):
            check_readable(path, "a model")  # says that it is a pipe, a directory, a URL, ...
        raise MasktoolError("no such model", where=name, expected="a file, torchvision:NAME or timm:NAME")
    parts: dict[str, object] = {"source": digest_model(path)}
    if choice.arch is not None or path.suffix.lower() != ONNX_SUFFIX:
        parts["torch"] = package_versions(TORCH_PACKAGES)
    return parts


def identify_graph(source: Source) -> dict[str, object]:
    """Returns what identifies a model in memory: its graph with the weights, and what its origin says of the model."""
    return {
        "graph": fingerprint(source.model),
        "name": source.name,
        "image_input": source.image_input,
        "source_preprocessing": identify_value(source.preprocessing),
        "source_labels": identify_value(source.labels),
        "claims": dataclasses.asdict(source.claims),
    }


def factory_digest(arch: str) -> str | None:
    """Returns the digest of the file of the module that builds the architecture; None for a hub's architecture."""
    if is_hub_name(arch):
        return None
    package = arch.rpartition(":")[0]
    if Path(package).is_file():
        return sha256_of(package)
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None  # the exporter says what is wrong with it
    return sha256_of(spec.origin) if spec and spec.origin and Path(spec.origin).is_file() else None
