"""Single steps of a training against the same step written out, and what makes it repeatable."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskers.small import CLASSES, SIZE, make_training, pictures, small_network, stages_of
from masktool.errors import MasktoolError
from masktool.maskers.classifier import TorchClassifier
from masktool.maskers.judges import FillJudge
from masktool.maskers.network import WIDTH, MaskerNetwork
from masktool.maskers.objectives import ClassifiedBatch, is_right, masker_loss
from masktool.maskers.training import choose_device


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def run(training, steps):
    return [training.step(*pictures(seed=training.done)) for _ in range(steps)]


def test_the_masker_is_what_its_description_says():
    network, (images, _) = small_network(), pictures(3)
    masker = MaskerNetwork(stages_of(network), SIZE).eval()
    _, activations = TorchClassifier(network, "logits").read(images, stages_of(network))
    upright = [
        F.interpolate(F.relu(block[1](block[0](each))), (16, 16), mode="bilinear", align_corners=False)
        for block, each in zip(masker.reduce, activations, strict=True)
    ]
    joined = torch.cat(upright, 1)
    assert joined.shape == (3, 3 * WIDTH, 16, 16)
    expected = torch.sigmoid(masker.combine(joined))
    torch.testing.assert_close(masker(activations), expected)
    coarse = MaskerNetwork(stages_of(network, "last-two"), SIZE).eval()
    found = coarse(activations[1:])
    assert found.shape == (3, 1, 16, 16)
    assert torch.equal(found, found[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3))  # nearest


def test_a_fixed_classifier_stays_as_it_is():
    network = small_network()
    before = weights(network)
    training = make_training(network)
    masker = weights(training.masker)
    run(training, 2)
    assert same(before, network.state_dict())
    assert not same(masker, training.masker.state_dict())


def test_a_classifier_alongside_learns_and_keeps_its_statistics():
    network = small_network()
    before = weights(network)
    run(make_training(network, classifier="ca"), 2)
    after = network.state_dict()
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert torch.equal(before["fine.1.running_mean"], after["fine.1.running_mean"])


def test_one_step_of_both_networks_written_out():
    """Both gradients belong to the networks before the step; Adam, clipping and SGD with momentum are torch's own."""
    images, labels = pictures()
    network = small_network()
    training = make_training(network, classifier="ca", clip=0.5)
    twin, masker = copy.deepcopy(network), copy.deepcopy(training.masker)
    adam = torch.optim.Adam(masker.parameters(), 1e-3, weight_decay=1e-4)
    sgd = torch.optim.SGD(twin.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)

    features = [f := twin.fine(images), m := twin.middle(f), twin.coarse(m)]
    masks = masker([each.detach() for each in features])
    seen = ClassifiedBatch(images, labels, is_right(twin(images), labels))
    masker_loss(FillJudge(twin), seen, masks, training.settings).total.backward()
    nn.utils.clip_grad_norm_(masker.parameters(), 0.5)
    twin.zero_grad()
    kept = masks.detach()
    logits = (twin(images), twin(images * kept), twin(images * (1 - kept)))
    sum(F.cross_entropy(each, labels) for each in logits).backward()
    adam.step()
    sgd.step()

    training.step(images, labels)
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    for name, value in masker.state_dict().items():
        torch.testing.assert_close(training.masker.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_learning_rates_fall_to_a_tenth_after_each_third():
    training = make_training(small_network(), steps=7, classifier="ca", learning_rate=2e-3)
    rates = []
    for _ in range(7):
        run(training, 1)
        rates.append([each.param_groups[0]["lr"] for each in (training.optimizer, training.classifier_optimizer)])
    expected = [1, 1, 1, 0.1, 0.1, 0.01, 0.01]  # thirds of seven end at 2.33 and 4.67
    assert [first for first, _ in rates] == pytest.approx([2e-3 * factor for factor in expected])
    assert [second for _, second in rates] == pytest.approx([1e-3 * factor for factor in expected])


@pytest.mark.parametrize("classifier", ["fix", "ca"])
def test_the_same_seed_gives_the_same_losses(classifier):
    first = run(make_training(small_network(), classifier=classifier), 6)
    torch.rand(3)  # what others draw does not matter
    assert run(make_training(small_network(), classifier=classifier), 6) == first
    assert run(make_training(small_network(), classifier=classifier, seed=1), 6) != first


@pytest.mark.parametrize("classifier", ["fix", "ca"])
@pytest.mark.parametrize("stop", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)])
def test_a_loaded_training_goes_on_as_if_nothing_had_happened(classifier, stop):
    settings = {"classifier": classifier, "history_interval": 2}
    whole = make_training(small_network(), **settings)
    expected = run(whole, 6)
    interrupted = make_training(small_network(), **settings)
    before = run(interrupted, stop)
    state = copy.deepcopy(interrupted.state())
    resumed = make_training(small_network(), **settings)
    resumed.restore(state)
    assert before + run(resumed, 6 - stop) == expected
    assert same(whole.masker.state_dict(), resumed.masker.state_dict())
    assert same(whole.classifier.module.state_dict(), resumed.classifier.module.state_dict())


def test_a_loss_that_is_no_number_stops_the_training_before_it_spoils_the_masker():
    training = make_training(small_network())
    run(training, 1)
    before = weights(training.masker)
    images, labels = pictures()
    images[0, 0, 0, 0] = math.nan
    with pytest.raises(MasktoolError, match=r"the loss is not finite \(step 2 of 6\).*got loss nan"):
        training.step(images, labels)
    assert same(
        {name: value for name, value in before.items() if "running" not in name and "num_" not in name},
        training.masker.state_dict(),
    )


def test_terms_are_told():
    record = run(make_training(small_network(), classifier="ca"), 1)[0]
    named = {"loss", "objective_in", "objective_out", "area_in", "area_out", "tv", "area"}
    assert named | {"accuracy", "accuracy_in", "accuracy_out", "classifier_loss"} == set(record)


def test_half_precision_is_close():
    """bf16 has 8 bits of mantissa; a loss made of such logits is within a few of its last places."""
    exact, rough = (run(make_training(small_network(), precision=name), 1)[0] for name in ("fp32", "bf16"))
    assert rough["loss"] == pytest.approx(exact["loss"], rel=0.02)
    assert rough["loss"] != exact["loss"]


def test_a_network_that_ends_in_a_softmax_is_read_as_log_probabilities():
    class Probabilities(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small_network()

        def forward(self, image):
            return {"scores": self.inner(image).softmax(1)[:, :, None, None], "extra": image}

    images, _ = pictures()
    found = TorchClassifier(Probabilities(), "scores", "probabilities").logits(images)
    torch.testing.assert_close(found, small_network()(images).log_softmax(1))
    assert found.shape == (6, CLASSES)
    with pytest.raises(MasktoolError, match="one right class of several"):
        TorchClassifier(small_network(), "logits", "sigmoid")


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("nowhere", "cuda:99"):
        with pytest.raises(MasktoolError, match="no such device"):
            choose_device(name)
