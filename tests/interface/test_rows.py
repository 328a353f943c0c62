"""Explanations as rows: what every column holds, the same rows for the same run, and Parquet that gives them back."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as parquet
import pytest
from explainers.models import noise_photograph, write_region_model
from PIL import Image

import masktool
from masktool.interface.rows import COLUMNS, arrow_schema, arrow_table, explanation_row, failure_row


@pytest.fixture
def explained(tmp_path):
    write_region_model(tmp_path / "model.onnx")
    photograph = Image.fromarray(noise_photograph((20, 30)))
    return masktool.explain(tmp_path / "model.onnx", photograph, "occlusion", "bottom right", providers="cpu")


def test_a_row_holds_what_the_explanation_does(explained):
    row = explanation_row(explained, "photos/a.png", "0" * 64)
    assert tuple(row) == tuple(column.name for column in COLUMNS)
    assert (row["file"], row["sha256"], row["method"], row["error"]) == ("photos/a.png", "0" * 64, "occlusion", None)
    assert (row["target"], row["label"], row["output"], row["place"]) == (1, "bottom right", None, None)
    assert row["score"] == pytest.approx(explained.score)
    assert (row["height"], row["width"]) == (20, 30)
    found = row["map"].reshape(row["map_height"], row["map_width"])
    assert np.array_equal(found, explained.model_attributions)
    assert tuple(row["crop_box"]) == explained.crop_box
    assert json.loads(row["options"])["seed"] == 0
    assert row["forward_passes"] == explained.forward_passes


def test_the_value_of_an_output_has_a_place_and_no_class(tmp_path):
    write_region_model(tmp_path / "model.onnx")
    photograph = Image.fromarray(noise_photograph((20, 30)))
    found = masktool.explain(tmp_path / "model.onnx", photograph, "occlusion", 2, output="scores", providers="cpu")
    row = explanation_row(found, "a.png", None)
    assert (row["target"], row["label"], row["output"], row["place"]) == (None, "background", "scores", [2])


def test_rows_come_back_from_parquet(explained, tmp_path):
    rows = [explanation_row(explained, "a.png", "0" * 64), failure_row("b.png", None, "not an image")]
    parquet.write_table(arrow_table(rows), tmp_path / "rows.parquet")
    first, second = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert first == {**rows[0], "map": rows[0]["map"].tolist()}
    assert second["error"] == "not an image"
    assert [name for name, value in second.items() if value is not None] == ["file", "masktool_version", "error"]


def test_every_column_is_explained_in_the_file_itself():
    for column, field in zip(COLUMNS, arrow_schema(), strict=True):
        assert field.name == column.name
        assert field.metadata == {b"meaning": column.meaning.encode()}


def test_without_pyarrow_the_message_names_the_extra():
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from masktool.interface.rows import arrow_schema\n"
        "try: arrow_schema()\nexcept Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("MasktoolError writing Parquet needs pyarrow, which is not installed")
    assert "pip install 'masktool[parquet]'" in done.stdout
