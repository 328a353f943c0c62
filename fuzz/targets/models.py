"""ONNX models: whatever is written must answer as the mutant itself does, under a mask of ones."""

from __future__ import annotations

import contextlib
import functools
import graphlib
import re
from collections.abc import Mapping, Sequence
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
MOST_COPIES = 8
"""Images in a batch, tried one after another of a mutant that does not run on one: masktool feeds it copies of one."""
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
    own = [str(node.name) for node in masked.get_outputs() if node.name not in GRADIENT_OUTPUTS]
    given = {name: value for name, value in feed.items() if name not in ("mask", TARGET_INPUT)}
    names = name_sources(source, metadata, own)
    try:
        answers = [run_source(source, given, names, optimised=True)]
    except Exception:
        if all(isinstance(side, int) for node in masked.get_inputs() for side in node.shape[1:]):
            raise
        return ""  # made for another size than the one that was chosen here for an open one
    with contextlib.suppress(Exception):  # a node that ONNX Runtime optimises away need not run
        answers.append(run_source(source, given, names, optimised=False))
    masked.run(None, feed)
    found = masked.run(own, feed)
    pairs = [(mine, answers[0][name], answers[-1][name]) for name, mine in zip(names, found, strict=True)]
    spread = max((difference(first, last) for _, first, last in pairs), default=0.0)
    if not np.isfinite(spread):
        return ""  # the mutant gives no numbers: there is nothing to compare with
    worst = max((difference(mine, first) for mine, first, _ in pairs), default=0.0)
    return "" if worst <= max(TOLERANCE, 4 * spread) else f"differs from its source by {worst:.1e}"


def run_source(
    path: Path, given: Mapping[str, np.ndarray], names: Sequence[str], *, optimised: bool
) -> dict[str, np.ndarray]:
    """Runs a mutant on inputs in the order in which a masked file has them; returns the values of some names.

    ONNX Runtime refuses some files for what they declare of values inside and at the end, which masktool infers anew
    instead, or for an input of length 0, which masktool takes for an open one, or for what is not needed for the values
    asked for. Where that was all that was wrong, the mutant without it is the one to compare with. A mutant that leaves
    its batch open may run on as many images alone as a node inside happens to need.
    """
    try:
        session = open_session(path, optimised=optimised)
        if not offers(session, names):
            raise KeyError(*names)
        return run_session(session, given)
    except Exception:
        session = open_session(bare_model(path, names), optimised=optimised)
        for copies in range(1, MOST_COPIES):
            with contextlib.suppress(Exception):
                return run_session(session, given, copies)
        return run_session(session, given, MOST_COPIES)


def run_session(
    session: onnxruntime.InferenceSession, given: Mapping[str, np.ndarray], copies: int = 1
) -> dict[str, np.ndarray]:
    """Returns a session's outputs by name for inputs in its own order; of a batch of copies, the first's."""
    feed = {}
    for node, value in zip(session.get_inputs(), given.values(), strict=True):
        if node.shape and len(value) == 1:
            length = node.shape[0] if isinstance(node.shape[0], int) else copies
            copies = max(copies, length)  # of a fixed batch, for which the masked file takes one image
            value = np.repeat(value, length, axis=0)
        feed[node.name] = value
    found = [np.asarray(each) for each in session.run(None, feed)]
    found = found if copies == 1 else [each[: len(each) // copies] if each.ndim else each for each in found]
    return dict(zip([node.name for node in session.get_outputs()], found, strict=True))


def name_sources(path: Path, metadata: Metadata, found: Sequence[str]) -> list[str]:
    """Returns what a masked file's outputs are called in its source, in order.

    One that stands twice has two names in the masked file; a detector's choice, which holds no numbers, is left out.
    """
    graph = onnx.load(path, load_external_data=False).graph
    former = {new: old for old, new in (metadata.renamed or {}).items()}
    names = [former.get(name, name) for name in found]
    known = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    return [name if name in known else re.sub(r"_\d+$", "", name) for name in names]


def offers(session: onnxruntime.InferenceSession, names: Sequence[str]) -> bool:
    """Tells whether a session gives these values, and takes images at all: a batch of 0 is an open one to masktool."""
    given = {node.name for node in session.get_outputs()}
    return set(names) <= given and not any(0 in node.shape for node in session.get_inputs())


def bare_model(path: Path, names: Sequence[str]) -> bytes:
    """Returns a model that gives some values, computes nothing else, and declares its inputs alone."""
    model = onnx.load(path)
    del model.graph.value_info[:], model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
    needed, waiting = set(names), list(names)
    producers = {name: node for node in model.graph.node for name in node.output}
    while waiting:
        node = producers.get(waiting.pop())
        read = {each for graph in graphs_in(node) for inner in graph.node for each in inner.input} if node else set()
        new = (read | set(node.input if node else ())) - needed
        needed |= new
        waiting += new
    nodes = [node for node in model.graph.node if needed & set(node.output)]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for inner in (inner for each in model.graph.node for inner in graphs_in(each)):
        del inner.value_info[:]
        for value in (*inner.output, *(each for each in inner.input if not each.type.tensor_type.elem_type)):
            value.ClearField("type")
        sort_nodes(inner)
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [onnx.TensorProto.FromString(t.SerializeToString()) for t in model.graph.initializer if t.name in needed]
    del model.graph.initializer[:]  # of one that nothing reads ONNX Runtime may know no shape
    model.graph.initializer.extend(kept)
    inputs = [onnx.ValueInfoProto.FromString(each.SerializeToString()) for each in model.graph.input]
    del model.graph.input[:]
    model.graph.input.extend(each for each in inputs if each.name not in weights)
    for dim in (dim for value in model.graph.input for dim in value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value <= 0:
            dim.ClearField("dim_value")
    return model.SerializeToString()


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Puts the nodes of a subgraph behind those that they read from, in place; ONNX Runtime does so in main graphs."""
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    read = [
        {name for part in (node, *(each for g in graphs_in(node) for each in g.node)) for name in part.input}
        for node in graph.node
    ]
    before = {index: {producers[name] for name in names & producers.keys()} for index, names in enumerate(read)}
    order = graphlib.TopologicalSorter(before).static_order()
    nodes = [onnx.NodeProto.FromString(graph.node[index].SerializeToString()) for index in order]
    del graph.node[:]
    graph.node.extend(nodes)


def graphs_in(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Returns the subgraphs of a node, those inside them included."""
    found = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return [*found, *(inner for graph in found for each in graph.node for inner in graphs_in(each))]


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
