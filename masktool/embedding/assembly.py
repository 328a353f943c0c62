"""Puts the graph of a file together that explains itself: its inputs, one section per image, its outputs.

A section is what one method emits. A method that takes batches has one section for all images; any other stands in a
loop over the images, unless the file takes one image at a time. Where the explanation comes on request only, the plain
network stands beside the section, which stands in a branch of an If: a caller who asks for nothing runs the plain
network and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from masktool.contract import (
    EXPLAIN_INPUT,
    OVERLAY,
    SALIENCY_MAP,
    SEGMENT_ATTRIBUTIONS,
    TARGET_INPUT,
    TOP_CLASS,
    Preprocessing,
)
from masktool.embedding.flow import BOOL, FLOAT, INT64, Flow
from masktool.embedding.method import Asked, EmbeddedMethod, Explained, ExplainedNetwork, ExtraInput
from masktool.embedding.network import Network
from masktool.embedding.overlay import draw_over_input, draw_over_photograph
from masktool.embedding.preprocessing import PreparedPhotograph, declare_photograph, emit_preprocessing
from masktool.embedding.settings import EmbeddingSettings


class Results(NamedTuple):
    """The values of a section in a fixed order, with their names: predictions, map, attributions, figures."""

    names: list[str]
    values: list[ir.Value]

    @classmethod
    def of(cls, explained: Explained) -> Results:
        """Returns the results of a section."""
        found = dict(explained.predictions) | {SALIENCY_MAP: explained.saliency_map}
        if explained.attributions is not None:
            found[SEGMENT_ATTRIBUTIONS] = explained.attributions
        found |= explained.figures
        return cls(list(found), list(found.values()))


class Assembly:
    """The graph of a file that explains itself.

    Args:
        network: the network that is explained.
        method: the method's graph.
        settings: how the method becomes part of the file.
        preprocessing: how photographs are prepared; None where the file neither does it nor draws.
    """

    def __init__(
        self,
        network: ExplainedNetwork,
        method: EmbeddedMethod,
        settings: EmbeddingSettings,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self.network, self.method, self.settings, self.preprocessing = network, method, settings, preprocessing
        self.photograph: PreparedPhotograph | None = None
        masked = network.masked
        graph = ir.Graph(
            [], [], nodes=[], opset_imports=dict(masked.graph.opset_imports), name=masked.graph.name or "explained"
        )
        self.flow = Flow(graph)
        self.model = ir.Model(
            graph, ir_version=masked.ir_version, functions=[f.clone() for f in masked.functions.values()]
        )

    def build(self) -> ir.Model:
        """Returns the whole model, its own outputs first."""
        image, others = self.declare_network_inputs()
        target = self.declare_target(image)
        extra = {each.name: self.declare_extra(each) for each in self.method.extra_inputs()}
        if self.settings.on_request == "always":
            results = self.emit_sections(self.flow, Asked(image, target, others, extra))
            found = dict(zip(*results, strict=True))
        else:
            found = self.emit_on_request(Asked(image, target, others, extra))
        for name, value in found.items():
            self.add_output(name, value)
        for graph in self.model.graphs():
            graph.sort()
        common.RemoveUnusedNodesPass()(self.model)
        common.RemoveUnusedFunctionsPass()(self.model)
        return self.model

    def declare_network_inputs(self) -> tuple[ir.Value, dict[str, ir.Value]]:
        """Adds the source's own inputs to the graph; returns the image, prepared if need be, and the others by name."""
        found = {}
        for value in self.network.plain.graph.inputs:
            declared = ir.Value(name=value.name, type=value.type, shape=self.shape_of_input(value))
            if value.name == self.network.metadata.image_input and self.settings.embed_preprocessing:
                declared = self.take_photograph(declared)
            self.flow.graph.inputs.append(declared)
            found[str(value.name)] = declared
        image = found.pop(self.network.metadata.image_input)
        return (image if self.photograph is None else self.photograph.image), found

    def take_photograph(self, image: ir.Value) -> ir.Value:
        """Emits what makes an image out of a photograph, and returns the photograph in the image's place."""
        assert self.preprocessing is not None
        pixels = declare_photograph(str(image.name))
        self.photograph = emit_preprocessing(self.flow, pixels, self.preprocessing, image.dtype or FLOAT)
        return pixels

    def shape_of_input(self, value: ir.Value) -> ir.Shape | None:
        """Returns the shape that one of the source's inputs is declared with: its own, or that of one image."""
        if value.shape is None or not len(value.shape):
            return value.shape
        first = 1 if self.network.metadata.portable and not isinstance(value.shape[0], int) else value.shape[0]
        return ir.Shape([first, *value.shape[1:]])

    def declare_target(self, image: ir.Value) -> ir.Value:
        """Returns the class to explain: an input where the settings want one, else a constant."""
        if self.settings.target == "top":
            return self.flow.ints(TOP_CLASS)
        length = 1 if self.is_alone(image) else "targets"
        default = None if self.settings.target == "required" else np.array([TOP_CLASS], np.int64)
        return self.declare(TARGET_INPUT, INT64, [length], default)

    def declare_extra(self, extra: ExtraInput) -> ir.Value:
        """Adds an input that the method declares for itself, or the constant in its place."""
        default = None if extra.default is None else np.asarray(extra.default, extra.dtype.numpy())
        value = self.declare(extra.name, extra.dtype, extra.shape, default)
        if extra.settled or (default is not None and self.network.metadata.portable):  # all inputs would have to be fed
            self.flow.graph.inputs.remove(value)
        return value

    def declare(
        self, name: str, dtype: ir.DataType, shape: Sequence[int | str | None], default: np.ndarray | None
    ) -> ir.Value:
        """Adds an input, optional where it has a default."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        if default is not None:
            value.const_value = ir.tensor(default, name=name)
            value.shape = ir.Shape(default.shape)
            self.flow.graph.register_initializer(value)
        self.flow.graph.inputs.append(value)
        return value

    @staticmethod
    def is_alone(image: ir.Value) -> bool:
        """Tells whether the file takes one image at a time."""
        assert image.shape is not None
        return image.shape[0] == 1

    def emit_sections(self, flow: Flow, asked: Asked) -> Results:
        """Emits what explains all images, and draws that where the settings want it."""
        results = self.explain_images(flow, asked)
        if self.settings.embed_overlay:
            maps = results.values[results.names.index(SALIENCY_MAP)]
            results = Results([*results.names, OVERLAY], [*results.values, self.draw(flow, asked.image, maps)])
        return results

    def draw(self, flow: Flow, images: ir.Value, maps: ir.Value) -> ir.Value:
        """Emits the maps over the photograph, or over what the images show."""
        if self.photograph is not None:
            return draw_over_photograph(flow, self.photograph, maps, self.method.options)
        assert self.preprocessing is not None
        return draw_over_input(flow, images, maps, self.preprocessing, self.method.options)

    def explain_images(self, flow: Flow, asked: Asked) -> Results:
        """Emits what explains all images."""
        if self.method.takes_batches or self.is_alone(asked.image):
            return Results.of(self.method.emit(flow, asked))
        names: list[str] = []

        def emit_round(
            inside: Flow, number: ir.Value, carried: list[ir.Value]
        ) -> tuple[list[ir.Value], list[ir.Value]]:
            del carried
            results = Results.of(self.method.emit(inside, self.asked_of(inside, asked, number)))
            names.extend(results.names)
            return [], [self.without_images(inside, value) for value in results.values]

        length = flow.emit("Squeeze", flow.typed(flow.length_of(asked.image, 0), INT64), flow.ints(0))
        return Results(names, flow.loop(length, [], emit_round).stacked)

    def asked_of(self, flow: Flow, asked: Asked, number: ir.Value) -> Asked:
        """Returns what is asked for one image of a batch."""
        index = flow.reshape(number, 1)

        def row_of(value: ir.Value) -> ir.Value:
            """Returns the row of the image, or what serves all images."""
            if value.shape is None or not len(value.shape) or value.shape[0] != asked.image.shape[0]:  # type: ignore[index]
                return value
            return flow.typed(flow.emit("Gather", value, index, axis=0), value.dtype or FLOAT, [1, *value.shape[1:]])

        target = asked.target
        if target.shape is None or target.shape[0] != 1 or not target.is_initializer():
            last = flow.emit("Sub", flow.length_of(target, 0), flow.integer(1))
            target = flow.typed(
                flow.emit("Gather", target, flow.emit("Min", index, flow.typed(last, INT64))), INT64, [1]
            )
        others = {name: row_of(value) for name, value in asked.others.items()}
        return Asked(row_of(asked.image), target, others, asked.extra)

    @staticmethod
    def without_images(flow: Flow, value: ir.Value) -> ir.Value:
        """Returns a value (1, ...) without its first axis, for a loop to stack."""
        squeezed = flow.emit("Squeeze", value, flow.ints(0))
        return flow.typed(squeezed, value.dtype or FLOAT, None if value.shape is None else value.shape[1:])

    def emit_on_request(self, asked: Asked) -> dict[str, ir.Value]:
        """Emits the plain network, and beside it the sections in a branch that is taken where they are asked for."""
        default = None if self.settings.on_request == "required" else np.array([True])
        wanted = self.declare(EXPLAIN_INPUT, BOOL, [1], default)
        own = self.place_plain(asked)
        names: list[str] = []
        empty: list[Callable[[Flow], ir.Value]] = []

        def explain(inside: Flow) -> list[ir.Value]:
            results = self.emit_sections(inside, asked)
            beside = {name: value for name, value in zip(*results, strict=True) if name not in own}
            names.extend(beside)
            empty.extend(nothing_like(value) for value in beside.values())
            return list(beside.values())

        values = self.flow.branch(wanted, explain, lambda inside: [emit(inside) for emit in empty])
        return own | dict(zip(names, values, strict=True))

    def place_plain(self, asked: Asked) -> dict[str, ir.Value]:
        """Places the plain network in the graph itself; returns its outputs by name."""
        copy, metadata = self.network.plain.clone(), self.network.metadata
        names = tuple(str(value.name) for value in copy.graph.outputs)
        network = Network(copy, metadata.image_input, str(metadata.class_output), metadata.output_kind, names)
        return network.place(Flow(self.flow.graph, "plain"), {metadata.image_input: asked.image, **asked.others})

    def add_output(self, name: str, value: ir.Value) -> None:
        """Makes a value an output of the file, with the images on its first axis."""
        node = self.flow.new_node("Identity", [value], {}, "", 1)
        self.flow.place(node)
        output = node.outputs[0]
        output.name, output.type, output.shape = name, value.type, self.shape_of(name, value)
        self.flow.graph.outputs.append(output)

    def shape_of(self, name: str, value: ir.Value) -> ir.Shape | None:
        """Returns the shape that an output is declared with: the source's own, or with a row per image."""
        own: Mapping[str, ir.Value] = {str(each.name): each for each in self.network.plain.graph.outputs}
        drawn = name == OVERLAY and self.photograph is not None
        if name in own or value.shape is None or drawn:
            return own[name].shape if name in own else value.shape
        first = None if self.settings.on_request != "always" else self.batch
        return ir.Shape([first, *value.shape[1:]])

    @property
    def batch(self) -> int | str | ir.SymbolicDim | None:
        """The number of images, 1 or the name that the image input has for it."""
        if self.photograph is not None:
            return 1
        image = self.flow.graph.inputs[0].shape
        assert image is not None
        return image[0]


def nothing_like(value: ir.Value) -> Callable[[Flow], ir.Value]:
    """Returns a function that emits a value without rows, of the type and the other lengths of a given one."""
    dtype = value.dtype or FLOAT
    lengths = [] if value.shape is None else [length if isinstance(length, int) else 0 for length in value.shape[1:]]

    def emit_nothing(flow: Flow) -> ir.Value:
        """Emits no rows, by an operator: OpenVINO takes an empty constant for a single number."""
        nothing = flow.emit("ConstantOfShape", flow.ints(0, *lengths), value=ir.tensor([0], dtype=dtype))
        return flow.typed(nothing, dtype, [0, *lengths])

    return emit_nothing
