"""Which masks are nowhere larger than which others, as far as the way they were made tells.

A pool of stride 1 whose windows hold their own place gives a mask that is nowhere smaller than the one it read. So does
a pool whose windows hold all places of another pool's windows. The smallest mask at a residual addition is then one
that is known already, that of the shortcut: the blocks of a stage share their mask, and all that is computed from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import onnx_ir as ir

from masktool.ops.sliding import Window


class MaskOrder:
    """What is known of the order of a graph's masks."""

    def __init__(self) -> None:
        self._pools: dict[ir.Value, tuple[ir.Value, Window]] = {}
        self._unions: dict[ir.Value, Sequence[ir.Value]] = {}
        self._intersections: dict[ir.Value, Sequence[ir.Value]] = {}
        self._found: dict[tuple[ir.Value, ir.Value], bool] = {}

    def note_pool(self, result: ir.Value, source: ir.Value, window: Window) -> None:
        """Notes that a mask is the maximum of another over windows."""
        self._pools[result] = source, window

    def note_union(self, result: ir.Value, parts: Sequence[ir.Value]) -> None:
        """Notes that a mask is the maximum of others, place by place."""
        if len(parts) > 1:
            self._unions[result] = parts

    def note_intersection(self, result: ir.Value, parts: Sequence[ir.Value]) -> None:
        """Notes that a mask is the minimum of others, place by place."""
        if len(parts) > 1:
            self._intersections[result] = parts

    def smallest_of(self, masks: Iterable[ir.Value]) -> list[ir.Value]:
        """Returns those masks whose minimum is that of all the given ones."""
        return without_needless(masks, self.is_within)

    def largest_of(self, masks: Iterable[ir.Value]) -> list[ir.Value]:
        """Returns those masks whose maximum is that of all the given ones."""
        return without_needless(masks, lambda kept, mask: self.is_within(mask, kept))

    def is_within(self, small: ir.Value, large: ir.Value) -> bool:
        """Whether a mask is known to be nowhere larger than another of the same shape."""
        if small is large:
            return True
        pair = (small, large)
        if pair not in self._found:
            self._found[pair] = self._find(small, large)
        return self._found[pair]

    def _find(self, small: ir.Value, large: ir.Value) -> bool:
        if any(self.is_within(part, large) for part in self._intersections.get(small, ())):
            return True
        if any(self.is_within(small, part) for part in self._unions.get(large, ())):
            return True
        if small in self._unions:
            return all(self.is_within(part, large) for part in self._unions[small])
        if large not in self._pools:
            return False
        source, window = self._pools[large]
        if window.keeps_places and self.is_within(small, source):
            return True
        if small not in self._pools:
            return False
        other_source, other = self._pools[small]
        return window.holds(other) and self.is_within(other_source, source)


def without_needless(masks: Iterable[ir.Value], makes_needless: Callable[[ir.Value, ir.Value], bool]) -> list[ir.Value]:
    """Returns different masks, without each that one of the others makes needless."""
    left = list(dict.fromkeys(masks))
    for mask in tuple(left):
        if any(makes_needless(other, mask) for other in left if other is not mask):
            left.remove(mask)
    return left
