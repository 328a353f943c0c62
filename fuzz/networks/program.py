"""A network as a program: a list of instructions, which torch runs and a writer spells in ONNX."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from fuzz.networks.writer import OnnxWriter

Parameters = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One step of a program.

    Attributes:
        operation: a key of :data:`OPERATIONS`.
        inputs: numbers of the values that it reads; 0 is the image, n the result of the n-th instruction.
        parameters: numbers that say what it does.
        weights: float64 arrays by name.
        spelling: which of the operation's ONNX spellings is written, counted modulo their number.
    """

    operation: str
    inputs: tuple[int, ...]
    parameters: Parameters
    weights: Mapping[str, np.ndarray]
    spelling: int


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How an exporter writes a network down.

    Attributes:
        opset: of the standard domain.
        batch: of the image input: a number, or a name for an open one.
        channels_last: whether the image comes as (N, H, W, C), with a Transpose behind it.
        precision: element type of weights and values.
        shapes_inside: whether the file states shapes of inner values.
    """

    opset: int
    batch: int | str
    channels_last: bool
    shapes_inside: bool


@dataclasses.dataclass(frozen=True)
class Program:
    """A network.

    Attributes:
        seed: that it was drawn from.
        image_shape: (C, H, W).
        instructions: in order.
        outputs: numbers of the values that it returns, by name; the first is the classes' scores.
        dialect: how it is written.
    """

    seed: int
    image_shape: tuple[int, int, int]
    instructions: tuple[Instruction, ...]
    outputs: Mapping[str, int]
    dialect: Dialect

    def describe(self) -> str:
        """Returns one line that tells a reader what the network is made of."""
        body = " ".join(each.operation for each in self.instructions)
        layout = "NHWC" if self.dialect.channels_last else "NCHW"
        return f"seed {self.seed}: opset {self.dialect.opset}, batch {self.dialect.batch}, {layout}: {body}"


@dataclasses.dataclass(frozen=True)
class Operation:
    """What an instruction means.

    Attributes:
        run: computes it in torch, by ``call(target, *arguments)``, which runs an ATen operator plainly or by its mask
            rule.
        spellings: ways to write it in ONNX; each emits nodes and returns the name of the result.
    """

    run: Callable[[Callable[..., Any], Sequence[Any], Parameters, Mapping[str, torch.Tensor]], Any]
    spellings: tuple[Callable[[OnnxWriter, Sequence[str], Parameters, Mapping[str, np.ndarray]], str], ...]


OPERATIONS: dict[str, Operation] = {}
"""By name; a new operation is one entry, made by :func:`operation`."""


def operation(name: str, *spellings: Callable[..., str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers the decorated torch function with its ONNX spellings."""

    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        OPERATIONS[name] = Operation(run, spellings)
        return run

    return register
