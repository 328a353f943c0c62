"""Draws random networks: families of blocks, joins and heads, with weights under which every layer matters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import fuzz.networks.operations  # noqa: F401 - registers them
from fuzz.networks.program import OPERATIONS, Dialect, Instruction, Program

OPSETS = (11, 13, 15, 17, 18, 20, 21)
MOST_BLOCKS = 5
SIDES = (12, 16, 20, 24, 33)
CHANNELS = (4, 6, 8, 12)
LARGEST_VALUE = 60_000
"""Numbers of one image's activation; networks stay small so that thousands can be tried."""
EPSILON = 1e-5
ACTIVATIONS = ("relu", "relu", "leaky_relu", "relu6", "sigmoid", "tanh", "silu", "hard_swish", "hard_sigmoid", "gelu")
SHIFT = 0.3
"""Mean of biases: above 0, so that most ReLUs stay open, and so that a mask that is forgotten shows."""


class NetworkDrawer:
    """Draws one network, instruction by instruction; shapes follow from running it in torch as it grows."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        self.steps: list[Instruction] = []
        side = self.choose(SIDES)
        self.image_shape = (self.choose((1, 3, 3, 3, 4)), side, self.choose((side, self.choose(SIDES))))
        generator = torch.Generator().manual_seed(seed)
        self.values: list[torch.Tensor] = [torch.randn(2, *self.image_shape, generator=generator).double()]

    def choose(self, options: Any) -> Any:
        """Returns one of several things."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, share: float) -> bool:
        """Returns True with that probability."""
        return bool(self.rng.random() < share)

    def shape(self, value: int) -> tuple[int, ...]:
        """Returns the shape of one image's value."""
        return tuple(self.values[value].shape[1:])

    def emit(
        self, operation: str, *inputs: int, weights: dict[str, np.ndarray] | None = None, **parameters: Any
    ) -> int:
        """Appends an instruction and returns the number of its result."""
        step = Instruction(operation, inputs, parameters, weights or {}, int(self.rng.integers(1 << 16)))
        tensors = {name: torch.from_numpy(array) for name, array in step.weights.items()}
        arguments = [self.values[number] for number in inputs]
        self.values.append(
            OPERATIONS[operation].run(lambda target, *rest: target(*rest), arguments, parameters, tensors)
        )
        self.steps.append(step)
        return len(self.values) - 1

    # Weights

    def kernel(self, *shape: int) -> np.ndarray:
        """Draws a weight by its fan-in."""
        return self.rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)

    def shifts(self, count: int) -> np.ndarray:
        """Draws biases."""
        return self.rng.normal(SHIFT, 0.1, count)

    def gains(self, count: int) -> np.ndarray:
        """Draws factors around 1."""
        return self.rng.uniform(0.6, 1.4, count)

    # Layers

    def conv(
        self, x: int, channels: int, kernel: int | None = None, stride: int = 1, groups: int = 1, same: bool = False
    ) -> int:
        """A convolution, with whatever follows convolutions."""
        own, height, width = self.shape(x)
        k = kernel or self.choose((1, 3, 3, 5, 7))
        sides = (k, self.choose((k, 1))) if not same and self.chance(0.15) else (k, k)
        dilation = 2 if k == 3 and self.chance(0.2) and min(height, width) > 6 else 1
        padding = tuple(dilation * (side // 2) for side in sides)
        if not same and self.chance(0.15) and min(height, width) > dilation * (k - 1) + 2:
            padding = (0, 0)
        weights = {"weight": self.kernel(channels, own // groups, *sides)}
        if self.chance(0.7):
            weights["bias"] = self.shifts(channels)
        return self.emit(
            "conv",
            x,
            weights=weights,
            kernel=sides,
            stride=(stride, stride),
            dilation=(dilation, dilation),
            padding=padding,
            groups=groups,
        )

    def norm(self, x: int) -> int:
        """A normalisation; its statistics are those of the random image, so that the signal keeps its size."""
        channels = self.shape(x)[0]
        weights = {"scale": self.gains(channels), "shift": self.shifts(channels)}
        if self.chance(0.1) and min(self.shape(x)[1:]) > 1:
            return self.emit("instance_norm", x, weights=weights, epsilon=EPSILON)
        value = self.values[x]
        weights["mean"] = value.mean((0, 2, 3)).numpy()
        weights["variance"] = value.var((0, 2, 3)).numpy() + 0.1
        return self.emit("batch_norm", x, weights=weights, epsilon=EPSILON)

    def activate(self, x: int) -> int:
        """A random activation."""
        return self.emit(self.choose(ACTIVATIONS), x)

    def conv_norm(self, x: int, channels: int, **options: Any) -> int:
        """Convolution, mostly a norm, mostly an activation."""
        x = self.conv(x, channels, **options)
        x = self.norm(x) if self.chance(0.6) else x
        return self.activate(x) if self.chance(0.85) else x

    # Blocks: each takes and returns the number of a map

    def block_plain(self, x: int) -> int:
        """One or two convolutions."""
        x = self.conv_norm(x, self.choose(CHANNELS), stride=self.choose((1, 1, 2)))
        return self.conv_norm(x, self.choose(CHANNELS)) if self.chance(0.4) else x

    def block_residual(self, x: int) -> int:
        """A branch, perhaps strided, and a shortcut."""
        stride, channels = self.choose((1, 2)), self.choose(CHANNELS)
        branch = self.conv_norm(x, channels, kernel=3, stride=stride, same=True)
        branch = self.conv(branch, channels, kernel=3, same=True)
        if stride == 1 and channels == self.shape(x)[0]:
            short = x
        elif stride == 2 and self.chance(0.3):
            short = self.conv(self.emit("steps", x, **self.steps_from(x, (0, 0))), channels, kernel=1, same=True)
        else:
            short = self.conv(x, channels, kernel=1, stride=stride, same=True)
        if self.shape(branch) != self.shape(short):
            return branch
        return self.activate(self.emit("add", branch, short))

    def block_narrow(self, x: int) -> int:
        """A convolution that spans less than its stride."""
        k, stride = self.choose(((1, 2), (1, 3), (2, 3), (2, 4), (3, 4)))
        if min(self.shape(x)[1:]) <= 2 * stride:
            return self.block_plain(x)
        return self.conv_norm(x, self.choose(CHANNELS), kernel=k, stride=stride)

    def block_phases(self, x: int) -> int:
        """Every other place from all four places to begin at, side by side as in a Focus stem, or added."""
        _, height, width = self.shape(x)
        if height % 2 or width % 2 or min(height, width) < 6:
            return self.emit("steps", x, **self.steps_from(x, (0, 1)))
        phases = [self.emit("steps", x, **self.steps_from(x, (row, column))) for row in (0, 1) for column in (0, 1)]
        if self.chance(0.5):
            return self.conv_norm(self.emit("concat", *phases), self.choose(CHANNELS), kernel=3, same=True)
        return self.emit("add", self.emit("add", *phases[:2]), self.emit("subtract", *phases[2:]))

    def steps_from(self, x: int, start: tuple[int, int], step: tuple[int, int] = (2, 2)) -> dict[str, Any]:
        """Returns what says which places are picked."""
        return {"start": start, "step": step, "sides": self.shape(x)[1:]}

    def block_depthwise(self, x: int) -> int:
        """An inverted residual: wide, depthwise, perhaps gated, narrow."""
        channels = self.shape(x)[0]
        wide = self.conv_norm(x, 2 * channels, kernel=1)
        deep = self.conv_norm(wide, 2 * channels, kernel=3, groups=2 * channels, same=True)
        deep = self.block_gate(deep) if self.chance(0.5) else deep
        narrow = self.conv(deep, channels, kernel=1)
        return self.emit("add", x, narrow) if self.shape(narrow) == self.shape(x) else narrow

    def block_gate(self, x: int) -> int:
        """Squeeze and excitation."""
        channels = self.shape(x)[0]
        pooled = self.emit("global_mean", x)
        hidden = self.emit("relu", self.conv(pooled, max(channels // 2, 1), kernel=1, same=True))
        gate = self.emit(self.choose(("sigmoid", "hard_sigmoid")), self.conv(hidden, channels, kernel=1, same=True))
        return self.emit("multiply", x, gate)

    def block_concat(self, x: int) -> int:
        """Branches of one size side by side, as in Inception, DenseNet and Fire modules."""
        branches = [
            self.conv_norm(x, self.choose(CHANNELS), kernel=k, same=True) for k in self.choose(((1, 3), (3, 5, 1)))
        ]
        branches += [x] if self.chance(0.5) else []
        branches = [each for each in branches if self.shape(each)[1:] == self.shape(branches[0])[1:]]
        return self.emit("concat", *branches) if len(branches) > 1 else branches[0]

    def block_shuffle(self, x: int) -> int:
        """Half of the channels through a branch, and a shuffle, as in ShuffleNet."""
        channels = self.shape(x)[0]
        if channels % 2 or channels < 4:
            return self.block_plain(x)
        left = self.emit("channels", x, start=0, end=channels // 2, channels=channels)
        right = self.emit("channels", x, start=channels // 2, end=channels, channels=channels)
        right = self.conv_norm(right, channels // 2, kernel=self.choose((1, 3)), same=True)
        joined = self.emit("concat", left, right)
        return self.emit("shuffle", joined, groups=2, shape=self.shape(joined))

    def block_max_pool(self, x: int) -> int:
        """A max pool."""
        return self.emit("max_pool", x, dilation=(1, 1), **self.window(x))

    def block_average_pool(self, x: int) -> int:
        """An average pool."""
        return self.emit("average_pool", x, count_padding=self.chance(0.5), **self.window(x))

    def window(self, x: int) -> dict[str, Any]:
        """Draws a pool's window; with ceil_mode no window may begin in the padding, where torch and ONNX part."""
        height, width = self.shape(x)[1:]
        k, stride = self.choose(((2, 2), (3, 2), (3, 1), (3, 3), (5, 2), (1, 2), (2, 3)))
        k = min(k, height, width)
        padding = self.choose((0, k // 2)) if k > 1 else 0
        ceil = padding == 0 and k >= stride and self.chance(0.3)
        return {"kernel": (k, k), "stride": (stride, stride), "padding": (padding, padding), "ceil": ceil}

    def block_upsample(self, x: int) -> int:
        """Down and up again, joined with where it came from, as in a U-Net."""
        height, width = self.shape(x)[1:]
        if height % 2 or width % 2 or min(height, width) < 4:
            return self.block_plain(x)
        low = self.emit("max_pool", x, kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1), ceil=False)
        low = self.conv_norm(low, self.choose(CHANNELS), kernel=3, same=True)
        if self.shape(low)[1:] != (height // 2, width // 2):
            return low
        return self.emit("concat", self.emit(self.choose(("upsample_nearest", "upsample_bilinear")), low), x)

    def block_product(self, x: int) -> int:
        """Two branches multiplied, or one taken from the other."""
        left, right = (self.conv_norm(x, 6, kernel=k, same=True) for k in (1, 3))
        if self.shape(left) != self.shape(right):
            return left
        return self.emit(self.choose(("multiply", "subtract")), left, right)

    # Heads: each takes a map and returns the number of the scores (N, K)

    def head_pooled(self, x: int) -> int:
        """Global pooling and a linear layer."""
        pooled = self.emit(self.choose(("global_mean", "global_mean", "global_max")), x)
        return self.linear(self.emit("flatten", pooled, features=self.shape(pooled)[0]))

    def head_flat(self, x: int) -> int:
        """Everything flat, and one or two linear layers."""
        x = self.emit("flatten", x, features=int(np.prod(self.shape(x))))
        return self.linear(self.emit("relu", self.linear(x))) if self.chance(0.5) else self.linear(x)

    def head_convolved(self, x: int) -> int:
        """A 1 x 1 convolution to the classes, then the mean, as in SqueezeNet."""
        x = self.conv(x, self.classes, kernel=1, same=True)
        return self.emit("flatten", self.emit("global_mean", x), features=self.classes)

    def head_attention(self, x: int) -> int:
        """Tokens, an attention block and the mean of the tokens."""
        channels, height, width = self.shape(x)
        if not 1 < height * width <= 150 or channels < 4:  # of a lone place nobody can say whether it is one
            return self.head_pooled(x)
        tokens = self.emit("tokens", x, channels=channels, places=height * width)
        normed = self.normed_tokens(tokens, channels)
        weights = {name: self.kernel(channels, channels) for name in ("query", "key", "value")}
        attended = self.emit("attention", normed, weights=weights, scale=float(channels) ** -0.5)
        tokens = self.normed_tokens(self.emit("add", tokens, attended), channels)
        return self.linear(self.emit("mean_of_tokens", tokens))

    def normed_tokens(self, x: int, channels: int) -> int:
        """Layer norm over the channels."""
        weights = {"scale": self.gains(channels), "shift": self.shifts(channels)}
        return self.emit("layer_norm", x, weights=weights, channels=channels)

    def linear(self, x: int) -> int:
        """A fully connected layer to the classes."""
        (features,) = self.shape(x)
        weights = {"weight": self.kernel(self.classes, features), "bias": self.shifts(self.classes)}
        return self.emit("linear", x, weights=weights)

    @property
    def classes(self) -> int:
        """How many classes the network tells apart."""
        return 3 + self.seed % 8


BLOCKS: tuple[Callable[[NetworkDrawer, int], int], ...] = tuple(
    value for name, value in vars(NetworkDrawer).items() if name.startswith("block_")
)
HEADS: tuple[Callable[[NetworkDrawer, int], int], ...] = tuple(
    value for name, value in vars(NetworkDrawer).items() if name.startswith("head_")
)


def draw_network(seed: int) -> Program:
    """Returns the network of a seed."""
    drawer = NetworkDrawer(seed)
    x = drawer.conv_norm(0, drawer.choose(CHANNELS), stride=drawer.choose((1, 2)))
    for _ in range(int(drawer.rng.integers(1, MOST_BLOCKS + 1))):
        x = drawer.choose(BLOCKS)(drawer, x)
        if np.prod(drawer.shape(x)) > LARGEST_VALUE or min(drawer.shape(x)[1:]) < 3:
            break
    features, scores = x, drawer.choose(HEADS)(drawer, x)
    if drawer.chance(0.25):
        scores = drawer.emit("softmax", scores)
    outputs = {"scores": scores} | ({"features": features} if drawer.chance(0.25) else {})
    opset, fixed = drawer.choose(OPSETS), drawer.chance(0.3)
    dialect = Dialect(opset, 1 if fixed else drawer.choose(("N", "batch")), drawer.chance(0.25), drawer.chance(0.5))
    return Program(seed, drawer.image_shape, tuple(drawer.steps), outputs, dialect)


def has_narrow_samplers(program: Program) -> bool:
    """Whether an instruction samples more sparsely than it looks, so that the cell rule may change the network."""
    return any(is_narrow(step) for step in program.instructions)


def is_narrow(step: Instruction) -> bool:
    """Whether an instruction passes places over."""
    if step.operation == "steps":
        return True
    if step.operation not in ("conv", "max_pool", "average_pool"):
        return False
    own = step.parameters
    windows = zip(own["kernel"], own["stride"], own.get("dilation", (1, 1)), strict=True)
    return any(dilation * (kernel - 1) + 1 < stride for kernel, stride, dilation in windows)


def prune(program: Program) -> Program:
    """Returns the same network without the instructions whose results nobody reads."""
    needed = set(program.outputs.values())
    for number in range(len(program.instructions), 0, -1):
        if number in needed:
            needed.update(program.instructions[number - 1].inputs)
    kept = [0, *sorted(needed - {0})]
    renumbered = {old: new for new, old in enumerate(kept)}
    steps = [program.instructions[number - 1] for number in kept[1:]]
    return dataclasses.replace(
        program,
        instructions=tuple(
            dataclasses.replace(step, inputs=tuple(renumbered[number] for number in step.inputs)) for step in steps
        ),
        outputs={name: renumbered[number] for name, number in program.outputs.items()},
    )
