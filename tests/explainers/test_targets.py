"""Targets: top, index or label, and errors that help."""

import numpy as np
import pytest

from masktool.explainers.target import TargetError
from masktool.explainers.targets.class_target import rank_scores, resolve_target

LABELS = ("tabby", "Persian cat", "crane", "crane", "TOP", "7")
SCORES = np.array([0.1, 0.3, 0.05, 0.05, 0.4, 0.1], np.float32)


@pytest.mark.parametrize(
    ("target", "index"),
    [
        (None, 4),
        ("top", 4),
        ("TOP", 4),
        (0, 0),
        ("3", 3),
        (np.int64(2), 2),
        ("tabby", 0),
        ("TABBY", 0),
        ("persian CAT", 1),
    ],
)
def test_target_is_found(target, index):
    assert resolve_target(target, SCORES, LABELS) == index


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (6, r"expected an index from 0 to 5, got 6"),
        (-1, r"from 0 to 5, got -1"),
        ("7", "from 0 to 5, got 7"),  # digits are an index, whatever the labels
        ("tabbi", r"unknown label .*'tabbi'.*did you mean 'tabby'"),
        ("cat", "did you mean 'Persian cat'"),
        ("zzzz", "unknown label.*masktool info"),
        ("crane", r"several classes share this label.*\[2, 3\]"),
        (1.5, r"from 0 to 5, got 1\.5"),
        (True, "from 0 to 5, got True"),
        (np.False_, "from 0 to 5, got False"),
    ],
)
def test_bad_target_is_explained(target, message):
    with pytest.raises(TargetError, match=message):
        resolve_target(target, SCORES, LABELS)


def test_label_without_labels():
    with pytest.raises(TargetError, match=r"no labels.*'cat'.*index"):
        resolve_target("cat", SCORES, None)


def test_five_highest_and_the_target():
    ranked = rank_scores(SCORES, 3, LABELS)
    assert [each.index for each in ranked] == [4, 1, 0, 5, 2, 3]
    assert ranked[0].label == "TOP"
    assert ranked[-1].score == pytest.approx(0.05)
    assert [each.index for each in rank_scores(SCORES, 1, None)] == [4, 1, 0, 5, 2]
