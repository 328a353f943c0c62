"""Metadata, presets, options, journals and saved evaluations of other people: one line each, nothing from outside."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from masktool import MasktoolError, explain, load
from masktool.commands.explain_options import parse_assignments, parse_inputs, share_options
from masktool.contract import METADATA_PREFIX, Metadata, Preprocessing
from masktool.demo import model_path, sample_path
from masktool.evaluation.report import make_report
from masktool.exporters.presets import labels_from, preprocessing_preset
from masktool.journal import Journal
from masktool.limits import limits
from masktool.runtime import PreparedImage

DEEP = "[" * 100_000 + "]" * 100_000
BEYOND = 10**400
PROPERTIES = Metadata(
    masking="layer",
    source="a.onnx",
    source_sha256="ab",
    image_input="image",
    class_output="scores",
    output_kind="logits",
    preprocessing=Preprocessing(size=(8, 8), resize_to=8),
    labels=("a", "b"),
    parity={"ones": 0.0},
    tool_version="1",
).to_properties()


def change(name, text):
    return {**PROPERTIES, METADATA_PREFIX + name: text}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("schema_version", '"1"'),
        ("schema_version", "null"),
        ("schema_version", "true"),
        ("masking", '"none"'),
        ("masking", "{}"),
        ("source", "5"),
        ("image_input", "null"),
        ("output_kind", '"words"'),
        ("labels", "[1, 2]"),
        ("labels", '{"a": 1}'),
        ("labels", '"ab"'),
        ("parity", "[]"),
        ("parity", DEEP),
        ("labels", DEEP),
        ("losses", '["logit", "other"]'),
        ("masker", "3"),
        ("renamed", '{"a": 1}'),
        ("source", "{"),
        ("preprocessing", "[]"),
        ("preprocessing", '{"size": 8}'),
        ("preprocessing", '{"size": [8, 8, 8]}'),
        ("preprocessing", '{"size": [0, 8]}'),
        ("preprocessing", '{"size": [8, true]}'),
        ("preprocessing", '{"size": [1000000, 1000000]}'),
        ("preprocessing", '{"size": [8, 8], "mean": 0}'),
        ("preprocessing", '{"size": [8, 8], "mean": []}'),
        ("preprocessing", '{"size": [8, 8], "std": [0, 1, 1]}'),
        ("preprocessing", '{"size": [8, 8], "std": [1e400, 1, 1]}'),
        ("preprocessing", '{"size": [8, 8], "scale": NaN}'),
        ("preprocessing", f'{{"size": [8, 8], "scale": {BEYOND}}}'),
        ("preprocessing", f'{{"size": [8, 8], "resize_to": {BEYOND}}}'),
        ("preprocessing", '{"size": [8, 8], "resize_to": true}'),
        ("preprocessing", '{"size": [8, 8], "layout": ["NCHW"]}'),
        ("preprocessing", '{"size": [8, 8], "sizes": 1}'),
    ],
)
def test_metadata_that_say_something_else_are_one_line(name, text):
    assert Metadata.from_properties(PROPERTIES) is not None
    with pytest.raises(MasktoolError) as caught:
        Metadata.from_properties(change(name, text))
    assert len(str(caught.value)) < 500


def test_metadata_beyond_the_limit_on_text_name_it():
    with pytest.raises(MasktoolError, match=r"masktool\.source.*limits\(text=2000002\)"):
        Metadata.from_properties(change("source", json.dumps("x" * 2_000_000)))


@pytest.mark.parametrize("missing", ["masking", "source", "image_input", "preprocessing"])
def test_metadata_that_lack_an_entry(missing):
    properties = {key: value for key, value in PROPERTIES.items() if key != METADATA_PREFIX + missing}
    with pytest.raises(MasktoolError, match=rf"damaged masktool metadata \(metadata masktool\.{missing}\)"):
        Metadata.from_properties(properties)


def test_a_newer_schema_is_told_whatever_else_it_holds():
    with pytest.raises(MasktoolError, match=r"newer masktool .* expected at most 1, got 2"):
        Metadata.from_properties({**change("schema_version", "2"), METADATA_PREFIX + "masking": "[]"})


@pytest.mark.parametrize(
    "document",
    [
        DEEP,
        "5",
        '{"mean": [true, false, true]}',
        '{"std": [1, 1, NaN]}',
        f'{{"mean": [{BEYOND}, 0, 0]}}',
        '{"scale": -1}',
        '{"resize_to": 1e3}',
        '{"size": "224"}',
    ],
)
def test_presets_that_are_none(tmp_path, document):
    (tmp_path / "a.json").write_text(document)
    with pytest.raises(MasktoolError):
        preprocessing_preset(str(tmp_path / "a.json"), (224, 224))


def test_presets_and_labels_in_utf_16(tmp_path):
    (tmp_path / "a.json").write_text('{"resize": "exact", "mean": [0.5, 0.5, 0.5]}', encoding="utf-16")
    assert preprocessing_preset(str(tmp_path / "a.json"), (224, 224)).mean == (0.5, 0.5, 0.5)
    (tmp_path / "labels.txt").write_text("Katze\nKäfer\n", encoding="utf-16")
    assert labels_from(tmp_path / "labels.txt") == ("Katze", "Käfer")
    (tmp_path / "labels.json").write_text('["Katze"]', encoding="utf-8-sig")
    assert labels_from(tmp_path / "labels.json") == ("Katze",)


@pytest.mark.parametrize("text", [DEEP, '{"0": ["a", 1]}', f'{{"{"9" * 5000}": "a"}}', "[[[[]]]]", '["a", null]'])
def test_labels_that_are_none(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(MasktoolError) as caught:
        labels_from(tmp_path / "labels.json")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", [DEEP, "1e400", "NaN", str(BEYOND), "1" * 5000, "[]", "{}", "null", "true", '"x"'])
@pytest.mark.parametrize("option", ["p", "cells"])
def test_options_that_no_method_takes(value, option):
    with pytest.raises(MasktoolError):
        share_options(["rise"], None, parse_assignments([f"{option}={value}"]))


@pytest.mark.parametrize("value", ["null", "none", "None", " none "])
def test_an_option_may_be_nothing(value):
    assert share_options(["neuromask"], None, parse_assignments([f"grid_size={value}"])) == {
        "neuromask": {"grid_size": None}
    }
    with pytest.raises(MasktoolError, match="grid_size"):  # whose grid is a number
        share_options(["rise"], None, parse_assignments([f"grid_size={value}"]))


def test_the_text_none_is_had_in_quotes():
    assert parse_assignments(['feature_map="none"', "feature_map_of=nonesuch"]) == {
        "feature_map": "none",
        "feature_map_of": "nonesuch",
    }


@pytest.mark.parametrize("value", [DEEP, "1" * 5000, "[[1], [1, 2]]", '"x"', "{}", "null", str(BEYOND)])
def test_inputs_that_are_none(value):
    with pytest.raises(MasktoolError, match="bad input"):
        parse_inputs([f"x={value}"])


# --- saved evaluations


CELL = {"value": 1, "low": 0, "high": 2, "n": 1}
LINES = ("[]", '{"image": [], "digest": "", "record": {}}', DEEP, '{"image": "a"}', "\xff", "5")


def saved(tmp_path, **changes):
    document = {
        "schema": "masktool.evaluation/1",
        "part": "missingness",
        "title": "Missingness",
        "command": "masktool evaluate missingness",
        "settings": {"models": [{"name": "layer"}]},
        "data_sha256": "",
        "n_images": 1,
        "tables": [
            {"name": "t", "caption": "c", "columns": ["a"], "rows": [[{"value": 1, "low": 0, "high": 2, "n": 1}]]}
        ],
        "charts": [{"name": "hits", "title": "Hits"}],
        "notes": [],
        "problems": [{"where": "a", "what": "b"}],
    } | changes
    folder = tmp_path / "results"
    folder.mkdir(exist_ok=True)
    (folder / "missingness.json").write_text(json.dumps(document))
    Image.new("RGB", (4, 4)).save(folder / "missingness.hits.png")
    return folder


def test_a_saved_evaluation_makes_a_page(tmp_path):
    page = make_report(saved(tmp_path))
    assert "data:image/png" in page
    assert make_report(saved(tmp_path, command="masktool 'unclosed", title="a\ud800"))


@pytest.mark.parametrize("name", ["../secret", "x/../../secret", "/etc/secret", "a\\..\\secret", "a\0b", "a\nb"])
def test_no_chart_comes_from_outside_the_folder(tmp_path, name):
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "missingness.png")
    with pytest.raises(MasktoolError, match="a file outside the folder of the evaluation"):
        make_report(
            saved(tmp_path, part=name.rpartition("secret")[0] + "missingness", charts=[{"name": name, "title": ""}])
        )
    with pytest.raises(MasktoolError, match="a file outside the folder of the evaluation"):
        make_report(saved(tmp_path, part=f"/{tmp_path}/secret", charts=[{"name": name, "title": ""}]))


@pytest.mark.parametrize("place", ["missingness.hits.png", "overlays/a.layer.lime.png"])
def test_nor_does_a_link_lead_out_of_it(tmp_path, place):
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    folder = saved(tmp_path)
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).unlink(missing_ok=True)
    (folder / place).symlink_to(tmp_path / "secret.png")
    with pytest.raises(MasktoolError, match="a file outside the folder"):
        make_report(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"part": 5},
        {"settings": []},
        {"settings": {}},
        {"settings": {"models": [{}]}},
        {"tables": [5]},
        {"tables": [{"name": "t", "caption": "c", "columns": ["a"], "rows": [[]]}]},
        {"tables": [{"name": "t", "caption": "c", "columns": ["a"], "rows": [[{"value": "x"}]]}]},
        {"tables": [{"name": "t", "caption": "c", "columns": ["a"], "rows": [[[1]]]}]},
        {"charts": [{"name": "hits"}]},
        {"notes": [[]]},
        {"problems": [{"where": 1, "what": 2}]},
        {"n_images": "many"},
        {"command": None},
    ],
)
def test_a_damaged_evaluation_is_one_line(tmp_path, changes):
    with pytest.raises(MasktoolError, match=r"a damaged evaluation \(.*missingness\.json"):
        make_report(saved(tmp_path, **changes))


def test_what_is_no_png_is_no_chart(tmp_path):
    folder = saved(tmp_path)
    Image.new("RGB", (4, 4)).save(folder / "missingness.hits.png", format="GIF")
    with pytest.raises(MasktoolError, match=r"not a chart .* expected PNG, got GIF"):
        make_report(folder)
    (folder / "missingness.hits.png").unlink()
    os.mkfifo(folder / "missingness.hits.png")
    with pytest.raises(MasktoolError, match="got a pipe"):
        make_report(folder)


@pytest.mark.parametrize(
    "line", ["[]", '{"image": [], "digest": "", "record": {}}', DEEP, '{"image": "a"}', "\xff", "5"]
)
def test_a_damaged_line_of_a_journal_is_measured_again(tmp_path, line):
    header = json.dumps({"settings": {"a": 1}})
    good = json.dumps({"image": "b", "digest": "d", "record": {"x": 1}})
    (tmp_path / "j.jsonl").write_text(f"{header}\n{line}\n{good}\n", encoding="latin-1")
    with Journal(tmp_path / "j.jsonl", {"a": 1}) as journal:
        assert list(journal.entries) == ["b"]
    (tmp_path / "j.jsonl").write_text(line + "\n" + good + "\n", encoding="latin-1")
    with Journal(tmp_path / "j.jsonl", {"a": 1}) as journal:
        assert not journal.entries


# --- what is written


def test_json_of_a_huge_photograph_is_bounded_and_says_where_the_map_is():
    photograph = Image.open(sample_path()).convert("RGB").resize((200, 150))
    with load(model_path()) as session:
        found = explain(session, photograph, "rise", n_samples=4)
    with limits(json=29_999):
        document = json.loads(found.to_json())
        assert found.to_npz()
    assert document["attributions"] is None
    assert document["notes"][-1].startswith("attributions, 30,000 numbers, are not in JSON")
    small, box = np.array(document["model_attributions"]), tuple(document["image"]["crop_box"])
    rebuilt = PreparedImage(np.empty(0), small.shape, (150, 200), box).to_original(small)
    assert np.allclose(rebuilt, found.attributions, atol=1e-2, equal_nan=True)
    assert json.loads(found.to_json())["attributions"] is not None


def test_an_input_size_that_no_machine_holds():
    with (
        pytest.raises(MasktoolError, match=r"input size fixed by the model|beyond a limit"),
        load(model_path()) as session,
    ):
        explain(session, Image.new("RGB", (8, 8)), "rise", input_size=(100_000, 100_000))


@pytest.mark.parametrize(
    ("method", "assignment"),
    [
        ("lime", f"p={BEYOND}"),
        ("lime", "segments=[1,2]"),
        ("lime", "p=1e400"),
        ("integrated-gradients", f"baseline={BEYOND}"),
    ],
)
def test_options_beyond_a_float_or_of_another_kind(method, assignment):
    with pytest.raises(MasktoolError):
        share_options([method], None, parse_assignments([assignment]))


def test_preprocessing_with_whole_numbers_beyond_64_bits_is_a_number():
    from masktool.runtime import prepare

    document = {"size": [8, 8], "resize": "exact", "scale": 2**70, "mean": [2**70, 0, 0], "std": [2**70, 1, 1]}
    prepared = prepare(Image.new("RGB", (8, 8), (3, 0, 0)), Preprocessing.from_json(document))
    assert prepared.array[0, 0].max() == pytest.approx(2)
