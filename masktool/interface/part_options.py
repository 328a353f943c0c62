"""Options of the parts of an evaluation, as a user gives them, and how a part is built from them and a study.

A part's options are a frozen dataclass in a file of its own under ``parts/``, registered by the part's name.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from masktool.errors import MasktoolError
from masktool.evaluation.maps import MethodChoice
from masktool.evaluation.overlays import FOLDER
from masktool.evaluation.part import Part
from masktool.explainers.method import METHODS, build_method
from masktool.exported_files import LAST
from masktool.interface.study import Study
from masktool.option_checks import check_several
from masktool.registry import Registry

OptionsByName: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Names of methods or metrics with the options of each."""
DEFAULT_METHODS = ("occlusion", "lime", "rise")
"""Methods that need no gradients in the file."""
PICTURES = 4
"""Number of images whose explanations are written as pictures, for the report."""


SEVERAL = ("modes", "also", "methods", "metrics", "orders", "fractions", "budgets")
"""Options that are several values, in the parts that have them."""


class PartOptions(abc.ABC):
    """Options of one part of an evaluation."""

    def __post_init__(self) -> None:
        for name in SEVERAL:
            check_several(name, getattr(self, name, ()))

    @abc.abstractmethod
    def build(self, study: Study) -> Part:
        """Returns the part with its models opened.

        Raises:
            MasktoolError: an option is out of range, or a model cannot be exported or opened.
        """


PART_OPTIONS: Registry[type[PartOptions]] = Registry("evaluation", "masktool.interface.parts")
"""The options of every part, by its name."""


def read_methods(methods: Sequence[str] | OptionsByName) -> list[MethodChoice]:
    """Returns methods of explanation with their options.

    Args:
        methods: the names of the methods, or a mapping from each name to its options, where ``n_samples`` stands for
            whatever a method calls its number of masks.

    Raises:
        MasktoolError: there is no such method or option, or a value is out of range.
    """
    found = []
    for name, given in with_options(methods).items():
        own = METHODS.find(name).samples_option
        options = {key: value for key, value in given.items() if key not in (own, "n_samples")}
        n_samples = given.get("n_samples", None if own is None else given.get(own))
        build_method(name, options, n_samples)
        found.append(MethodChoice(name, options, n_samples))
    return found


def with_options(names: Sequence[str] | OptionsByName) -> OptionsByName:
    """Returns a mapping from names to options; empty options where only names are given.

    Raises:
        MasktoolError: the options of a name are no mapping.
    """
    found = names if isinstance(names, Mapping) else {name: {} for name in names}
    for name, given in found.items():
        if not isinstance(given, Mapping):
            raise MasktoolError("not options", where=name, expected="a mapping from names to values", got=repr(given))
    return found


def need_gradients(methods: Sequence[MethodChoice]) -> bool:
    """Tells whether one of the methods asks for gradients."""
    return any(METHODS[each.name].needs_gradient for each in methods)


def need_head(methods: Sequence[MethodChoice]) -> str | None:
    """Returns the name of the feature map whose head one of the methods asks for, or ``last``; None where none does."""
    asking = [each.options for each in methods if METHODS[each.name].needs_head]
    return next((options.get("feature_map") or LAST for options in asking), None)


def need_feature_map(methods: Sequence[MethodChoice]) -> str | None:
    """Returns the feature map that one of the methods reads without gradients, or ``last``; None where none does.

    With gradients, and with a head, a file gives a feature map anyway.
    """
    if need_gradients(methods) or need_head(methods) is not None:
        return None
    asking = [each.options for each in methods if METHODS[each.name].needs_feature_map]
    return next((options.get("feature_map") or LAST for options in asking), None)


def overlays_in(directory: Path | None) -> Path | None:
    """Returns the folder for the pictures of the maps; None where nothing is written."""
    return None if directory is None else directory / FOLDER
