"""Stages: the last module of every resolution, whatever the network looks like."""

import pytest
import torch
from networks.cifar_resnet import resnet20
from torch import nn

from maskers.small import SmallNetwork, pictures, small_network, stages_of
from masktool.demo import program_path
from masktool.errors import MasktoolError
from masktool.maskers.stages import Stage, choose_stages, find_stages, list_maps, reading


def names_of(module, size, wanted="all"):
    maps = list_maps(module.eval(), torch.zeros(2, 3, *size))
    return [(each.name, each.channels, each.size) for each in choose_stages(maps, wanted, "network")]


def test_stages_are_the_outermost_modules_at_which_resolutions_end():
    assert stages_of(small_network()) == (
        Stage("fine", 6, (16, 16)),
        Stage("middle", 8, (8, 8)),
        Stage("coarse", 10, (4, 4)),
    )
    assert [each.name for each in stages_of(small_network(), "last-two")] == ["middle", "coarse"]
    assert [each.name for each in stages_of(small_network(), ("coarse.0", "fine"))] == ["fine", "coarse.0"]


def test_a_residual_network_ends_its_stages_with_its_layers():
    assert names_of(resnet20(), (32, 32)) == [
        ("layer1", 16, (32, 32)),
        ("layer2", 32, (16, 16)),
        ("layer3", 64, (8, 8)),
    ]


def test_real_networks_at_an_oblong_input(torchvision_models):
    resnet = torchvision_models.resnet18(weights=None)
    assert names_of(resnet, (96, 160), "last-two") == [("layer3", 256, (6, 10)), ("layer4", 512, (3, 5))]
    squeezenet = torchvision_models.squeezenet1_1(weights=None)
    assert [size for _, _, size in names_of(squeezenet, (224, 224), "last-two")] == [(27, 27), (13, 13)]


def test_what_a_block_computes_on_its_way_is_no_stage(torchvision_models):
    """Convolutions of the next block, or of a branch, still run at the resolution that the block before ended with."""
    resnext = torchvision_models.resnext50_32x4d(weights=None)
    names = [name for name, _, _ in names_of(resnext, (96, 96))]
    assert names == ["relu", "layer1", "layer2", "layer3", "layer4"]
    shufflenet = torchvision_models.shufflenet_v2_x0_5(weights=None)
    assert [name for name, _, _ in names_of(shufflenet, (96, 96))][1:] == ["maxpool", "stage2", "stage3", "conv5"]


def test_an_exported_program_has_the_stages_of_its_module():
    """Its parts have lost their types: a Sequential is told by how it runs."""
    module = torch.export.unflatten(torch.export.load(program_path()))
    assert [name for name, _, _ in names_of(module, (64, 64))] == ["blocks.0", "blocks.1", "blocks"]


def test_channels_that_stand_last_are_no_maps(torchvision_models):  # without which timm does not import
    """ConvNeXt's blocks norm and multiply in NHWC; what comes out of them is NCHW."""
    import timm

    network = timm.create_model("convnext_atto", pretrained=False)
    stages = names_of(network, (64, 64))
    assert [size for _, _, size in stages] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert [channels for _, channels, _ in stages] == [40, 80, 160, 320]


class AttentionBehind(SmallNetwork):
    """Attention weights (N, heads, places, places) are as square as a map, and larger."""

    def __init__(self):
        super().__init__()
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, image):
        features = self.coarse(self.middle(self.fine(image))).flatten(2)
        weights = self.softmax((features.transpose(1, 2) @ features)[:, None])
        return self.head((features @ weights[:, 0].transpose(1, 2)).mean(2))


def test_attention_weights_open_no_stage():
    maps = list_maps(AttentionBehind().eval(), torch.zeros(2, 3, 12, 12))
    assert maps[-1] == Stage("softmax", 1, (9, 9))  # of 3 x 3 places, behind a map of 3 x 3
    assert [each.size for each in find_stages(maps)] == [(12, 12), (6, 6), (3, 3)]
    assert list_maps(AttentionBehind().eval(), torch.zeros(2, 3, 32, 32))[-1].name == "coarse"  # 64 x 64 is no map


class Twice(nn.Module):
    """One activation module for two resolutions: a hook sees its last run alone."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.act = nn.ReLU()

    def forward(self, image):
        return self.act(self.second(self.act(self.first(image)))).mean((2, 3))


def test_a_module_that_runs_twice_stands_for_its_last_run():
    assert names_of(Twice(), (8, 8)) == [("first", 4, (8, 8)), ("act", 5, (4, 4))]


def test_activations_are_those_of_the_run():
    network, (images, _) = small_network(), pictures()
    with reading(network, stages_of(network)) as activations:
        network(images)
    fine = network.fine(images)
    assert torch.equal(activations["fine"], fine)
    assert torch.equal(activations["coarse"], network.coarse(network.middle(fine)))
    network(images[:2])
    assert len(activations["fine"]) == 6  # the hooks are gone


def test_an_unknown_stage_is_told_which_there_are():
    with pytest.raises(MasktoolError, match=r"no map comes out of such a module \(head, nowhere\).*fine 6 x 16 x 16"):
        stages_of(small_network(), ("fine", "head", "nowhere"))


def test_maps_of_one_pixel_are_no_stages():
    network = nn.Sequential(nn.Conv2d(3, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(MasktoolError, match=r"no stage to read.*tiny.*0 4 x 1 x 1.*choose modules with stages"):
        choose_stages(list_maps(network, torch.zeros(2, 3, 8, 8)), "last-two", "tiny")
    with pytest.raises(MasktoolError, match="no stage to read"):
        choose_stages(list_maps(network, torch.zeros(2, 3, 8, 8)), ("0",), "tiny")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(MasktoolError, match="no module whose output is a map"):
        choose_stages(list_maps(flat, torch.zeros(2, 3, 8, 8)), "all", "flat")


def test_a_long_listing_is_cut_to_the_stages():
    with pytest.raises(MasktoolError) as raised:
        names_of(resnet20(), (32, 32), ("nowhere",))
    assert "layer3 64 x 8 x 8 and " in str(raised.value)
    assert str(raised.value).count(" x ") < 12
