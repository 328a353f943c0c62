"""An answer now, and its explanation when asked: what Triton makes of the ensemble, restated from its source.

Source: triton-inference-server/core at 73aad7c, src/ensemble_scheduler/ensemble_scheduler.cc (EnsembleContext, "Prune
ensemble first if not all outputs are requested"), ensemble_utils.cc (ValidateTensorMapping, ValidateTensorConsistency)
and model_config_utils.cc (ValidateEnsembleSchedulingConfig).
"""

import numpy as np
import pytest

import masktool

from .exports import explain, mask, save, weights
from .pbtxt import read_pbtxt
from .triton_backend import TYPES, Backend


class Ensemble:
    """An ensemble and its models, opened from a repository."""

    def __init__(self, repository, name):
        self.config = read_pbtxt((repository / name / "config.pbtxt").read_text())
        self.steps = self.config.one("ensemble_scheduling").all("step")
        self.models = {}
        for step in self.steps:
            model = step.one("model_name")
            config = read_pbtxt((repository / model / "config.pbtxt").read_text())
            assert config.one("name") == model
            self.models[model] = Backend(config, repository / model / "1")

    def check(self):
        """Fails where Triton would refuse to load the ensemble."""
        config, batch = self.config, self.config.one("max_batch_size")
        assert config.one("platform") == "ensemble"
        assert not {"backend", "instance_group", "optimization", "model_warmup"} & {name for name, _ in config}
        tensors = {each.one("name"): each for each in (*config.all("input"), *config.all("output"))}
        assert all(each.one("reshape") is None for each in tensors.values())  # compared without it, and done already
        used, made = set(), set()
        for step in self.steps:
            model = self.models[step.one("model_name")]
            model.check()
            own = model.config.one("max_batch_size")
            assert own == 0 or own >= batch
            for kind, maps, found in (("input", "input_map", used), ("output", "output_map", made)):
                declared = {each.one("name"): each for each in model.config.all(kind)}
                names = {each.one("key"): each.one("value") for each in step.all(maps)}
                assert set(names) <= set(declared)
                if kind == "input":
                    assert {name for name, each in declared.items() if not each.one("optional", False)} <= set(names)
                for name, tensor in names.items():
                    assert not (kind == "output" and tensor in found)
                    found.add(tensor)
                    self.check_same(tensors[tensor], declared[name], batch > 0, own > 0)
        assert used == {each.one("name") for each in config.all("input")}
        assert made == {each.one("name") for each in config.all("output")}

    @staticmethod
    def check_same(outer, inner, batched, step_batched):
        assert outer.one("data_type") == inner.one("data_type")
        dims = [each.one("dims") for each in (outer, inner)]
        whole = [[-1, *dims[0]] if batched else dims[0], [-1, *dims[1]] if step_batched else dims[1]]
        assert fit(*dims) or fit(*whole)

    def run(self, request, wanted):
        """Runs the steps that the wanted outputs come from; returns the outputs, and the models that ran."""
        results, ran = {}, []
        for step in self.steps:
            given = {each.one("value"): each.one("key") for each in step.all("output_map")}
            if not wanted & set(given):
                continue
            ran.append(step.one("model_name"))
            feed = {each.one("key"): request[each.one("value")] for each in step.all("input_map")}
            found = self.models[ran[-1]].run(feed)
            results |= {name: found[key] for name, key in given.items() if name in wanted}
        return results, ran


def fit(one, other):
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    source = save(folder / "network.onnx")
    answer = mask(folder, "answer", source, output_kind="logits", labels=tuple("abcd"), plain_branch=True)
    return folder, answer, source


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("occlusion", {}),
        pytest.param("lime", {"n_samples": 60, "segments": "grid"}, marks=pytest.mark.slow),
        ("lime", {"n_samples": 60, "segments": "input"}),
        pytest.param("occlusion", {"target": "required"}, marks=pytest.mark.slow),
        ("occlusion", {"target": "optional"}),
    ],
    ids=["batch", "numbers", "another input", "target", "optional target"],
)
def test_the_answer_alone_or_with_its_explanation(pair, tmp_path, method, options):
    folder, answer, _ = pair
    explained = explain(folder, f"{method}{len(list(folder.iterdir()))}", method, **options)
    said = []
    written = masktool.package_triton(answer, tmp_path, model_name="net", explained=explained, say=said.append)
    assert [path.name for path in written] == ["net_answer", "net_explanation", "net"]
    ensemble = Ensemble(tmp_path, "net")
    ensemble.check()
    assert ensemble.models["net_answer"].batched
    request = {
        each.one("name"): np.zeros([2 if dim == -1 else dim for dim in whole(ensemble, each)], dtype(each))
        for each in ensemble.config.all("input")
    }
    request["image"] = np.random.default_rng(0).random((2, 3, 16, 16)).astype(np.float32)
    if "segments" in request:
        request["segments"] = np.arange(256, dtype=np.int32).reshape(16, 16) // 64
    alone, ran = ensemble.run(request, {"scores"})
    assert ran == ["net_answer"]
    everything = {each.one("name") for each in ensemble.config.all("output")}
    both, ran = ensemble.run(request, everything)
    assert ran == ["net_answer", "net_explanation"]
    assert np.array_equal(alone["scores"], both["scores"])
    assert set(both) == everything
    for each in ensemble.config.all("output"):
        assert fit(list(both[each.one("name")].shape), whole(ensemble, each)), each
    with masktool.load(explained, "cpu") as session:
        others = {name: value for name, value in request.items() if name != "image"}
        expected = session.run(request["image"], inputs=others, outputs=["saliency_map"])["saliency_map"]
    assert np.abs(both["saliency_map"] - expected).max() < 1e-5
    labels = {each.one("name"): each.one("label_filename") for each in ensemble.config.all("output")}
    assert {name for name, file in labels.items() if file} == {"scores"}
    assert (tmp_path / "net" / "labels.txt").read_text() == "a\nb\nc\nd\n"
    assert any("gets the answer at its own price" in line for line in said)


def whole(ensemble, tensor):
    return [-1, *tensor.one("dims")] if ensemble.config.one("max_batch_size") else tensor.one("dims")


def dtype(tensor):
    return TYPES[tensor.one("data_type")][1]


def test_what_does_not_go_together_is_refused(pair, tmp_path, packaged):
    folder, answer, source = pair
    always = explain(folder, "always")
    asked = explain(folder, "asked", on_request="required")
    required = mask(folder, "required", source, mask_required=True)
    other = mask(folder, "other", save(folder / "other.onnx", v=weights(4, 4, seed=9)))
    photograph = explain(folder, "photograph", preprocessing="imagenet", embed_preprocessing=True)
    for model, explained, text in (
        (always, always, "one that takes a mask, and one that explains itself .*: expected a file that takes a mask"),
        (answer, answer, ": expected a file that explains itself, got one that takes a mask"),
        (answer, asked, "explains on request already"),
        (required, always, "cannot do without a mask"),
        (other, always, r"not of one network .*expected an export of other\.onnx"),
        (answer, photograph, "different inputs of one name"),
    ):
        with pytest.raises(masktool.MasktoolError, match=text):
            masktool.package_triton(model, tmp_path / "r", model_name="net", explained=explained)
    assert not (tmp_path / "r").exists()


def test_nothing_is_written_where_one_of_three_is_there(pair, tmp_path):
    folder, answer, _ = pair
    always = explain(folder, "again")
    masktool.package_triton(always, tmp_path, model_name="net_explanation")
    with pytest.raises(masktool.MasktoolError, match=r"this name already .*net_explanation"):
        masktool.package_triton(answer, tmp_path, model_name="net", explained=always)
    assert [path.name for path in tmp_path.iterdir()] == ["net_explanation"]
