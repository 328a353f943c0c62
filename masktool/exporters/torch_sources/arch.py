"""Builds architectures by name: a hub's, or a factory function in a module or a file of the user's."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from masktool.errors import MasktoolError, describe_exception, first_line
from masktool.exporters.imported_files import project_folder, record_files
from masktool.exporters.torch_sources import hub
from masktool.exporters.torch_sources.hub import Architecture
from masktool.exporters.torch_sources.hub_names import AUTO, is_hub_name
from masktool.exporters.torch_sources.module_export import is_module, quiet, require_torch
from masktool.identity import digest_files
from masktool.messages import parameter

ARCH_FORMS = "torchvision:NAME, timm:NAME, package.module:factory or path/to/file.py:factory"


def build_architecture(arch: str, **options: Any) -> Architecture:
    """Builds the module that ``--arch`` names, without weights.

    Args:
        arch: the architecture: ``torchvision:NAME``, ``timm:NAME``, ``package.module:factory`` or
            ``path/to/file.py:factory``.
        options: arguments of the hub's factory, such as ``num_classes``; a factory of the user's is called without
            arguments.

    Raises:
        MasktoolError: the form is wrong, the name is unknown, or the factory fails or gives no ``torch.nn.Module``.
    """
    require_torch(parameter("arch"))
    if is_hub_name(arch):
        return hub.build(arch, pretrained=False, **options)
    place, colon, name = arch.rpartition(":")
    if not colon or not place or not name:
        raise MasktoolError("not an architecture", where=parameter("arch"), expected=f"{AUTO}, {ARCH_FORMS}", got=arch)
    with quiet(), looked_in(project_folder(place)), record_files(place) as files:
        factory = find_factory(place, name)
        try:
            module = factory()
        except Exception as error:  # the factory is the user's code
            raise MasktoolError("the factory fails", where=parameter("arch", arch), got=first_line(error)) from error
    if not is_module(module):
        raise MasktoolError(
            "the factory gives no module",
            where=parameter("arch", arch),
            expected="a torch.nn.Module",
            got=type(module).__name__,
        )
    return Architecture(module=module, files=digest_files(files()))


def find_factory(place: str, name: str) -> Any:
    """Returns the callable ``name`` of a file or importable module.

    Raises:
        MasktoolError: the file or module cannot be imported, or has no such callable.
    """
    try:
        namespace = import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except MasktoolError:
        raise
    except Exception as error:  # importing runs the user's code
        raise MasktoolError("cannot import", where=parameter("arch", place), got=describe_exception(error)) from error
    factory = getattr(namespace, name, None)
    if not callable(factory):
        own = [key for key, value in vars(namespace).items() if callable(value) and not key.startswith("_")]
        raise MasktoolError(
            "no such factory", where=parameter("arch", place), expected=f"one of {', '.join(own) or 'none'}", got=name
        )
    return factory


@contextlib.contextmanager
def looked_in(folder: Path) -> Iterator[None]:
    """Makes imports look in a folder first, as Python does for a script in it."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have changed the list
            sys.path.remove(entry)


def import_file(path: Path) -> ModuleType:
    """Imports a Python file by its path."""
    if not path.is_file():
        raise MasktoolError("no such file", where=parameter("arch", path), expected=ARCH_FORMS)
    spec = importlib.util.spec_from_file_location(f"masktool_arch_{path.stem}", path)
    assert spec is not None  # the suffix is .py, for which Python has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up there
    spec.loader.exec_module(module)
    return module
