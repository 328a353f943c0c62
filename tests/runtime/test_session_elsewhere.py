"""A session in other processes: pickled as a path, opened again where a process was forked."""

import copy
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import onnx
import pytest

import masktool
from masktool import MasktoolError, demo, load
from runtime.models import make_images, make_masks, write_model

PATIENCE = 60.0
N_FORKS = 6
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@pytest.fixture
def path(tmp_path):
    return write_model(tmp_path / "model.onnx")


@pytest.fixture
def session(path):
    with load(path, "cpu", threads=2) as opened:
        yield opened


def scores_of(session):
    return session.scores(make_images(2), make_masks(2))


def test_pickled_as_a_path_and_opened_again(session):
    written = pickle.dumps(session)
    assert len(written) < 1000
    with pickle.loads(written) as again:
        assert again.path == session.path.absolute()
        assert (again.threads, again.providers) == (2, session.providers)
        np.testing.assert_array_equal(scores_of(again), scores_of(session))
        assert again.forward_passes == 2 * 1


def test_a_copy_is_open_on_its_own(session):
    with copy.copy(session) as again:
        assert again is not session
    assert scores_of(session).shape == (2, 3)


def test_a_relative_path_is_pickled_as_an_absolute_one(path, monkeypatch, tmp_path):
    monkeypatch.chdir(path.parent)
    with load("model.onnx", "cpu") as session:
        written = pickle.dumps(session)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pickle.loads(written) as again:
        assert scores_of(again).shape == (2, 3)


def test_what_was_asked_for_is_pickled_not_what_it_became(path):
    with load(path, "auto") as session:
        _, (_, recipe), _ = session.__reduce__()
    assert (recipe.providers, recipe.threads, recipe.provider_options) == ("auto", None, None)


def test_a_file_that_is_not_there_is_named(session, path):
    written = pickle.dumps(session)
    path.unlink()
    with pytest.raises(MasktoolError, match=r"the model of a pickled session is not there \(.*model\.onnx\)"):
        pickle.loads(written)


def test_another_file_at_the_path_is_refused(session, path):
    written = pickle.dumps(session)
    write_model(path, channels=4)
    with pytest.raises(MasktoolError, match="another one than that of the pickled session"):
        pickle.loads(written)


def test_a_copied_file_is_the_same(session, path):
    written = pickle.dumps(session)
    moved = path.with_name("moved.onnx")
    shutil.move(path, moved)
    time.sleep(0.01)
    path.write_bytes(moved.read_bytes())
    with pickle.loads(written) as again:
        np.testing.assert_array_equal(scores_of(again), scores_of(session))


def test_other_weights_beside_the_file_are_refused(tmp_path):
    model = onnx.load(demo.model_path())
    target = tmp_path / "beside.onnx"
    onnx.save(model, target, save_as_external_data=True, location="beside.onnx.data")
    weights = tmp_path / "beside.onnx.data"
    with load(target, "cpu") as session:
        written = pickle.dumps(session)
        changed = bytearray(weights.read_bytes())
        changed[-1] ^= 1
        time.sleep(0.01)
        weights.write_bytes(changed)
        with pytest.raises(MasktoolError, match="has changed or gone since it was opened"):
            pickle.dumps(session)
    with pytest.raises(MasktoolError, match="another one than that of the pickled session"):
        pickle.loads(written)


def test_a_closed_session_is_not_pickled(path):
    session = load(path, "cpu")
    session.close()
    with pytest.raises(MasktoolError, match="the session is closed"):
        pickle.dumps(session)


def test_spawned_processes_get_it(session):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map_async(scores_of, [session, session]).get(PATIENCE)
    for each in found:
        np.testing.assert_array_equal(each, scores_of(session))


def run_forked(work):
    """Returns the exit code of a forked process that does some work; it is killed if it hangs."""
    child = os.fork()
    if not child:
        try:
            code = work() or 0
        except BaseException:
            code = 99
        os._exit(code)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"


@pytest.fixture
def large(session):
    """The built-in network, whose convolutions use ONNX Runtime's own threads."""
    with load(demo.model_path(), "cpu", threads=2) as opened:
        yield opened


@needs_fork
def test_a_forked_process_opens_the_file_again(large):
    image = np.zeros((4, 3, 64, 64), np.float32)
    expected = large.scores(image)

    def work():
        found = large.scores(image)
        large.close()
        return 0 if np.array_equal(found, expected) else 1

    assert run_forked(work) == 0
    assert np.array_equal(large.scores(image), expected)  # the parent's own goes on


@needs_fork
def test_forks_while_other_threads_run_the_session(large):
    image = np.zeros((4, 3, 64, 64), np.float32)
    expected, over = large.scores(image), threading.Event()

    def go_on():
        while not over.is_set():
            large.scores(image)

    threads = [threading.Thread(target=go_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        ends = [run_forked(lambda: not np.array_equal(large.scores(image), expected)) for _ in range(N_FORKS)]
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert ends == [0] * N_FORKS


@needs_fork
def test_what_stands_beside_is_not_taken_along(session):
    held = session.beside["held"] = object()
    assert run_forked(lambda: 0 if session.beside == {} else 1) == 0
    assert session.beside == {"held": held}


@needs_fork
def test_forks_of_multiprocessing(large):
    image = np.zeros((4, 3, 64, 64), np.float32)
    expected = large.scores(image)
    context = multiprocessing.get_context("fork")
    with context.Pool(2, initializer=_INHERITED.append, initargs=(large,)) as pool:
        found = pool.map_async(score_inherited, [image] * 4).get(PATIENCE)
    for each in found:
        np.testing.assert_array_equal(each, expected)


_INHERITED = []


def score_inherited(image):
    return _INHERITED[-1].scores(image)


@needs_fork
def test_a_forked_process_that_ends_as_programs_do_ends():
    """It would free the session of the parent, whose threads it would wait for."""
    program = """
import os, sys, numpy as np, masktool
from masktool import demo
session = masktool.load(demo.model_path(), "cpu", threads=2)
session.scores(np.zeros((4, 3, 64, 64), np.float32))
child = os.fork()
if child == 0:
    if sys.argv[1] == "used":
        session.scores(np.zeros((4, 3, 64, 64), np.float32))
    del session
    sys.exit(0)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""
    for how in ("used", "unused"):
        command = [sys.executable, "-W", "ignore", "-c", program, how]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)


@needs_fork
def test_a_closed_session_stays_closed_in_a_fork(session):
    session.close()

    def work():
        try:
            scores_of(session)
        except MasktoolError as error:
            return 0 if error.what == "the session is closed" else 1
        return 2

    assert run_forked(work) == 0


@needs_fork
def test_on_another_provider_a_fork_refuses(session):
    session.providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def work():
        try:
            scores_of(session)
        except MasktoolError as error:
            return 0 if "forked" in error.what and "spawn" in error.fix else 1
        return 2

    assert run_forked(work) == 0


@needs_fork
def test_a_fork_refuses_another_file(session, path):
    time.sleep(0.01)
    write_model(path, channels=4)

    def work():
        try:
            scores_of(session)
        except MasktoolError as error:
            return 0 if "has changed" in error.what else 1
        return 2

    assert run_forked(work) == 0


def test_errors_travel_between_processes():
    error = MasktoolError("what", where="where", expected=1, got=2, fix="fix")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert masktool.MasktoolError is type(pickle.loads(pickle.dumps(error)))
