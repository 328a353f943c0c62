"""What a file with the gradient of a number of an output gives, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

WORDS = {"top": "the largest number", "sum": "the sum", "weights": "the sum, weighed by {weights},"}
"""What is differentiated, by target, as it is told."""


def describe_derivative_of(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields what is differentiated, with respect to what, and how that was measured: a word and a text each.

    Args:
        found: the fields of :class:`masktool.Derivative` by name, or what a file says of them.
    """
    from masktool.exporters.derivatives.points import KINDS

    target = found["target"]
    number = WORDS[target] if isinstance(target, str) else f"number ({', '.join(map(str, target))})"
    whose = f"each row of {found['output']!r}" if found["batched"] else f"{found['output']!r} as a whole"
    yield "objective", f"{number.format(weights=repr(found['weights']))} of {whose}, in {found['objective']!r}"
    for name, output in found["gradients"].items():
        yield "gradient", f"with respect to {name!r}, in {output!r}"
    figures = dict(found["figures"])
    against, points, apart = figures.pop("against"), figures.pop("points"), figures.pop("spread", None)
    yield "measured", ", ".join(f"{name} {figure:.1e}" if figure else f"{name} 0" for name, figure in figures.items())
    doubt = "" if apart is None else f", which disagree among themselves by {apart:.1e}"
    drawn = KINDS.get(points, points)
    yield "measured against", f"central differences in {against}{doubt}, at {drawn}"
