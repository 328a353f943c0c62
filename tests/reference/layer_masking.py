"""Runs any torch module under layer masking: its ATen graph, node by node, each activation with its mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind

from reference.carried import Carried, carry_map
from reference.cells import sampling
from reference.rules import RULES
from reference.windows import Padded

CONVOLUTIONS_OF_MAPS = tuple(getattr(torch.ops.aten, f"conv{axes}d").default for axes in (1, 2, 3))


class MaskedReference:
    """A module whose graph has been taken once, to be run under many masks.

    Args:
        module: in evaluation mode, one image input, one output. Its weights are not copied.
        image: an example, (1, C, H, W) or of another rank, in the module's dtype.
        batch: of every later call; it is fixed, since graphs with a symbolic batch take three times as long to make.
        rule: of samplers narrower than their stride: ``published`` or ``cell``.
    """

    def __init__(self, module: nn.Module, image: Tensor, batch: int, rule: str = "published") -> None:
        self.batch, self.rule = batch, rule
        program = torch.export.export(module, (image.expand(batch, *image.shape[1:]),))
        self.program = program.run_decompositions({})  # in-place operators become ordinary ones

    @torch.no_grad()
    def __call__(self, image: Tensor, mask: Tensor) -> Tensor:
        """Returns the logits (batch, K) for images (N, C, H, W) under masks (M, 1, H, W); N and M: the batch or 1."""
        return self.run(image, mask)

    def run(self, image: Tensor, mask: Tensor) -> Tensor:
        """The same for autograd to differentiate."""
        images, masks = (each.expand(self.batch, *each.shape[1:]) for each in (image, mask.to(image.dtype)))
        kept = carry_map(images, masks)
        state = {**self.program.state_dict, **self.program.constants}
        arguments = [
            kept if spec.kind == InputKind.USER_INPUT else state[spec.target]
            for spec in self.program.graph_signature.input_specs
        ]
        with sampling(self.rule):
            (output,) = MaskedInterpreter(self.program.graph_module).run(*arguments)
        if isinstance(output, Carried):
            raise NotImplementedError("an output that still has height and width")
        return output


class MaskedInterpreter(torch.fx.Interpreter):
    """Looks up a rule wherever an argument carries a mask; everything else runs as it is."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs one node."""
        if not any(carries_mask(argument) for argument in (*args, *kwargs.values())):
            return super().call_function(target, args, kwargs)
        if target not in RULES:
            raise NotImplementedError(f"no mask rule for {target}")
        if isinstance(args[0], Padded) and target not in CONVOLUTIONS_OF_MAPS:
            raise NotImplementedError(f"zeros around a map, read by {target}")
        if target is torch.ops.aten.clone.default:
            kwargs = {}  # the memory format says nothing about values
        return RULES[target](*args, **kwargs)


def carries_mask(argument: Any) -> bool:
    """Whether an argument of a node, or an entry of a list of them, carries a mask."""
    if isinstance(argument, (list, tuple)):
        return any(carries_mask(entry) for entry in argument)
    return isinstance(argument, (Carried, Padded))


def masked_forward(module: nn.Module, image: Tensor, mask: Tensor, rule: str = "published") -> Tensor:
    """Runs a module under layer masking once; see :class:`MaskedReference`."""
    return MaskedReference(module, image[:1], max(image.shape[0], mask.shape[0]), rule)(image, mask)
