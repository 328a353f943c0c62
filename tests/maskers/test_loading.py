"""Batches repeat whatever reads them, and crops are what the published rule says."""

import signal
import subprocess
import sys
import textwrap
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from masktool import MasktoolError  # noqa: E402  # what follows needs torch
from masktool.contract import Preprocessing  # noqa: E402
from masktool.datasets.examples import Example  # noqa: E402
from masktool.maskers import loading  # noqa: E402
from masktool.maskers.loading import augment, choose_crop, list_keys, load_batches, steps_per_epoch  # noqa: E402
from masktool.runtime import prepare, read_image  # noqa: E402

PREPROCESSING = Preprocessing((8, 10), resize_to=12, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
N, BATCH, SEED = 11, 3, 5
STEPS = 4
"""Batches per epoch."""
SIGNALS_TIMEOUT = 120
"""Seconds for a process that imports torch and reads small pictures; it takes 5 on an idle machine."""


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    found = []
    for i in range(N):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 40 - i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
        found.append(Example(f"{i:02}.png", folder / f"{i:02}.png", i % 3))
    return found


def load(examples, preprocessing=PREPROCESSING, **changes):
    options = {"seed": SEED, "batch": BATCH, "min_crop": 0.08, "flip": True, "workers": 0}
    steps = {"first_step": 0, "last_step": 2 * STEPS}
    return list(load_batches(examples, preprocessing, **(options | steps | changes)))


def assert_equal(left, right):
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def prepared(example, preprocessing=PREPROCESSING):
    return prepare(read_image(example.path), preprocessing).array[0]


@pytest.mark.parametrize(
    ("n", "batch", "sizes"),
    [
        (9, 3, [3, 3, 3]),
        (11, 3, [3, 3, 3, 2]),
        (10, 3, [3, 3, 4]),
        (4, 3, [4]),
        (2, 3, [2]),
        (1, 3, [1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_no_picture_is_left_alone_and_every_one_comes_once_an_epoch(n, batch, sizes):
    assert steps_per_epoch(n, batch) == len(sizes)
    keys = list(list_keys(n, batch, 0, 0, 3 * len(sizes)))
    assert [len(numbers) for _, numbers in keys] == 3 * sizes
    for epoch in range(3):
        assert sorted(i for e, numbers in keys if e == epoch for i in numbers) == list(range(n))


def test_an_epoch_has_an_order_of_its_own():
    keys = list(list_keys(50, 10, 0, 0, 10))
    first, second = ([i for e, numbers in keys if e == epoch for i in numbers] for epoch in (0, 1))
    assert first != second
    assert list(range(50)) not in (first, second)
    assert list(list_keys(50, 10, 1, 0, 10)) != keys
    assert list(list_keys(50, 10, 0, 0, 10)) == keys


def test_batches_do_not_depend_on_where_a_run_began(examples):
    whole = load(examples, last_step=10)
    for first in (1, 4, 7):
        assert_equal(load(examples, first_step=first, last_step=10), whole[first:])


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_batches_do_not_depend_on_the_workers(examples, first, shared, monkeypatch):
    alone = load(examples, first_step=first)
    monkeypatch.setattr(loading, "fits_shared_memory", lambda _: shared)
    assert_equal(load(examples, first_step=first, workers=2), alone)


def test_batches_depend_on_the_seed_and_leave_torchs_own_draws_alone(examples):
    before = torch.random.get_rng_state()
    batches = load(examples)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(load(examples, seed=SEED + 1)[0].images, batches[0].images)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("order", ["RGB", "BGR", "L"])
def test_a_crop_of_1_is_what_the_classifier_is_run_on(examples, layout, order):
    channels = 1 if order == "L" else 3
    options = {"channel_order": order, "mean": PREPROCESSING.mean[:channels], "std": PREPROCESSING.std[:channels]}
    preprocessing = Preprocessing((8, 10), resize_to=12, layout=layout, **options)
    plain = Preprocessing((8, 10), resize_to=12, **options)
    for min_crop in (1, 0.5):
        batches = load(examples, preprocessing, min_crop=min_crop, last_step=STEPS)
        assert [tuple(batch.images.shape) for batch in batches] == [(n, channels, 8, 10) for n in (3, 3, 3, 2)]
    batches = load(examples, preprocessing, min_crop=1, flip=False, last_step=STEPS)
    for batch, (_, numbers) in zip(batches, list_keys(N, BATCH, SEED, 0, STEPS), strict=True):
        for image, number in zip(batch.images, numbers, strict=True):
            assert np.array_equal(image, prepared(examples[number], plain))


def test_labels_belong_to_their_pictures(examples):
    label_of = {prepared(example).tobytes(): example.label for example in examples}
    for batch in load(examples, min_crop=1, flip=False):
        assert (batch.images.dtype, batch.labels.dtype) == (torch.float32, torch.int64)
        assert [label_of[image.numpy().tobytes()] for image in batch.images] == batch.labels.tolist()


def test_half_of_the_pictures_are_mirrored_anew_each_epoch(examples):
    plain = {prepared(example).tobytes() for example in examples}
    mirrored = {prepared(example)[:, :, ::-1].tobytes() for example in examples}
    batches = load(examples, min_crop=1, last_step=40 * STEPS)
    images = [image.numpy().tobytes() for batch in batches for image in batch.images]
    n_mirrored = sum(image in mirrored for image in images)
    assert n_mirrored + sum(image in plain for image in images) == len(images) == 40 * N
    assert abs(n_mirrored / len(images) - 0.5) < 4 * 0.5 / len(images) ** 0.5  # four standard errors
    assert len({frozenset(images[i * N : (i + 1) * N]) for i in range(40)}) > 30


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (64, 64)])
@pytest.mark.parametrize("min_area", [0.08, 0.5])
def test_crops_have_the_published_areas_and_ratios(size, min_area):
    rng = np.random.default_rng(0)
    left, top, right, bottom = np.array([choose_crop(size, min_area, rng) for _ in range(4000)]).T
    w, h = right - left, bottom - top
    assert min(left.min(), top.min()) == 0
    assert (right.max(), bottom.max()) == size
    half_pixel = 0.5 / np.minimum(w, h)  # sides are rounded to whole pixels
    area, ratio = w * h / (size[0] * size[1]), w / h
    assert (area >= min_area * (1 - 3 * half_pixel)).all()
    assert (np.abs(np.log(ratio)) <= np.log(4 / 3) + 3 * half_pixel).all()
    assert area.min() < min_area + 0.01
    assert area.max() > 0.95
    assert ratio.min() < 0.77
    assert ratio.max() > 1.3


def test_small_crops_are_uniform_in_area_place_and_log_ratio():
    """Where every draw fits, the first try counts, and nothing distorts its distribution."""
    rng = np.random.default_rng(0)
    n, limit = 4000, 0.3
    boxes = []
    while len(boxes) < n:
        left, top, right, bottom = choose_crop((1000, 1000), 0.01, rng)
        if (right - left) * (bottom - top) <= limit * 1e6:  # sides of at most 632: always fits
            boxes.append((left, top, right, bottom))
    left, top, right, bottom = np.array(boxes).T
    w, h = right - left, bottom - top
    area, log_ratio = (w * h / 1e6 - 0.01) / (limit - 0.01), np.log(w / h) / np.log(4 / 3) / 2 + 0.5
    for share in (area, log_ratio, left / (1000 - w), top / (1000 - h)):
        counts, _ = np.histogram(share, bins=10, range=(-0.001, 1.001))
        assert np.abs(counts - n / 10).max() < 5 * (n / 10) ** 0.5  # five standard deviations


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((1000, 10), (493, 0, 506, 10)),
        ((10, 1000), (0, 493, 10, 506)),
        ((1000, 1), (499, 0, 500, 1)),
        ((1, 1000), (0, 499, 1, 500)),
    ],
)
def test_where_no_crop_fits_it_is_the_middle(size, box):
    assert choose_crop(size, 0.9, np.random.default_rng(0)) == box


def test_one_pixel_and_whole_pictures_can_be_cropped():
    rng = np.random.default_rng(0)
    assert {choose_crop((1, 1), 0.08, rng) for _ in range(50)} == {(0, 0, 1, 1)}
    assert (0, 0, 64, 64) in {choose_crop((64, 64), 0.99, rng) for _ in range(200)}


def test_crops_visit_every_pixel():
    visits = np.zeros((9, 12), dtype=int)
    rng = np.random.default_rng(0)
    for _ in range(500):
        left, top, right, bottom = choose_crop((12, 9), 0.08, rng)
        visits[top:bottom, left:right] += 1
    assert visits.min() > 20


def test_crops_of_a_corner_coloured_picture_show_every_corner():
    corners = np.zeros((40, 40, 3), dtype=np.uint8)
    corners[:20, :20], corners[:20, 20:], corners[20:, :20], corners[20:, 20:] = 50, 100, 150, 200
    plain = Preprocessing((16, 16), resize_to=16, interpolation="nearest", scale=1.0)
    seen, whole = Counter(), 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        image = augment(Image.fromarray(corners), plain, rng, min_crop=0.08, flip=False)
        found = set(image.ravel().tolist())
        seen.update(found)
        whole += len(found) == 4
    assert set(seen) == {50, 100, 150, 200}
    assert min(seen.values()) > 100
    assert 0.73 * 300 < whole < 300  # an area above a third has both sides above half, and shows all four


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_a_crop_is_resized_as_the_preprocessing_says(examples, interpolation):
    image = read_image(examples[0].path)
    preprocessing = Preprocessing((8, 10), resize_to=12, interpolation=interpolation, channel_order="BGR")
    box = choose_crop(image.size, 0.3, np.random.default_rng(3))
    resized = image.crop(box).resize((10, 8), Image.Resampling[interpolation.upper()])
    expected = np.asarray(resized).transpose(2, 0, 1)[::-1] / 255
    array = augment(image, preprocessing, np.random.default_rng(3), min_crop=0.3, flip=False)
    np.testing.assert_allclose(array, expected, rtol=1e-6)  # rounding of float32


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_picture_is_one_line_that_names_it(examples, tmp_path, workers):
    broken = tmp_path / "broken.png"
    broken.write_bytes(examples[0].path.read_bytes()[:-400])
    with pytest.raises(MasktoolError) as caught:
        load([*examples, Example("broken.png", broken, 0)], workers=workers, last_step=STEPS)
    assert str(caught.value).startswith(f"damaged or truncated image ({broken}): ")
    assert "Traceback" not in str(caught.value)
    assert "worker" not in str(caught.value)


def test_a_preprocessing_that_does_not_fit_is_said_from_a_worker_too(examples):
    with pytest.raises(MasktoolError, match=r"^preprocessing does not fit the channels \(mean\): expected 3 values"):
        load(examples, Preprocessing((8, 10), resize_to=12, mean=(0.0,), std=(1.0,)), workers=1)


def test_shared_memory_must_hold_all_batches_on_their_way_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda _: SimpleNamespace(free=50))
    assert loading.fits_shared_memory(25)
    assert not loading.fits_shared_memory(26)
    monkeypatch.setattr(loading, "SHARED_MEMORY", tmp_path / "none")
    assert loading.fits_shared_memory(10**15)


PROGRAM = """
    import os, signal, sys
    from pathlib import Path
    from PIL import Image
    from masktool.contract import Preprocessing
    from masktool.datasets.examples import Example
    from masktool.maskers.loading import load_batches

    def load(workers):
        examples = [Example(name, Path("a.png"), 0) for name in "abcd"]
        return load_batches(
            examples, Preprocessing((8, 8), resize_to=8), seed=0, batch=2, min_crop=1, flip=False, workers=workers,
            first_step=0, last_step=1000,
        )

    Image.new("RGB", (9, 9)).save("a.png")
    batches = load(2)
    next(batches)
    got = []  # what workers that are running inherit no more
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: got.append(number))
    os.killpg(0, int(sys.argv[1]))
    print(sum(1 for _ in batches), *map(int, got), flush=True)
    left = load(1)
    next(left)  # a program that ends while batches are left must end its workers
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no process groups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_is_left_to_the_parent(tmp_path, number):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    done = subprocess.run(
        [sys.executable, "program.py", str(int(number))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SIGNALS_TIMEOUT,
        start_new_session=True,
        check=False,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["999", str(int(number))], "")
