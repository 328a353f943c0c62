"""Small classifiers with random weights, and settings for a few steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from masktool.maskers.classifier import TorchClassifier
from masktool.maskers.settings import TrainingSettings
from masktool.maskers.stages import Stage, choose_stages, list_maps
from masktool.maskers.training import Training

CLASSES = 4
SIZE = (16, 16)


class SmallNetwork(nn.Module):
    """Three resolutions (16, 8 and 4 at 16 pixels), the last behind a module that does not change it."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(8, 10, 3, stride=2, padding=1), nn.ReLU(), nn.Identity())
        self.head = nn.Linear(10, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.coarse(self.middle(self.fine(image))).mean((2, 3)))


def small_network(seed: int = 0) -> SmallNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SmallNetwork().eval()
        with torch.no_grad():
            network.fine[1].running_mean.normal_()  # statistics that are not those of any batch
            network.head.weight.mul_(20)  # logits that differ
    return network


def stages_of(network: nn.Module, wanted="all") -> tuple[Stage, ...]:
    return choose_stages(list_maps(network, torch.zeros(2, 3, *SIZE)), wanted, "network")


def pictures(n: int = 6, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, *SIZE, generator=generator)
    return images, torch.randint(CLASSES, (n,), generator=generator)


def make_training(network: nn.Module, steps: int = 6, **settings) -> Training:
    classifier = TorchClassifier(network, "logits")
    chosen = TrainingSettings(stages="all", **settings)
    return Training(classifier, stages_of(network), SIZE, chosen, steps, torch.device("cpu"))
