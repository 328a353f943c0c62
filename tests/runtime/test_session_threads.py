"""One session, many threads: everybody gets what he would get alone, and a session that is closed says so."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from combinations import quickly

import masktool
from masktool import MasktoolError, demo, load
from masktool.explainers.incremental import KeptModels
from masktool.interface import explain as explaining
from masktool.runtime.heads import open_head
from masktool.runtime.measured_batch import measure_batch_size
from masktool.runtime.native_log import native_stderr

N_THREADS = 8
ROUNDS = 2
SIZE = (64, 64)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The built-in network with gradients and the layers behind a feature map."""
    pytest.importorskip("torch")
    target = tmp_path_factory.mktemp("threads") / "shapes.onnx"
    with load(demo.model_path(), "cpu") as shipped:
        preprocessing = shipped.metadata.preprocessing
    masktool.export(demo.program_path(), target, gradient="logit", head="last", preprocessing=preprocessing)
    return target


@pytest.fixture
def session(path):
    with load(path, "cpu", threads=1) as opened:
        yield opened


def make_image(number):
    return np.random.default_rng(number).standard_normal((1, 3, *SIZE)).astype(np.float32)


def make_masks(number):
    return np.random.default_rng(number).integers(0, 2, (1 + number % 5, 1, *SIZE)).astype(np.float32)


def explanation_by(method, **options):
    def explain(session, number):
        photograph = np.random.default_rng(number).integers(0, 256, (80, 64, 3), dtype=np.uint8)
        found = masktool.explain(session, photograph, method, seed=number, **options)
        return [found.attributions, np.array([found.forward_passes, found.score])]

    return explain


def gradients(session, number):
    found = session.gradient(make_image(number), make_masks(number), target=number % 8, of=["image", "mask"])
    return [found.scores, found.image, found.mask]


CALLS = [
    lambda session, number: [session(make_image(number))],
    lambda session, number: list(session.run(make_image(number), make_masks(number)).values()),
    lambda session, number: [session.scores(make_image(number), make_masks(number))],
    gradients,
    lambda session, number: list(session.masked_scores(make_image(number), [make_masks(number), make_masks(3)])),
    explanation_by("lime", n_samples=40, segments="grid", n_segments=16),
    explanation_by("rise", n_samples=24),
    explanation_by("occlusion", sliding_window_shapes=24, strides=20),
    explanation_by("recipro-cam"),
    explanation_by("integrated-gradients", n_samples=4),
]
WORK = [(call, number) for number in range(ROUNDS) for call in CALLS]


def test_threads_get_what_one_alone_gets(session, path):
    alone = [call(session, number) for call, number in WORK]
    passes = session.forward_passes
    with load(path, "cpu", threads=1) as shared, ThreadPoolExecutor(N_THREADS) as pool:
        start = threading.Barrier(N_THREADS)
        list(pool.map(lambda _: start.wait(30), range(N_THREADS)))  # so that the first calls meet
        together = list(pool.map(lambda each: each[0](shared, each[1]), WORK, timeout=120))
        assert shared.forward_passes == passes
    for expected, found in zip(alone, together, strict=True):
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(other, one)


def test_what_stands_beside_is_made_once(session):
    def meet(work):
        barrier = threading.Barrier(N_THREADS)

        def do(_):
            barrier.wait(30)
            return work()

        with ThreadPoolExecutor(N_THREADS) as pool:
            return list(pool.map(do, range(N_THREADS), timeout=120))

    assert len({id(head) for head in meet(lambda: open_head(session))}) == 1
    assert len({id(trials) for trials in meet(lambda: measure_batch_size(session, make_image(0)))}) == 1


def test_models_of_windows_are_made_once(session, monkeypatch):
    """As for large networks: with estimates that find every file worth it."""
    made = []
    graphs_for = explaining.graphs_for

    def find_worth_it(opened):
        graphs = graphs_for(opened)

        def write(*arguments):
            made.append(arguments)
            return graphs.write_incremental(*arguments)

        return graphs._replace(write_incremental=write, least_saved=0, saved_per_byte=0, least_bytes=0)

    monkeypatch.setattr(explaining, "graphs_for", find_worth_it)
    occlusion = explanation_by("occlusion", sliding_window_shapes=16, strides=16)
    alone = [occlusion(session, number) for number in range(4)]
    assert len(made) == 1
    session.beside.clear()
    with ThreadPoolExecutor(N_THREADS) as pool:
        together = list(pool.map(lambda number: occlusion(session, number), range(4), timeout=120))
    assert len(made) == 2
    assert len(session.beside[KeptModels.__name__]) == 1
    for expected, found in zip(alone, together, strict=True):
        np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize("call", quickly([CALLS[0], CALLS[3], CALLS[5]], CALLS))
def test_a_session_that_is_closed_meanwhile_says_so(path, call):
    session = load(path, "cpu", threads=1)
    ended = []

    def go_on():
        for number in range(10_000):
            try:
                call(session, number)
            except MasktoolError as error:
                ended.append(error)
                return

    threads = [threading.Thread(target=go_on) for _ in range(N_THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    session.close()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert {error.what for error in ended} == {"the session is closed"}
    assert len(ended) == N_THREADS
    assert not session.beside


def test_threads_that_collect_native_messages_give_descriptor_2_back(capfd):
    def collect(_):
        with native_stderr():
            time.sleep(0.01)

    with ThreadPoolExecutor(N_THREADS) as pool:
        list(pool.map(collect, range(32), timeout=60))
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"
