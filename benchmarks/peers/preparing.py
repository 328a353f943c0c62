"""Makes the problem that every peer is asked: files of the network, the photograph, its class and its segments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir

import masktool
from benchmarks.peers.problem import FILLED, MASKED, PLAIN, Problem
from masktool.explainers.subject import make_subject, read_subject
from masktool.exporters.sources import load_source
from masktool.exporters.storage import serialise
from masktool.interface.bench.plain import prepare_plain

FEW = 8
"""Samples of the LIME run that only cuts segments."""


def prepare_problem(folder: Path, network: Path, image: Path, preprocess: str) -> Problem:
    """Writes the files of a problem, unless they are there, and returns it."""
    if not (folder / "problem.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_problem(folder, network, image, preprocess)
    return Problem.read(folder)


def write_problem(folder: Path, network: Path, image: Path, preprocess: str) -> None:
    """Writes the files of a problem."""
    masktool.export(network, folder / FILLED, masking="fill", preprocessing=preprocess, head="last")
    metadata = masktool.export(network, folder / MASKED, preprocessing=preprocess, head="last").metadata
    plain = prepare_plain(load_source(network), metadata)
    flatten_scores(plain)
    (folder / PLAIN).write_bytes(serialise(plain))
    np.savez(folder / "weights.npz", *weights_of(plain))
    steps = metadata.preprocessing
    assert steps is not None
    with masktool.load(folder / MASKED, "cpu") as session:
        subject = make_subject(read_subject(image), session)
        (scores,) = session.scores(subject.prepared.array)
        target = int(scores.argmax())
        lime = masktool.explain(session, subject.prepared.array[0], "lime", target, n_samples=FEW)
    np.save(folder / "photograph.npy", subject.pixels)
    assert lime.segments is not None
    np.save(folder / "segments.npy", lime.segments)
    described = {"mean": steps.mean, "std": steps.std, "scale": steps.scale, "bgr": steps.channel_order == "BGR"}
    found = {"target": target, "probability": float(scores[target]), **described}
    (folder / "problem.json").write_text(json.dumps(found))


def flatten_scores(model: onnx_ir.Model) -> None:
    """Makes the scores (N, K), in place: peers that explain (N, K, 1, 1) do it by slow or wrong ways."""
    (scores,) = model.graph.outputs
    node = onnx_ir.node("Flatten", [scores], name="peers/flatten")
    node.outputs[0].name, node.outputs[0].type = f"{scores.name}_flat", scores.type
    model.graph.append(node)
    model.graph.outputs[:] = node.outputs


def weights_of(model: onnx_ir.Model) -> list[np.ndarray]:
    """Returns weight and bias of every convolution, in the graph's order."""
    found = []
    for node in model.graph:
        if node.op_type == "Conv":
            found += [value.const_value.numpy() for value in node.inputs[1:] if value is not None and value.const_value]
    return found
