"""Occlusion gives the same map where only what windows change is computed."""

import numpy as np
import pytest
from networks.small_graphs import parse

import masktool
from masktool.embedding.incremental import write
from masktool.explainers.incremental import KeptModels, WindowGraphs, largest_gap
from masktool.interface.device_graphs import graphs_for, write_windows
from masktool.runtime.model_beside import ModelBeside

SIZE, OPTIONS = 48, {"sliding_window_shapes": (9, 8), "strides": 5, "perturbations_per_eval": 16}
NETWORK = f"""
<ir_version: 10, opset_import: ["" : 18]>
network (float[N, {{shape}}] image) => (float[N, 5] scores, float[N, 8, {SIZE // 2}, {SIZE // 2}] second)
<float[8, 3, 3, 3] a, float[8, 8, 3, 3] b, float[8, 5] head>
{{{{
    first = Conv<pads = [1, 1, 1, 1]>({{planes}}, a)
    active = Relu(first)
    second = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(active, b)
    mean = GlobalAveragePool(second)
    flat = Flatten(mean)
    scores = MatMul(flat, head)
}}}}
"""
LAYOUTS = {
    "NCHW": NETWORK.format(shape=f"3, {SIZE}, {SIZE}", planes="image"),
    "NHWC": NETWORK.format(shape=f"{SIZE}, {SIZE}, 3", planes="planes").replace(
        "first =", "planes = Transpose<perm = [0, 3, 1, 2]>(image) first ="
    ),
}


@pytest.fixture
def always(monkeypatch):
    """Computes what windows change alone for files of any size; counts the runs of the models that do."""
    runs = []
    run = ModelBeside.run

    def counted(self, values, results=0):
        runs.append(results)
        return run(self, values, results)

    monkeypatch.setattr(ModelBeside, "run", counted)
    monkeypatch.setattr(write, "LEAST_GAIN", 0)
    monkeypatch.setattr("masktool.interface.explain.graphs_for", lambda _: WindowGraphs(write_windows, 0, 0, 0))
    return runs


HEAD = np.random.default_rng(1).standard_normal((8, 5)) / 100
"""Logits of ones: of hundreds, rounding alone is more than what maps may differ by, and each probability is 0 or 1."""


def make_file(folder, layout="NCHW", **options):
    path, model = folder / f"{layout}.onnx", parse(LAYOUTS[layout], head=HEAD)
    masktool.export(model, path, output_kind="logits", class_output="scores", **options)
    return path


def photograph(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (60, 50, 3), np.uint8)


def explain(path, **options):
    return masktool.explain(path, photograph(), "occlusion", **{**OPTIONS, **options})


@pytest.mark.parametrize("options", [{}, {"score": "log-odds"}, {"output": "second", "target": (2, 3, 4)}], ids=str)
@pytest.mark.parametrize("masking", ["fill", "layer"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_map_is_the_same(layout, masking, options, tmp_path, request):
    path = make_file(tmp_path, layout, masking=masking, preprocessing="imagenet")
    expected = explain(path, **options)
    runs = request.getfixturevalue("always")
    found = explain(path, **options)
    assert runs == [0, 2, *[16] * 5, 1]
    reached = max(np.abs(expected.model_attributions).max(), 1)
    assert np.abs(found.model_attributions - expected.model_attributions).max() <= 1e-6 * reached
    assert found.settings == expected.settings
    assert found.notes == expected.notes
    assert found.forward_passes == expected.forward_passes


def test_models_are_made_once_for_a_session(tmp_path, always):
    with masktool.load(make_file(tmp_path, masking="layer", preprocessing="imagenet")) as session:
        masktool.explain_images(session, [photograph(0), photograph(1)], "occlusion", **OPTIONS)
        assert always.count(0) == 2
        assert always.count(2) == 1  # held against the network for the first image alone
        (kept,) = session.beside[KeptModels.__name__]
        assert kept.agree
    assert not session.beside


def test_a_difference_beyond_rounding_is_noted_and_the_network_runs(tmp_path, always, monkeypatch):
    path = make_file(tmp_path, masking="fill", preprocessing="imagenet")

    def write_wrongly(*arguments):
        graphs = write_windows(*arguments)
        return graphs._replace(inputs={name: each._replace(outside=1.0) for name, each in graphs.inputs.items()})

    monkeypatch.setattr("masktool.interface.explain.graphs_for", lambda _: WindowGraphs(write_wrongly, 0, 0, 0))
    with masktool.load(path) as session:
        explain(session)
        found = explain(session)
    assert always == [0, 2]  # by the first explanation alone
    assert any("it differed from the masked network by" in note for note in found.notes)
    monkeypatch.undo()
    assert np.array_equal(found.model_attributions, explain(path).model_attributions)


def test_what_is_no_number_has_to_be_the_same():
    bad = np.array([1.0, np.nan, -np.inf])
    assert largest_gap(np.array([1.5, np.nan, -np.inf]), bad) == 0.5
    assert largest_gap(np.array([1.0, 2.0, -np.inf]), bad) == np.inf
    assert largest_gap(bad, np.array([1.0, 2.0, 3.0])) == np.inf
    assert largest_gap(bad[:2], bad) == np.inf


def test_why_a_file_is_not_computed_in_this_way_is_kept(tmp_path, always, monkeypatch):
    monkeypatch.setattr(write, "LEAST_GAIN", 99)
    with masktool.load(make_file(tmp_path, masking="fill", preprocessing="imagenet")) as session:
        found = explain(session)
        (kept,) = session.beside[KeptModels.__name__]
    assert "of the whole network's work" in kept.refusal
    assert not always
    assert not any("windows" in note for note in found.notes)


def test_small_files_and_few_windows_are_not_looked_at(tmp_path):
    with masktool.load(make_file(tmp_path, masking="fill", preprocessing="imagenet")) as session:
        assert isinstance(graphs_for(session), WindowGraphs)
        explain(session)
        assert not session.beside


def test_large_files_have_to_save_more():
    graphs = WindowGraphs(write_windows)
    assert graphs.is_worth(5e10, 5_000_000)
    assert not graphs.is_worth(5e10, 250_000_000)
