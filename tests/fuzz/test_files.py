"""Any bytes end in a MasktoolError or a right result, within limits of time and memory.

The same mutants every time; hours of others: ``python -m fuzz files models --seconds 7200 --seed 100000``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.targets.target import load_targets, past_failures

PROJECT = Path(__file__).resolve().parents[2]
COUNTS = {
    "models": 100,
    "graphs": 60,
    "masked": 20,
    "pictures": 500,
    "documents": 500,
    "arrays": 500,
    "checkpoints": 40,
}
"""Mutants of each kind; about a minute and a half of one core in all, the past failures included."""


def test_every_target_is_fuzzed():
    assert set(COUNTS) == set(load_targets())


@pytest.mark.fuzz
@pytest.mark.parametrize("name", COUNTS)
def test_mutants_end_in_an_error_of_ours_or_a_right_result(name):
    if name == "checkpoints":
        pytest.importorskip("torch")
    options = ["--count", str(COUNTS[name]), "--seconds", "1800", "--seed", "0"]
    command = [sys.executable, "-m", "fuzz", "files", name, *options]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    figures = re.search(r"tried (\d+): right (\d+), refused (\d+), other 0", done.stdout)
    assert figures is not None, done.stdout
    tried, right, refused = map(int, figures.groups())
    assert tried == COUNTS[name] + len(past_failures(name)) == right + refused
    # of archives about 4 in 100 are right: checksums refuse the rest
    assert right > 0 or name == "checkpoints"  # a fuzzer whose every mutant is refused at the door tests the door alone
    assert refused > 0
