"""Optimisers, the stop when the loss has settled, the stop when it breaks."""

import numpy as np
import pytest

from masktool import MasktoolError
from masktool.explainers.learning import PATIENCE, Momentum, RmsProp, Step, learn

ALL = np.arange(3)


def gradients(seed, steps=5):
    return np.random.default_rng(seed).standard_normal((steps, 3, 4)).astype(np.float32)


def test_rmsprop_follows_its_formula():
    optimiser, squares = RmsProp((3, 4), 0.03), np.ones((3, 4))
    for gradient in gradients(0):
        squares = 0.9 * squares + 0.1 * gradient.astype(np.float64) ** 2
        expected = -0.03 * gradient / np.sqrt(squares + 1e-10)
        np.testing.assert_allclose(optimiser.changes(gradient, ALL), expected, rtol=1e-6)


def test_momentum_follows_torch():
    torch = pytest.importorskip("torch")
    values = torch.zeros(3, 4, requires_grad=True)
    theirs = torch.optim.SGD([values], lr=0.01, momentum=0.9)
    ours, optimiser = np.zeros((3, 4), np.float32), Momentum((3, 4), 0.01)
    for gradient in gradients(1):
        values.grad = torch.from_numpy(gradient)
        theirs.step()
        ours += optimiser.changes(gradient, ALL)
    np.testing.assert_allclose(ours, values.detach().numpy(), rtol=1e-6)


def bowl(centres, seen=None):
    """Returns the objective (p - c)^2 + 1 of each image."""

    def objective(parameters, positions, step):
        if seen is not None:
            seen.append(positions.tolist())
        apart = parameters - centres[positions]
        return Step((apart**2).sum(axis=1) + 1, 2 * apart)

    return objective


def run(objective, start, **options):
    values = {"n_iterations": 600, "tolerance": 1e-2, "advance": lambda *_: None} | options
    return learn(start, objective, Momentum(start.shape, 0.01), **values)


CENTRES = np.array([[0.0, 0.0], [3.0, -4.0], [200.0, 100.0]], np.float32)


def test_images_reach_their_minima_and_leave_when_settled():
    seen, notes = [], []
    course = run(
        bowl(CENTRES, seen), np.zeros((3, 2), np.float32), advance=lambda count, note: notes.append((count, note))
    )
    np.testing.assert_allclose(course.parameters, CENTRES, atol=1e-2)
    assert course.settled.all()
    assert course.iterations[0] == PATIENCE + 1
    assert course.iterations[0] < course.iterations[1] < course.iterations[2] < 600
    assert seen[0] == [0, 1, 2]
    assert seen[-1] == [2]
    assert notes[0] == (1, "loss 1.67e+04")
    np.testing.assert_allclose(course.first, [1, 26, 50001])
    np.testing.assert_allclose(course.last, 1, atol=1e-3)
    assert np.isnan(course.losses[course.iterations[0], 0])


def test_a_batch_gives_what_its_images_give_alone():
    together = run(bowl(CENTRES), np.zeros((3, 2), np.float32))
    for position in range(3):
        alone = run(bowl(CENTRES[[position]]), np.zeros((1, 2), np.float32))
        assert (alone.parameters[0] == together.parameters[position]).all()
        assert alone.iterations[0] == together.iterations[position]


def test_no_tolerance_makes_every_step_and_bounds_hold():
    course = run(bowl(CENTRES), np.zeros((3, 2), np.float32), tolerance=0, n_iterations=300, bounds=(0, 1))
    assert (course.iterations == 300).all()
    assert not course.settled.any()
    np.testing.assert_allclose(course.parameters, np.clip(CENTRES, 0, 1), atol=1e-2)


def test_later_stages_settle_by_their_own_losses():
    course = run(bowl(CENTRES), CENTRES.copy(), settles_from=200)
    assert (course.iterations == 200 + PATIENCE + 1).all()


@pytest.mark.parametrize(("broken", "fix"), [(0, "another baseline"), (7, "lower learning_rate .it is 0.01")])
@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_what_is_no_number_stops_with_step_and_setting(broken, fix, part):
    def objective(parameters, positions, step):
        found = bowl(CENTRES)(parameters, positions, step)
        if step == broken:
            (found.losses if part == "loss" else found.gradients)[0] = np.nan
        return found

    with pytest.raises(MasktoolError, match=rf"the {part} is not finite \(step {broken}\).*{fix}"):
        run(objective, np.zeros((3, 2), np.float32))
