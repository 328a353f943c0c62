"""Which model ``explain`` uses: the one named, ``$MASKTOOL_MODEL`` or the built-in one; exported first if need be."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import mmap
import os
import re
from collections.abc import Callable
from pathlib import Path

from masktool import __version__
from masktool.contract import METADATA_PREFIX, Masking, Metadata, OutputKind
from masktool.errors import MasktoolError
from masktool.files import sha256_of

MODEL_VARIABLE = "MASKTOOL_MODEL"
MASKED_MARK = f"{METADATA_PREFIX}schema_version".encode()
"""Protocol buffers hold strings as they are, so that a masked file can be told without parsing it."""
HUBS = ("torchvision", "timm")
KEY_LENGTH = 16
"""Hexadecimal digits of the cache key in the file's name: 64 bits."""

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """What the options say about the model.

    Attributes:
        name: a path, a hub name, or None for the default.
        arch: of a state dict.
        input_size: (height, width) of a source that does not fix it.
        preprocess: of a source that does not carry its own: a preset's name or a JSON file.
        masking: of a source that is not masked yet; None for the default.
        baseline: likewise.
        image_input: name of the input that is the image, where several may be.
        gradient: whether the export of a source that is not masked yet needs gradients.
        feature_map: name of the value that they are with respect to; None for the last feature map.
        class_output: name of the output with the class scores, of a source that is not masked yet.
        output_kind: what it holds, likewise.
    """

    name: str | None
    arch: str | None = None
    input_size: tuple[int, int] | None = None
    preprocess: str | None = None
    masking: Masking | None = None
    baseline: str | None = None
    image_input: str | None = None
    gradient: bool = False
    feature_map: str | None = None
    class_output: str | None = None
    output_kind: OutputKind | None = None


def find_model(choice: ModelChoice, say: Say) -> Path:
    """Returns the path of a masked model, exporting it into the cache where it is not yet masked.

    Args:
        choice: what the options say.
        say: tells the user what was chosen and why.

    Raises:
        MasktoolError: there is no such model, or it cannot be exported.
    """
    if choice.name is not None:
        name = choice.name
    elif name := os.environ.get(MODEL_VARIABLE, ""):
        say(f"model: {name} (from ${MODEL_VARIABLE})")
    else:
        from masktool.demo import model_path

        refuse_masking(choice, model_path())
        if choice.gradient:
            return add_gradients_in_cache(choice, model_path(), say)
        say(f"model: {model_path().name} (built in, knows simple shapes only; -m or ${MODEL_VARIABLE} chooses another)")
        return model_path()
    if is_masked(Path(name)):
        refuse_masking(choice, Path(name))
        if choice.gradient and not has_gradients(Path(name)):
            return add_gradients_in_cache(choice, Path(name), say)
        return Path(name)
    return export_to_cache(dataclasses.replace(choice, name=name), name, say)


def refuse_masking(choice: ModelChoice, path: Path) -> None:
    """Raises MasktoolError where something is asked for that the export of the model has settled already."""
    given = {
        "--masking": choice.masking,
        "--baseline": choice.baseline,
        "--class-output": choice.class_output,
        "--output-kind": choice.output_kind,
    }
    if asked := [f"{option} {value}" for option, value in given.items() if value is not None]:
        raise MasktoolError(
            "the model is masked already",
            where=path,
            got=" ".join(asked),
            fix="leave that out, or name the plain model with -m",
        )


def is_masked(path: Path) -> bool:
    """Tells whether a file is one that ``masktool export`` wrote."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(MASKED_MARK) >= 0


def has_gradients(path: Path) -> bool:
    """Tells whether an exported file holds gradients."""
    from masktool.commands.info import read_model

    properties = {entry.key: entry.value for entry in read_model(path).metadata_props}
    metadata = Metadata.from_properties(properties)
    return metadata is not None and metadata.gradient is not None


def add_gradients_in_cache(choice: ModelChoice, path: Path, say: Say) -> Path:
    """Adds gradients to an exported file, in the cache, unless that was done before."""
    named = dataclasses.replace(choice, name=str(path))
    target = cache_directory() / f"{file_stem(str(path))}-{cache_key(named, str(path))}.onnx"
    if target.is_file():
        say(f"model: {path.name} with gradients, in {target}")
        return target
    say(f"model: {path.name} holds no gradients; adding them, in {target}")
    from masktool.exporters import export

    export(path, target, gradient="logit", feature_map=choice.feature_map)
    return target


def export_to_cache(choice: ModelChoice, name: str, say: Say) -> Path:
    """Exports a model into the cache unless the same export is there already."""
    target = cache_directory() / f"{file_stem(name)}-{cache_key(choice, name)}.onnx"
    if target.is_file():
        say(f"model: {name} is not masked; using its export {target}")
        return target
    say(f"model: {name} is not masked; exporting it{' with gradients' if choice.gradient else ''} to {target}")
    from masktool.exporters import export
    from masktool.exporters.presets import preprocessing_for
    from masktool.exporters.sources import load_source

    source = load_source(name, arch=choice.arch, input_size=choice.input_size, image_input=choice.image_input)
    own = choice.preprocess is None
    export(
        source,
        target,
        masking=choice.masking or "layer",
        baseline=choice.baseline,
        preprocessing=None
        if own
        else preprocessing_for(source.model, choice.preprocess, image_input=source.image_input),
        gradient="logit" if choice.gradient else None,
        feature_map=choice.feature_map if choice.gradient else None,
        class_output=choice.class_output,
        output_kind=choice.output_kind,
    )
    return target


def cache_directory() -> Path:
    """Returns where exports are kept (XDG base directory specification: a relative path counts as unset)."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "masktool" / "models"


def file_stem(name: str) -> str:
    """Returns a file name's stem for a path or a hub name."""
    stem = name.replace(":", "-") if is_hub_name(name) else Path(name).stem
    return re.sub(r"[^\w.-]+", "_", stem) or "model"


def is_hub_name(name: str) -> bool:
    """Tells ``torchvision:resnet50`` from a path."""
    return name.partition(":")[0] in HUBS and not Path(name).exists()


def cache_key(choice: ModelChoice, name: str) -> str:
    """Returns a digest of everything that decides what an export holds.

    Raises:
        MasktoolError: the source is neither a file nor a hub name.
    """
    parts: dict[str, object] = {
        "tool": __version__,
        "arch": choice.arch,
        "input_size": choice.input_size,
        "preprocess": choice.preprocess,
        "masking": choice.masking or "layer",
        "baseline": choice.baseline,
        "image_input": choice.image_input,
        "gradient": choice.gradient,
        "feature_map": choice.feature_map,
        "class_output": choice.class_output,
        "output_kind": choice.output_kind,
    }
    if is_hub_name(name):
        parts |= {"name": name, "hub": package_version(name.partition(":")[0])}
    elif Path(name).is_file():
        parts["source"] = {path.name: sha256_of(path) for path in source_files(Path(name))}
    else:
        raise MasktoolError("no such model", where=name, expected="a file, torchvision:NAME or timm:NAME")
    if choice.arch is not None:
        parts["factory"] = factory_digest(choice.arch)
    if choice.preprocess is not None and Path(choice.preprocess).is_file():
        parts["preprocess"] = sha256_of(choice.preprocess)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]


def source_files(path: Path) -> list[Path]:
    """Returns the model's file and those beside it that may hold its weights, such as ``model.onnx.data``."""
    beside = (path.with_name(path.name + ".data"), path.with_name(path.name + "_data"), path.with_suffix(".data"))
    return [path, *(each for each in beside if each.is_file())]


def factory_digest(arch: str) -> str | None:
    """Returns the version of the hub, or the digest of the module's file, that builds the architecture."""
    package = arch.rpartition(":")[0]
    if package in HUBS:
        return package_version(package)
    if Path(package).is_file():
        return sha256_of(package)
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None  # the exporter says what is wrong with it
    return sha256_of(spec.origin) if spec and spec.origin and Path(spec.origin).is_file() else None


def package_version(name: str) -> str | None:
    """Returns the version of an installed package, None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
