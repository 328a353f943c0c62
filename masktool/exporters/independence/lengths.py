"""Lengths of axes as products of a number and symbols: ``4 · batch``, ``height``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

Length = int | str | None
"""Length of an axis: a number, a symbol, or None where it is unknown."""


class Product(NamedTuple):
    """A number times symbols, each of which stands for a length; the symbols are in ascending order."""

    number: int
    symbols: tuple[str, ...] = ()

    def times(self, other: Product) -> Product:
        """Returns the product with another product."""
        return Product(self.number * other.number, tuple(sorted((*self.symbols, *other.symbols))))

    def over(self, other: Product) -> Product | None:
        """Returns the quotient by another product, None where it is not a whole number times symbols."""
        rest = list(self.symbols)
        for symbol in other.symbols:
            if symbol not in rest:
                return None
            rest.remove(symbol)
        if other.number == 0 or self.number % other.number:
            return None
        return Product(self.number // other.number, tuple(rest))


ONE = Product(1)


def product_of(length: Length) -> Product | None:
    """Returns a length as a product, None where it is unknown."""
    if isinstance(length, int):
        return Product(length)
    return None if length is None else Product(1, (length,))


def multiply_lengths(factors: Iterable[Product | None]) -> Product | None:
    """Returns the product of all factors, None where one is unknown."""
    total = ONE
    for factor in factors:
        if factor is None:
            return None
        total = total.times(factor)
    return total


def solve_unknown(lengths: Sequence[Product | None], total: Product) -> list[Product | None]:
    """Returns lengths whose product is ``total``, with the unknown one computed where only one is unknown."""
    unknown = [index for index, length in enumerate(lengths) if length is None]
    if len(unknown) != 1:
        return list(lengths)
    known = multiply_lengths(length for length in lengths if length is not None)
    assert known is not None
    return [total.over(known) if index == unknown[0] else length for index, length in enumerate(lengths)]
