"""Earlier selves of the classifier: taken at fixed steps, drawn half of the time, and really used."""

import torch
from torch import nn

from maskers.small import make_training, pictures, small_network
from masktool.maskers.history import History


def weight_of(classifier, value):
    with torch.no_grad():
        classifier.weight.fill_(value)


def filled_history(steps=20):
    classifier, history = nn.Linear(1, 1, bias=False), History(size=3, interval=5, seed=2)
    for step in range(steps):
        weight_of(classifier, step)
        history.note(step, classifier)
    return history


def test_snapshots_are_taken_at_the_interval_and_the_oldest_goes():
    assert [snapshot["weight"].item() for snapshot in filled_history().snapshots] == [5, 10, 15]
    assert [snapshot["weight"].item() for snapshot in filled_history(6).snapshots] == [0, 5]


def test_half_of_all_draws_are_snapshots_each_as_often():
    history = filled_history()
    drawn = [history.draw(step) for step in range(2000)]
    values = [each["weight"].item() for each in drawn if each is not None]
    assert abs(len(values) - 1000) < 100  # 4.5 standard deviations
    assert all(abs(values.count(value) - len(values) / 3) < 80 for value in (5, 10, 15))


def test_draws_depend_on_seed_and_step_alone():
    first, again = filled_history(), filled_history()
    again.draw(7)
    assert [first.draw(step) is None for step in range(50)] == [again.draw(step) is None for step in range(50)]
    again.seed = 3
    assert [first.draw(step) is None for step in range(50)] != [again.draw(step) is None for step in range(50)]


def test_the_drawn_snapshot_judges():
    """With a first self that knows nothing, what the masker learns from differs at the steps that draw it."""
    images, labels = pictures()
    training = make_training(small_network(), classifier="ca", history_interval=100)
    training.step(images, labels)
    nothing = {name: torch.zeros_like(weight) for name, weight in training.history.snapshots[0].items()}
    training.history.snapshots = [nothing]
    drawn = 0
    for step in range(1, 7):
        training.done = step
        drawn += training.history.draw(step) is not None
        found = training.choose_judge()(images, torch.ones(6, 1, 16, 16), labels, "log-softmax")
        assert bool(found.scores.eq(0).all()) == (training.history.draw(step) is not None)
    assert 0 < drawn < 6
