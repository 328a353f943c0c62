"""The losses against the published formulas, written out in numpy for a judge whose answers are made up."""

import numpy as np
import pytest
import torch

from maskers.small import CLASSES, pictures
from masktool.maskers.judges import Judged
from masktool.maskers.objectives import ClassifiedBatch, masker_loss, total_variation
from masktool.maskers.settings import TrainingSettings


class MadeUpJudge:
    """Answers linearly in the mask's mean, so that all that matters can be computed by hand; remembers the masks."""

    def __init__(self, n):
        generator = torch.Generator().manual_seed(5)
        self.logits = torch.randn(2, n, CLASSES, generator=generator) * 2
        self.asked = []

    def __call__(self, images, masks, labels, loss):  # noqa: ARG002
        logits = self.logits[len(self.asked)] * (1 + masks.mean((1, 2, 3)))[:, None]
        self.asked.append((masks, loss))
        logarithms = logits.log_softmax(1)
        chosen = logarithms.gather(1, labels[:, None])[:, 0]
        return Judged(-(logarithms.exp() * logarithms).sum(1) if loss == "entropy" else chosen, logits.detach())


def softmax(logits):
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def expected_tv(masks):
    total = 0.0
    for mask in masks[:, 0]:
        total += (np.diff(mask, axis=0) ** 2).sum() + (np.diff(mask, axis=1) ** 2).sum()
        border = np.ones_like(mask, bool)
        border[1:-1, 1:-1] = False
        total += 0.3 * (mask[border] ** 2).sum()
    return total / (2 * len(masks))


def setup(**settings):
    n = 7
    images, labels = pictures(n)
    masks = torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(3)).requires_grad_()
    right = torch.tensor([1.0, 1, 0, 1, 0, 1, 1])
    judge = MadeUpJudge(n)
    found = masker_loss(judge, ClassifiedBatch(images, labels, right), masks, TrainingSettings(**settings))
    return found, judge, masks, labels.numpy(), right.numpy()


def published_in(logits, labels, areas, weight):
    shares = softmax(logits)
    right = (logits.argmax(1) == labels).astype(float)
    return -np.log(shares[np.arange(len(labels)), labels]).mean() - weight * np.maximum(right - areas, 0).mean()


def published_out(logits, labels, right, areas, weight):
    shares = softmax(logits)
    entropy = -(shares * np.log(shares)).sum(1)
    wrong = (logits.argmax(1) != labels).astype(float)
    return -(right * entropy).mean() - weight * np.maximum(right * wrong - areas, 0).mean()


def scaled(judge, turn, masks):
    return (judge.logits[turn] * (1 + masks.mean((1, 2, 3)))[:, None]).detach().double().numpy()


def test_masked_in_is_the_published_formula():
    found, judge, masks, labels, _ = setup(objective="in", lambda_in=0.7, lambda_tv=0.02)
    plain = masks.detach().double().numpy()
    areas = plain.mean((1, 2, 3))
    expected = published_in(scaled(judge, 0, masks), labels, areas, 0.7) + 0.02 * expected_tv(plain)
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert judge.asked[0][0] is masks
    assert [loss for _, loss in judge.asked] == ["log-softmax"]
    assert "objective_out" not in found.terms


def test_masked_out_is_the_published_formula():
    found, judge, masks, labels, right = setup(objective="out", lambda_tv=0.02)
    plain = masks.detach().double().numpy()
    areas = plain.mean((1, 2, 3))
    expected = published_out(scaled(judge, 0, 1 - masks), labels, right, areas, 10) + 0.02 * expected_tv(plain)
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(judge.asked[0][0], 1 - masks)
    assert [loss for _, loss in judge.asked] == ["entropy"]


def test_both_is_the_sum_and_its_terms_add_up():
    found, judge, masks, labels, right = setup(classifier="ca")
    plain = masks.detach().double().numpy()
    areas = plain.mean((1, 2, 3))
    expected = published_in(scaled(judge, 0, masks), labels, areas, 1)
    expected += published_out(scaled(judge, 1, 1 - masks), labels, right, areas, 15)
    expected += 2 * 1e-3 * expected_tv(plain)
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.terms["loss"] is found.total
    assert found.terms["area"].item() == pytest.approx(areas.mean(), rel=1e-5)


def test_the_classification_loss_may_stand_for_the_entropy():
    found, judge, masks, labels, right = setup(objective="out", out_loss="classification", lambda_out=0.0, lambda_tv=0)
    shares = softmax(scaled(judge, 0, 1 - masks))
    expected = (right * np.log(shares[np.arange(len(labels)), labels])).mean()
    assert found.total.item() == pytest.approx(expected, rel=1e-5)


def test_below_the_target_area_a_mask_costs_nothing():
    found, judge, masks, labels, _ = setup(objective="in", target_area=0.5, lambda_tv=0)
    areas = np.maximum(masks.detach().double().numpy().mean((1, 2, 3)) - 0.5, 0)
    assert (areas == 0).any()
    assert (areas > 0).any()
    assert found.total.item() == pytest.approx(published_in(scaled(judge, 0, masks), labels, areas, 1), rel=1e-5)


def test_accuracies_count_masked_pictures():
    found, judge, masks, labels, _ = setup()
    for name, turn, seen in (("accuracy_in", 0, masks), ("accuracy_out", 1, 1 - masks)):
        assert found.terms[name].item() == pytest.approx((scaled(judge, turn, seen).argmax(1) == labels).mean())


def test_total_variation_by_hand():
    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, 1, 1] = 1  # four neighbours differ by 1, and the border is 0
    assert total_variation(mask).item() == pytest.approx(4 / 2)
    assert total_variation(torch.ones(3, 1, 4, 4)).item() == pytest.approx(0.3 * 12 / 2)
    masks = torch.rand(2, 1, 5, 6)
    assert total_variation(masks).item() == pytest.approx(expected_tv(masks.double().numpy()), rel=1e-5)


def test_gradients_are_central_differences():
    images, labels = pictures(3)
    pixels = torch.rand(3, 1, 16, 16, dtype=torch.float64)
    seen = ClassifiedBatch(images.double(), labels, torch.ones(3, dtype=torch.float64))

    class DoubleJudge(MadeUpJudge):
        def __init__(self):
            super().__init__(3)
            self.logits = self.logits.double()

    def loss(masks):
        return masker_loss(DoubleJudge(), seen, masks, TrainingSettings()).total

    point = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(point), point)
    for place in [(0, 0, 0, 0), (1, 0, 7, 9), (2, 0, 15, 3)]:
        step = torch.zeros_like(pixels)
        step[place] = 1e-5
        difference = (loss(pixels + step) - loss(pixels - step)) / 2e-5
        assert gradient[place].item() == pytest.approx(difference.item(), rel=1e-5, abs=1e-9)
