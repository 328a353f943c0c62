"""The correction of class scores as part of a masked graph: put in, taken out, and read back.

1. A row is corrected where any value of its mask is below 1, or is no number: a reduction over the mask tells, and a
   Where chooses between the corrected score and the score as it is. So with nothing missing every bit is the network's,
   and what the correction makes of such a row, NaN too, goes nowhere.
2. The correction stands where the scores are logits: at the class output, or in front of the softmax or sigmoid that it
   ends in. Whatever reads the scores reads the corrected ones: probabilities, labels and the best classes of one file
   agree. Between integers (QuantizeLinear, DequantizeLinear) nothing may be put in front of a softmax, since ONNX
   Runtime computes it in one kernel with them; the correction then stands behind, as it does where the softmax is
   written out.
3. In a file of two branches it stands in the masked one: the other runs where nothing is missing.

An output that reads the scores in front of that place, such as logits of another shape, would not be corrected; the
file is refused then.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from masktool.contract import GRADIENT_OUTPUTS, MASK_INPUT, Metadata, OutputKind
from masktool.correction import HALF_STEP, LEAST, Correction, Space, spaces_of
from masktool.errors import MasktoolError
from masktool.exporters.canonical import infer_shapes
from masktool.exporters.class_candidates import count_columns, is_vector
from masktool.exporters.defaults import is_reader
from masktool.exporters.feature_maps import values_before
from masktool.exporters.gradient_ends import logits_before
from masktool.exporters.names import every_value
from masktool.exporters.outputs_alone import drop_unused, keep_outputs
from masktool.exporters.plain_branch import MASKED, find_branches
from masktool.exporters.score_paths import ARRANGING, find_score_producer
from masktool.messages import Placeholder, parameter
from masktool.ops.builder import GraphBuilder, dtype_of, rank_of
from masktool.ops.gradients import numbers_read

PREFIX = "masktool/calibration"
"""Beginning of the names of all nodes and constants of the correction."""
CHOSEN = f"{PREFIX}/chosen"
"""Name of the node that chooses between corrected scores and scores as they are."""
WEIGHED, SHIFTED = f"{PREFIX}/weighed", f"{PREFIX}/shifted"
"""Names of the nodes that hold A and, where it is no node with A, b."""
WITHOUT = "/uncorrected"
"""What the name of an output that is corrected ends with in front of the correction."""
REPEATED = "gradient/inputs/"
"""Beginning of the names of nodes that repeat images and masks for gradients."""
FLOATING = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
Holds = Literal["scores", "log-shares", "shares", "logits"]
"""What is corrected: unbounded scores, log-probabilities, probabilities, or what a softmax or sigmoid behind reads."""


@dataclasses.dataclass(frozen=True)
class Site:
    """The place of a correction in a graph.

    Attributes:
        graph: the graph, or the branch, that computes the scores.
        value: the scores that are corrected.
        space: what v is, see :mod:`masktool.correction`.
        holds: what ``value`` holds, from which v is computed.
    """

    graph: ir.Graph
    value: ir.Value
    space: Space
    holds: Holds


class CorrectionBuilder(GraphBuilder):
    """Emits nodes behind the node that computes the scores."""

    prefix = PREFIX

    def __init__(self, graph: ir.Graph, behind: ir.Node) -> None:
        super().__init__(graph)
        self._last = behind

    @property
    def label(self) -> str:
        """The beginning of the names of emitted nodes."""
        return PREFIX

    def place(self, node: ir.Node) -> None:
        """Puts an emitted node behind the one that was emitted before it."""
        self.graph.insert_after(self._last, node)
        self._last = node


def find_site(model: ir.Model, metadata: Metadata) -> Site:
    """Returns where a masked graph's class scores are corrected.

    Args:
        model: the graph, without a correction; afterwards the shape of the scores is known.
        metadata: the graph's metadata, with a class output of known kind.

    Raises:
        MasktoolError: the scores are of a type that cannot be corrected, or an output reads them around that place.
    """
    declared = [(value, value.shape, value.type) for graph in model.graphs() for value in every_value(graph)]
    infer_shapes(model)
    kind = metadata.output_kind
    assert kind is not None  # as the caller has settled
    graph, output = find_scores(model, metadata)
    if output.dtype not in FLOATING or output.producer() is None:
        raise MasktoolError(
            "the class output is of a type that cannot be corrected",
            where=f"output {metadata.class_output!r}",
            expected="float32, float64 or float16, computed from the image",
            got="an input" if output.producer() is None else output.dtype,
        )
    site = choose_site(graph, output, kind)
    refuse_ways_around(model, site)
    for value, shape, element in declared:  # what ONNX Runtime is told of a graph may change its last bits
        if value is not site.value:
            value.shape, value.type = shape, element
    return site


def choose_site(graph: ir.Graph, output: ir.Value, kind: OutputKind) -> Site:
    """Returns where class scores of a kind are corrected: in front of the softmax or sigmoid that they end in, if any.

    Args:
        graph: the graph, or the branch, that computes the scores.
        output: the class scores there.
        kind: what they hold.
    """
    node = find_score_producer(output)
    logarithm = node is not None and node.op_type == "LogSoftmax"
    unbounded = kind in ("logits", "binary")
    logits = None if unbounded and not logarithm else logits_before(node, output)
    if logits is not None and logits.producer() is not None and not touches_integers(node, logits):
        return Site(graph, logits, spaces_of(kind)[-1], "logits")
    if logits is not None and logarithm:
        return Site(graph, output, "log-probabilities", "log-shares")
    return Site(graph, output, spaces_of(kind)[0], "scores" if unbounded else "shares")


def find_scores(model: ir.Model, metadata: Metadata) -> tuple[ir.Graph, ir.Value]:
    """Returns the graph that computes the class output, the masked branch where there is one, and its value there."""
    graph = model.graph
    index = next(i for i, value in enumerate(graph.outputs) if value.name == metadata.class_output)
    for node in find_branches(graph):
        graph = node.attributes[MASKED].as_graph()
    return graph, graph.outputs[index]


def touches_integers(node: ir.Node | None, logits: ir.Value) -> bool:
    """Tells whether a softmax or sigmoid stands between integers, with which ONNX Runtime computes it in one kernel."""
    before = logits.producer()
    behind = () if node is None else node.outputs[0].consumers()
    return (before is not None and before.op_type == "DequantizeLinear") or any(
        user.op_type == "QuantizeLinear" for user in behind
    )


def refuse_ways_around(model: ir.Model, site: Site) -> None:
    """Raises MasktoolError where an output gives the scores in another way than through the corrected value."""
    columns = count_columns(site.value)
    around = {value for value in values_before(site.value) if is_vector(value) and count_columns(value) == columns}
    value = site.value
    while (node := value.producer()) is not None and node.op_type in ARRANGING and node.inputs[0] is not None:
        value = node.inputs[0]
        around.add(value)
    around.discard(site.value)
    for node in site.graph:
        if not around.isdisjoint(each for each in numbers_read(node) if each is not None):
            around.update(output for output in node.outputs if output is not site.value)
    names = [name for name, value in zip(output_names(model.graph), site.graph.outputs, strict=True) if value in around]
    if names:
        raise MasktoolError(
            "an output gives the class scores around the place where they would be corrected",
            where=", ".join(f"output {name!r}" for name in names),
            expected="every output that is made of the class scores to be computed from the class output",
            fix="export it with " + parameter("class_output", Placeholder("NAME")) + " for that output, or without it",
        )


def output_names(graph: ir.Graph) -> list[str]:
    """Returns the names of a graph's outputs."""
    return [str(value.name) for value in graph.outputs]


def correct_scores(model: ir.Model, site: Site, correction: Correction) -> None:
    """Puts a correction into a masked graph, in place.

    Args:
        model: the graph.
        site: where :func:`find_site` says that it belongs.
        correction: the correction, in the space of the site.
    """
    producer = site.value.producer()
    assert producer is not None
    assert correction.space == site.space
    users, indices = tuple(site.value.uses()), [i for i, each in enumerate(site.graph.outputs) if each is site.value]
    emit = CorrectionBuilder(site.graph, producer)
    missing = emit_missing(emit, mask_of(model.graph), rank_of(site.value))
    corrected = emit_corrected(emit, site, correction)
    chosen = emit.emit("Where", missing, corrected, site.value)
    node = chosen.producer()
    assert node is not None
    node.name = CHOSEN
    chosen.type, chosen.shape = site.value.type, site.value.shape
    for user, index in users:
        user.replace_input_with(index, chosen)
    for index in indices:
        site.graph.outputs[index] = chosen
    if indices:
        chosen.name, site.value.name = site.value.name, f"{site.value.name}{WITHOUT}"


def mask_of(graph: ir.Graph) -> ir.Value:
    """Returns the mask as nodes read it: the input, or what the node gives that reads an input with a default."""
    mask = next(value for value in graph.inputs if value.name == MASK_INPUT)
    return next((node.outputs[0] for node in graph if is_reader(node) and node.inputs[0] is mask), mask)


def emit_missing(emit: CorrectionBuilder, mask: ir.Value, rank: int) -> ir.Value:
    """Emits whether anything is missing in each row: (M,), (M, 1) or (M, 1, 1, 1), as scores of that rank have it."""
    single = emit.as_type(mask, ir.DataType.FLOAT)
    kept = emit.emit("GreaterOrEqual", single, emit.constant(1, ir.DataType.FLOAT))
    axes = emit.constant([1, 2, 3] if rank == 1 else [2, 3], ir.DataType.INT64)
    least = emit.emit("ReduceMin", emit.as_type(kept, ir.DataType.FLOAT), axes, keepdims=int(rank > 2))
    return emit.emit("Less", least, emit.constant(1, ir.DataType.FLOAT))


def emit_corrected(emit: CorrectionBuilder, site: Site, correction: Correction) -> ir.Value:
    """Emits the corrected scores, in the element type of the scores as they are."""
    precision = ir.DataType.DOUBLE if dtype_of(site.value) == ir.DataType.DOUBLE else ir.DataType.FLOAT
    given = emit.as_type(site.value, precision)
    given.shape = site.value.shape
    corrected = emit_affine(emit, emit_values(emit, given, site), correction, site.value)
    if site.holds in ("shares", "log-shares"):
        end = "Sigmoid" if site.space == "log-odds" else "Softmax"
        corrected = emit.emit(end, corrected, **({"axis": 1} if end == "Softmax" else {}))
    if site.holds == "log-shares":
        corrected = emit_logarithm(emit, corrected)
    return emit.as_type(corrected, dtype_of(site.value))


def emit_values(emit: CorrectionBuilder, given: ir.Value, site: Site) -> ir.Value:
    """Emits v of the scores that are corrected, see :mod:`masktool.correction`: as far as float32 tells it apart."""
    if site.holds == "scores":
        return given
    if site.holds == "log-shares":
        return emit.bounded(given, low=math.log(LEAST))
    if site.space == "log-probabilities":
        shares = given if site.holds == "shares" else emit.emit("Softmax", given, axis=1)
        return emit_logarithm(emit, shares)
    if site.holds == "logits":
        return emit.bounded(given, low=math.log(LEAST), high=-math.log(HALF_STEP))
    rest = emit.bounded(emit.emit("Sub", emit.constant(1, dtype_of(given)), given), low=HALF_STEP)
    return emit.emit("Sub", emit_logarithm(emit, given), emit.emit("Log", rest))


def emit_logarithm(emit: CorrectionBuilder, shares: ir.Value) -> ir.Value:
    """Emits the logarithm of probabilities that are not 0."""
    return emit.emit("Log", emit.bounded(shares, low=LEAST))


def emit_affine(emit: CorrectionBuilder, values: ir.Value, correction: Correction, like: ir.Value) -> ir.Value:
    """Emits A v + b, in the shape of another value: a product and a sum, or for a matrix one linear layer."""
    kind, rank = dtype_of(values), rank_of(like)
    places = (1,) * (rank - 2)
    if correction.form == "full":
        weight = emit.constant(correction.weight.reshape(*correction.weight.shape, *places), kind)
        bias = emit.constant(correction.bias, kind)
        operands = (values, weight, bias)
        turned = emit.emit("Conv", *operands) if places else emit.emit("Gemm", *operands, transB=1)
        return named(turned, WEIGHED, like)
    shape = () if rank == 1 else (correction.bias.size, *places)
    factor = correction.weight.reshape(() if correction.form == "scale" else shape)
    weighed = named(emit.emit("Mul", values, emit.constant(factor, kind)), WEIGHED, like)
    if correction.form == "scale":
        return weighed
    return named(emit.emit("Add", weighed, emit.constant(correction.bias.reshape(shape), kind)), SHIFTED, like)


def named(value: ir.Value, name: str, like: ir.Value) -> ir.Value:
    """Names the node of a value, declares that it has another's shape, and returns it."""
    node = value.producer()
    assert node is not None
    node.name, value.shape = name, like.shape
    return value


def find_chosen(model: ir.Model) -> Iterator[ir.Node]:
    """Yields the node that ends a graph's correction; nothing where there is none."""
    for graph in model.graphs():
        yield from (node for node in graph if node.name == CHOSEN)


def read_correction(model: ir.Model, space: Space) -> Correction | None:
    """Returns the correction that a graph holds; None where it holds none.

    Args:
        model: the graph.
        space: what v is, as its metadata say.
    """
    nodes = {node.name: node for graph in model.graphs() for node in graph}
    if WEIGHED not in nodes:
        return None
    weight = numbers_of(nodes[WEIGHED], 1)
    if nodes[WEIGHED].op_type != "Mul":
        return Correction("full", space, weight.reshape(weight.shape[:2]), numbers_of(nodes[WEIGHED], 2).reshape(-1))
    if SHIFTED not in nodes:
        return Correction("scale", space, weight.reshape(()), np.zeros(1))
    return Correction("diagonal", space, weight.reshape(-1), numbers_of(nodes[SHIFTED], 1).reshape(-1))


def numbers_of(node: ir.Node, index: int) -> np.ndarray:
    """Returns the numbers of a constant input of a node, as float64."""
    value = node.inputs[index]
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise MasktoolError(
            "the file's correction does not hold its numbers", where=f"node {node.name!r}", fix="export it again"
        )
    return tensor.numpy().astype(np.float64)


def drop_correction(model: ir.Model) -> None:
    """Takes the correction out of a graph, in place; scores and names are what they were without it."""
    for node in tuple(find_chosen(model)):
        graph, chosen, scores = node.graph, node.outputs[0], node.inputs[2]
        assert isinstance(graph, ir.Graph)
        assert scores is not None
        indices = [index for index, each in enumerate(graph.outputs) if each is chosen]
        name = chosen.name
        for user, index in tuple(chosen.uses()):
            user.replace_input_with(index, scores)
        for index in indices:
            graph.outputs[index] = scores
        if indices:
            chosen.name, scores.name = f"{name}{WITHOUT}", name
    common.RemoveUnusedNodesPass()(model)


def drop_gradients(model: ir.Model) -> None:
    """Takes the gradients out of a graph that was exported with them, in place."""
    keep_outputs(model, [value for value in model.graph.outputs if value.name not in GRADIENT_OUTPUTS])
    for node in tuple(model.graph):
        if node.op_type == "Expand" and (node.name or "").startswith(REPEATED) and node.inputs[0] is not None:
            node.outputs[0].replace_all_uses_with(node.inputs[0])
    drop_unused(model)


def without_correction(model: ir.Model, metadata: Metadata) -> tuple[ir.Model, Metadata]:
    """Returns a copy of an exported graph without correction and gradients, with its metadata.

    Args:
        model: the graph, which stays as it is.
        metadata: its metadata.
    """
    model = model.clone()
    if metadata.has_gradients:
        drop_gradients(model)
    if metadata.calibration is not None:
        drop_correction(model)
    metadata = dataclasses.replace(metadata, gradient=None, gradient_output=None, losses=None, calibration=None)
    model.metadata_props.update(metadata.to_properties())
    return model, metadata


def require_scores(metadata: Metadata, where: object) -> OutputKind:
    """Returns what a file's class output holds; MasktoolError where its scores cannot be corrected."""
    if not metadata.takes_mask:
        raise MasktoolError(
            "the file explains itself and takes no mask, behind which scores are corrected",
            where=where,
            fix=f"calibrate a file that takes a mask, exported from {metadata.source}",
        )
    if metadata.behind is not None:
        raise MasktoolError(
            f"the file is a head: it holds the layers behind {metadata.behind!r} alone",
            where=where,
            fix="calibrate the file of the whole network",
        )
    if metadata.class_output is None:
        raise MasktoolError(
            "the model has no class scores to correct",
            where=where,
            fix="export it with " + parameter("class_output", Placeholder("NAME")),
        )
    if metadata.output_kind is None:
        raise MasktoolError(
            "what the class output holds is not known, so that nothing says what its scores should be",
            where=f"output {metadata.class_output!r} of {where}",
            fix="export it with " + parameter("output_kind") + " or " + parameter("labels"),
        )
    return metadata.output_kind
