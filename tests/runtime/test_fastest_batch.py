"""The batch that runs the most images per second: found by trying, within bounds of time and memory, and said."""

import numpy as np
import pytest
from networks.small_graphs import classifier

import masktool
from masktool import MasktoolError
from masktool.limits import limits
from masktool.runtime.batching import LARGEST_BATCH, TRIAL_SECONDS, find_fastest_batch, peak_memory
from masktool.runtime.device import BindingError, DeviceGraph
from masktool.runtime.measured_batch import measure_batch_size
from masktool.runtime.session import MaskedSession


class Machine:
    """A clock, memory and a model whose batches take as long as a function of their size says."""

    def __init__(self, seconds, bytes_per_image=0, largest=LARGEST_BATCH):
        self.now, self.peak, self.tried = 0.0, 10**9, []
        self.seconds, self.bytes_per_image, self.largest = seconds, bytes_per_image, largest

    def run(self, size):
        if size > self.largest:
            raise MasktoolError("ONNX Runtime could not run the model", got="out of memory")
        self.tried.append(size)
        self.now += self.seconds(size)
        self.peak = max(self.peak, 10**9 + size * self.bytes_per_image)

    def find(self):
        trials = find_fastest_batch(self.run, lambda: self.now, lambda: self.peak)
        assert [each.speed for each in trials] == sorted(each.speed for each in trials)
        return trials[-1].size


def busy_from(size):
    """A device that takes as long for one image as for ``size``, and from there on in proportion."""
    return lambda images: 1e-4 * max(images, size)


def test_growth_ends_where_the_device_is_busy():
    for size in (1, 2, 8, 64):
        machine = Machine(busy_from(size))
        assert machine.find() == size
        assert max(machine.tried) == 4 * size  # two more that gain nothing


def test_gains_of_less_than_a_twentieth_are_not_taken():
    assert Machine(lambda images: 1e-3 * images + 1e-4).find() == 4  # 1.1, 1.05, 1.025, 1.013, 1.006 ms per image


def test_one_size_that_gains_nothing_does_not_end_the_search():
    steps = {1: 1.0, 2: 2.0, 4: 2.0, 8: 4.0, 16: 8.0}
    assert Machine(lambda images: 1e-4 * steps[images]).find() == 4


def test_the_largest_batch_is_bounded():
    machine = Machine(lambda _: 1e-4)
    assert machine.find() == LARGEST_BATCH
    assert max(machine.tried) == LARGEST_BATCH


def test_time_is_bounded():
    machine = Machine(lambda _: 0.4)
    assert machine.find() == 4  # the next may take twice as long
    assert machine.now <= TRIAL_SECONDS


def test_a_single_slow_image_is_one_trial():
    machine = Machine(lambda _: 60.0)
    assert machine.find() == 1
    assert set(machine.tried) == {1}


def test_memory_is_bounded_by_a_limit():
    machine = Machine(busy_from(64), bytes_per_image=10**8)
    assert machine.find() == 16  # 32 would take 3.2 GB
    with limits(batch_memory=4 * 10**8):
        assert Machine(busy_from(64), bytes_per_image=10**8).find() == 4


def test_a_batch_that_does_not_fit_ends_the_search():
    assert Machine(busy_from(64), largest=20).find() == 16
    with pytest.raises(MasktoolError, match="out of memory"):
        Machine(busy_from(64), largest=0).find()


def test_memory_of_this_process_is_told():
    assert peak_memory() == 0 or 10**7 < peak_memory() < 10**12


@pytest.fixture
def session(tmp_path):
    masktool.export(classifier(), tmp_path / "model.onnx", gradient="logit")
    with masktool.load(tmp_path / "model.onnx", "cpu", threads=1) as opened:
        yield opened


IMAGE = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)


def test_a_session_measures_once_for_each_size(session):
    trials = measure_batch_size(session, IMAGE[None])
    passes = session.forward_passes
    assert passes > 0
    assert measure_batch_size(session, IMAGE[None]) is trials
    assert session.forward_passes == passes


@pytest.mark.parametrize("method", ["occlusion", "integrated-gradients"])
def test_the_answer_says_its_batch_and_does_not_depend_on_it(session, method):
    found = masktool.explain(session, IMAGE, method, target=0, perturbations_per_eval="fastest")
    batch = found.settings["perturbations_per_eval"]
    assert batch == measure_batch_size(session, IMAGE[None])[-1].size
    assert any(f"perturbations_per_eval={batch}" in note for note in found.notes)
    expected = masktool.explain(session, IMAGE, method, target=0, perturbations_per_eval=3)
    assert not any("measured" in note for note in expected.notes)
    assert found.forward_passes == expected.forward_passes  # trials are no part of it
    np.testing.assert_allclose(found.attributions, expected.attributions, atol=1e-5 * np.ptp(expected.attributions))


def test_on_a_device_masks_are_bound_once_for_every_size(session, monkeypatch):
    sizes, bound = [], []
    run, bind = DeviceGraph.run, DeviceGraph.bind
    monkeypatch.setattr(MaskedSession, "device", "cpu")
    monkeypatch.setattr(DeviceGraph, "run", lambda self, rows: sizes.append(rows) or run(self, rows))
    monkeypatch.setattr(
        DeviceGraph, "bind", lambda self, values: bound.append(len(values["mask"])) or bind(self, values)
    )
    trials = measure_batch_size(session, IMAGE[None])
    assert sizes[:6] == [1, 1, 1, 2, 2, 2]
    assert bound == sorted(set(sizes))
    assert trials[-1].size in bound


def test_where_nothing_can_be_bound_batches_are_tried_in_memory(session, monkeypatch):
    def refuse(self, values):
        raise BindingError("it broke")

    monkeypatch.setattr(MaskedSession, "device", "cpu")
    monkeypatch.setattr(DeviceGraph, "bind", refuse)
    assert measure_batch_size(session, IMAGE[None])
    assert "it broke" in session.device_note


def test_a_file_of_one_image_has_nothing_to_measure(session, monkeypatch):
    monkeypatch.setattr(type(session.metadata), "one_by_one", True)
    assert [each.size for each in measure_batch_size(session, IMAGE[None])] == [1]
    assert session.forward_passes == 0


def test_other_words_are_refused(session):
    with pytest.raises(MasktoolError, match=r"perturbations_per_eval.*got 'quickest'"):
        masktool.explain(session, IMAGE, "occlusion", perturbations_per_eval="quickest")
