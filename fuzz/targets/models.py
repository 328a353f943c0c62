"""ONNX models: whatever is written must answer as the mutant itself does, under a mask of ones."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import masktool
from fuzz.children import Bounds
from fuzz.graphs import mutate_model
from fuzz.networks.drawing import draw_network, prune
from fuzz.networks.writer import write_program
from fuzz.targets.target import TARGETS, Target
from masktool.contract import GRADIENT_OUTPUTS, TARGET_INPUT, Metadata

PARENTS = 40
"""Networks that mutants descend from."""
TOLERANCE = 1e-3
"""Relative; beyond it the file is wrong, unless the mutant's own answer varies as much with ONNX Runtime's effort."""
WAYS: tuple[dict[str, str], ...] = ({}, {"masking": "fill"}, {"gradient": "logit"}, {"masking": "partial"})


@functools.cache
def parents() -> list[bytes]:
    """Returns the models that mutants descend from."""
    return [write_program(prune(draw_network(seed))).SerializeToString() for seed in range(PARENTS)]


def draw(rng: np.random.Generator) -> tuple[bytes, str]:
    """Mutates one of the parents."""
    return mutate_model(parents()[int(rng.integers(PARENTS))], rng), ".onnx"


def run(path: Path, option: int) -> str:
    """Exports the file in one of several ways, opens what was written and compares."""
    target = path.with_name("masked.onnx")
    masktool.export(path, target, **WAYS[option % len(WAYS)])  # type: ignore[arg-type]
    return compare(path, target)


def compare(source: Path, target: Path) -> str:
    """Returns how a masked file under a mask of ones differs from its source, an empty text where it does not."""
    masked = open_session(target, optimised=True)
    metadata = Metadata.from_properties(masked.get_modelmeta().custom_metadata_map)
    if metadata is None:
        return "the file that was written has no metadata"
    feed = random_feed(masked, metadata.image_input)
    own = [node.name for node in masked.get_outputs() if node.name not in GRADIENT_OUTPUTS]
    masked.run(None, feed)
    found = dict(zip(own, masked.run(own, feed), strict=True))
    given = {name: value for name, value in feed.items() if name not in ("mask", TARGET_INPUT)}
    answers = [run_source(source, given, optimised=True)]
    with contextlib.suppress(Exception):  # a node that ONNX Runtime optimises away need not run
        answers.append(run_source(source, given, optimised=False))
    renamed = metadata.renamed or {}  # an output that gives no numbers, such as a detector's choice, is left out
    pairs = [(found[name], *answer) for name, *answer in common(answers, renamed) if name in found]
    if len(pairs) < len(found):
        return f"has outputs that its source has not: {', '.join(found)}"
    spread = max((difference(first, last) for _, first, last in pairs), default=0.0)
    if not np.isfinite(spread):
        return ""  # the mutant gives no numbers: there is nothing to compare with
    worst = max((difference(mine, first) for mine, first, _ in pairs), default=0.0)
    return "" if worst <= max(TOLERANCE, 4 * spread) else f"differs from its source by {worst:.1e}"


def common(
    answers: Sequence[Mapping[str, np.ndarray]], renamed: Mapping[str, str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields a source's outputs under the names that a masked file has for them, of its first run and its last."""
    for name, first in answers[0].items():
        yield renamed.get(name, name), first, answers[-1][name]


def run_source(path: Path, given: Mapping[str, np.ndarray], *, optimised: bool) -> dict[str, np.ndarray]:
    """Runs a mutant on inputs in the order in which a masked file has them.

    ONNX Runtime refuses some files for what they declare of values inside and at the end, which masktool infers anew
    instead, or for an input of length 0, which masktool takes for an open one. Where that was all that was wrong, the
    mutant without it is the one to compare with.
    """
    try:
        session = open_session(path, optimised=optimised)
    except Exception:
        session = open_session(without_declarations(path), optimised=optimised)
    feed, copies = {}, 1
    for node, value in zip(session.get_inputs(), given.values(), strict=True):
        if node.shape and isinstance(node.shape[0], int) and len(value) == 1:
            copies = max(copies, node.shape[0])  # of a fixed batch, for which the masked file takes one image
            value = np.repeat(value, node.shape[0], axis=0)
        feed[node.name] = value
    found = [np.asarray(each) for each in session.run(None, feed)]
    found = found if copies == 1 else [each[: len(each) // copies] if each.ndim else each for each in found]
    return dict(zip([node.name for node in session.get_outputs()], found, strict=True))


def without_declarations(path: Path) -> bytes:
    """Returns a model that declares the types of its inputs alone, and their lengths where those are positive."""
    model = onnx.load(path)
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.ClearField("type")
    for dim in (dim for value in model.graph.input for dim in value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value <= 0:
            dim.ClearField("dim_value")
    return model.SerializeToString()


def open_session(model: Path | bytes, *, optimised: bool) -> onnxruntime.InferenceSession:
    """Opens a model on one thread."""
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model),
        options,
        providers=["CPUExecutionProvider"],
        enable_fallback=0,  # there is nothing to fall back on, and it would print
    )


def random_feed(session: onnxruntime.InferenceSession, image_input: str) -> dict[str, np.ndarray]:
    """Returns a value for every input that must be fed; open lengths are 1, those of an open image 20."""
    rng, feed = np.random.default_rng(0), {}
    for node in session.get_inputs():
        sides = [
            side if isinstance(side, int) else (20 if index and len(node.shape) == 4 else 1)
            for index, side in enumerate(node.shape)
        ]
        kind = node.type.removeprefix("tensor(").removesuffix(")")
        dtype = np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))
        value = rng.standard_normal(sides) if node.name == image_input else np.ones(sides)
        feed[node.name] = np.asarray(value if dtype.kind == "f" else np.abs(60 * value)).astype(dtype)
    return feed


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns max |a − b| / max |b|, infinity where shapes differ, NaN where there are no numbers to compare."""
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if a.shape != b.shape:
        return float("inf")
    if a.size == 0 or (np.array_equal(np.isnan(a), np.isnan(b)) and np.array_equal(a[~np.isnan(a)], b[~np.isnan(b)])):
        return 0.0
    return float(np.abs(a - b).max() / max(np.abs(b).max(), np.finfo(np.float32).tiny))


TARGETS["models"] = Target(draw, run, Bounds(seconds=30, megabytes=4000))
