"""Draws random graphs around the batch: each node is run as it is added, so that every graph runs for every batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
BATCHES = (1, 2, 3)
"""For which an open graph must run while it grows: what differs between them is a multiple of the batch."""
FIXED_BATCH = 3
SIDES = (1, 2, 4, 5)
"""Of the image; 4 can be split, and none is the fixed batch."""
MOST_STEPS = 8
FOCUSED, FEW = 0.7, 4
"""Share of graphs that are drawn of a few kinds of nodes: among many kinds, another node mixes images too, and a wrong
rule for one of them shows in no verdict."""
MOST_VALUES = 4000
"""Numbers in a value of the largest batch."""
LARGEST = 1e4
"""Numbers beyond make comparisons with a tolerance say nothing."""
MOST_OUTPUTS = 3
MOST_TRIES = 60
Arrays = dict[str, list[np.ndarray]]
"""Values by name, one array for every batch."""


class Drawer:
    """Draws one graph, node by node."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.fixed = self.chance(0.3)
        self.batches = (FIXED_BATCH,) if self.fixed else BATCHES
        self.sides = tuple(int(side) for side in self.rng.choice(SIDES, 3))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        images = [draw_images(self.rng, batch, self.sides) for batch in self.batches]
        self.values: Arrays = {"x": images}
        self.count = 0
        self.pending: list[onnx.NodeProto] = []
        self.fresh: list[onnx.TensorProto] = []

    # Chance

    def chance(self, share: float) -> bool:
        """Returns True with that probability."""
        return bool(self.rng.random() < share)

    def choose(self, options: Sequence[Any]) -> Any:
        """Returns one of several things."""
        return options[int(self.rng.integers(len(options)))]

    def pick(self, least_rank: int = 1) -> str:
        """Returns a value of numbers, a late one more often than an early one."""
        found = [
            name
            for name, arrays in self.values.items()
            if arrays[0].dtype == np.float32 and arrays[0].ndim >= least_rank
        ]
        late = found[-3:] if self.chance(0.7) else found
        return str(self.choose(late)) if late else "x"

    # What is known of a value

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a value for the largest batch."""
        return tuple(self.values[name][-1].shape)

    def axis(self, name: str) -> int:
        """Returns a random axis, the first one and the images' more often."""
        carrying = self.carrying(name)
        if carrying and self.chance(0.25):
            return int(self.choose(carrying))
        return int(self.rng.integers(len(self.shape(name))))

    def carrying(self, name: str) -> list[int]:
        """Returns the axes whose length depends on the batch, as far as can be seen."""
        shapes = [array.shape for array in self.values[name]]
        if self.fixed:
            return [axis for axis, length in enumerate(shapes[0]) if length % FIXED_BATCH == 0]
        return [axis for axis, lengths in enumerate(zip(*shapes, strict=True)) if len(set(lengths)) > 1]

    # Emission

    def emit(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Emits a node and returns the name of its first result; the others' names are that with ``_1``, ``_2``."""
        self.count += 1
        name = f"v{self.count}"
        names = [name, *(f"{name}_{index}" for index in range(1, outputs))]
        self.pending.append(helper.make_node(op_type, inputs, names, f"n{self.count}", **attributes))
        return name

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        """Adds a weight and returns its name."""
        self.count += 1
        self.fresh.append(numpy_helper.from_array(np.asarray(array, dtype), f"w{self.count}"))
        return f"w{self.count}"

    def ints(self, *numbers: int) -> str:
        """Adds a vector of integers."""
        return self.constant(numbers, np.int64)

    def normal(self, *shape: int) -> str:
        """Adds random weights."""
        return self.constant(self.rng.normal(0, 0.7, shape))

    def length(self, name: str, axis: int) -> str:
        """Returns the length of an axis, a vector of one: computed, or written down where the batch is fixed."""
        if axis not in self.carrying(name) or self.fixed:
            return self.ints(self.shape(name)[axis])
        if self.chance(0.5):
            return self.emit("Shape", name, start=axis, end=axis + 1)
        return self.emit("Gather", self.emit("Shape", name), self.ints(axis))

    # Growth

    def step(self, rule: Callable[[Drawer], object]) -> bool:
        """Adds the nodes of one rule; False, with nothing added, where they do not run or give no plain numbers."""
        self.pending, self.fresh = [], []
        rule(self)
        if not self.pending:
            return False
        found = run_nodes(self.pending, self.fresh, self.values)
        if found is None:
            return False
        self.nodes += self.pending
        self.weights += self.fresh
        self.values |= found
        return True

    def outputs(self) -> list[str]:
        """Returns values that have one row per image as far as their shape tells, the last first."""
        found = [
            name
            for name, arrays in self.values.items()
            if name != "x"
            and all(array.ndim and len(array) == batch for array, batch in zip(arrays, self.batches, strict=True))
            and arrays[0].dtype in (np.float32, np.int64, np.bool_)
        ]
        return found[::-1][:MOST_OUTPUTS]

    def model(self) -> onnx.ModelProto:
        """Returns the graph; only its image input has a shape."""
        batch = FIXED_BATCH if self.fixed else "N"
        outputs = []
        for name in self.outputs():
            arrays = self.values[name]
            shape = [
                sizes[0] if len(set(sizes)) == 1 else None
                for sizes in zip(*(array.shape for array in arrays), strict=True)
            ]
            kind = helper.np_dtype_to_tensor_dtype(arrays[0].dtype)
            outputs.append(helper.make_tensor_value_info(name, kind, [batch, *shape[1:]]))
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *self.sides])
        graph = helper.make_graph(self.nodes, "drawn", [image], outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def draw_images(rng: np.random.Generator, count: int, sides: Sequence[int]) -> np.ndarray:
    """Returns images (count, C, H, W) that differ widely in brightness, so that what is shared shows."""
    scales = rng.uniform(0.3, 2, (count, 1, 1, 1)) * rng.choice((-1, 1), (count, 1, 1, 1))
    return np.asarray(rng.normal(0.5, 1, (count, *sides)) * scales, np.float32)


def open_plainly(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Opens a graph without any of ONNX Runtime's optimisations, on one thread."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_nodes(nodes: Sequence[onnx.NodeProto], weights: Sequence[onnx.TensorProto], values: Arrays) -> Arrays | None:
    """Returns what nodes give for every batch; None where they do not run, or give no plain numbers."""
    made = [name for node in nodes for name in node.output if name]
    inner = {name for node in nodes for a in node.attribute for each in a.g.node for name in each.input}
    read = [name for name in dict.fromkeys([*(n for node in nodes for n in node.input), *inner]) if name in values]
    inputs = [typed(name, values[name][0]) for name in read]
    graph = helper.make_graph(nodes, "step", inputs, [onnx.ValueInfoProto(name=name) for name in made], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    try:
        session = open_plainly(model)
        runs = [session.run(made, {name: values[name][index] for name in read}) for index in range(len(values["x"]))]
    except Exception:  # a draw that does not fit; ONNX Runtime's exceptions share no base class
        return None
    found = {name: [np.asarray(run[index]) for run in runs] for index, name in enumerate(made)}
    if any(len({array.ndim for array in arrays}) > 1 for arrays in found.values()):
        return None
    return found if all(plain(array) for arrays in found.values() for array in arrays) else None


def typed(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    """Returns the declaration of a value of known rank and open lengths."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)


def plain(array: np.ndarray) -> bool:
    """Whether a result can go on: neither empty nor large, and all numbers."""
    if not 0 < array.size <= MOST_VALUES:
        return False
    return array.dtype != np.float32 or bool(np.isfinite(array).all() and np.abs(array).max() < LARGEST)


def draw_graph(seed: int, rules: Sequence[Callable[[Drawer], object]]) -> onnx.ModelProto:
    """Returns the graph of a seed: an input ``x`` (N, C, H, W), and outputs whose first axis has N places."""
    drawer = Drawer(seed)
    if drawer.chance(FOCUSED):
        kinds = list(dict.fromkeys(rules))
        rules = [kinds[index] for index in drawer.rng.permutation(len(kinds))[:FEW]]
    wanted, tries = int(drawer.rng.integers(2, MOST_STEPS + 1)), 0
    while (wanted > 0 or not drawer.outputs()) and tries < MOST_TRIES:
        wanted -= drawer.step(drawer.choose(rules))
        tries += 1
    if not drawer.outputs():
        drawer.step(lambda each: each.emit("Flatten", "x"))
    return drawer.model()
