"""Similarity of classes, against paths counted by hand and networkx."""

from __future__ import annotations

import json

import networkx
import numpy as np
import pytest

from masktool.datasets.hierarchy import read_hierarchy
from masktool.errors import MasktoolError

TREE = {
    "tabby": "cat",
    "Siamese": "cat",
    "cat": "animal",
    "beagle": "dog",
    "dog": "animal",
    "lorry": "vehicle",
    "animal": "thing",
    "vehicle": "thing",
}
NAMES = ["tabby", "Siamese", "beagle", "lorry", "dog"]


@pytest.fixture
def read(tmp_path):
    def read_document(document, class_names=None, n_classes=None):
        path = tmp_path / "hierarchy.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return read_hierarchy(path, class_names, n_classes)

    return read_document


@pytest.mark.parametrize(
    ("a", "b", "edges"),
    [
        (0, 0, 0),  # itself
        (0, 1, 2),  # tabby, cat, Siamese
        (0, 2, 4),  # tabby, cat, animal, dog, beagle
        (0, 3, 5),  # tabby, cat, animal, thing, vehicle, lorry
        (2, 4, 1),  # a class may lie above another
    ],
)
def test_edges_counted_by_hand(read, a, b, edges):
    hierarchy = read(TREE, NAMES)
    assert hierarchy.similarity(a, b) == hierarchy.similarity(b, a) == pytest.approx(1 / (1 + edges), abs=0)
    assert hierarchy.unknown == ()


def test_a_random_tree_agrees_with_networkx(read):
    random = np.random.default_rng(0)
    parents = {str(child): str(random.integers(child)) for child in range(1, 60)}
    hierarchy = read(parents, n_classes=60)
    lengths = dict(networkx.all_pairs_shortest_path_length(networkx.Graph(list(parents.items()))))
    for a in range(60):
        for b in range(60):
            assert hierarchy.similarity(a, b) == 1 / (1 + lengths[str(a)][str(b)])


def test_paths_go_up_and_down_only_and_take_the_nearest_parent(read):
    hierarchy = read(
        {"a": ["x", "y"], "b": "x", "c": "y", "x": "root", "y": "root", "child": ["b", "c"]}, ["a", "b", "c"]
    )
    assert hierarchy.similarity(0, 1) == hierarchy.similarity(0, 2) == 1 / 3
    assert hierarchy.similarity(1, 2) == 1 / 5  # through the root, not down through the child that they share


def test_classes_that_are_unknown_or_unrelated(read):
    hierarchy = read({"a": "x", "b": "y", "c": "y", "y": None}, ["a", "b", "c", "d"])
    assert hierarchy.similarity(1, 2) == 1 / 3
    assert hierarchy.similarity(0, 1) is None
    assert hierarchy.similarity(0, 3) is hierarchy.similarity(3, 3) is None
    assert hierarchy.unknown == (3,)


def test_indices_stand_for_classes_without_a_name_of_their_own(read):
    document = {"crane": "bird", "1": "bird", "2": "machine", "bird": "thing", "machine": "thing"}
    hierarchy = read(document, ["robin", "crane", "crane"])
    assert hierarchy.unknown == (0,)
    assert hierarchy.similarity(1, 2) == 1 / 5
    assert read(document).similarity(1, 2) == 1 / 5
    assert read(document, n_classes=2).similarity(1, 2) is None


def test_digits_are_a_name_where_classes_are_called_by_digits(read):
    hierarchy = read(
        {"0": "round", "1": "straight", "8": "round", "round": "digit", "straight": "digit"}, ["8", "1", "0"]
    )
    assert hierarchy.similarity(0, 2) == 1 / 3
    assert hierarchy.similarity(0, 1) == 1 / 5


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", r"^not JSON \(.*, line 1, column 2\): expected a hierarchy of classes, as JSON \{child: parent\}"),
        ([1], r"^not a hierarchy \(.*\): expected a hierarchy of classes, as JSON \{child: parent\}, got \[1\]$"),
        ({"a": 3}, r'^not a parent \(.*, entry "a"\): expected a name or a list of names, got 3$'),
        ({"a": ["b", 3]}, r'^not a parent \(.*, entry "a"\)'),
        ({"a": "b", "b": "c", "c": "b"}, r"'\w' is its own ancestor: \w above \w above \w$"),
        ({"a": "a"}, r"'a' is its own ancestor"),
        ({"x": "y"}, r"^not a hierarchy of the model's classes \(.*\): no class of the model .* names such as 'a'$"),
    ],
)
def test_a_file_that_is_no_hierarchy(read, document, message):
    with pytest.raises(MasktoolError, match=message):
        read(document, ["a", "b"])


def test_a_deep_hierarchy(read):
    depth = 5000
    hierarchy = read({str(n): str(n + 1) for n in range(depth)}, n_classes=2)
    assert hierarchy.similarity(0, 1) == 0.5


def test_the_label_of_another_class_is_no_index(read):
    hierarchy = read({"1": "digit", "0": "digit"}, ["1", "one", "0"])
    assert hierarchy.unknown == (1,)
    assert hierarchy.similarity(0, 2) == 1 / 3
