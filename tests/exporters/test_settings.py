"""The options of an export stand in one signature and in the settings that carry them: the two agree."""

from __future__ import annotations

import dataclasses
import inspect

import masktool
from masktool.exporters.settings import ExportSettings, OutputSettings, SourceSettings
from masktool.exporters.sources import load_source


def fields_of(*classes: type) -> dict[str, object]:
    return {field.name: field.default for each in classes for field in dataclasses.fields(each)}


def keywords_of(function: object) -> dict[str, object]:
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def test_every_field_is_a_parameter_of_export_with_the_same_default():
    fields = fields_of(SourceSettings, OutputSettings, ExportSettings)
    del fields["output"]
    assert fields == keywords_of(masktool.export)


def test_a_source_is_loaded_with_the_same_words():
    assert fields_of(SourceSettings) == keywords_of(load_source)
