"""What a file under ``methods/`` gives: the graph of one method, and all such by the method's name."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import onnx_ir as ir
from numpy.typing import NDArray

from masktool.contract import Layout, Loss, Metadata
from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.network import Network, differentiable_network, masked_network
from masktool.embedding.settings import SamplesInput
from masktool.errors import MasktoolError
from masktool.explainers.method import Method
from masktool.layouts import CHANNEL_AXIS, SPATIAL_AXES
from masktool.messages import parameter
from masktool.registry import ClassRegistry

Options = TypeVar("Options", bound=Method)


class Explained(NamedTuple):
    """The values that explain a batch of n images.

    Attributes:
        predictions: the source's own outputs by name.
        saliency_map: the map, (n, 1, h, w) float32.
        attributions: the value of each of S segments, (n, S) float32; None where the method works on none.
        figures: figures by which to judge the map, (n,) float32 each, by the names that ``quality`` has in Python.
    """

    predictions: Mapping[str, ir.Value]
    saliency_map: ir.Value
    attributions: ir.Value | None = None
    figures: Mapping[str, ir.Value] = {}


class Asked(NamedTuple):
    """The values that an explanation starts from.

    Attributes:
        image: the image (1, ...), or a batch of them for a method that takes a batch at once.
        target: the class to explain (1,), or one for each image, int64; below 0 for the class with the highest score.
        others: the values of the network's other inputs, by name.
        extra: the values of the inputs that the method itself declares, by name, and of what it has made of them.
    """

    image: ir.Value
    target: ir.Value
    others: Mapping[str, ir.Value] = {}
    extra: Mapping[str, ir.Value] = {}


class ExtraInput(NamedTuple):
    """An input that a method declares for itself, such as ``segments``: its element type, shape and default.

    The default, an array or a number, makes the input optional where inputs may be; None requires the input always.
    What is ``settled`` is no input, but a constant of that name in its place, which holds the default.
    """

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    default: Any = None
    settled: bool = False


class Comparison(NamedTuple):
    """How a file is compared with the explainer in Python.

    Attributes:
        method: the method in Python.
        feeds: what the inputs hold that the method declares, or the constants in their place, by name.
        settings: settings of the file, by name, in which the method in Python differs.
        limit: the largest difference that rounding leaves, as a share of the range of Python's map, where that is more
            than of other methods; otherwise 0.
    """

    method: Method
    feeds: Mapping[str, NDArray[Any]] = {}
    settings: Mapping[str, Any] = {}
    limit: float = 0


@dataclasses.dataclass(frozen=True)
class ExplainedNetwork:
    """The network that is explained, and what is known of it.

    Attributes:
        plain: the canonical graph without a mask.
        masked: the graph that takes a mask.
        metadata: the metadata of the masked file, layout included.
        size: (height, width) of the input in pixels.
        seed: the seed of every random choice.
        chunk: the largest number of masks or steps in one pass.
        samples_input: whether the number of masks or steps is an input, see :class:`EmbeddingSettings`.
    """

    plain: ir.Model
    masked: ir.Model
    metadata: Metadata
    size: tuple[int, int]
    seed: int
    chunk: int
    samples_input: SamplesInput = "fixed"

    @property
    def layout(self) -> Layout:
        """The order of the axes of images."""
        assert self.metadata.layout is not None
        return self.metadata.layout

    @property
    def channel_axis(self) -> int:
        """The axis of an image's channels."""
        return CHANNEL_AXIS[self.layout]

    @property
    def spatial_axes(self) -> tuple[int, int]:
        """The axes of an image's height and width."""
        height, width = SPATIAL_AXES[self.layout]
        return height, width

    @property
    def n_channels(self) -> int:
        """The number of channels of an image."""
        return self.image_shape[self.channel_axis - 1]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape (C, h, w) or (h, w, C) of one image."""
        image = next(value for value in self.plain.graph.inputs if value.name == self.metadata.image_input)
        assert image.shape is not None
        return tuple(length for length in image.shape[1:] if isinstance(length, int))

    def in_layout(self, values: NDArray[Any]) -> NDArray[Any]:
        """Returns values (h, w, C) as one image (1, ...) in the network's layout."""
        return (values if self.layout == "NHWC" else values.transpose(2, 0, 1))[None]

    def masked_network(self) -> Network:
        """Returns the masked network, to be placed once."""
        return masked_network(self.masked, self.metadata)

    def differentiable(
        self, loss: Loss = "logit", feature_maps: Sequence[str] = (), *, takes_masks: bool = False
    ) -> Network:
        """Returns the network with gradients, the plain one or the one that takes masks, to be placed once.

        Raises:
            UnsupportedOperatorError: nodes without a gradient rule; the error lists all of them.
            MasktoolError: there is no gradient for the image or the class scores, or no feature map of that name.
        """
        model = self.masked if takes_masks else self.plain
        return differentiable_network(model, self.metadata, loss, feature_maps)

    def sum_of_channels(self, flow: Flow, values: ir.Value) -> ir.Value:
        """Returns the sum over the channels of each pixel, (n, 1, h, w), of values in the shape of n images."""
        total = flow.emit("ReduceSum", values, flow.ints(self.channel_axis), keepdims=1)
        return self.maps_first(flow, total)

    def maps_first(self, flow: Flow, maps: ir.Value) -> ir.Value:
        """Returns maps of one channel in the image's layout, (n, 1, h, w) or (n, h, w, 1), as (n, 1, h, w)."""
        if self.channel_axis != 1:
            maps = flow.emit("Transpose", maps, perm=[0, 3, 1, 2])
        return flow.typed(maps, FLOAT, [None, 1, *self.size])


class EmbeddedMethod(abc.ABC, Generic[Options]):
    """Builds the graph of one method with given options.

    Class attributes:
        name: the name of the method in :mod:`masktool.explainers.methods`.
        takes_batches: whether a whole batch is explained at once; otherwise one image after the other.
        defaults: options whose default in files is another than in Python.
        rounding: the largest difference that rounding leaves between file and Python, as a share of the map's range,
            where that is more than of other methods; otherwise 0.

    Attributes:
        options: the method with its options, as Python explains by it.
        network: the network that is explained.
    """

    name: ClassVar[str]
    takes_batches: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {}
    rounding: ClassVar[float] = 0

    def __init__(self, options: Options, network: ExplainedNetwork) -> None:
        self.options = options
        self.network = network

    @property
    def feature_maps(self) -> tuple[str, ...]:
        """The names of the feature maps that the method reads; none where it reads none, or the last one."""
        return ()

    @abc.abstractmethod
    def emit(self, flow: Flow, asked: Asked) -> Explained:
        """Emits the nodes that explain an image, or a batch where the class takes batches.

        Raises:
            MasktoolError: the method has no graph for this network or these options; the error says why.
        """

    def check_samples_input(self) -> None:
        """Raises a MasktoolError where the number of masks or steps is to be an input and cannot be one."""
        raise MasktoolError(
            f"{self.options.title} in a file has its masks or steps settled at export",
            where=parameter("samples_input", self.network.samples_input),
            fix="leave it out",
        )

    def extra_inputs(self) -> tuple[ExtraInput, ...]:
        """Returns the inputs that the method declares for itself."""
        return ()

    def comparison(self) -> Comparison:
        """Returns how the file is compared with Python: by default with the same options."""
        return Comparison(self.options, limit=self.rounding)


EMBEDDED_METHODS: ClassRegistry[EmbeddedMethod[Any]] = ClassRegistry("embedded method", "masktool.embedding.methods")
"""The builder of every method that can be part of a file, by the method's name."""
register = EMBEDDED_METHODS.add
