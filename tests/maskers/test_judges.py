"""Both judges against torch: what they say, and their gradients with respect to the mask."""

import numpy as np
import pytest
import torch
from reference.layer_masking import MaskedReference

import masktool
from maskers.small import pictures, small_network
from masktool.explainers.mask_figures import LEAK
from masktool.maskers.judges import FillJudge, LayerJudge

AGREEMENT = 1e-5
"""Of float32 results that two libraries compute."""


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    masktool.export(small_network(), folder / "forward.onnx", input_size=(16, 16))
    masktool.add_gradients_to(folder / "forward.onnx", folder / "backward.onnx", loss="log-softmax")
    with (
        masktool.load(folder / "forward.onnx", "cpu") as forward,
        masktool.load(folder / "backward.onnx", "cpu") as backward,
    ):
        yield LayerJudge(forward, backward)


def soft_masks(n=6):
    return (
        torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(9))
        .repeat_interleave(4, 2)
        .repeat_interleave(4, 3)
    )


def objective_of(logits, labels, loss):
    logarithms = logits.log_softmax(1)
    return -(logarithms.exp() * logarithms).sum(1) if loss == "entropy" else logarithms[range(len(labels)), labels]


@pytest.mark.parametrize("loss", ["log-softmax", "entropy"])
def test_the_fill_judge_is_the_classifier_on_hidden_pixels(loss):
    network, (images, labels), masks = small_network(), pictures(), soft_masks().requires_grad_()
    found = FillJudge(network)(images, masks, labels, loss)
    logits = network(images * masks)
    expected = objective_of(logits, labels, loss)
    torch.testing.assert_close(found.objective, expected)
    torch.testing.assert_close(found.scores, logits)
    assert not found.scores.requires_grad
    first, second = (
        torch.autograd.grad(each.sum(), masks, retain_graph=True)[0] for each in (found.objective, expected)
    )
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("loss", ["log-softmax", "entropy"])
def test_the_layer_judge_answers_for_the_cut_mask(judge, loss):
    network, (images, labels), masks = small_network(), pictures(), soft_masks().requires_grad_()
    found = judge(images, masks, labels, loss)
    cut = (masks.detach() >= 0.5).float()
    logits = MaskedReference(network, images[:1], len(images))(images, cut)
    torch.testing.assert_close(found.scores, logits, rtol=AGREEMENT, atol=AGREEMENT)
    torch.testing.assert_close(found.objective, objective_of(logits, labels, loss), rtol=AGREEMENT, atol=AGREEMENT)
    assert not found.scores.requires_grad


@pytest.mark.parametrize("loss", ["log-softmax", "entropy"])
def test_the_layer_judges_gradient_is_that_of_a_mask_that_leaks(judge, loss):
    (images, labels), masks = pictures(), soft_masks().requires_grad_()
    weights = torch.linspace(-1, 2, len(images))
    (gradient,) = torch.autograd.grad((weights * judge(images, masks, labels, loss).objective).sum(), masks)
    leaking = np.where(masks.detach().numpy() >= 0.5, 1 - LEAK, LEAK).astype(np.float32)
    own = judge.backward.gradient(images.numpy(), leaking, target=labels.numpy(), loss=loss, of=("mask",)).mask
    np.testing.assert_allclose(gradient.numpy(), weights.numpy()[:, None, None, None] * own, rtol=1e-5, atol=1e-9)
    assert np.abs(own).max() > 1e-3


@pytest.mark.parametrize("loss", ["log-softmax", "entropy"])
def test_what_the_file_differentiates_is_layer_masking(judge, loss):
    """All values of these masks differ: where some tie, minima and maxima have several gradients."""
    network, (images, labels) = small_network(), pictures()
    masks = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(9)).requires_grad_()
    logits = MaskedReference(network, images[:1], len(images)).run(images, masks)
    (expected,) = torch.autograd.grad(objective_of(logits, labels, loss).sum(), masks)
    found = judge.backward.gradient(
        images.numpy(), masks.detach().numpy(), target=labels.numpy(), loss=loss, of=("mask",)
    )
    assert expected.abs().max() > 1e-3
    np.testing.assert_allclose(found.mask, expected.numpy(), rtol=1e-4, atol=AGREEMENT)


def test_a_missing_pixel_has_no_gradient_of_its_own(judge):
    """Why a mask that leaks is taken: nothing that the cut mask hides reaches the answer, whatever it holds."""
    (images, labels), masks = pictures(), torch.ones(6, 1, 16, 16)
    masks[:, :, 3:12, 3:12] = 0
    changed = images.clone()
    changed[:, :, 5:10, 5:10] += 3
    found = [
        judge.backward.gradient(each.numpy(), masks.numpy(), target=labels.numpy(), of=("mask",)).mask
        for each in (images, changed)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    leaking = masks.clamp(LEAK, 1 - LEAK)
    found = [
        judge.backward.gradient(each.numpy(), leaking.numpy(), target=labels.numpy(), of=("mask",)).mask
        for each in (images, changed)
    ]
    assert np.abs(found[0] - found[1])[:, :, 5:10, 5:10].max() > 1e-3


def test_one_pass_of_each_file_serves_a_judgement(judge):
    (images, labels), masks = pictures(), soft_masks().requires_grad_()
    before = judge.forward.forward_passes, judge.backward.forward_passes
    judge(images, masks, labels, "entropy").objective.sum().backward()
    assert (judge.forward.forward_passes - before[0], judge.backward.forward_passes - before[1]) == (6, 6)
