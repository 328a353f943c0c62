"""Which model is used: the one named, ``$MASKTOOL_MODEL`` or the built-in one; exported first if need be."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from masktool.contract import Masking, OutputKind, __version__
from masktool.data_files import URL, check_readable, is_there
from masktool.errors import MasktoolError
from masktool.exported_files import is_masked, metadata_of
from masktool.files import sha256_of
from masktool.identity import digest_files, digest_model, mark_files

if TYPE_CHECKING:
    from masktool.exporters.cache import ExportRequest, Files, MadeFrom

MODEL_VARIABLE = "MASKTOOL_MODEL"
HUBS = ("torchvision", "timm")
ONNX_SUFFIX = ".onnx"
"""Files of that name are read without torch; any other may need it."""

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
        channels: of the images, of a source of torch's.
        trust_code: whether a source may be read although that may run code from it.
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
    trust_code: bool = False
    channels: int | None = None
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


def has_gradients(path: Path) -> bool:
    """Tells whether an exported file holds gradients."""
    metadata = metadata_of(path)
    return metadata is not None and metadata.gradient is not None


def add_gradients_in_cache(choice: ModelChoice, path: Path, say: Say) -> Path:
    """Adds gradients to an exported file, in the cache, unless that was done before."""
    from masktool.exporters.cache import find_kept, make_kept

    request = request_gradients(choice, path)
    if kept := find_kept(request, say):
        say(f"model: {path.name} with gradients, in {kept}")
        return kept
    say(f"model: {path.name} holds no gradients; adding them, in {request.model}")
    return make_kept(request)


def export_to_cache(choice: ModelChoice, name: str, say: Say) -> Path:
    """Exports a model into the cache unless the same export is there already."""
    from masktool.exporters.cache import find_kept, make_kept

    request = request_export(choice, name)
    if kept := find_kept(request, say):
        say(f"model: {name} is not masked; using its export {kept}{describe_unwatched(choice.arch)}")
        return kept
    say(f"model: {name} is not masked; exporting it{' with gradients' if choice.gradient else ''} to {request.model}")
    return make_kept(request)


def describe_unwatched(arch: str | None) -> str:
    """Says what a factory of the user's may depend on that a kept export does not know; nothing for a hub's."""
    from masktool.exporters.imported_files import MOST_DATA

    if arch is None or arch.partition(":")[0] in HUBS:
        return ""
    return (
        f" (not watched: the environment, the network, and files that native code opens, beyond {MOST_DATA} data files "
        f"beside {arch.rpartition(':')[0]})"
    )


def request_gradients(choice: ModelChoice, path: Path) -> ExportRequest:
    """Returns what to keep of an exported file with gradients added."""
    from masktool.exporters.cache import ExportRequest, MadeFrom

    def make(target: Path) -> MadeFrom:
        from masktool.exporters import export

        export(path, target, gradient="logit", feature_map=choice.feature_map)
        return MadeFrom()

    return ExportRequest(file_stem(str(path)), identify(choice, str(path)), make)


def request_export(choice: ModelChoice, name: str) -> ExportRequest:
    """Returns what to keep of a model that is not masked yet."""
    from masktool.exporters.cache import ExportRequest

    def make(target: Path) -> MadeFrom:
        from masktool.exporters import export
        from masktool.exporters.cache import MadeFrom
        from masktool.exporters.presets import preprocessing_for, source_size
        from masktool.exporters.sources import load_source

        before = set(sys.modules)
        size = source_size(name, choice.input_size, choice.preprocess)
        source = load_source(
            name,
            arch=choice.arch,
            input_size=size,
            channels=choice.channels,
            image_input=choice.image_input,
            trust_code=choice.trust_code,
        )
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
        return describe_factory(choice.arch, source.files, before) if source.files and choice.arch else MadeFrom()

    return ExportRequest(file_stem(name), identify(choice, name), make)


def describe_factory(arch: str, files: Files, before: set[str]) -> MadeFrom:
    """Returns what an export was made from whose architecture a factory of the user's has built.

    Args:
        arch: as the user named it.
        files: that it was made of when it was called.
        before: names of the modules that had been imported before; the forward pass may import more.
    """
    from masktool.exporters.cache import MadeFrom
    from masktool.exporters.imported_files import data_beside, imported_packages, imported_since

    place = arch.rpartition(":")[0]
    late = imported_since(before, place)
    data = [path for path in data_beside(place) if str(path) not in files]
    return MadeFrom({**files, **digest_files(late)}, mark_files(data), imported_packages())


def file_stem(name: str) -> str:
    """Returns a file name's stem for a path or a hub name."""
    stem = name.replace(":", "-") if is_hub_name(name) else Path(name).stem
    return re.sub(r"[^\w.-]+", "_", stem) or "model"


def is_hub_name(name: str) -> bool:
    """Tells ``torchvision:resnet50`` from a path."""
    return name.partition(":")[0] in HUBS and not Path(name).exists()


def identify(choice: ModelChoice, name: str) -> dict[str, object]:
    """Returns all that decides what an export holds and is known before it is made.

    The code of an ``--arch`` factory is known only when it has run: the cache records it then, and looks at it again.

    Raises:
        MasktoolError: the source is neither a file nor a hub name.
    """
    from masktool.exporters.cache import PACKAGES, TORCH_PACKAGES, package_versions

    parts: dict[str, object] = {
        "tool": __version__,
        "arch": choice.arch,
        "input_size": choice.input_size,
        "channels": choice.channels,
        "preprocess": choice.preprocess,
        "masking": choice.masking or "layer",
        "baseline": choice.baseline,
        "image_input": choice.image_input,
        "gradient": choice.gradient,
        "feature_map": choice.feature_map,
        "class_output": choice.class_output,
        "output_kind": choice.output_kind,
        "packages": package_versions(PACKAGES),
    }
    if is_hub_name(name):
        parts["name"] = name
    elif Path(name).is_file():
        parts["source"] = digest_model(Path(name))
    else:
        if is_there(Path(name)) or URL.match(name):
            check_readable(Path(name), "a model")  # says that it is a pipe, a directory, a URL, ...
        raise MasktoolError("no such model", where=name, expected="a file, torchvision:NAME or timm:NAME")
    if is_hub_name(name) or choice.arch is not None or Path(name).suffix.lower() != ONNX_SUFFIX:
        parts["torch"] = package_versions(TORCH_PACKAGES)
    if choice.arch is not None:
        parts["factory"] = factory_digest(choice.arch)
    if choice.preprocess is not None and Path(choice.preprocess).is_file():
        parts["preprocess"] = sha256_of(choice.preprocess)
    return parts


def factory_digest(arch: str) -> str | None:
    """Returns the digest of the module's file that builds the architecture, None for a hub's."""
    package = arch.rpartition(":")[0]
    if package in HUBS:
        return None
    if Path(package).is_file():
        return sha256_of(package)
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None  # the exporter says what is wrong with it
    return sha256_of(spec.origin) if spec and spec.origin and Path(spec.origin).is_file() else None
