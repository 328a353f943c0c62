"""Files with gradients: passes that ask for none run without them, and give the same to the last bit."""

import pickle
import threading

import numpy as np
import onnx
import pytest
from networks.families import FAMILIES, HEAD
from networks.small_graphs import parse

import masktool
from masktool import MaskedSession, MasktoolError, explain, load
from masktool.interface.load import write_half
from masktool.runtime import score_half
from masktool.runtime.score_half import BESIDE
from runtime.models import make_masks

SIDE = 12
BATCHES = [(1, None), (1, 3), (4, 4), (2, 1)]


@pytest.fixture
def at_once(monkeypatch):
    """The half is opened after the first pass, however short it was."""
    monkeypatch.setattr(score_half, "LEAST_SECONDS", 0)
    monkeypatch.setattr(score_half, "SECONDS_PER_BYTE", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def write_family(folder, name):
    path = folder / f"{name}.onnx"
    if not path.exists():
        masktool.export(parse(HEAD + FAMILIES[name].strip()), path, output_kind="logits", gradient="logit")
    return path


@pytest.fixture(scope="module")
def path(folder):
    return write_family(folder, "residual" if "residual" in FAMILIES else next(iter(FAMILIES)))


def draw(images):
    return np.random.default_rng(images).standard_normal((images, 3, SIDE, SIDE)).astype(np.float32)


def masks_of(count):
    return None if count is None else make_masks(count, size=(SIDE, SIDE))


def opened(path):
    return load(path, "cpu", threads=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_file_to_the_last_bit(folder, at_once, family):
    path = write_family(folder, family)
    with opened(path) as session, MaskedSession(path, providers="cpu", threads=1) as whole:
        session(draw(1))
        assert session.beside[BESIDE].is_open
        for images, masks in BATCHES:
            found, expected = (each.run(draw(images), masks_of(masks)) for each in (session, whole))
            assert [each.tobytes() for each in found.values()] == [each.tobytes() for each in expected.values()]
        assert not whole.beside  # nobody told it how


def test_the_half_holds_nothing_of_the_gradients(path):
    model = onnx.load_from_string(write_half(path, ["logits"]))
    assert {value.name for value in model.graph.input} == {"image", "mask"}
    assert [value.name for value in model.graph.output] == ["logits"]
    assert len(model.graph.node) < len(onnx.load(path).graph.node)


def test_gradients_come_from_the_file_and_open_no_half(path, at_once):
    with opened(path) as session:
        before = session.gradient(draw(2), masks_of(2), target=1, of=("image", "mask"))
        assert not session.beside
        session(draw(1))
        assert session.beside[BESIDE].is_open
        after = session.gradient(draw(2), masks_of(2), target=1, of=("image", "mask"))
        assert before.image.tobytes() == after.image.tobytes()
        assert before.mask.tobytes() == after.mask.tobytes()
        assert session.forward_passes == 5  # the pass that compares both is nobody's


def test_few_short_passes_open_no_half(path):
    with opened(path) as session:
        for _ in range(3):
            session(draw(1))
        assert not session.beside[BESIDE].is_open


def test_a_half_that_gives_other_numbers_is_not_taken(folder, path, at_once, caplog):
    other = write_family(folder, next(name for name in FAMILIES if folder / f"{name}.onnx" != path))
    caplog.set_level("INFO")
    with opened(path) as session, MaskedSession(path, providers="cpu", threads=1) as whole:
        session.write_half = lambda _, outputs: write_half(other, outputs)
        for _ in range(2):
            assert session(draw(2)).tobytes() == whole(draw(2)).tobytes()
        assert not session.beside[BESIDE].is_open
    assert caplog.text.count("are not made faster") == 1
    assert "it gives other numbers" in caplog.text


def test_a_half_that_gives_other_numbers_in_another_batch_is_left_again(path, at_once, caplog):
    """Kernels are chosen by shapes: what was the same for one image is compared again for four."""
    caplog.set_level("INFO")
    with opened(path) as session, MaskedSession(path, providers="cpu", threads=1) as whole:
        session(draw(1))
        half = session.beside[BESIDE]
        model = half._model

        half._model = lambda outputs, values: [each + (len(each) == 4) for each in model(outputs, values)]
        for count in (1, 4, 4, 1):
            assert session(draw(count)).tobytes() == whole(draw(count)).tobytes()
        assert not half.is_open
    assert caplog.text.count("it gives other numbers") == 1


def test_a_half_that_cannot_be_opened_changes_nothing(path, at_once, caplog):
    caplog.set_level("INFO")
    with opened(path) as session:
        session.write_half = lambda *_: b"no model"
        assert session(draw(2)).tobytes() == session(draw(2)).tobytes()
        assert not session.beside[BESIDE].is_open
    assert "are not made faster" in caplog.text


def test_it_is_opened_once_for_many_threads_and_freed_with_the_session(path, at_once):
    written, found, start = [], [], threading.Barrier(8)
    with opened(path) as session:

        def write(*arguments):
            written.append(arguments)
            return write_half(*arguments)

        def run():
            start.wait()
            found.extend(session(draw(2), masks_of(2)).tobytes() for _ in range(10))

        session.write_half = write
        threads = [threading.Thread(target=run) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert session.beside[BESIDE].is_open
        assert session.forward_passes == 160
    assert len(written) == 1
    assert len(found) == 80
    assert len(set(found)) == 1
    assert not session.beside


def test_a_pickled_session_opens_a_half_too(path, at_once):
    with opened(path) as session, pickle.loads(pickle.dumps(session)) as copy:
        assert copy(draw(1)).tobytes() == session(draw(1)).tobytes()
        assert copy.beside[BESIDE].is_open


def test_a_session_that_was_closed_while_the_half_was_opened_keeps_none(path, at_once):
    session = opened(path)

    def write(*arguments):
        session.close()
        return write_half(*arguments)

    session.write_half = write
    assert len(session(draw(2))) == 2
    assert not session.beside
    with pytest.raises(MasktoolError, match="the session is closed"):
        session(draw(2))


def test_explanations_by_scores_are_the_same(at_once):
    image = np.asarray(draw(1)[0] * 40 + 128).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    found = []
    for write in (write_half, None):
        with load(None, "cpu", threads=1, gradient=True) as session:
            session.write_half = write
            found.append(explain(session, image, "rise", n_samples=40))
            assert (BESIDE in session.beside) == (write is not None)
    assert found[0].attributions.tobytes() == found[1].attributions.tobytes()
    assert found[0].forward_passes == found[1].forward_passes
