"""ONNX models of the kinds that random programs do not reach, mutated in their subgraphs too; judged as ``models``."""

from __future__ import annotations

import functools

import numpy as np
import onnx

from fuzz.children import Bounds
from fuzz.graphs import mutate_model
from fuzz.parents import graphs_of, write_kinds
from fuzz.targets.models import run
from fuzz.targets.target import TARGETS, Target


@functools.cache
def parents() -> list[bytes]:
    """Returns the models that mutants descend from."""
    return write_kinds()


def draw(rng: np.random.Generator) -> tuple[bytes, str]:
    """Mutates one of the parents, or a graph inside one of its nodes."""
    content = parents()[int(rng.integers(len(parents())))]
    model = onnx.load_model_from_string(content)
    inner = graphs_of(model)[1:]
    if not inner or rng.random() < 0.5:
        return mutate_model(content, rng), ".onnx"
    graph = inner[int(rng.integers(len(inner)))]
    alone = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)
    try:
        graph.CopyFrom(onnx.load_model_from_string(mutate_model(alone.SerializeToString(), rng)).graph)
    except Exception:  # its bytes were broken beyond reading
        return mutate_model(content, rng), ".onnx"
    return model.SerializeToString(), ".onnx"


TARGETS["graphs"] = Target(draw, run, Bounds(seconds=30, megabytes=4000))
