"""The registry: a method is one new file, and its options are checked by name."""

import importlib
import sys

import pytest

from explainers.models import bright_photograph
from masktool import MasktoolError, explain
from masktool.explainers import methods
from masktool.explainers.method import METHODS
from masktool.registry import import_files

NEW_METHOD = """
import dataclasses
from typing import ClassVar
import numpy as np
from masktool.explainers.method import Attribution, Method, register

@register
@dataclasses.dataclass(frozen=True)
class Constant(Method):
    name: ClassVar[str] = "constant"
    title: ClassVar[str] = "Constant"
    meaning: ClassVar[str] = "nothing about {score}"
    signed: ClassVar[bool] = True
    samples_option: ClassVar[str | None] = None
    value: float = 2.0

    def attribute(self, task):
        return Attribution(np.full((len(task.base), *task.size), self.value), {"value": self.value}, ({},))
"""


@pytest.fixture
def new_method(tmp_path, monkeypatch):
    (tmp_path / "constant.py").write_text(NEW_METHOD)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    import_files.cache_clear()
    importlib.invalidate_caches()
    yield
    METHODS._entries.pop("constant", None)
    sys.modules.pop(f"{methods.__name__}.constant", None)
    import_files.cache_clear()


@pytest.mark.usefixtures("new_method")
def test_new_file_is_all_a_new_method_needs(session):
    assert {"constant", "lime", "occlusion", "rise"} <= set(METHODS)
    found = explain(session, bright_photograph(), "constant", value=3.0)
    assert (found.attributions == 3).all()
    assert found.meaning == "nothing about probability"
    assert found.plot().mode == "RGB"


def test_every_method_says_what_it_is():
    for name, cls in METHODS.items():
        assert cls.name == name
        assert cls.title
        assert "{score}" in cls.meaning or cls.needs_gradient or cls.needs_feature_map or cls.outputs  # no scores
        assert cls.samples_option is None or cls.samples_option in cls.__dataclass_fields__
        module = sys.modules[cls.__module__].__doc__
        assert "Source: " in module
        assert "http" in module


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "limes"}, r"unknown method \(limes\): expected one of .*lime, .*occlusion, .*rise"),
        ({"method": "rise", "n_mask": 3}, r"unknown option of RISE \(n_mask\).*n_masks, p, grid_size"),
        ({"method": "occlusion", "n_samples": 3}, "Occlusion draws no samples"),
        ({"method": "rise", "n_samples": True}, "n_masks.*got True"),
    ],
)
def test_bad_method_or_option_is_named(session, arguments, message):
    with pytest.raises(MasktoolError, match=message):
        explain(session, bright_photograph(), **arguments)
    assert session.forward_passes == 0
