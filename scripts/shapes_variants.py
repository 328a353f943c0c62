"""Other networks of the drawn shapes, of attention, and what they learn from. Needs torch."""

from __future__ import annotations

import torch
from shapes_network import CHANNELS, ShapesNetwork
from torch import nn

from masktool.demo import program_path

SIDE = 64
"""Height and width of the pictures in pixels, which the places of the attention networks' tokens are learned for."""
PATCH = 8
TOKEN_SIZE = 96
HEADS = 4
DEPTH = 4
TOKEN_DEVIATION = 0.02
"""Of the first values of the tokens' places."""
COVERED = 0.1
"""Share of a patch from which on its token is asked for the object."""
TOKEN_WEIGHT = 3.0
"""Of the tokens' loss, against 1 of the picture's."""


class AttentionBlock(nn.Module):
    """Attention over the tokens and two linear layers, each beside a shortcut and behind a normalisation."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_layers = nn.LayerNorm(size), nn.LayerNorm(size)
        self.queries_keys_values, self.mix = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.layers = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens (N, T, D) to tokens of the same shape."""
        split = self.queries_keys_values(self.before_attention(tokens)).unflatten(2, (3, self.heads, -1))
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(queries, keys, values)
        tokens = tokens + self.mix(found.transpose(1, 2).flatten(2))
        return tokens + self.layers(self.before_layers(tokens))


class AttentionNetwork(nn.Module):
    """Tokens of a map, attention blocks, the mean over the tokens, a linear layer.

    Args:
        classes: number of logits.
        embedding: maps pictures (N, 3, H, W) to (N, D, H / 8, W / 8), the tokens without their places.
    """

    def __init__(self, classes: int, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding
        self.places = nn.Parameter(TOKEN_DEVIATION * torch.randn(1, (SIDE // PATCH) ** 2, TOKEN_SIZE))
        self.blocks = nn.Sequential(*(AttentionBlock(TOKEN_SIZE, HEADS) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(TOKEN_SIZE)
        self.classifier = nn.Linear(TOKEN_SIZE, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps normalised pictures (N, 3, 64, 64) to logits (N, classes)."""
        return self.classifier(self.find_tokens(image).mean(1))

    def find_tokens(self, image: torch.Tensor) -> torch.Tensor:
        """Maps normalised pictures (N, 3, 64, 64) to tokens (N, 64, D), row by row of patches."""
        tokens = self.embedding(image).flatten(2).transpose(1, 2) + self.places
        return self.norm(self.blocks(tokens))


class Stages(nn.Sequential):
    """Layers of a network that was trained before, which stay as they are."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Stages:  # noqa: ARG002  # as torch's
        """Leaves the layers in evaluation mode, whose normalisations take note of nothing."""
        return super().train(False)


def build_hybrid(classes: int) -> AttentionNetwork:
    """Builds attention behind the convolutions of the demo's network, which are trained and stay as they are."""
    network = ShapesNetwork(classes)
    network.load_state_dict(torch.export.load(program_path()).state_dict)
    tokens = nn.Conv2d(CHANNELS[-1], TOKEN_SIZE, 2, 2)
    return AttentionNetwork(classes, nn.Sequential(Stages(network.stem, network.blocks), tokens))


def build_transformer(classes: int) -> AttentionNetwork:
    """Builds attention over patches of 8 x 8 pixels, with no convolution but the one that reads each patch."""
    return AttentionNetwork(classes, nn.Conv2d(3, TOKEN_SIZE, PATCH, PATCH))


class ClassLoss(nn.Module):
    """Learns pictures' classes from the logits.

    Args:
        network: maps pictures (N, 3, H, W) to logits (N, classes).
        classes: how many there are.
    """

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, images: torch.Tensor, labels: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Returns the loss of pictures (N, 3, H, W), their classes (N,) and their objects' pixels (N, H, W)."""
        return nn.functional.cross_entropy(self.network(images), labels)


class TokenLoss(ClassLoss):
    """Learns pictures' classes, and from every token which object, if any, covers its patch.

    From the classes of 12,000 pictures alone attention had stayed at chance; asked of each token, it learns. Every
    batch is also turned and mirrored, which leaves the classes as they are. The layer that answers for the tokens is
    not part of the network.
    """

    network: AttentionNetwork

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__(network, classes)
        self.objects_of_tokens = nn.Linear(TOKEN_SIZE, classes + 1)

    def forward(self, images: torch.Tensor, labels: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
        """Returns the loss, as :meth:`ClassLoss.forward`."""
        images, objects = turn(images, objects)
        covered = nn.functional.avg_pool2d(objects[:, None].float(), PATCH).flatten(1)
        wanted = torch.where(covered > COVERED, labels[:, None], self.classes)
        tokens = self.network.find_tokens(images)
        of_tokens = nn.functional.cross_entropy(self.objects_of_tokens(tokens).flatten(0, 1), wanted.flatten())
        of_picture = nn.functional.cross_entropy(self.network.classifier(tokens.mean(1)), labels)
        return of_picture + TOKEN_WEIGHT * of_tokens


def turn(images: torch.Tensor, objects: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns square pictures (N, 3, H, H) and their objects (N, H, H), turned and mirrored at random."""
    for dims in ((-1,), (-2,)):
        if torch.rand(()) < 0.5:
            images, objects = images.flip(dims), objects.flip(dims)
    if torch.rand(()) < 0.5:
        images, objects = images.transpose(-1, -2), objects.transpose(-1, -2)
    return images, objects
