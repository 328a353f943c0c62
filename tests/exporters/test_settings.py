"""The options of an export: signature and settings agree on them, and a wrong value is refused by its name."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pytest
from networks.small_graphs import classifier

import masktool
from masktool import MasktoolError
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
    given = keywords_of(masktool.export)
    assert given.pop("calibrate") is None  # photographs to calibrate by, once the file is there
    assert fields.pop("feature_map") == ()  # of one name or several as they were given
    assert given.pop("feature_map") is None
    assert fields == given


def test_a_source_is_loaded_with_the_same_words():
    assert fields_of(SourceSettings) == keywords_of(load_source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 32}, r"option out of range \(input_size\): expected \(height, width\), or .*, got 32"),
        ({"input_size": (1, 2, 3, 4)}, r"\(input_size\): expected \(height, width\), or .*, got \(1, 2, 3, 4\)"),
        ({"input_size": (32.5, 32)}, r"\(input_size\): expected a whole number from 1, got 32\.5"),
        ({"input_size": ("32", "32")}, r"\(input_size\): expected a whole number from 1, got '32'"),
        ({"input_size": (-1, 32)}, r"\(input_size\): expected a whole number from 1, got -1"),
        ({"channels": "3"}, r"option out of range \(channels\): expected a whole number from 1, got '3'"),
        ({"channels": 0}, r"\(channels\): expected a whole number from 1, got 0"),
        ({"arch": Path("resnet.py")}, r"not an architecture \(arch\): expected a text, got PosixPath"),
        ({"output_kind": "logit"}, r"unknown output kind: expected logits \| .*, got logit"),
        (
            {"class_output": "none", "output_kind": "logits"},
            r'a kind of scores for a model without class scores \(class_output="none"\): logits',
        ),
        ({"masking": "layers"}, r"unknown masking mode: expected layer \| partial \| fill, got layers"),
    ],
)
def test_a_wrong_value_names_its_parameter(tmp_path: Path, options: dict[str, object], message: str):
    with pytest.raises(MasktoolError, match=message):
        masktool.export(classifier(), tmp_path / "masked.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_are_whole_numbers():
    size = (np.int64(32), np.int64(48))
    assert SourceSettings(input_size=size, channels=np.int64(3)).input_size == size
    assert SourceSettings(input_size=[32, 48]).input_size == [32, 48]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name_or_file": 3}, r"not a preprocessing \(name_or_file\): expected .*, got 3"),
        ({"mean": 0.5}, r"not one number per channel \(mean\): 0\.5"),
        ({"std": "abc"}, r"not one number per channel \(std\): 'abc'"),
    ],
)
def test_a_wrong_value_in_a_preset_names_its_field(fields: dict[str, object], message: str):
    with pytest.raises(MasktoolError, match=message):
        masktool.Preset(**fields)
