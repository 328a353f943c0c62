"""Mutations of bytes and of JSON values, which every kind of file shares."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np

ODD_NUMBERS: tuple[Any, ...] = (0, 1, -1, 2, 255, 2**31 - 1, 2**31, 2**40, -(2**63), 1e308, -1e308, 5e-324, 0.5, -0.5)
ODD_TEXTS = (
    "",
    " ",
    "mask",
    "image",
    "\x00",
    "\x1b[31m",
    "‮",
    "a" * 70_000,
    "../../etc/passwd",
    "é",
    "\ud800",
    "0",
    "-1",
)
ODD_VALUES: tuple[Any, ...] = (*ODD_NUMBERS, *ODD_TEXTS, None, True, False, [], {}, [[]], {"": {}})


def mutate_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Returns bytes with one to four faults: flipped, cut off, repeated, removed, overwritten or inserted."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not data:
            return bytes(rng.bytes(8))
        where, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
        fault = int(rng.integers(6))
        if fault == 0:
            data[where] ^= 1 << int(rng.integers(8))
        elif fault == 1:
            del data[where:]
        elif fault == 2:
            data[where:where] = data[where : where + length]
        elif fault == 3:
            del data[where : where + length]
        elif fault == 4:
            data[where : where + length] = bytes([int(rng.choice([0, 255, 127]))]) * len(data[where : where + length])
        else:
            data[where:where] = rng.bytes(length)
    return bytes(data)


def mutate_json(document: Any, rng: np.random.Generator) -> str:
    """Returns a JSON text with one to three values replaced, removed, repeated or nested deeply, or broken bytes."""
    changed = copy.deepcopy(document)
    for _ in range(int(rng.integers(1, 4))):
        changed = mutate_value(changed, rng)
    text = json.dumps(changed)
    if rng.random() < 0.1:
        text = text.replace("1", str(rng.choice(["NaN", "Infinity", "1e999", "9" * 5000])), 1)
    if rng.random() < 0.1:
        depth = int(rng.choice([50, 2000, 200_000]))
        text = "[" * depth + text + "]" * depth
    return text


def mutate_value(value: Any, rng: np.random.Generator) -> Any:
    """Changes one place in a tree of JSON values, chosen by walking down at random."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = list(value)[int(rng.integers(len(value)))]
        fault = rng.random()
        if fault < 0.1:
            del value[key]
        elif fault < 0.2:
            value[str(rng.choice(["", "size", "labels", "masking", "\x1b[2J"]))] = value.pop(key)
        else:
            value[key] = mutate_value(value[key], rng)
        return value
    if isinstance(value, list) and value and rng.random() < 0.75:
        index, fault = int(rng.integers(len(value))), rng.random()
        if fault < 0.15:
            del value[index]
        elif fault < 0.3:
            value[index:index] = [copy.deepcopy(value[index])] * int(rng.choice([1, 2, 1000]))
        else:
            value[index] = mutate_value(value[index], rng)
        return value
    return copy.deepcopy(ODD_VALUES[int(rng.integers(len(ODD_VALUES)))])
