"""The small network of :mod:`explainers.small_network` in torch, with what hooks would see of its feature maps."""

from typing import NamedTuple

import numpy as np
import torch
from onnx import numpy_helper
from torch.nn import functional

from explainers.small_network import small_network


class Activations(NamedTuple):
    """One image's feature maps, (1, c, h, w) each, and its logits (1, 4)."""

    early: torch.Tensor
    late: torch.Tensor
    logits: torch.Tensor


class SmallNetwork(torch.nn.Module):
    """The small network, by its own weights."""

    def __init__(self):
        super().__init__()
        for each in small_network().graph.initializer:
            self.register_buffer(each.name, torch.from_numpy(numpy_helper.to_array(each).copy()))

    def forward(self, image):
        return self.activations(image).logits

    def activations(self, image):
        early = torch.relu(functional.conv2d(image, self.k0, self.b0, stride=4, padding=1))
        late = torch.relu(functional.conv2d(early, self.k1, self.b1, stride=2, padding=1))
        return Activations(
            early, late, torch.flatten(functional.adaptive_avg_pool2d(late, 1), 1) @ self.weight + self.offset
        )


def maps_and_gradients(image, target):
    """Returns early and late feature map (c, h, w) of an image (3, h, w), each with its gradient of a class's logit."""
    network = SmallNetwork()
    found = network.activations(torch.from_numpy(image[None]).requires_grad_())
    gradients = torch.autograd.grad(found.logits[0, target], [found.early, found.late])
    features = (found.early, found.late)
    return [(a[0].detach().numpy(), g[0].numpy()) for a, g in zip(features, gradients, strict=True)]


def enlarge_in_torch(values, size):
    """Enlarges a map (h, w), bilinearly between the centres of its places."""
    whole = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None]
    return functional.interpolate(whole, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
