"""The problem's network in torch, for the peers that take a module."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.problem import Problem


def build_module(problem: Problem) -> Any:
    """Returns SqueezeNet 1.1 with the problem's weights, from the input to the probabilities; it counts images."""
    import torch

    from benchmarks.torchvision_networks import import_torchvision_models

    torch.set_num_threads(1)
    network = import_torchvision_models().squeezenet1_1(weights=None)
    own = network.state_dict()
    given = (torch.from_numpy(each.copy()) for each in problem.weights)
    network.load_state_dict({name: each.reshape(own[name].shape) for name, each in zip(own, given, strict=True)})
    module = torch.nn.Sequential(network, torch.nn.Softmax(1)).eval()

    def count(_: Any, inputs: tuple[Any, ...]) -> None:
        problem.counted += len(inputs[0])

    module.register_forward_pre_hook(count)
    return module
