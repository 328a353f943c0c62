"""How alike classes are, by a hierarchy that the user gives.

The file is JSON, ``{child: parent}`` over names::

    {"tabby": "cat", "Siamese": "cat", "cat": "animal", "beagle": "dog", "dog": "animal"}

A class stands in it by its label or, where it has none or shares it with another class, by its index (``"282"``). A
name with several parents has a list of them. What is nobody's child is a root; classes under different roots, and
classes that do not stand in the file, are of unknown similarity.

Source: the definition of path_similarity for WordNet, https://www.nltk.org/howto/wordnet.html; Pedersen, Patwardhan and
Michelizzi, "WordNet::Similarity: Measuring the Relatedness of Concepts", 2004
"""

from __future__ import annotations

import graphlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from masktool.data_files import read_json, shorten
from masktool.datasets.classes import parse_index
from masktool.errors import MasktoolError

EXPECTED = "a hierarchy of classes, as JSON {child: parent}"

Parents = Mapping[str, tuple[str, ...]]
"""Parents of each name; a root has none."""


class Hierarchy:
    """A hierarchy of names above the model's classes.

    Args:
        parents: names above each name.
        class_names: names of the model's classes; None where it has none.
        n_classes: number of the model's classes; None where it is unknown.

    Attributes:
        unknown: indices of the classes that do not stand in the hierarchy.

    Raises:
        MasktoolError: none of the classes stands in the hierarchy, or a name is its own ancestor.
    """

    def __init__(self, parents: Parents, class_names: Sequence[str] | None, n_classes: int | None) -> None:
        self.nodes = place_classes(parents, class_names, n_classes)
        if not self.nodes:
            example = class_names[0] if class_names else "0"
            raise MasktoolError("no class of the model stands in the hierarchy", expected=f"names such as {example!r}")
        count = len(class_names) if class_names is not None else n_classes or 0
        self.unknown = tuple(index for index in range(count) if index not in self.nodes)
        check_acyclic(parents)
        self.ancestors = {node: count_edges(node, parents) for node in dict.fromkeys(self.nodes.values())}

    def similarity(self, a: int, b: int) -> float | None:
        """Returns 1 / (1 + edges on the shortest path up from one class and down to the other), in (0, 1].

        Args:
            a: index of a class.
            b: index of another class, or of the same.

        Returns:
            The similarity; None where a class does not stand in the hierarchy, or the two have no common ancestor.
        """
        if a not in self.nodes or b not in self.nodes:
            return None
        above_a, above_b = (self.ancestors[self.nodes[index]] for index in (a, b))
        edges = [above_a[name] + above_b[name] for name in above_a.keys() & above_b.keys()]
        return 1 / (1 + min(edges)) if edges else None


def read_hierarchy(path: Path, class_names: Sequence[str] | None, n_classes: int | None) -> Hierarchy:
    """Reads a hierarchy from JSON.

    Args:
        path: path of the file.
        class_names: names of the model's classes; None where it has none.
        n_classes: number of the model's classes; None where it is unknown.

    Raises:
        MasktoolError: the file cannot be read, is no hierarchy, goes in a circle, or holds none of the model's classes.
    """
    document = read_json(path, EXPECTED)
    if not isinstance(document, dict):
        raise MasktoolError("not a hierarchy", where=path, expected=EXPECTED, got=shorten(document))
    parents = {child: parse_parents(above, f"{path}, entry {json.dumps(child)}") for child, above in document.items()}
    roots = {name: () for above in parents.values() for name in above if name not in parents}
    try:
        return Hierarchy({**parents, **roots}, class_names, n_classes)
    except MasktoolError as error:
        raise MasktoolError("not a hierarchy of the model's classes", where=path, got=error) from error


def parse_parents(above: Any, where: str) -> tuple[str, ...]:
    """Returns the parents of one name in the JSON document; none for null, which makes the name a root."""
    names = [] if above is None else above if isinstance(above, list) else [above]
    if not all(isinstance(name, str) for name in names):
        raise MasktoolError("not a parent", where=where, expected="a name or a list of names", got=shorten(above))
    return tuple(names)


def place_classes(parents: Parents, class_names: Sequence[str] | None, n_classes: int | None) -> dict[int, str]:
    """Returns, for each class that stands in the hierarchy, the name under which it stands, by index."""
    if class_names is None:
        indices = (
            range(n_classes)
            if n_classes is not None
            else [index for name in parents if (index := parse_index(name)) is not None and index >= 0]
        )
        return {index: str(index) for index in indices if str(index) in parents}
    counts = Counter(class_names)
    nodes = {}
    for index, label in enumerate(class_names):
        if label in parents and counts[label] == 1:
            nodes[index] = label
        elif str(index) in parents and str(index) not in counts:
            nodes[index] = str(index)
    return nodes


def check_acyclic(parents: Parents) -> None:
    """Raises MasktoolError where a name is above itself."""
    try:
        graphlib.TopologicalSorter(parents).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1]
        raise MasktoolError(f"{circle[0]!r} is its own ancestor", got=" above ".join(circle)) from error


def count_edges(node: str, parents: Parents) -> dict[str, int]:
    """Returns the fewest edges from a name up to each of its ancestors, and 0 for the name itself."""
    edges = {node: 0}
    level = [node]
    while level:
        above = dict.fromkeys(name for child in level for name in parents.get(child, ()) if name not in edges)
        edges |= dict.fromkeys(above, edges[level[0]] + 1)
        level = list(above)
    return edges
