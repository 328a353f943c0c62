"""What the exporter and the runtime agree on: names of inputs and outputs, and the metadata.

Standard library only, so that anything may import it. Every metadata entry is one ONNX ``metadata_props`` pair whose
key starts with ``masktool.`` and whose value is one JSON document; :class:`Metadata` is the typed view of all of
them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from masktool.errors import MasktoolError
from masktool.limits import check_limit
from masktool.messages import parameter

__version__ = "0.2.0"
"""Version of masktool, recorded in every file that masktool writes; also ``masktool.__version__``."""
SCHEMA_VERSION = 1
MASK_INPUT = "mask"
MASK_POLARITY = "1=kept, 0=missing"
BATCH_AXIS = "output_batch"
"""Name of the axis with one row per result: of every output, and of inputs besides the image that go with the results.
The results are as many as the images or the masks, whichever are more."""
DEFAULT_SIZE = (224, 224)
"""(height, width) of the input where neither network nor preprocessing tells: what most networks were trained on."""
METADATA_PREFIX = "masktool."
FUNCTION_DOMAIN = "masktool"
"""Domain of the model-local functions (``masktool::NeighborFill``)."""
RULE_PROPERTY = "masktool.rule"
"""Key of the node ``metadata_props`` entry that names the mask rule that was applied to the node."""

Masking = Literal["layer", "partial", "fill"]
SamplerRule = Literal["cell", "published"]
"""What keeps an output of a sampler narrower than its stride (a 1 x 1 convolution of stride 2) under ``layer`` masking:
any place of its stride's cell, or, as the method was published, only a place that the sampler looks at."""
Batching = Literal["any", "one"]
FilePrecision = Literal["fp32", "fp16", "bf16"]
DeviceProvider = Literal["cuda", "webgpu", "tensorrt", "coreml", "directml"]
"""A provider of ONNX Runtime that computes on a device, and whose kernels are known."""
DEVICE_PROVIDERS: tuple[DeviceProvider, ...] = get_args(DeviceProvider)
Independence = Literal["proved", "mixing", "unproved"]
TARGET_INPUT = "target"
"""Index of the class to differentiate for, or in files that explain themselves to explain, (T,) int64, T the batch or
1; in files with gradients of class scores always, in those that explain themselves where they were exported so."""
LOSS_INPUT = "loss"
"""Which of ``LOSSES`` is differentiated, () int64, optional; in files with gradients of class scores only."""
WEIGHTS_INPUT = "output_weights"
"""Weights of the values of one output, (W, ...) float32 in its shape, W the batch or 1; in files with gradients of that
output only, in place of ``target`` and ``loss``."""
OBJECTIVE = "objective"
"""Output (B,): what is differentiated; of an output, the sum of its values times their weights."""
FEATURE_MAP = "feature_map"
"""Output (B, c, h, w): the feature map that metadata name; further ones are ``feature_map_2`` and so on."""
MOST_FEATURE_MAPS = 8
"""Feature maps that a file gives at most."""
FEATURE_MAP_OUTPUTS = (FEATURE_MAP, *(f"{FEATURE_MAP}_{number}" for number in range(2, MOST_FEATURE_MAPS + 1)))
"""Outputs of feature maps, in the order in which metadata name them."""
GRADIENT_PREFIX = "gradient_"
"""Outputs ``gradient_image``, ``gradient_mask`` and, of each feature map, ``gradient_feature_map`` and so on."""
GRADIENT_OUTPUTS = frozenset(
    {OBJECTIVE, *FEATURE_MAP_OUTPUTS, *(GRADIENT_PREFIX + name for name in ("image", "mask", *FEATURE_MAP_OUTPUTS))}
)
"""Outputs that gradients can add: as many feature maps as were asked for."""
SALIENCY_MAP = "saliency_map"
"""Output (N, 1, H, W) float32: of a file with a masking model, in [0, 1], 1 = salient; of a file that explains itself,
the attributions, in units of the score."""
SEGMENT_ATTRIBUTIONS = "attributions"
"""Output (N, S) float32 of a file that explains itself by a method of segments: the value of each segment."""
SEGMENTS_INPUT = "segments"
"""Input (H, W) int32 of a file that explains itself by a method of segments: the label of each pixel, from 0 without
gaps, of all images in a run."""
OVERLAY = "overlay"
"""Output of a file that explains itself and was asked to draw: the map over the picture, uint8 RGB, (N, H, W, 3), or
(H, W, 3) in the size of the one photograph that the file takes."""
EXPLAIN_INPUT = "explain"
"""Input (1,) bool of a file that explains itself on request only: whether to."""
TOP_CLASS = -1
"""Value of the input ``target`` of a file that explains itself: the class with the highest score."""
Loss = Literal["logit", "log-softmax", "softmax", "entropy"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
"""What a file with gradients can differentiate: the target's score in three forms, or the entropy of all scores. A loss
is stored as its index in this tuple."""
FIRST_LOSSES: tuple[Loss, ...] = ("logit", "log-softmax", "softmax")
"""The losses of a file with gradients whose metadata list none."""
BASELINES = ("black", "grey", "mean", "image-mean", "blur", "noise")
"""Names of what ``fill`` puts in place of missing pixels; a colour is the text ``R,G,B``."""
DEFAULT_BASELINE = "mean"
OutputKind = Literal["logits", "probabilities", "sigmoid", "binary", "binary-probability"]
"""What a class output holds. Of classes that exclude one another: ``logits`` or ``probabilities``, one for each class;
of two such classes in one column: the second one's logit (``binary``) or probability (``binary-probability``). Of
classes that may be there together: a probability for each (``sigmoid``)."""
BINARY_KINDS = frozenset({"binary", "binary-probability"})
"""One column that tells two classes apart: class 0 is the negative one, class 1 the positive one."""
ChannelOrder = Literal["RGB", "BGR", "L"]
PictureLayout = Literal["NCHW", "NHWC"]
"""Order of the axes of an image input, of which photographs become one."""
Layout = Literal["NCL", "NLC", "NCHW", "NHWC", "NCDHW", "NDHWC"]
"""Order of the axes of a network's input: N images, C channels, and places along a length (signals), height and width,
or depth, height and width (volumes; of a video, depth is time)."""
Size = tuple[int, ...]
"""Lengths of an input's axes of places: (height, width) of an image, (length,) or (depth, height, width)."""
SourceTask = Literal["detect", "segment", "classify", "pose", "obb"]
"""What a network is for, as Ultralytics' exporters write it beside the graph."""
ResizeRule = Literal["shortest", "exact", "letterbox", "none"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]

CHOICES: dict[str, tuple[str, ...]] = {
    "resize": get_args(ResizeRule),
    "interpolation": get_args(Interpolation),
    "channel_order": get_args(ChannelOrder),
    "layout": get_args(PictureLayout),
}
LARGEST_PIXEL = 255
LARGEST_RESIZE = 1_000_000
"""Largest accepted ``resize_to``, in pixels."""
EXPECTED_FIELDS: dict[str, str] = {
    "size": "[height, width], whole numbers from 1",
    "resize_to": f"a length in pixels, 1 to {LARGEST_RESIZE}",
    "scale": "a positive number",
    "padding": "a value of pixels, 0 to 255",
    "mean": "numbers, one per channel",
    "std": "numbers other than 0, one per channel",
    **{name: " | ".join(allowed) for name, allowed in CHOICES.items()},
}
"""What each field of :class:`Preprocessing` holds, for errors."""
SHOWN = 60
"""Characters of a wrong value that an error shows."""


def conforms(value: Any, kind: Any) -> bool:
    """Tells whether a JSON value is of a field's type; bools, NaN and infinity do not count as numbers.

    Args:
        value: JSON value, as ``json.loads`` gives it.
        kind: type annotation of a field: a union, a Literal, str, int, float, tuple, Mapping, a dataclass or Any.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(conforms(value, each) for each in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        kinds = arguments[:1] * len(value) if isinstance(value, list | tuple) and arguments[-1] is ... else arguments
        fits = isinstance(value, list | tuple) and len(value) == len(kinds)
        return fits and all(map(conforms, value, kinds))
    if origin is Mapping:
        return isinstance(value, dict) and all(conforms(each, arguments[1]) for each in value.values())
    if dataclasses.is_dataclass(kind):
        return isinstance(value, dict)
    if kind in (int, float):
        number = isinstance(value, kind | int) and not isinstance(value, bool)
        return number and abs(value) < LARGEST_NUMBER
    return isinstance(value, kind)


LARGEST_NUMBER = 1e300
"""Nothing that is measured or set is as large; infinity and NaN are not below it either."""


def show(value: Any) -> str:
    """Returns a wrong value as a short text for an error."""
    try:
        text = json.dumps(value)
    except (RecursionError, TypeError, ValueError):
        text = type(value).__name__
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes the model's input: resize, centre crop, channels, scale, normalise, layout.

    Attributes:
        size: (height, width) of the model's input in pixels.
        resize: ``shortest`` scales the photograph until its shorter side is ``resize_to``; ``exact`` scales it to
            ``size``, whatever its aspect ratio; ``letterbox`` scales it until all of it fits into ``size``; ``none``
            leaves it. Then a centre crop of ``size`` is taken; what a smaller photograph lacks is ``padding``.
        resize_to: length of the shorter side in pixels, for ``shortest`` only.
        interpolation: Pillow's filter of the same name, with antialiasing.
        channel_order: ``RGB``, ``BGR`` or ``L`` (one grey channel).
        scale: factor for the 0..255 pixel values before ``mean`` and ``std``: 1/255 gives a range of 0..1.
        mean: mean of each channel, in the order of ``channel_order``, in units of the scaled pixels.
        std: standard deviation of each channel, in the same order and units.
        layout: order of the axes of the model's image input.
        padding: value of the pixels around a photograph that is smaller than the crop, in 0..255; None for what is 0
            after normalisation.
    """

    size: tuple[int, int]
    resize: ResizeRule = "shortest"
    resize_to: int | None = None
    interpolation: Interpolation = "bilinear"
    channel_order: ChannelOrder = "RGB"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: PictureLayout = "NCHW"
    padding: float | None = None

    def scaled_to(self, size: Size) -> Preprocessing:
        """Returns the preprocessing for another input size, the crop's share of the resized photograph unchanged.

        Args:
            size: (height, width) in pixels.
        """
        if len(size) != len(DEFAULT_SIZE):
            got = " x ".join(map(str, size))
            raise MasktoolError("photographs have a height and a width", where=parameter("input_size"), got=got)
        size = (size[0], size[1])
        if self.resize_to is None:
            return dataclasses.replace(self, size=size)
        side = round(self.resize_to * min(size) / min(self.size))
        return dataclasses.replace(self, size=size, resize_to=side)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Preprocessing:
        """Returns the preprocessing that a JSON object describes; MasktoolError names unknown keys and wrong values."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(document) - known):
            raise MasktoolError(
                "unknown preprocessing key", where=", ".join(unknown), expected=f"some of {', '.join(sorted(known))}"
            )
        if "size" not in document:
            raise MasktoolError("preprocessing without a size", expected='"size": [height, width]')
        for key, allowed in CHOICES.items():
            if document.get(key, allowed[0]) not in allowed:
                raise MasktoolError("preprocessing", where=key, expected=" | ".join(allowed), got=document[key])
        hints = get_type_hints(cls)
        for key, value in document.items():
            if not conforms(value, hints[key]):
                raise MasktoolError("bad preprocessing", where=key, expected=EXPECTED_FIELDS[key], got=show(value))
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
        preprocessing = cls(**values)
        for key, fine in preprocessing.check_ranges():
            if not fine:
                got = show(getattr(preprocessing, key))
                raise MasktoolError("bad preprocessing", where=key, expected=EXPECTED_FIELDS[key], got=got)
        check_limit("values", math.prod(preprocessing.size) * len(preprocessing.mean), where="preprocessing, size")
        return preprocessing

    def check_ranges(self) -> Iterator[tuple[str, bool]]:
        """Yields the name of each field of numbers, and whether its numbers make sense for any model."""
        yield "size", min(self.size) > 0
        yield "resize_to", self.resize_to is None or 0 < self.resize_to <= LARGEST_RESIZE
        yield "scale", self.scale > 0
        yield "padding", self.padding is None or 0 <= self.padding <= LARGEST_PIXEL
        yield "mean", len(self.mean) > 0
        yield "std", len(self.std) > 0 and 0 not in self.std


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Everything an exported file says about itself.

    Attributes:
        masking: the masking mode of the graph.
        source: name of what was exported, as the user gave it (a file's name without its directory, or a hub name).
        source_sha256: SHA-256 of the source file, or of the plain graph where the source is no file.
        image_input: name of the image input, (N, C, H, W) or (N, H, W, C); or where the file takes a photograph,
            (H, W, 3) uint8 RGB of any size.
        class_output: name of the output that ``explain`` reads, (N, K) after trailing axes of length 1 are dropped;
            None when the model has no such output.
        output_kind: kind of scores that ``class_output`` holds; None when unknown: then even that it holds class scores
            is assumed, unless there are labels.
        preprocessing: preprocessing of the images; None when unknown.
        labels: one name per class, of a binary output the negative class's and the positive one's; None when unknown.
        parity: figures measured at export, by name.
        tool_version: version of the masktool that wrote the file.
        gradient: default of the input ``loss``, in a file with gradients of class scores; None in any other.
        feature_map: name of the value behind the output ``feature_map``: the first feature map that the export named,
            or that in front of its head; None where there is none.
        baseline: one of ``BASELINES``, a number or ``R,G,B``; None unless masking is ``fill``.
        layout: order of the image input's axes; None in files written before it was recorded.
        losses: losses that the input ``loss`` chooses from, by index, in a file with gradients of class scores; None in
            any other, and in files written before the losses were recorded, which have ``FIRST_LOSSES``.
        masker: settings and figures of the training of the masking model behind the output ``saliency_map``, JSON
            values by name; None where the file holds no masking model.
        output_evidence: evidence for ``class_output`` and for ``output_kind``, one sentence each; None in files written
            before it was recorded.
        renamed: new names of inputs and outputs by those that they had in the source; None where there are none.
        batching: ``any`` number of images at once, or ``one``: image and masks are fed one by one; None in files
            written before it was recorded, which take any number.
        independence: whether an image's results depend on the images beside it: ``proved`` not to, ``mixing``, or
            ``unproved``; None where it was not recorded.
        batching_reason: reason why images cannot share a batch; None where they can.
        copies: number of copies of the one image that fill a fixed batch which could not be opened; otherwise 1.
        explanation: method, options and inputs of the explanation that the file gives with its predictions, JSON values
            by name; None in a file that takes a mask instead.
        portable: whether the file is written for other runtimes than ONNX Runtime too: for one image at a time, with
            every input required, of ONNX's own operators alone.
        precision: precision that the export brought the network to; None where that stayed the source's own.
        for_provider: provider whose kernels the file's gradients are written for; None for the CPU's and CUDA's.
        head: name of the file beside this one that holds the layers behind ``feature_map``, its head, and takes a mask
            there; None where there is none.
        behind: name of the feature map that is the image input of this file, which is the head of another; None in any
            file that holds a whole network.
        plain_branch: whether the file also holds the plain network, which runs where the mask is left out or hides
            nothing.
        rule: rule of samplers narrower than their stride; None unless masking is ``layer``. Files written before it was
            recorded have ``published``.
        calibration: correction of the class scores where something is missing: its form, what it was fitted on and what
            it gains on held-out images, JSON values by name; None in a file whose scores are the network's own.
        more_feature_maps: names of the values behind the outputs ``feature_map_2`` and so on; None where there is one
            feature map or none.
        task: what the source's file says beside its graph that the network is for; None where it says nothing that is
            known.
        gradient_output: name of the output whose values the input ``output_weights`` weighs and that is differentiated,
            in a file with gradients of such an output; None in any other.
    """

    masking: Masking
    source: str
    source_sha256: str
    image_input: str
    class_output: str | None
    output_kind: OutputKind | None
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None
    parity: Mapping[str, Any]
    tool_version: str
    schema_version: int = SCHEMA_VERSION
    mask_polarity: str = MASK_POLARITY
    baseline: str | None = None
    gradient: Loss | None = None
    feature_map: str | None = None
    layout: Layout | None = None
    losses: tuple[Loss, ...] | None = None
    masker: Mapping[str, Any] | None = None
    output_evidence: tuple[str, ...] | None = None
    renamed: Mapping[str, str] | None = None
    batching: Batching | None = None
    independence: Independence | None = None
    batching_reason: str | None = None
    copies: int = 1
    explanation: Mapping[str, Any] | None = None
    portable: bool = False
    precision: FilePrecision | None = None
    for_provider: DeviceProvider | None = None
    head: str | None = None
    behind: str | None = None
    plain_branch: bool = False
    rule: SamplerRule | None = None
    calibration: Mapping[str, Any] | None = None
    more_feature_maps: tuple[str, ...] | None = None
    task: SourceTask | None = None
    gradient_output: str | None = None

    @property
    def has_gradients(self) -> bool:
        """Whether the file holds gradients, of class scores or of an output."""
        return self.gradient is not None or self.gradient_output is not None

    @property
    def feature_maps(self) -> tuple[str, ...]:
        """Names of all feature maps that the file gives, in the order of :data:`FEATURE_MAP_OUTPUTS`."""
        return () if self.feature_map is None else (self.feature_map, *(self.more_feature_maps or ()))

    def with_feature_maps(self, names: Sequence[str]) -> Metadata:
        """Returns the metadata of a file that gives the feature maps of these names, the first as ``feature_map``."""
        return dataclasses.replace(
            self, feature_map=names[0] if names else None, more_feature_maps=tuple(names[1:]) or None
        )

    @property
    def one_by_one(self) -> bool:
        """Whether a batch of images and masks is fed one at a time; a photograph is no batch."""
        return self.batching == "one" and not self.takes_photograph

    @property
    def takes_mask(self) -> bool:
        """Whether the file takes a mask; otherwise it explains itself."""
        return self.explanation is None

    @property
    def takes_photograph(self) -> bool:
        """Whether the file takes one photograph as it is, (H, W, 3) uint8 RGB, and prepares it itself."""
        return self.explanation is not None and self.explanation["embed_preprocessing"] is True

    @property
    def known_losses(self) -> tuple[Loss, ...]:
        """The losses that this file can differentiate; empty in a file without gradients of class scores."""
        return () if self.gradient is None else self.losses or FIRST_LOSSES

    def to_properties(self) -> dict[str, str]:
        """Returns the metadata as ``metadata_props`` pairs, one JSON document each.

        The schema's version comes last: a file that was cut between two pairs lacks it, and is not taken for whole.
        """
        values = dataclasses.asdict(self)
        values["schema_version"] = values.pop("schema_version")
        return {METADATA_PREFIX + key: json.dumps(value) for key, value in values.items()}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> Metadata | None:
        """Returns the metadata that a file's ``metadata_props`` pairs hold.

        Returns:
            The metadata; None when the file is not masktool's (no ``masktool.schema_version``).

        Raises:
            MasktoolError: the file was written by a newer schema, or its metadata are damaged.
        """
        if METADATA_PREFIX + "schema_version" not in properties:
            return None
        values = read_properties(properties)
        for field in dataclasses.fields(cls):
            if field.name not in values and field.default is dataclasses.MISSING:
                raise damaged_metadata(field.name, "a value", "none")
        if values["masking"] == "layer":
            values.setdefault("rule", "published")
        if values["preprocessing"] is not None:
            values["preprocessing"] = Preprocessing.from_json(values["preprocessing"])
        for name in ("labels", "losses", "output_evidence", "more_feature_maps"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        values["labels"] = name_classes(values["labels"], values["output_kind"])
        if values.get("explanation") is not None:
            check_entries("explanation", values["explanation"], EXPLANATION_ENTRIES)
        if values.get("calibration") is not None:
            check_entries("calibration", values["calibration"], CALIBRATION_ENTRIES)
        return cls(**values)


def read_properties(properties: Mapping[str, str]) -> dict[str, Any]:
    """Returns the JSON values of those pairs that are fields of :class:`Metadata`, each of the type that it must be.

    Raises:
        MasktoolError: a value is no JSON, too long or of another type, or of a newer schema.
    """
    hints = get_type_hints(Metadata)
    order = sorted(hints, key=lambda name: name != "schema_version")  # other fields of a newer schema may be anything
    values: dict[str, Any] = {}
    for name in order:
        text = properties.get(METADATA_PREFIX + name)
        if text is None:
            continue
        check_limit("text", len(text), where=f"metadata {METADATA_PREFIX + name}")
        try:
            values[name] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise damaged_metadata(name, "JSON", error) from error
        if not conforms(values[name], hints[name]):
            raise damaged_metadata(name, describe_field_type(hints[name]), show(values[name]))
        if name == "schema_version" and values[name] > SCHEMA_VERSION:
            raise MasktoolError(
                "file written by a newer masktool",
                where="metadata schema",
                expected=f"at most {SCHEMA_VERSION}",
                got=values[name],
                fix="upgrade masktool or export again",
            )
    return values


EXPLANATION_ENTRIES: dict[str, Any] = {
    "method": str,
    "settings": Mapping[str, Any],
    "seed": int,
    "chunk": int,
    "target": str,
    "on_request": str,
    "embed_preprocessing": bool,
    "embed_overlay": bool,
}
"""What :attr:`Metadata.explanation` holds at least, with the type of each entry."""


CALIBRATION_ENTRIES: dict[str, Any] = {
    "form": str,
    "space": str,
    "n_images": int,
    "n_masks": int,
    "seed": int,
    "divergence_before": Mapping[str, float],
    "divergence_after": Mapping[str, float],
    "divergence_gain": Mapping[str, float],
    "unchanged_before": Mapping[str, float],
    "unchanged_after": Mapping[str, float],
    "unchanged_gain": Mapping[str, float],
}
"""What :attr:`Metadata.calibration` holds at least, with the type of each entry. Figures are of held-out images, each
with its 95 % interval."""


def check_entries(name: str, entries: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Raises MasktoolError where an entry of a metadata field is missing or of another type."""
    for entry, kind in kinds.items():
        if not conforms(entries.get(entry), kind):
            raise damaged_metadata(f"{name}, {entry}", describe_field_type(kind), show(entries.get(entry)))


def describe_field_type(kind: Any) -> str:
    """Returns the values that a field's type allows, in JSON's words, for errors."""
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(describe_field_type(each) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return " | ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return "a list of texts"
    return words.get(kind, "an object")


def damaged_metadata(name: str, expected: str, got: object) -> MasktoolError:
    """Returns the error for a metadata entry whose value is not what it should be."""
    where = f"metadata {METADATA_PREFIX + name}"
    return MasktoolError(
        "damaged masktool metadata", where=where, expected=expected, got=got, fix="export the model again"
    )


def name_classes(labels: Sequence[str] | None, kind: OutputKind | None) -> tuple[str, ...] | None:
    """Returns one name per class: a lone name of a binary output is the positive class's."""
    if labels is not None and len(labels) == 1 and kind in BINARY_KINDS:
        return (f"not {labels[0]}", labels[0])
    return None if labels is None else tuple(labels)
