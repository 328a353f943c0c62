"""MaskedSession: what goes in is checked, what comes out is right, and the file is opened once."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import helper

from masktool import MaskedSession, MasktoolError, load
from masktool.runtime import batching
from runtime.models import CLASSES, SIZE, make_images, make_masks, make_metadata, write_model


@pytest.fixture
def session(tmp_path):
    with load(write_model(tmp_path / "model.onnx"), providers="cpu", threads=1) as opened:
        yield opened


def sums(images, masks):
    return (images * masks).sum(axis=(2, 3))


def test_call_without_mask_is_the_original(session):
    images = make_images(3)
    np.testing.assert_allclose(session(images), sums(images, 1), rtol=1e-5, atol=1e-5)
    assert np.array_equal(session(images), session(images, np.ones((1, 1, *SIZE))))


@pytest.mark.parametrize(("n_images", "n_masks"), [(1, 1), (1, 5), (5, 1), (4, 4)])
def test_batches_broadcast(session, n_images, n_masks):
    images, masks = make_images(n_images), make_masks(n_masks)
    result = session(images, masks)
    assert result.dtype == np.float32
    assert result.shape == (max(n_images, n_masks), CLASSES)
    np.testing.assert_allclose(result, sums(images, masks), rtol=1e-5, atol=1e-5)
    assert session.forward_passes == max(n_images, n_masks)


def test_run_gives_every_output(session):
    outputs = session.run(make_images(2), make_masks(2))
    assert list(outputs) == ["logits", "twice"] == session.output_names
    np.testing.assert_array_equal(outputs["twice"], 2 * outputs["logits"])


def test_masked_scores_equal_single_runs_and_read_lazily(session):
    image, masks, read = make_images(1), make_masks(7), []

    def batches():
        for start in (0, 4):
            read.append(start)
            yield masks[start : start + 4]

    results = session.masked_scores(image, batches())
    first = next(results)
    assert read == [0]
    together = np.concatenate([first, *results])
    singly = np.concatenate([session.scores(image, mask[None]) for mask in masks])
    np.testing.assert_allclose(together, singly, rtol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-6)


def test_masked_scores_takes_one_image(session):
    with pytest.raises(MasktoolError, match=r"too many images \(input 'image'\): expected one, got 2"):
        next(session.masked_scores(make_images(2), [make_masks(1)]))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("logits", [[0.25, 0.75]]),
        ("probabilities", [[0, np.log(3)]]),
        ("sigmoid", [[0, np.log(3)]]),
        (None, [[0, np.log(3)]]),
    ],
)
def test_scores_follow_the_output_kind(tmp_path, kind, expected):
    path = write_model(tmp_path / "model.onnx", size=(1, 1), channels=2, output_kind=kind)
    with load(path, "cpu") as session:
        scores = session.scores(np.array([0, np.log(3)], np.float32).reshape(1, 2, 1, 1))
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert scores.dtype == np.float32


def test_one_binary_logit_becomes_two_columns(tmp_path):
    path = write_model(tmp_path / "model.onnx", size=(1, 1), channels=1, output_kind="binary")
    with load(path, "cpu") as session:
        scores = session.scores(np.array([np.log(3), -200, 200], np.float32).reshape(3, 1, 1, 1))
    np.testing.assert_allclose(scores, [[0.25, 0.75], [1, 0], [0, 1]], atol=1e-6)


def test_trailing_axes_are_dropped(tmp_path):
    with load(write_model(tmp_path / "model.onnx", trailing_axes=True), "cpu") as session:
        images = make_images(2)
        assert session.run(images)["logits"].shape == (2, CLASSES, 1, 1)
        assert session(images).shape == (2, CLASSES)


def test_nhwc_and_required_mask(tmp_path):
    path = write_model(tmp_path / "model.onnx", layout="NHWC", mask_required=True)
    images, masks = make_images(1), make_masks(3)
    with load(path, "cpu") as session:
        assert session.mask_required
        assert (session.layout, session.spatial_shape) == ("NHWC", SIZE)
        np.testing.assert_allclose(
            session(images.transpose(0, 2, 3, 1), masks), sums(images, masks), rtol=1e-5, atol=1e-5
        )
        np.testing.assert_allclose(session(images.transpose(0, 2, 3, 1)), sums(images, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_layout_without_preprocessing_is_read_off_the_mask(tmp_path, layout):
    path = write_model(tmp_path / "model.onnx", layout=layout, preprocessing=None)
    with load(path, "cpu") as session:
        assert session.layout == layout


def test_dynamic_size(tmp_path):
    path = write_model(tmp_path / "model.onnx", size=("H", "W"), mask_required=True)
    with load(path, "cpu") as session:
        assert session.input_shape == (None, CLASSES, None, None)
        images, masks = make_images(1, size=(5, 4)), make_masks(2, size=(5, 4))
        np.testing.assert_allclose(session(images, masks), sums(images, masks), rtol=1e-5, atol=1e-5)
        with pytest.raises(
            MasktoolError, match=r"wrong shape \(input 'mask'\): expected \(M, 1, 5, 4\), got \(1, 1, 8, 10\)"
        ):
            session(images, make_masks(1))


def test_half_precision_file_takes_and_gives_float32(tmp_path):
    path = write_model(tmp_path / "model.onnx", dtype=onnx.TensorProto.FLOAT16)
    with load(path, "cpu") as session:
        images, masks = make_images(1), make_masks(2)
        result = session(images, masks)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, sums(images, masks), atol=0.05)  # fp16 has 3 digits, the sums reach 20


BAD_INPUTS = [
    (np.zeros((1, 3, *SIZE), np.uint8), None, r"wrong dtype \(input 'image'\): expected float32, got uint8; scale and"),
    (
        np.zeros((3, *SIZE), np.float32),
        None,
        r"wrong rank .* expected \(N, 3, 8, 10\), got \(3, 8, 10\); add a batch axis",
    ),
    (np.zeros((1, 1, 3, *SIZE), np.float32), None, r"wrong rank \(input 'image'\)"),
    (np.zeros((1, 4, *SIZE), np.float32), None, r"wrong shape .* expected \(N, 3, 8, 10\), got \(1, 4, 8, 10\)"),
    (np.zeros((1, 3, 10, 8), np.float32), None, r"wrong shape .* expected \(N, 3, 8, 10\), got \(1, 3, 10, 8\)"),
    (np.zeros((0, 3, *SIZE), np.float32), None, r"wrong shape .* got \(0, 3, 8, 10\)"),
    ("cat.jpg", None, r"wrong dtype \(input 'image'\)"),
    (
        make_images(),
        np.zeros((1, 1, *SIZE), complex),
        r"wrong dtype \(input 'mask'\): expected float32, got complex128",
    ),
    (
        make_images(),
        np.zeros(SIZE, np.float32),
        r"wrong rank \(input 'mask'\): expected \(M, 1, 8, 10\), got \(8, 10\)",
    ),
    (
        make_images(),
        np.zeros((1, 3, *SIZE)),
        r"wrong shape \(input 'mask'\): expected \(M, 1, 8, 10\), got \(1, 3, 8, 10\)",
    ),
    (make_images(), np.zeros((0, 1, *SIZE)), r"wrong shape \(input 'mask'\)"),
    (make_images(), np.full((1, 1, *SIZE), 1.5), r"mask values out of range .* in \[0, 1\], got 1.5 to 1.5"),
    (make_images(), np.full((1, 1, *SIZE), -0.1), r"mask values out of range"),
    (make_images(), np.full((1, 1, *SIZE), 255, np.uint8), r"mask values out of range .* got 255 to 255"),
    (make_images(), np.full((1, 1, *SIZE), np.nan), r"mask values out of range .* got nan to nan"),
    (make_images(), np.full((1, 1, *SIZE), np.inf), r"mask values out of range"),
    (
        make_images(2),
        make_masks(3),
        r"batches do not go together \(2 images, 3 masks\): expected equal numbers, or one",
    ),
]


@pytest.mark.parametrize(("images", "masks", "message"), BAD_INPUTS)
def test_bad_input_is_named(session, images, masks, message):
    for call in (session, session.run, session.scores):
        with pytest.raises(MasktoolError, match=message) as caught:
            call(images, masks)
        assert "\n" not in str(caught.value)
    assert session.forward_passes == 0


def test_other_number_types_are_cast(session):
    images, masks = make_images(), make_masks()
    expected = session(images, masks)
    for kind in (bool, np.int64, np.float64):
        assert np.array_equal(session(images.astype(np.float64), masks.astype(kind)), expected)


def test_views_are_accepted(session):
    images = make_images(2)
    assert np.array_equal(session(images[:, :, ::-1, ::-1]), session(np.ascontiguousarray(images[:, :, ::-1, ::-1])))


def test_nan_in_the_image_is_left_to_the_mask(session):
    images = make_images()
    images[0, 0, 0, 0] = np.nan
    assert np.isnan(session(images)[0, 0])  # this model has no Where at its input


def test_no_class_output(tmp_path):
    with load(write_model(tmp_path / "model.onnx", class_output=None), "cpu") as session:
        assert set(session.run(make_images())) == {"logits", "twice"}
        with pytest.raises(MasktoolError, match=r"no class output .*model.onnx.*logits \(N, 3\).*use run"):
            session(make_images())


def test_closed_session(tmp_path):
    with load(write_model(tmp_path / "model.onnx"), "cpu") as session:
        pass
    with pytest.raises(MasktoolError, match="the session is closed"):
        session(make_images())
    session.close()


def test_attributes(session, tmp_path):
    assert isinstance(session, MaskedSession)
    assert session.path == tmp_path / "model.onnx"
    assert session.metadata == make_metadata()
    assert session.input_shape == (None, 3, *SIZE)
    assert session.providers == ["CPUExecutionProvider"]
    assert session.announcement == "running on CPU"
    assert "model.onnx" in repr(session)


@pytest.mark.parametrize(
    ("size", "on_gpu", "expected"),
    [((224, 224), False, 8), ((224, 224), True, 64), ((64, 64), False, 16), ((8, 8), True, 256)],
)
def test_batch_size_bounds_memory(size, on_gpu, expected):
    assert batching.choose_batch_size(None, size, on_gpu=on_gpu) == expected


def test_a_file_with_gradients_takes_half_as_many_images(tmp_path):
    assert batching.choose_batch_size(None, (224, 224), on_gpu=True, with_gradients=True) == 64
    with MaskedSession(write_model(tmp_path / "large.onnx", size=(224, 224)), providers="cpu") as session:
        assert session.batch_size() == 8
        session.metadata = dataclasses.replace(session.metadata, gradient="logit")
        assert session.batch_size() == 4


def test_sessions_on_the_cpu_plan_no_memory(session):
    assert not session.runtime_session().get_session_options().enable_mem_pattern


def test_batch_size_of_a_session(session, tmp_path):
    assert session.batch_size() == session.batch_size(None) == batching.LARGEST_CPU_BATCH
    assert session.batch_size(3) == 3
    with pytest.raises(
        MasktoolError, match=r"option out of range \(requested\): expected a whole number from 1, got 0"
    ):
        session.batch_size(0)
    huge = batching.choose_batch_size(None, (5000, 5000), on_gpu=False)
    assert huge == 1
    assert batching.choose_batch_size(None, None, on_gpu=False) == 8


@pytest.mark.parametrize(
    ("provider", "expected"),
    [("CPU", 8), ("OpenVINO", 8), ("CUDA", 64), ("WebGpu", 64), ("QNN", 64)],
)
def test_the_batch_is_large_where_a_gpu_computes(tmp_path, provider, expected):
    """OpenVINO's provider loads on processors too, where a large batch takes memory and saves no time."""
    with MaskedSession(write_model(tmp_path / "large.onnx", size=(224, 224)), providers="cpu") as session:
        session.providers = [f"{provider}ExecutionProvider"]
        assert session.batch_size() == expected


def test_metadata_that_does_not_fit_the_graph(tmp_path):
    path = write_model(tmp_path / "model.onnx", image_input="pixels")
    with pytest.raises(MasktoolError, match=r"inputs do not agree with the metadata .* expected 'pixels' and 'mask'"):
        load(path, "cpu")


def test_newer_schema(tmp_path):
    path = write_model(tmp_path / "model.onnx")
    model = onnx.load(path)
    newer = dataclasses.replace(make_metadata(), schema_version=99)
    helper.set_model_props(model, newer.to_properties())
    onnx.save(model, path)
    with pytest.raises(MasktoolError, match="newer masktool"):
        load(path, "cpu")
