"""torch's exporter in tests: it reads the sources of its 500 operators again for every export, here once in a process.

An export of a small network takes 1.6 s, of which that is .8. What an export makes of an operator is the same.
"""

from __future__ import annotations

import copy
import functools
import sys
from typing import Any


@functools.cache
def share_operators() -> None:
    """Lets all exports of this process share torch's table of operators, which each gets a copy of."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read = functools.cache(ONNXRegistry.from_torchlib)

    def from_torchlib(_: type[ONNXRegistry], **options: Any) -> ONNXRegistry:
        registry = copy.copy(read(**options))
        registry.functions = {name: list(functions) for name, functions in registry.functions.items()}
        return registry

    ONNXRegistry.from_torchlib = classmethod(from_torchlib)  # type: ignore[method-assign]


def share_operators_where_torch_is() -> None:
    """The same, where a test has imported torch; it is imported for no test that does without."""
    if "torch" in sys.modules:
        share_operators()
