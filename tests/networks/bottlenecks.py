"""A ResNet-50 as torchvision builds it, its strides and kernels, with as few channels as one likes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from networks.small_graphs import parse

STAGES = (3, 4, 6, 3)
EXPANSION = 2


def bottleneck_resnet(width: int = 2, side: int = 224, stages: tuple[int, ...] = STAGES) -> onnx.ModelProto:
    """Returns a network of bottlenecks, whose strided shortcuts are 1 x 1 convolutions, for images (N, 3, side, side).

    Batch normalisation and classifier are left out: masks pass by them.
    """
    parts = list(list_bottlenecks(width, stages))
    weights, body = ", ".join(weight for weights, _ in parts for weight in weights), " ".join(node for _, node in parts)
    return parse(
        f'<ir_version: 10, opset_import: ["" : 18]> bottlenecks (float[N, 3, {side}, {side}] image) => '
        f"(float[N, {EXPANSION * width}] logits) <{weights}> {{ {body} pooled = GlobalAveragePool (last) "
        "logits = Flatten (pooled) }"
    )


def list_bottlenecks(width: int, stages: tuple[int, ...]) -> Iterator[tuple[list[str], str]]:
    """Yields the weights and the nodes of the stem and of every block."""
    yield (
        [f"float[{width}, 3, 7, 7] stem"],
        "a = Conv <pads = [3, 3, 3, 3], strides = [2, 2]> (image, stem) b = Relu (a) "
        "x0 = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (b)",
    )
    channels, number = width, 0
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            stride, n, number = 2 if stage and not block else 1, number, number + 1
            weights = [
                f"float[{width}, {channels}, 1, 1] p{n}",
                f"float[{width}, {width}, 3, 3] q{n}",
                f"float[{EXPANSION * width}, {width}, 1, 1] r{n}",
            ]
            nodes = (
                f"c{n} = Conv (x{n}, p{n}) d{n} = Relu (c{n}) "
                f"e{n} = Conv <pads = [1, 1, 1, 1], strides = [{stride}, {stride}]> (d{n}, q{n}) f{n} = Relu (e{n}) "
                f"g{n} = Conv (f{n}, r{n}) "
            )
            if not block:
                weights.append(f"float[{EXPANSION * width}, {channels}, 1, 1] s{n}")
                nodes += f"h{n} = Conv <strides = [{stride}, {stride}]> (x{n}, s{n}) k{n} = Add (g{n}, h{n}) "
            else:
                nodes += f"k{n} = Add (g{n}, x{n}) "
            result = "last" if number == sum(stages) else f"x{number}"
            yield weights, nodes + f"{result} = Relu (k{n})"
            channels = EXPANSION * width
