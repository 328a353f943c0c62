"""What every part of an evaluation must be; one that is added is looked at here without a line more."""

import dataclasses
import inspect

import pytest

from masktool.commands.evaluate import SUMMARIES
from masktool.errors import MasktoolError
from masktool.evaluation.part import PARTS, MapPart

FORM = ("models", "settings", "measure", "summarise")
"""Methods that every part has, in the order in which its file defines those that are its own."""
MAP_FIELDS = ("methods", "overlays", "pictured")


@pytest.fixture(params=sorted(PARTS))
def part(request):
    return PARTS[request.param]


def test_parts_are_found_by_looking():
    assert list(PARTS) == ["compare", "faithfulness", "lime-alignment", "localisation", "missingness", "randomisation"]
    with pytest.raises(MasktoolError, match="unknown evaluation"):
        PARTS.find("beauty")


def test_every_part_is_a_command(part):
    assert part.name in SUMMARIES


def test_its_file_is_called_like_it(part):
    assert part.__module__ == f"masktool.evaluation.parts.{part.name.replace('-', '_')}"
    assert part.__doc__


def test_its_options_are_fields_with_one_meaning(part):
    assert part.__dataclass_params__.frozen
    fields = {field.name: field.default for field in dataclasses.fields(part)}
    assert fields["seed"] == 0
    assert fields["batch"] is None
    assert set(MAP_FIELDS) <= set(fields) if issubclass(part, MapPart) else not set(MAP_FIELDS) & set(fields)
    assert all(f"        {name}: " in part.__doc__ for name in fields), "every option is described"


def test_its_methods_come_in_the_one_order(part):
    own = [name for name, value in vars(part).items() if inspect.isfunction(value) or isinstance(value, property)]
    assert [name for name in own if name in FORM] == [name for name in FORM if name in own]
