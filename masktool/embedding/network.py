"""Puts a network into the graph of an explanation, with its weights beside its nodes.

ONNX Runtime chooses the layout of a convolution's weights only where they are constants of the convolution's own graph:
captured from around a loop, they stay as they are, which costs 15 % and the last bits of the result. So a network
stands whole inside the body of the loop that runs it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from masktool.contract import GRADIENT_OUTPUTS, MASK_INPUT, TARGET_INPUT, Loss, Metadata, OutputKind
from masktool.embedding.flow import FLOAT, INT64, Flow
from masktool.errors import MasktoolError
from masktool.exporters.gradient import add_gradients
from masktool.exporters.gradient_ends import ScoreLosses
from masktool.exporters.integer_images import refuse_gradients
from masktool.exporters.names import rename_inside
from masktool.exporters.widening import compute_in_single, narrow_outputs


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that an explanation runs; it is used up by being placed.

    Attributes:
        model: the network's graph: the masked one, or a plain one with gradients.
        image_input: the name of the image input.
        class_output: the name of the output that holds the class scores.
        output_kind: what the class output holds; None where that is not known.
        outputs: the names of the source's own outputs.
        given_type: the type that images are rounded to before they are run, where the graph computes in a wider one.
    """

    model: ir.Model
    image_input: str
    class_output: str
    output_kind: OutputKind | None
    outputs: tuple[str, ...]
    given_type: ir.DataType | None = None

    @property
    def image_type(self) -> ir.DataType:
        """The element type of the image input."""
        return self.input_named(self.image_input).dtype or FLOAT

    def input_named(self, name: str) -> ir.Value:
        """Returns an input of the network."""
        return next(value for value in self.model.graph.inputs if value.name == name)

    def output_named(self, name: str) -> ir.Value | None:
        """Returns an output of the network; None where there is none of that name."""
        return next((value for value in self.model.graph.outputs if value.name == name), None)

    def place(self, flow: Flow, feeds: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
        """Moves the network's nodes and weights to the end of a graph.

        Args:
            flow: the graph that takes them.
            feeds: what takes the place of each of the network's inputs, by name.

        Returns:
            The network's outputs by name.
        """
        graph = self.model.graph
        found = {str(value.name): value for value in graph.outputs}
        for value in tuple(graph.inputs):
            feed = feeds[str(value.name)]
            ir.convenience.replace_all_uses_with(value, feed)
            found = {name: feed if output is value else output for name, output in found.items()}
            graph.initializers.pop(str(value.name), None)
        graph.inputs.clear()
        graph.outputs.clear()
        weights = tuple(graph.initializers.values())
        graph.initializers.clear()
        nodes = tuple(graph)
        graph.remove(nodes)
        prefix = f"{flow.label}/network/"  # the network's own names may be those that the graph gives its nodes
        rename_inside(nodes, prefix)
        for weight in weights:
            weight.name = prefix + str(weight.name)
            flow.graph.register_initializer(weight)
        flow.graph.extend(nodes)
        return found

    def place_masked(
        self, flow: Flow, image: ir.Value, masks: ir.Value, others: Mapping[str, ir.Value]
    ) -> dict[str, ir.Value]:
        """Places a masked network, run on an image (1, ...) under float32 masks (m, 1, h, w)."""
        kind = self.input_named(MASK_INPUT).dtype or FLOAT
        return self.place(flow, {self.image_input: image, MASK_INPUT: flow.as_type(masks, kind), **others})

    def place_differentiated(
        self,
        flow: Flow,
        images: ir.Value,
        target: ir.Value,
        others: Mapping[str, ir.Value],
        *,
        one_image: bool,
        masks: ir.Value | None = None,
    ) -> tuple[dict[str, ir.Value], ir.Value]:
        """Places a network with gradients, run on images (n, ...), and chooses the class to differentiate for.

        The graph must be sorted afterwards: the choice depends on scores in the middle of the network.

        Args:
            flow: the graph that takes the network.
            images: the images, in any floating point type.
            target: the class (1,) or (n,) int64; where it is below 0, the class with the highest score.
            others: the values of the network's other inputs, by name.
            one_image: whether all images stand for one, such as the steps from a baseline to it, and the first of them
                decides which class that is; otherwise each image has its own.
            masks: float32 masks (m, 1, h, w) for a network that takes them; None for one that takes none.

        Returns:
            The outputs by name, and the class that was chosen: (1,) for one image, else (n,), int64.
        """
        waiting = ir.Value(name=f"{flow.label}/waiting_target", type=ir.TensorType(INT64))
        images = flow.as_type(flow.as_type(images, self.given_type or self.image_type), self.image_type)
        feeds = {self.image_input: images, TARGET_INPUT: waiting, **others}
        if masks is not None:
            feeds[MASK_INPUT] = flow.as_type(masks, self.input_named(MASK_INPUT).dtype or FLOAT)
        found = self.place(flow, feeds)
        chosen = choose_class(flow, self.probabilities(flow, found), target, one_image=one_image)
        ir.convenience.replace_all_uses_with(waiting, chosen)
        return found, chosen

    def probabilities(self, flow: Flow, outputs: Mapping[str, ir.Value]) -> ir.Value:
        """Returns the class scores (n, K) float32 as :func:`masktool.runtime.scores.to_probabilities` has them."""
        value = outputs[self.class_output]
        rank = len(value.shape) if value.shape is not None else 2
        flat = flow.reshape(value, -1, 1) if rank == 1 else flow.emit("Flatten", value, axis=1)
        scores = flow.typed(flow.as_type(flow.typed(flat, value.dtype or FLOAT), FLOAT), FLOAT)
        if self.output_kind == "logits":
            return flow.emit("Softmax", scores, axis=1)
        if self.output_kind == "binary":
            return flow.emit(
                "Concat", flow.emit("Sigmoid", flow.emit("Neg", scores)), flow.emit("Sigmoid", scores), axis=1
            )
        if self.output_kind == "binary-probability":
            return flow.emit("Concat", flow.emit("Sub", flow.floats(1), scores), scores, axis=1)
        return scores


def choose_class(flow: Flow, scores: ir.Value, target: ir.Value, *, one_image: bool) -> ir.Value:
    """Returns a target (1,) or (n,), with the class of the highest score where it is below 0.

    Args:
        flow: the graph to emit into.
        scores: the class scores, (n, K) float32.
        target: the class (1,) or (n,), int64.
        one_image: whether the first row of the scores decides for all, so that the result is (1,).
    """
    top = flow.typed(flow.emit("ArgMax", scores, axis=1, keepdims=0), INT64)
    if one_image:
        top = flow.rows(top, 0, 1)
    chosen = flow.emit("Where", flow.emit("Less", target, flow.integer(0)), top, target)
    return flow.typed(chosen, INT64, [1 if one_image else None])


def masked_network(model: ir.Model, metadata: Metadata) -> Network:
    """Returns a copy of a masked model as a network to place."""
    assert metadata.class_output is not None
    copy = model.clone()
    outputs = tuple(str(value.name) for value in copy.graph.outputs)
    return Network(copy, metadata.image_input, metadata.class_output, metadata.output_kind, outputs)


def differentiable_network(
    model: ir.Model, metadata: Metadata, loss: Loss = "logit", feature_maps: Sequence[str] = ()
) -> Network:
    """Returns a copy of a canonical model, plain or masked, with gradients, as a network to place.

    What computes in 16 bits there computes in float32 here; own outputs keep their types.

    Raises:
        UnsupportedOperatorError: nodes without a gradient rule; the error lists all of them.
    """
    assert metadata.class_output is not None
    copy = model.clone()
    outputs = tuple(str(value.name) for value in copy.graph.outputs)
    image = next(value for value in copy.graph.inputs if value.name == metadata.image_input)
    refuse_gradients(image, "take a method without gradients (occlusion, rise)")
    refuse_names_of_gradients(outputs, metadata.source)
    given_type, narrow = image.dtype, compute_in_single(copy, metadata.image_input)
    add_gradients(
        copy,
        metadata.image_input,
        ScoreLosses(metadata.class_output, metadata.output_kind, loss, selectable=False),
        feature_maps,
        for_provider=metadata.for_provider,
        blocks=False,
    )
    narrow_outputs(copy, narrow)
    return Network(copy, metadata.image_input, metadata.class_output, metadata.output_kind, outputs, given_type)


def refuse_names_of_gradients(outputs: Sequence[str], source: str) -> None:
    """Raises MasktoolError where outputs of the source have names that gradients add."""
    if taken := sorted(set(outputs) & GRADIENT_OUTPUTS):
        raise MasktoolError(
            "the model has outputs of names that gradients add",
            where=source,
            got=", ".join(taken),
            fix="rename them in the source",
        )
