"""Checkpoints: whole or absent, of the same training or refused; and signals that wait for the end of a step."""

import os
import signal
import threading

import pytest
import torch

from maskers.small import small_network
from masktool.errors import MasktoolError
from masktool.maskers.checkpoint import Checkpoint, check_identity, digest_weights, load_checkpoint
from masktool.maskers.interruption import deferred_signals


def checkpoint(done=3):
    state = {"done": done, "masker": {"weight": torch.arange(3.0)}, "history": [{"a": torch.ones(2)}]}
    return Checkpoint({"seed": 1, "stages": ["a", "b"]}, state, [{"loss": 0.5}], 5)


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "new" / "masker.checkpoint"
    checkpoint().save(path)
    found = load_checkpoint(path)
    assert (found.identity, found.records, found.steps) == ({"seed": 1, "stages": ["a", "b"]}, [{"loss": 0.5}], 5)
    assert torch.equal(found.state["masker"]["weight"], torch.arange(3.0))
    assert not found.finished
    assert checkpoint(done=5).finished
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # nothing half-written is left


def test_no_checkpoint_is_none(tmp_path):
    assert load_checkpoint(tmp_path / "nothing") is None


def test_a_failed_write_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "masker.checkpoint"
    checkpoint(1).save(path)

    def fail(content, target):
        target.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint(2).save(path)
    assert load_checkpoint(path).state["done"] == 1
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all"])
def test_a_damaged_one_is_refused(tmp_path, content):
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(MasktoolError, match=r"cannot read the checkpoint.*delete it"):
        load_checkpoint(tmp_path / "bad")


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    torch.save({"version": 1, "state": os.getcwd}, tmp_path / "bad")
    with pytest.raises(MasktoolError, match="cannot read the checkpoint"):
        load_checkpoint(tmp_path / "bad")


def test_another_trainings_checkpoint_says_in_what_it_differs(tmp_path):
    check_identity({"seed": 1, "batch": 2}, {"seed": 1, "batch": 2}, tmp_path)
    with pytest.raises(MasktoolError, match=r"expected seed 1, got seed 2"):
        check_identity({"seed": 1, "batch": 2}, {"seed": 2, "batch": 2}, tmp_path)


def test_the_digest_of_weights_sees_every_number():
    network = small_network()
    before = digest_weights(network)
    assert digest_weights(small_network()) == before
    with torch.no_grad():
        network.head.bias[0] += 1e-6
    assert digest_weights(network) != before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_the_second_interrupts(number):
    handler = signal.getsignal(number)
    with deferred_signals() as interrupted:
        assert not interrupted()
        signal.raise_signal(number)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is handler


def test_other_threads_take_no_signals():
    handlers = []

    def work():
        with deferred_signals() as interrupted:
            handlers.append((signal.getsignal(signal.SIGINT), interrupted()))

    handler = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [(handler, False)]
