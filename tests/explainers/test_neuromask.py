"""NeuroMask: its loss, its steps against torch, what it finds on pictures whose object is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from explainers.shapes_model import write_shapes_model
from masktool import MasktoolError, explain, explain_images, load
from masktool.demo import model_path, shapes
from masktool.demo.score import measure_iou
from masktool.explainers.hiding import HiddenParts
from masktool.explainers.methods.neuromask import (
    HALF,
    RANGE,
    SETTINGS,
    NeuroMask,
    draw_start,
    evaluate_maps,
    extend_inside,
    laplacian,
    laplacian_adjoint,
    map_terms,
)
from masktool.explainers.targets.class_target import SettledClass
from masktool.runtime.scores import sigmoid

STEPS = 3
PICTURES = shapes.draw(11, 24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("torch")
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture(scope="module")
def fill_session(folder):
    with load(write_shapes_model(folder / "fill.onnx", "fill"), "cpu", threads=1) as session:
        yield session


@pytest.fixture(scope="module")
def layer_session(folder):
    with load(write_shapes_model(folder / "layer.onnx", "layer"), "cpu", threads=1) as session:
        yield session


@pytest.mark.parametrize(("name", "energy"), [("imagenet", 20_000), ("cifar", 2_400)])
def test_roughness_at_the_start_is_the_published_one(name, energy):
    start = draw_start(0, (224, 224))[None]
    assert np.square(laplacian(start, SETTINGS[name].kernel_size)).mean() == pytest.approx(energy, rel=0.02)


def test_loss_at_the_start_is_the_published_one():
    terms = map_terms(draw_start(0, (224, 224))[None], SETTINGS["imagenet"])
    assert terms.losses[0] + 0.4 * 2.5 == pytest.approx(604.5, rel=0.02)  # a cross-entropy of 2.5 at random masks


@pytest.mark.parametrize("size", [3, 5])
def test_laplacian_is_its_definition(size):
    maps = np.random.default_rng(0).standard_normal((1, 1, 9, 8))
    kernel = -np.ones((size, size))
    kernel[size // 2, size // 2] = size**2 - 1
    expected = [
        [(maps[0, 0, row : row + size, column : column + size] * kernel).sum() for column in range(8 - size + 1)]
        for row in range(9 - size + 1)
    ]
    found = laplacian(maps, size)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-12, atol=1e-12)
    other = np.random.default_rng(1).standard_normal(found.shape)
    assert (found * other).sum() == pytest.approx((maps * laplacian_adjoint(other, size)).sum())


@pytest.mark.parametrize("name", SETTINGS)
def test_gradients_are_those_of_the_loss(name):
    random, setting = np.random.default_rng(0), SETTINGS[name]
    maps = random.uniform(-1.5 * RANGE, RANGE, (2, 1, 8, 9))
    found = map_terms(maps, setting).gradients
    for place in np.ndindex(maps.shape):
        change = np.zeros_like(maps)
        change[place] = 1e-4
        up, down = (map_terms(maps + sign * change, setting).losses[place[0]] for sign in (1, -1))
        assert found[place] == pytest.approx((up - down) / 2e-4, rel=1e-6, abs=1e-9)


def test_border_that_the_laplacian_leaves_rough_repeats_the_inside():
    masks = np.random.default_rng(0).random((2, 1, 9, 8)).astype(np.float32)
    found = extend_inside(masks, 2)
    assert (found[:, :, 2:-2, 2:-2] == masks[:, :, 2:-2, 2:-2]).all()
    assert (found[:, :, 0] == found[:, :, 2]).all()
    assert (found[..., -1] == found[..., -3]).all()


def test_sigmoid_does_not_overflow():
    with np.errstate(all="raise"):
        np.testing.assert_allclose(sigmoid(np.array([-1e4, 0.0, 2.0, 1e4])), [0, 0.5, 1 / (1 + np.exp(-2)), 1])


class TorchTwin:
    """The same loss and the same steps by torch's automatic differentiation."""

    def __init__(self, image, fill, target, setting):
        import torch

        from masktool.demo import program_path

        self.torch, self.setting = torch, setting
        self.network = torch.export.load(program_path()).module()
        self.image, self.fill, self.target = torch.from_numpy(image), torch.from_numpy(fill), torch.tensor([target])
        side = setting.kernel_size
        self.kernel = -torch.ones(1, 1, side, side)
        self.kernel[0, 0, side // 2, side // 2] = side**2 - 1

    def gradient(self, maps):
        functions, setting = self.torch.nn.functional, self.setting
        masks = self.torch.sigmoid(maps / setting.temperature)
        scores = self.network(self.image * masks + self.fill * (1 - masks))
        loss = setting.lambda_p * functions.cross_entropy(scores, self.target)
        loss = loss + setting.lambda_s * (maps + RANGE).abs().mean()
        loss = loss + setting.lambda_sp * functions.conv2d(maps, self.kernel).square().mean()
        return self.torch.autograd.grad(loss, maps)[0]

    def learn(self, start):
        maps = self.torch.from_numpy(start.copy()).requires_grad_()
        squares = self.torch.ones_like(maps)
        for _ in range(STEPS):
            gradient = self.gradient(maps)
            squares = 0.9 * squares + 0.1 * gradient**2
            with self.torch.no_grad():
                maps -= 0.03 * gradient / (squares + 1e-10).sqrt()
        return maps.detach().numpy()

    def learn_grid(self, start, size):
        grid = self.torch.from_numpy(start.copy()).requires_grad_()
        optimiser = self.torch.optim.RMSprop([grid], lr=0.1, alpha=0.9, eps=0)
        optimiser.state[grid] = {"step": self.torch.zeros(()), "square_avg": self.torch.full_like(grid, 1e-4)}
        slowing = self.torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0.05, total_iters=STEPS)
        for _ in range(STEPS):
            maps = self.torch.nn.functional.interpolate(grid, size, mode="bilinear", align_corners=False)
            of_maps = self.gradient(maps)
            grid.grad = self.torch.autograd.grad(maps, grid, of_maps)[0]
            optimiser.step()
            slowing.step()
        return grid.detach().numpy()


PUBLISHED = {"grid_size": None, "learning_rate": 0.03, "final_rate": 1}
"""What is published, but for the number of steps."""
CLASS_ALONE = {"lambda_p": 1.0, "lambda_s": 1e-6, "lambda_sp": 1e-9}
"""Weights under which the network decides the gradient; under the published ones the roughness drowns it at first."""


@pytest.mark.parametrize(
    ("weights", "bound"),
    [
        pytest.param({}, 1e-5, id="published"),
        pytest.param(CLASS_ALONE, 5e-5, id="class alone", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", SETTINGS)
def test_whole_steps_follow_torch(fill_session, name, weights, bound):
    method = NeuroMask(setting=name, n_iterations=STEPS, **PUBLISHED, **weights)
    image, fill = np.random.default_rng(2).standard_normal((2, 1, 3, shapes.SIZE, shapes.SIZE)).astype(np.float32)
    hidden = HiddenParts(SimpleNamespace(session=fill_session, inputs={}), image, [SettledClass(3)], fill, 1)
    setting, start = method.choose(hidden.size), draw_start(5, hidden.size)[None]
    twin = TorchTwin(image, fill, 3, setting)
    expected = twin.gradient(twin.torch.from_numpy(start).requires_grad_()).numpy()
    found = evaluate_maps(start, hidden, np.array([0]), setting).gradients
    assert np.abs(found - expected).max() <= bound * np.abs(expected).max()
    learned = method.learn(hidden, [5], lambda *_: None)
    np.testing.assert_allclose(learned.course.parameters, twin.learn(start), rtol=1e-5, atol=1e-6)


def test_whole_steps_on_a_grid_follow_torch(fill_session):
    method = NeuroMask(setting="cifar", n_iterations=STEPS, learning_rate=0.1, grid_size=9)
    image, fill = np.random.default_rng(2).standard_normal((2, 1, 3, shapes.SIZE, shapes.SIZE)).astype(np.float32)
    hidden = HiddenParts(SimpleNamespace(session=fill_session, inputs={}), image, [SettledClass(3)], fill, 1)
    twin = TorchTwin(image, fill, 3, method.choose(hidden.size))
    learned = method.learn(hidden, [5], lambda *_: None)
    start = np.full((1, 1, 9, 9), HALF, np.float32)
    expected = twin.learn_grid(start, hidden.size)
    assert np.abs(expected - start).max() > 0.1
    np.testing.assert_allclose(learned.course.parameters, expected, rtol=1e-4, atol=1e-5)


class Recorder:
    """A session whose score is linear in the mask that it is given."""

    layout, gradient_output = "NCHW", None

    def __init__(self, slope):
        self.slope, self.masks = slope, []

    def gradient(self, images, masks, inputs, *, target, loss, of):  # noqa: ARG002  # as a session's
        self.masks.append(masks)
        objective = (masks * self.slope).sum(axis=(1, 2, 3))
        return SimpleNamespace(objective=objective, mask=np.broadcast_to(self.slope, masks.shape), image=None)


@pytest.mark.parametrize("leak", [0, 0.02, 0.1])
def test_layer_masks_are_cut_but_for_a_leak_and_their_gradient_goes_straight_through(leak):
    random = np.random.default_rng(0)
    slope = random.standard_normal((1, 1, 8, 8)).astype(np.float32)
    session = Recorder(slope)
    model = SimpleNamespace(session=session, inputs={})
    hidden = HiddenParts(model, np.zeros((2, 3, 8, 8), np.float32), [SettledClass(0), SettledClass(1)], None, 1, leak)
    masks = random.random((2, 1, 8, 8)).astype(np.float32)
    answer = hidden.differentiate(masks, np.arange(2), "log-softmax")
    assert [len(each) for each in session.masks] == [1, 1]
    seen = np.where(masks >= 0.5, np.float32(1 - leak), np.float32(leak))
    assert (np.concatenate(session.masks) == seen).all()
    assert (answer.gradient == np.broadcast_to(slope, masks.shape)).all()
    np.testing.assert_allclose(answer.objective, (seen * slope).sum(axis=(1, 2, 3)), rtol=1e-6)


QUICK = {"n_iterations": 30, "setting": "cifar", **PUBLISHED}


def test_result_says_what_becomes_of_the_class(fill_session):
    seen = []

    def progress(description, total):
        import contextlib

        seen.append((description, total))
        return contextlib.nullcontext(lambda count, note="": seen.append((count, note)))

    found = explain(fill_session, PICTURES.images[0], "neuromask", progress=progress, **QUICK)
    assert seen[0] == ("NeuroMask", 30)
    assert seen[1][0] == 1
    assert seen[1][1].startswith("loss 3")
    quality, again = found.quality, found.summary()
    assert quality["class"] == found.target
    assert quality["iterations"] == 30
    assert not quality["settled"]
    assert quality["kept_cut"] == (quality["class_cut"] == found.target)
    assert quality["area_cut"] == pytest.approx((found.model_attributions >= 0.5).mean())
    assert quality["loss_last"] < quality["loss_first"]
    assert bool(found.notes) == (not quality["kept_cut"])
    assert again["settings"]["lambda_sp"] == 0.15
    assert again["settings"]["setting"] == "cifar"
    assert '"kept_cut":' in found.to_json()
    assert found.plot().mode == "RGB"


def test_same_seed_same_mask_alone_and_together(fill_session):
    together = explain_images(fill_session, list(PICTURES.images[:3]), "neuromask", seed=4, **QUICK)
    for picture, one in zip(PICTURES.images, together, strict=False):
        alone = explain(fill_session, picture, "neuromask", seed=4, **QUICK)
        np.testing.assert_allclose(one.model_attributions, alone.model_attributions, atol=1e-5)
        assert one.target == alone.target
        assert one.forward_passes == alone.forward_passes
    again = explain(fill_session, PICTURES.images[2], "neuromask", seed=4, **QUICK)
    assert again.to_json().split('"timing"')[0] == alone.to_json().split('"timing"')[0]
    other = explain(fill_session, PICTURES.images[2], "neuromask", seed=5, **QUICK)
    assert np.abs(other.model_attributions - again.model_attributions).max() > 0.5


def test_layer_masking_takes_the_files_own_mask(layer_session):
    found = explain(layer_session, PICTURES.images[0], "neuromask", through="layer", **QUICK)
    assert found.settings["through"] == "layer"
    cut = (found.model_attributions >= 0.5).astype(np.float32)[None, None]
    image = explain_input(layer_session, PICTURES.images[0])
    assert found.quality["score_cut"] == pytest.approx(layer_session.scores(image, cut)[0, found.target], rel=1e-5)


def explain_input(session, picture):
    from PIL import Image

    from masktool.runtime.preprocessing import prepare

    return prepare(Image.fromarray(picture), session.metadata.preprocessing).array


def test_a_grid_has_no_more_cells_than_pixels_and_one_start(fill_session):
    method = NeuroMask(grid_size=28)
    assert method.family((16, 224)).cells == (16, 28)
    options = {"n_iterations": 20, "setting": "cifar"}
    first, other = (explain(fill_session, PICTURES.images[0], "neuromask", seed=seed, **options) for seed in (4, 5))
    assert (first.attributions == other.attributions).all()
    assert first.settings["grid_size"] == 28


def test_bad_use_is_refused(fill_session):
    picture = PICTURES.images[0]
    with pytest.raises(MasktoolError, match=r"masks its input only.*export with masking=.layer."):
        explain(fill_session, picture, "neuromask", through="layer")
    for option, value in {
        "setting": "mnist",
        "through": "mask",
        "leak": 0.5,
        "tolerance": 1.0,
        "final_rate": 0,
        "grid_size": 0,
        "lambda_p": 0,
        "baseline": "pink",
    }.items():
        with pytest.raises(MasktoolError, match=option):
            explain(fill_session, picture, "neuromask", **{option: value})
    with pytest.raises(MasktoolError, match="no images to explain"):
        explain_images(fill_session, [], "neuromask")
    with pytest.raises(MasktoolError, match=r"2 targets.*got 1"):
        explain_images(fill_session, [picture, picture], "neuromask", targets=[0])
    with load(model_path(), "cpu") as session, pytest.raises(MasktoolError, match=r"add_gradients_to\(.*loss="):
        explain_images(session, [picture], "neuromask")


def overlap(mask, inside):
    """Returns the intersection of two boolean maps over their union."""
    return (mask & inside).sum() / (mask | inside).sum()


@pytest.mark.parametrize(
    ("options", "fall"), [({**PUBLISHED, "n_iterations": 2000}, 0.02), ({}, 0.2)], ids=["published", "grid"]
)
@pytest.mark.slow
def test_mean_baseline_localises(fill_session, options, fall):
    found = explain_images(fill_session, list(PICTURES.images), "neuromask", perturbations_per_eval=24, **options)
    objects, random = PICTURES.object_masks, np.random.default_rng(0)
    maps = np.stack([each.model_attributions for each in found])
    cut = maps >= 0.5
    shuffled = random.permuted(cut.reshape(len(cut), -1), axis=1).reshape(cut.shape)
    assert np.mean([each.quality["kept_soft"] for each in found]) >= 0.95
    assert np.mean([inside[mask == mask.max()].mean() for mask, inside in zip(maps, objects, strict=True)]) >= 0.8
    assert maps[objects].mean() >= 10 * maps[~objects].mean()
    assert np.mean([*map(overlap, cut, objects)]) >= 3 * np.mean([*map(overlap, shuffled, objects)])
    assert max(each.quality["loss_last"] / each.quality["loss_first"] for each in found) < fall


@pytest.mark.slow
@pytest.mark.parametrize("method", ["neuromask", "extremal"])
def test_a_leak_lets_masks_through_layers_find_the_object(layer_session, method):
    pictures = list(PICTURES.images[:8])
    overlaps = []
    for leak in (0, 0.02):
        found = explain_images(layer_session, pictures, method, through="layer", leak=leak)
        maps = [each.model_attributions for each in found]
        overlaps.append(np.mean([*map(measure_iou, maps, PICTURES.object_masks)]))
    assert overlaps[1] > overlaps[0] + 0.1
