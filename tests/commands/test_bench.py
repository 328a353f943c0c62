"""``masktool bench``: it measures what it says, on a tiny network, and its figures fit together; none is judged."""

import json

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from masktool import demo
from masktool.cli import run
from masktool.explainers.method import METHODS
from masktool.interface.bench.memory import counted_methods, options_of_count
from masktool.interface.bench.plain import find_source_beside
from masktool.interface.bench.spread import Lap, divide_laps, take_turns
from masktool.interface.export import export

KINDS = {"plain", "masked", "left_out", "gradient"}
ROUNDING = 1e-9


def save_tiny(path, seed=0):
    """Saves a network of one convolution; other seeds give other weights."""
    drawn = np.random.default_rng(seed)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> tiny (float[N,3,32,32] image) => (float[N,5] logits) {'
        "a = Conv<pads=[1,1,1,1], strides=[2,2]>(image, w) b = Relu(a) c = GlobalAveragePool(b) d = Flatten(c) "
        "logits = Gemm(d, v) }"
    )
    for name, shape in (("w", (8, 3, 3, 3)), ("v", (8, 5))):
        values = drawn.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("bench") / "tiny.onnx")


@pytest.fixture(scope="module")
def exported(tiny):
    return export(tiny, tiny.with_name("masked.onnx"), preprocessing="imagenet").path


def bench(capsys, *arguments):
    assert run(["bench", *map(str, arguments), "--quick", "--threads", "1", "--provider", "cpu", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def check_clocks(clocks):
    assert set(clocks) == {"wall", "cpu"}
    for spread in clocks.values():
        assert 0 <= spread["lowest"] <= spread["median"] <= spread["highest"]
        assert spread["repeats"] >= 1


def test_ratios_agree_with_the_seconds_of_the_passes(tiny, capsys):
    found = bench(capsys, tiny, "--class-output", "logits", "--output-kind", "logits", "--part", "passes")
    passes = found["passes"]
    assert set(passes["seconds"]) == KINDS
    assert set(passes["ratios"]) == KINDS - {"plain"}
    plain = passes["seconds"]["plain"]
    for kind, ratio in passes["ratios"].items():
        seconds = passes["seconds"][kind]
        check_clocks(seconds)
        check_clocks(ratio)
        for clock in ("wall", "cpu"):
            lowest = seconds[clock]["lowest"] / plain[clock]["highest"]
            highest = seconds[clock]["highest"] / plain[clock]["lowest"]
            assert lowest - ROUNDING <= ratio[clock]["median"] <= highest + ROUNDING
    assert found["quick"] is True
    assert found["methods"] == found["memory"] == {}


def test_methods_of_the_built_in_model_are_measured(capsys, tmp_path):
    file = tmp_path / "bench.json"
    arguments = ("--part", "methods", "--method", "lime", "--method", "masker", "--repeats", "2", "-o", file)
    found = bench(capsys, *arguments)
    assert json.loads(file.read_text()) == found
    lime = found["methods"]["lime"]
    check_clocks(lime["seconds"])
    assert lime["passes"] == 17  # the image itself, and 16 samples
    assert 0 < lime["runtime_share"]["lowest"] <= lime["runtime_share"]["highest"] < 1
    assert "output" in found["methods"]["masker"]["reason"]
    assert found["model"]["path"] == str(demo.model_path())
    assert found["machine"]["cores_usable"] >= 1
    assert found["machine"]["versions"]["numpy"] == np.__version__


def test_recipro_cam_of_a_plain_model_is_measured_by_a_file_with_a_head(tiny, exported, capsys):
    kinds = ("--class-output", "logits", "--output-kind", "logits")
    found = bench(capsys, tiny, *kinds, "--part", "methods", "--repeats", "2")["methods"]
    assert set(found) == set(METHODS) - {"masker"}
    assert not [name for name, figures in found.items() if "reason" in figures]
    assert found["recipro-cam"]["passes"] == 1 + 16 * 16  # the image itself, and each place of its feature map
    check_clocks(found["recipro-cam"]["seconds"])
    without = bench(capsys, exported, "--part", "methods", "--method", "recipro-cam")["methods"]
    assert "without a head" in without["recipro-cam"]["reason"]


def test_memory_and_start_are_those_of_processes(exported, capsys):
    found = bench(capsys, exported, "--part", "memory", "--part", "start", "--method", "rise")
    rise = found["memory"]["rise"]
    assert (rise["few"], rise["many"]) == (100, 200)
    assert (rise["few_passes"], rise["many_passes"]) == (101, 201)  # and the image as it is
    assert rise["ratio"] == rise["many_bytes"] / rise["few_bytes"]
    assert rise["few_bytes"] > 2**24
    check_clocks(found["start"])
    assert found["start"]["wall"]["lowest"] > 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lime", ["--samples", "400", "--budget", "401"]),
        ("integrated-gradients", ["--samples", "400"]),
        ("occlusion", ["--set", "strides=[10, 5]"]),  # 20 by 20 windows of 32 x 16 pixels
        ("coarse-to-fine", ["--set", "strides=[9, 4]", "--set", "most_masks=400"]),  # of 45 x 22 pixels
    ],
)
def test_every_method_takes_about_as_many_passes_as_asked_for(name, expected):
    assert options_of_count(name, (224, 112), 400) == expected


def test_memory_is_of_methods_whose_number_of_masks_or_steps_is_the_users():
    found = set(counted_methods(METHODS))
    assert {"rise", "sobol", "occlusion", "coarse-to-fine", "integrated-gradients", "smoothgrad"} <= found
    assert found.isdisjoint({"neuromask", "extremal", "gradient", "grad-cam"})


def test_the_table_has_what_was_measured(exported, capsys):
    arguments = ["bench", str(exported), "--quick", "--part", "passes", "--part", "methods", "--method", "occlusion"]
    assert run([*arguments, "--plain", str(exported.with_name("tiny.onnx"))]) == 0
    out, err = capsys.readouterr()
    assert "masked / plain" in out
    assert "left out / plain" in out
    assert "inside ONNX Runtime" in out
    assert "these figures mean little" in err


def test_another_network_is_no_plain_one(exported, tmp_path, capsys):
    other = save_tiny(tmp_path / "other.onnx", seed=1)
    assert run(["bench", str(exported), "--quick", "--part", "passes", "--plain", str(other)]) == 2
    assert "gives other results than the file" in capsys.readouterr().err


def test_the_source_beside_a_file_is_known_by_its_bytes(exported, tiny):
    from masktool.exported_files import metadata_of

    metadata = metadata_of(exported)
    assert find_source_beside(exported, metadata) == tiny
    assert find_source_beside(exported.parent / "elsewhere" / "masked.onnx", metadata) is None


def test_where_the_plain_network_is_not_known_the_masked_one_is_measured_alone(exported, capsys, monkeypatch):
    monkeypatch.setattr("masktool.interface.bench.run.find_source_beside", lambda *_: None)
    passes = bench(capsys, exported, "--part", "passes")["passes"]
    assert passes["ratios"] == {}
    assert set(passes["seconds"]) == KINDS - {"plain"}
    assert passes["absent"]["plain"] == "tiny.onnx does not lie beside the file; --plain names it"


def test_rounds_pair_the_laps_of_calls():
    calls = []
    laps = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert "".join(calls) == "ab" + "ab" + "ba"  # the first round does not count
    assert [len(each) for each in laps.values()] == [2, 2]
    ratios = divide_laps([Lap(2, 3), Lap(4, 3), Lap(9, 3)], [Lap(1, 3), Lap(1, 1), Lap(3, 1)])
    assert (ratios.wall.median, ratios.wall.lowest, ratios.wall.highest) == (3, 2, 4)
    assert (ratios.cpu.median, ratios.cpu.repeats) == (3, 3)
