"""One exported file, opened once: images and masks in, scores out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from masktool.contract import (
    BINARY_KINDS,
    FEATURE_MAP,
    GRADIENT_OUTPUTS,
    GRADIENT_PREFIX,
    MASK_INPUT,
    OBJECTIVE,
    SALIENCY_MAP,
    TARGET_INPUT,
    TOP_CLASS,
    Layout,
    Loss,
    Metadata,
)
from masktool.errors import MasktoolError
from masktool.execution_providers import ExecutionProvider, know_provider
from masktool.execution_providers.provider import HOST
from masktool.layouts import CHANNEL_AXIS, SPATIAL_AXES
from masktool.messages import call, parameter
from masktool.runtime.batching import BatchTrial, choose_batch_size
from masktool.runtime.checks import check_batches, check_images, check_masks, check_takes_mask, show_shape
from masktool.runtime.gradients import IMAGE, MASK, Gradient, check_target_classes, feed_loss, outputs_for
from masktool.runtime.inputs import Inputs, ask_top_class, check_others, describe_other_inputs, find_explanation
from masktool.runtime.native_log import runtime_reason
from masktool.runtime.one_by_one import each_alone, join_results, shape_of_many
from masktool.runtime.passes import PassCounter
from masktool.runtime.providers import open_on_providers
from masktool.runtime.scores import drop_trailing_axes, to_probabilities
from masktool.tensor_types import FLOAT_TYPES, NUMPY_TYPES


class Feed(NamedTuple):
    """Checked values by the inputs' names, and the number of results that they give."""

    values: dict[str, np.ndarray]
    results: int


class MaskedSession:
    """A masked model, ready to run; a context manager that frees the model at its end.

    Any number of images and masks may be given, also to a file that takes one at a time (``metadata.batching``).
    :func:`masktool.load` opens any other model too.

    Args:
        path: path of a file that ``masktool export`` wrote.
        providers: ONNX Runtime's execution providers, as for :func:`masktool.load`.
        threads: number of threads that one node may use, as for :func:`masktool.load`.
        provider_options: options of the providers, as for :func:`masktool.load`.

    Raises:
        MasktoolError: the file is missing, damaged or not masktool's, or an asked-for provider cannot load.

    Attributes:
        path: path of the file.
        metadata: metadata of the file: what it says about itself.
        providers: ONNX Runtime's names of the providers that really run, the preferred first.
        provider_note: reasons why ``auto`` took none of the providers that it prefers to the one that runs; None when
            there are none, or a provider was asked for.
        provider_options: options of the providers that were asked for or that masktool sets, as ONNX Runtime reads
            them.
        device_note: reason why nothing is bound to the device (:attr:`device`) although it has one; None otherwise.
        threads: number of threads that one node may use, as asked for; None where ONNX Runtime chooses.
        input_shape: shape of the image input; None for an axis of any length. That of a photograph is (None, None, 3).
        output_names: names of all outputs, gradients apart.
        output_shapes: shapes of those outputs by name; None for an axis of any length. In a file of one image at a
            time, where the session puts results together, an output without a row per image has an axis for the images
            in front.
        other_inputs: inputs that the model has besides the image and the mask. In a file that explains itself,
            ``target`` and ``explain`` are among them where it has them: left out, the top class is explained, and only
            where an output is asked for that the explanation adds.
        explanation_outputs: names of the outputs that an explanation adds, the map first; empty in a file that takes a
            mask.
        image_type: numpy's type of the image input's elements.
        mask_type: numpy's type of the mask input's elements.
        mask_required: whether the file cannot run without a mask; :meth:`run` then feeds one of ones.
        batch_trials: trials for the fastest batch by the shape of the image, see
            :func:`masktool.runtime.measured_batch.measure_batch_size`.
        counter: counter of the images pushed through the model.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        providers: str | Sequence[str] | None = None,
        threads: int | None = None,
        provider_options: Mapping[str, object] | None = None,
    ) -> None:
        self.path = Path(path)
        opened = open_on_providers(self.path, providers, threads, provider_options)
        self._session: Any = opened.session
        self.threads = threads
        self.provider_options = dict(opened.options)
        self.provider_note = opened.note
        self.device_note: str | None = None
        self.batch_trials: dict[tuple[int, ...], list[BatchTrial]] = {}
        self.providers: list[str] = list(opened.session.get_providers())
        self.metadata = read_metadata(opened.session, self.path)
        required = {node.name: node for node in opened.session.get_inputs()}
        optional = {node.name: node for node in opened.session.get_overridable_initializers()}
        inputs = required | optional
        self._constants = frozenset(optional) if make_defaults_constant(self.providers) else frozenset()
        shapes = {node.name: as_shape(node.shape) for node in opened.session.get_outputs()}
        check_agreement(inputs, list(shapes), self.metadata, self.path)
        self.explanation_outputs = find_explanation(list(shapes), self.metadata)
        self.mask_required = MASK_INPUT in required
        self.counter = PassCounter()
        image, mask = inputs[self.metadata.image_input], inputs.get(MASK_INPUT)
        one_by_one = self.metadata.one_by_one
        self.input_shape = shape_of_many(as_shape(image.shape)) if one_by_one else as_shape(image.shape)
        if one_by_one:  # one row, unless it was not asked for
            shapes |= {name: (1, *shapes[name][1:]) for name in self.explanation_outputs}
        own = frozenset() if self.metadata.gradient is None else GRADIENT_OUTPUTS
        self._gradient_outputs = [name for name in shapes if name in own]
        self._result_shapes = shapes
        self.output_shapes = {
            name: shape_of_many(shape) if one_by_one else shape for name, shape in shapes.items() if name not in own
        }
        self.output_names = list(self.output_shapes)
        self.other_inputs = describe_other_inputs(required, inputs, self.metadata)
        others = (each.name for each in self.other_inputs if each.per_result)
        self._per_result = frozenset({self.metadata.image_input, MASK_INPUT, TARGET_INPUT, *others})
        self._mask_shape = () if mask is None else as_shape(mask.shape)
        self.image_type = NUMPY_TYPES.get(image.type, np.float32)
        self.mask_type = np.float32 if mask is None else FLOAT_TYPES.get(mask.type, np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model; a second call does nothing."""
        self._session = None

    def __repr__(self) -> str:
        return f"MaskedSession({str(self.path)!r}, providers={self.providers})"

    @property
    def forward_passes(self) -> int:
        """Images pushed through the model so far, by all threads."""
        return self.counter.total

    @property
    def announcement(self) -> str:
        """One line that says which provider runs, what its first run costs, and why none that ``auto`` prefers."""
        known = know_provider(self.providers[0])
        title = self.providers[0] if known is None else known.title
        warm_up = None if known is None else describe_warm_up(known, self.provider_options)
        remarks = "; ".join(filter(None, (warm_up, self.provider_note)))
        return f"running on {title}" + (f" ({remarks})" if remarks else "")

    @property
    def n_classes(self) -> int | None:
        """Number of classes that the class output tells apart; None without such an output or with an open length."""
        if self.metadata.class_output is None:
            return None
        if self.metadata.output_kind in BINARY_KINDS:
            return 2
        shape = self.output_shapes.get(self.metadata.class_output, ())
        return shape[1] if len(shape) > 1 else 1

    @property
    def has_gradient(self) -> bool:
        """Whether the file holds gradients."""
        return self.metadata.gradient is not None

    @property
    def layout(self) -> Layout:
        """Order of the image input's axes, as the metadata say, else as its size agrees with the mask's."""
        if self.metadata.layout is not None:
            return self.metadata.layout
        if self.metadata.preprocessing is not None:
            return self.metadata.preprocessing.layout
        _, *image, _ = self.input_shape
        return "NHWC" if tuple(image) == self._mask_shape[2:] and image[0] is not None else "NCHW"

    @property
    def channels(self) -> int | None:
        """Number of channels of the image input; None where the file leaves it open."""
        if self.metadata.takes_photograph:
            return self.input_shape[-1]
        return self.input_shape[CHANNEL_AXIS[self.layout]]

    @property
    def spatial_shape(self) -> tuple[int | None, int | None]:
        """(height, width) in pixels of the image input, also of one made from a photograph; None where it is open."""
        if self.metadata.takes_photograph and self.metadata.preprocessing is not None:
            return self.metadata.preprocessing.size
        height, width = SPATIAL_AXES[self.layout]
        return self.input_shape[height], self.input_shape[width]

    def __call__(
        self, images: npt.ArrayLike, masks: npt.ArrayLike | None = None, inputs: Inputs | None = None
    ) -> np.ndarray:
        """Returns the class output, float32 (N, K), as the model gives it.

        Args:
            images: preprocessed images, float32 (N, C, H, W), or (N, H, W, C) where :attr:`layout` says so; to a file
                that prepares photographs (``metadata.takes_photograph``) one photograph, (H, W, 3) uint8 RGB.
            masks: masks (M, 1, H, W), values in [0, 1], 1 = kept, 0 = missing; None keeps all. N and M are equal or one
                of them is 1.
            inputs: values of the model's other inputs (:attr:`other_inputs`), by name; one row serves all images.

        Raises:
            MasktoolError: an input does not fit the model, or the model has no class output.
        """
        name = self.metadata.class_output
        if name is None:
            raise MasktoolError(
                "the model has no class output",
                where=self.path,
                got=self.describe_outputs(),
                fix="use run() for the outputs",
            )
        (output,) = self._forward([name], self._check(images, masks, inputs, [name]))
        return drop_trailing_axes(output)

    def run(
        self,
        images: npt.ArrayLike,
        masks: npt.ArrayLike | None = None,
        inputs: Inputs | None = None,
        outputs: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns the model's outputs by name, as the model gives them; otherwise like a call of the session.

        A file of one image at a time is run image by image. What has no row per image is stacked on a first axis, or,
        where images have lists of different lengths, comes as an array (N,) of arrays.

        Args:
            images: images, as for a call of the session.
            masks: masks, as for a call of the session.
            inputs: values of the other inputs, as for a call of the session.
            outputs: names of the outputs to compute; None for all.
        """
        names = self.output_names if outputs is None else [self.check_output(name) for name in outputs]
        return dict(zip(names, self._forward(names, self._check(images, masks, inputs, names)), strict=True))

    def scores(
        self, images: npt.ArrayLike, masks: npt.ArrayLike | None = None, inputs: Inputs | None = None
    ) -> np.ndarray:
        """Returns the class output as probabilities, float32 (N, K); otherwise like a call of the session.

        Logits go through a softmax, the one column of a binary output becomes two, (1 - p, p); probabilities, sigmoid
        scores and outputs of an unknown kind stay as they are.
        """
        return self.to_scores(self(images, masks, inputs))

    def to_scores(self, output: np.ndarray) -> np.ndarray:
        """Returns the scores, as :meth:`scores` does, from a class output that :meth:`run` gave along with others.

        Args:
            output: values of the output ``metadata.class_output``.
        """
        return to_probabilities(drop_trailing_axes(output), self.metadata.output_kind)

    def gradient(
        self,
        images: npt.ArrayLike,
        masks: npt.ArrayLike | None = None,
        inputs: Inputs | None = None,
        *,
        target: npt.ArrayLike,
        loss: Loss | None = None,
        of: Sequence[str] = (IMAGE,),
    ) -> Gradient:
        """Returns gradients of the target's score, one per (image, mask) pair.

        Args:
            images: images, as for a call of the session.
            masks: masks, as for a call of the session.
            inputs: values of the other inputs, as for a call of the session.
            target: index of the class to differentiate for, or one index per result.
            loss: form of the target's score to differentiate, ``logit``, ``log-softmax`` or ``softmax``; or
                ``entropy``, the Shannon entropy in nats of all classes' probabilities, whatever the target (for sigmoid
                scores the sum of the classes' binary entropies). None takes the file's default.
            of: names of the values to differentiate with respect to: some of ``image``, ``mask``, ``feature_map``. They
                choose what is returned; ONNX Runtime computes every output of a file, whichever is asked for.

        Raises:
            MasktoolError: the file holds no (such) gradient, or an input does not fit the model.
        """
        name = self.metadata.class_output
        if not self.has_gradient or name is None:
            fix = "add them: " + call("add_gradients_to", self.path, "NEW.onnx", loss="logit")
            raise MasktoolError("the file holds no gradients", where=self.path, fix=fix)
        feed = self._check_gradient(images, masks, inputs, target, loss)
        names = [name, *outputs_for(of, self._gradient_outputs)]
        found = dict(zip(names, self._forward(names, feed), strict=True))
        return Gradient(
            objective=found[OBJECTIVE],
            scores=drop_trailing_axes(found[name]),
            image=found.get(GRADIENT_PREFIX + IMAGE),
            mask=found.get(GRADIENT_PREFIX + MASK),
            feature_map=found.get(FEATURE_MAP),
            gradient_feature_map=found.get(GRADIENT_PREFIX + FEATURE_MAP),
        )

    def masked_scores(
        self,
        image: npt.ArrayLike,
        mask_batches: Iterable[npt.ArrayLike],
        *,
        output: str | None = None,
        inputs: Inputs | None = None,
    ) -> Iterator[np.ndarray]:
        """Yields the scores of one image under each batch of masks: one call per batch, the image not copied.

        Args:
            image: preprocessed image, float32 (1, C, H, W) or (1, H, W, C).
            mask_batches: batches of masks (m, 1, H, W), values in [0, 1], 1 = kept; read one at a time, so memory holds
                one batch.
            output: name of an output to yield as it is; None for the class output as probabilities.
            inputs: values of the other inputs, as for a call of the session.

        Yields:
            Scores, float32 (m, K), see :meth:`scores`, or (m, ...) of the output named.

        Raises:
            MasktoolError: an input does not fit the model.
        """
        checked = check_images(image, self.metadata.image_input, self.input_shape, self.image_type)
        if len(checked) != 1:
            raise MasktoolError(
                "too many images", where=f"input {self.metadata.image_input!r}", expected="one", got=len(checked)
            )
        for masks in mask_batches:
            if output is None:
                yield self.scores(checked, masks, inputs)
            else:
                (values,) = self.run(checked, masks, inputs, [output]).values()
                if values.dtype == object:
                    raise MasktoolError(
                        "a list that has another length under other masks has no score",
                        where=f"output {output!r}",
                        fix=f"choose another of {self.describe_outputs()}" if len(self.output_names) > 1 else None,
                    )
                yield values

    def check_output(self, name: str) -> str:
        """Returns the file's name of an output, given by its new or old name; MasktoolError where there is none."""
        name = (self.metadata.renamed or {}).get(name, name)
        if name not in self.output_names:
            raise MasktoolError("no such output", where=name, expected=f"one of {self.describe_outputs()}")
        return name

    def describe_outputs(self) -> str:
        """Returns names and shapes of the outputs, as messages show them; ``?`` where a length is open."""
        return ", ".join(f"{name} {show_shape(shape)}" for name, shape in self.output_shapes.items())

    def batch_size(self, requested: int | None = None) -> int:
        """Returns the number of images to push through at once: as requested, else chosen from the input size.

        The choice depends neither on timing nor on free memory, so it is the same on every run.
        """
        known = know_provider(self.providers[0])
        return choose_batch_size(requested, self._known_size(), on_gpu=known is None or known.on_gpu)

    def _known_size(self) -> tuple[int, int] | None:
        height, width = self.spatial_shape
        if height is not None and width is not None:
            return height, width
        return self.metadata.preprocessing.size if self.metadata.preprocessing else None

    def feed_image(
        self, image: npt.ArrayLike, inputs: Inputs | None, outputs: Sequence[str], results: int
    ) -> dict[str, np.ndarray]:
        """Returns checked values of all inputs but the mask, by name, for masks that come later.

        Args:
            image: preprocessed image, as for :meth:`masked_scores`.
            inputs: values of the other inputs, as for a call of the session.
            outputs: names of the outputs that are wanted.
            results: number of masks.
        """
        feed = self._check(image, None, inputs, outputs, results)
        return {name: value for name, value in feed.values.items() if name != MASK_INPUT}

    def feed_gradient(
        self, image: npt.ArrayLike, inputs: Inputs | None, target: npt.ArrayLike, loss: Loss | None, results: int
    ) -> dict[str, np.ndarray]:
        """Returns checked values of all inputs, by name, for gradients of images that come later.

        Args:
            image: one of the images, preprocessed.
            inputs: values of the other inputs, as for a call of the session.
            target: class to differentiate for, as for :meth:`gradient`.
            loss: form of the target's score, as for :meth:`gradient`.
            results: number of images.
        """
        return self._check_gradient(image, None, inputs, target, loss, results).values

    def _check(
        self,
        images: npt.ArrayLike,
        masks: npt.ArrayLike | None,
        inputs: Inputs | None,
        outputs: Sequence[str] = (),
        results: int = 1,
    ) -> Feed:
        """Returns the checked values of the inputs; ``results`` where images or masks come later."""
        checked = check_images(images, self.metadata.image_input, self.input_shape, self.image_type)
        height, width = SPATIAL_AXES[self.layout]
        size = checked.shape[height : width + 1]
        if masks is not None:
            check_takes_mask(self.metadata, self.path)
            kept = check_masks(masks, size, self.mask_type)
            check_batches(len(checked), len(kept))
        elif self.mask_required:
            kept = np.ones((1, 1, *size), self.mask_type)
        else:
            kept = None
        pictures = 1 if self.metadata.takes_photograph else len(checked)
        results = max(pictures, results, 0 if kept is None else len(kept))
        asked = ask_top_class(self.other_inputs, self.explanation_outputs, outputs)
        others = check_others(self.other_inputs, inputs, results, asked)
        feed = {self.metadata.image_input: checked} | others
        if self.has_gradient:
            feed[TARGET_INPUT] = np.zeros(1, np.int64)
        elif TARGET_INPUT in asked:
            feed[TARGET_INPUT] = check_target_classes(feed[TARGET_INPUT], results, self.n_classes, TOP_CLASS)
        return Feed(feed if kept is None else feed | {MASK_INPUT: kept}, results)

    def _check_gradient(
        self,
        images: npt.ArrayLike,
        masks: npt.ArrayLike | None,
        inputs: Inputs | None,
        target: npt.ArrayLike,
        loss: Loss | None,
        results: int = 1,
    ) -> Feed:
        feed = self._check(images, masks, inputs, results=results)
        feed.values[TARGET_INPUT] = check_target_classes(target, feed.results, self.n_classes)
        if loss is not None:
            feed.values.update(feed_loss(loss, self.metadata, self.path))
        return feed

    @property
    def device(self) -> str | None:
        """ONNX Runtime's name of the device that inputs and outputs can be bound to; None where they cannot.

        That is so on the CPU and on providers whose memory is the host's or is not known, in a file of one image at a
        time, and once :meth:`leave_device` was called.
        """
        known = know_provider(self.providers[0])
        if known is None or known.memory == HOST or self.metadata.one_by_one or self._constants or self.device_note:
            return None
        return known.memory

    def leave_device(self, error: MasktoolError) -> None:
        """Binds nothing to the device from now on, and notes why."""
        self.device_note = f"all was made in memory and copied to the device: {error.message}"

    def runtime_session(self) -> Any:
        """Returns ONNX Runtime's session, or raises a MasktoolError where the session is closed."""
        if self._session is None:
            raise MasktoolError("the session is closed", where=self.path, fix="load the file again")
        return self._session

    def _forward(self, outputs: list[str], feed: Feed) -> list[np.ndarray]:
        self.runtime_session()
        if self._constants:
            refuse_constants(self._constants.intersection(feed.values), self.providers[0], self.path)
        try:
            with self.counter.timing(feed.results):
                results = self._run(outputs, feed)
        except Exception as error:  # ONNX Runtime has one exception class per status code and no common base
            raise MasktoolError(
                "ONNX Runtime could not run the model",
                where=self.path,
                got=runtime_reason(error),
                fix=None if self.metadata.one_by_one else "try a smaller batch",
            ) from error
        self.check_rows(outputs, results, feed.results)
        return results

    def check_rows(self, outputs: list[str], found: list[np.ndarray], results: int) -> None:
        """Raises MasktoolError unless the class output has one row for each image under its mask."""
        for name, array in zip(outputs, found, strict=True):
            if name == self.metadata.class_output and (array.ndim == 0 or len(array) != results):
                raise MasktoolError(
                    "the class output has another number of rows than there are images and masks",
                    where=f"{self.path}, output {name!r}",
                    expected=results,
                    got=show_shape(array.shape),
                    fix="export the model again",
                )

    def _run(self, outputs: list[str], feed: Feed) -> list[np.ndarray]:
        if not self.metadata.one_by_one:
            found: list[np.ndarray] = self._session.run(outputs, feed.values)
            return found
        runs = [self._session.run(outputs, each) for each in each_alone(feed.values, self._per_result, feed.results)]
        return join_results(runs, [self._result_shapes[name] for name in outputs])


def read_metadata(session: Any, path: Path) -> Metadata:
    """Returns the metadata of the file behind an ONNX Runtime session.

    Raises:
        MasktoolError: the file is no masktool file, or a newer or damaged one.
    """
    metadata = Metadata.from_properties(session.get_modelmeta().custom_metadata_map)
    if metadata is None:
        raise MasktoolError("not a masktool file", where=path, fix="run `" + call("export", path, ...) + "` first")
    return metadata


def check_agreement(inputs: Mapping[str, Any], outputs: Sequence[str], metadata: Metadata, path: Path) -> None:
    """Raises MasktoolError unless a file has the inputs and outputs that its metadata say.

    These are the image and the mask (M, 1, H, W); or in a file that explains itself, the image and the map.
    """
    expected = {metadata.image_input, *([MASK_INPUT] if metadata.takes_mask else [])}
    if not expected <= set(inputs) or (metadata.takes_mask and len(inputs[MASK_INPUT].shape) != 4):
        raise MasktoolError(
            "inputs do not agree with the metadata",
            where=path,
            expected=f"{metadata.image_input!r}" + (f" and {MASK_INPUT!r} (M, 1, H, W)" if metadata.takes_mask else ""),
            got=", ".join(f"{name!r} {tuple(node.shape)}" for name, node in inputs.items()),
            fix="export the model again",
        )
    if not metadata.takes_mask and SALIENCY_MAP not in outputs:
        raise MasktoolError(
            "outputs do not agree with the metadata",
            where=path,
            expected=repr(SALIENCY_MAP),
            got=", ".join(map(repr, outputs)),
            fix="export the model again",
        )


def make_defaults_constant(providers: Sequence[str]) -> bool:
    """Tells whether one of ONNX Runtime's providers takes an input that has a default for a constant."""
    return any(known.makes_defaults_constant for known in map(know_provider, providers) if known is not None)


def describe_warm_up(provider: ExecutionProvider, options: Mapping[str, str]) -> str | None:
    """Returns what the first run of each shape costs on a provider, and how to keep what it makes; None for nothing."""
    if provider.warm_up is None or provider.kept_by is None:
        return provider.warm_up
    if options.get(provider.kept_by, "0") != "0":
        return f"{provider.warm_up}, and keeps that"
    return f"{provider.warm_up}; the option {provider.kept_by} keeps that"


def refuse_constants(fed: Iterable[str], provider: str, path: Path) -> None:
    """Raises MasktoolError where inputs are fed that a provider takes for constants."""
    if names := sorted(fed):
        raise MasktoolError(
            "what is fed would have no influence: the provider takes an input that may be left out for a constant",
            where=f"{path}, {provider}",
            got=", ".join(names),
            fix="export the model with " + parameter("mask_required", True) if names == [MASK_INPUT] else None,
        )


def as_shape(shape: Sequence[int | str | None]) -> tuple[int | None, ...]:
    """Returns a shape of ONNX Runtime's with None for every symbolic axis."""
    return tuple(axis if isinstance(axis, int) else None for axis in shape)
