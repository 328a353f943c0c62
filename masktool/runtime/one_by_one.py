"""Files that take one image and one mask at a time, behind the interface of those that take any number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

Shape = tuple[int | None, ...]


def shape_of_many(shape: Shape) -> Shape:
    """Returns the shape for many images of an input or output that has this shape for one: images on the first axis.

    An output that has no axis of length 1 in front gets one: results are stacked.
    """
    return (None, *shape[1:]) if is_row(shape) else (None, *shape)


def is_row(shape: Shape) -> bool:
    """Tells whether an input or output of this shape, for one image, is one row of that for many images."""
    return bool(shape) and shape[0] == 1


def each_alone(
    feed: Mapping[str, np.ndarray], per_result: frozenset[str], count: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the inputs' values for one result after the other.

    Args:
        feed: values by the inputs' names, for all results.
        per_result: names of the inputs with one row per result, or one row for all of them.
        count: number of results.
    """
    for index in range(count):
        yield {name: value[index % len(value)][None] if name in per_result else value for name, value in feed.items()}


def join_results(runs: Sequence[Sequence[np.ndarray]], shapes: Sequence[Shape]) -> list[np.ndarray]:
    """Returns, for every output, the results of all images on a first axis.

    Args:
        runs: outputs of each image, one run after the other.
        shapes: shapes of the outputs for one image.

    Returns:
        One array per output: rows behind each other, or whole results stacked on an axis of their own. Where results
        differ in length (a list of what was found in each image), an array of objects, (N,), one array for each image.
    """
    return [
        join_rows(results) if is_row(shape) else stack_results(results)
        for shape, results in zip(shapes, map(list, zip(*runs, strict=True)), strict=True)
    ]


def join_rows(results: list[np.ndarray]) -> np.ndarray:
    """Returns the rows of results (1, ...) on one first axis; what was not asked for has none, (0, ...)."""
    rows = [row for result in results for row in result]
    return stack_results(rows) if rows else results[0]


def stack_results(results: list[np.ndarray]) -> np.ndarray:
    """Returns results on a new first axis."""
    if len({result.shape for result in results}) == 1:
        return np.stack(results)
    found = np.empty(len(results), object)
    for index, result in enumerate(results):
        found[index] = result
    return found
