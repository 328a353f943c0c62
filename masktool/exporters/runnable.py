"""Runs a plain or a masked model on images and masks in a session of ONNX Runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from masktool.contract import BATCH_AXIS, FEATURE_MAP_OUTPUTS, GRADIENT_OUTPUTS, MASK_INPUT, Metadata
from masktool.errors import needing_memory
from masktool.exporters.names import INPUTS_OF_GRADIENTS
from masktool.exporters.one_image import first_rows
from masktool.exporters.probes import DrawnValue, feed_of, others_of_session, type_of

Outputs = list[np.ndarray]
Opener = Callable[..., onnxruntime.InferenceSession]
"""Opens a model again, with the options of :func:`masktool.exporters.storage.open_session`."""


@dataclasses.dataclass(frozen=True)
class RunnableModel:
    """A plain or a masked model in a session, with what it takes to feed it.

    Attributes:
        session: the session of the model.
        image_input: name of the image input.
        image_shape: the shape of the image input, open axes as names or None.
        image_type: the element type of the image input.
        others: values of all inputs but the image and the mask, by name.
        open: the function that opens the model again, with other options.
        options: ONNX Runtime's options of every run; None for its defaults.
        loops: whether a Loop in the model may run for ever, so that its runs have a time limit.
    """

    session: onnxruntime.InferenceSession
    image_input: str
    image_shape: Sequence[int | str | None]
    image_type: np.dtype[Any]
    others: Mapping[str, DrawnValue]
    open: Opener
    options: onnxruntime.RunOptions | None = None
    loops: bool = False

    @classmethod
    def of(cls, open_model: Opener, image_input: str) -> RunnableModel:
        """Opens a model and draws values for its other inputs."""
        session = open_model()
        image = next(node for node in session.get_inputs() if node.name == image_input)
        masked = any(node.name == MASK_INPUT for node in inputs_of(session))
        others = others_of_session(session, image_input, BATCH_AXIS if masked else image.shape[0])
        return cls(session, image_input, image.shape, type_of(image), others, open_model)

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs, apart from gradients and feature maps that an export has added."""
        own = frozenset() if INPUTS_OF_GRADIENTS.isdisjoint(self.others) else GRADIENT_OUTPUTS
        own |= set(FEATURE_MAP_OUTPUTS[: count_feature_maps(self.session)])
        return [node.name for node in self.session.get_outputs() if node.name not in own]

    @property
    def mask_optional(self) -> bool:
        """Whether the mask may be left out."""
        return any(node.name == MASK_INPUT for node in self.session.get_overridable_initializers())

    @property
    def takes_mask(self) -> bool:
        """Whether the model has a mask input."""
        return any(node.name == MASK_INPUT for node in inputs_of(self.session))

    @property
    def batch(self) -> int | None:
        """The number of images that the model takes in one run; None for any number."""
        return self.image_shape[0] if isinstance(self.image_shape[0], int) else None

    def opened_again(self, **options: Any) -> RunnableModel:
        """Returns the same model in another session, opened with ``options``."""
        return dataclasses.replace(self, session=self.open(**options))

    @property
    def one_by_one(self) -> bool:
        """Whether a masked model takes one image at a time."""
        return self.image_shape[0] == 1

    def run(self, images: np.ndarray, masks: np.ndarray | None = None) -> Outputs:
        """Runs a masked model; returns every output, in the graph's order, the images' results one behind the other."""
        if not self.one_by_one:
            return self.run_once(images, masks)
        count = max(len(images), 0 if masks is None else len(masks))
        runs = []
        for index in range(count):
            mask = None if masks is None else masks[index % len(masks)][None]
            runs.append(self.run_once(images[index % len(images)][None], mask))
        return stack(runs)

    def run_once(self, images: np.ndarray, masks: np.ndarray | None = None) -> Outputs:
        """Runs the session once; returns every output, in the graph's order."""
        count = len(images) if masks is None else max(len(images), len(masks))
        feed = {self.image_input: images} | feed_of(self.others, count)
        feed |= {} if masks is None else {MASK_INPUT: masks}
        with needing_memory("the model does not run"):
            results = self.session.run(self.outputs, feed, self.options)
        return [np.asarray(each) for each in results]

    def run_plain(self, images: np.ndarray) -> Outputs:
        """Runs a source, in batches of its own size where that is fixed; returns every output, in the graph's order."""
        step, count = self.batch or len(images), len(images)
        if len(images) % step:
            images = np.concatenate([images, np.resize(images, (step - len(images) % step, *images.shape[1:]))])
        found = stack([self.run_once(images[i : i + step]) for i in range(0, len(images), step)])
        return [output[: len(output) * count // len(images)] for output in found]

    def count_rows(self, image: np.ndarray) -> list[int]:
        """Returns the number of rows of each output, 0 for a single number, where copies of an image fill the batch."""
        outputs = self.run_once(np.repeat(image[None], self.batch or 1, axis=0))
        return [len(output) if output.ndim else 0 for output in outputs]

    def run_alone(self, images: np.ndarray) -> Outputs:
        """Runs a source on each image alone; copies of the image fill a fixed batch, of which the first counts."""
        batch = self.batch or 1
        runs = [self.run_once(np.repeat(image[None], batch, axis=0)) for image in images]
        return stack([first_rows(run, batch) for run in runs])


def count_feature_maps(session: onnxruntime.InferenceSession) -> int:
    """Returns how many feature maps a session's file says that it gives; 0 for a file that masktool did not write."""
    metadata = Metadata.from_properties(session.get_modelmeta().custom_metadata_map)
    return 0 if metadata is None else len(metadata.feature_maps)


def inputs_of(session: onnxruntime.InferenceSession) -> list[onnxruntime.NodeArg]:
    """Returns all inputs of a session, those with a default included."""
    return [*session.get_inputs(), *session.get_overridable_initializers()]


def stack(runs: list[Outputs]) -> Outputs:
    """Joins the outputs of runs along the batch; lists of another length for each image are laid out flat."""
    return [join_arrays([np.atleast_1d(part) for part in parts]) for parts in zip(*runs, strict=True)]


def join_arrays(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns arrays behind each other, laid out flat where they differ beyond their first axis."""
    alike = len({part.shape[1:] for part in parts}) == 1
    return np.concatenate(parts if alike else [part.reshape(-1) for part in parts])
