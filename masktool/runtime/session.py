"""One exported file, opened once: images and masks in, scores out."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from masktool.contract import (
    FEATURE_MAP,
    FEATURE_MAP_OUTPUTS,
    GRADIENT_PREFIX,
    MASK_INPUT,
    OBJECTIVE,
    Loss,
)
from masktool.errors import MasktoolError
from masktool.execution_providers import CPU, know_provider
from masktool.execution_providers.provider import HOST
from masktool.messages import call
from masktool.runtime.batching import BatchTrial, choose_batch_size
from masktool.runtime.checks import check_images, show_shape
from masktool.runtime.elsewhere import (
    OpensModels,
    Recipe,
    digest_unchanged,
    keep_forever,
    mark_model,
    open_recipe,
    watch_forks,
)
from masktool.runtime.feeding import Feed, check_feed, check_gradient_feed
from masktool.runtime.gradients import FEATURE_MAPS, IMAGE, MASK, Gradient, outputs_for
from masktool.runtime.inputs import Inputs
from masktool.runtime.native_log import runtime_reason
from masktool.runtime.one_by_one import each_alone, join_results
from masktool.runtime.passes import PassCounter
from masktool.runtime.provider_habits import describe_warm_up, make_defaults_constant, refuse_constants
from masktool.runtime.providers import open_on_providers
from masktool.runtime.score_half import BESIDE, Run, ScoreHalf, WriteHalf
from masktool.runtime.scores import drop_trailing_axes, to_probabilities
from masktool.runtime.session_file import SessionFile


class MaskedSession(SessionFile):
    """A masked model, ready to run; a context manager that frees the model at its end.

    Any number of images and masks may be given, also to a file that takes one at a time (``metadata.batching``).
    :func:`masktool.load` opens any other model too.

    **Threads.** Any number of threads may use one session at once: calls of the session, :meth:`run`, :meth:`scores`,
    :meth:`gradient`, :meth:`masked_scores` and explanations give each what it would get alone. :attr:`counter` counts
    for all of them. What is made once for the session, such as its head, is made by the first thread that needs it
    while others wait. Where one thread closes the session, runs in progress end as usual, and the next one of any
    thread is a MasktoolError, within an explanation too.

    **Pickling.** A session is pickled as its absolute path, a digest of the files, and the providers, their options and
    the threads as they were asked for; unpickling opens the file, which has to be the same. ``auto`` therefore takes
    what the other machine has, and scores may then differ by the rounding of its provider; a provider that was named
    must load there. Counts, notes and measured batches are not part of it.

    **Forked processes.** ONNX Runtime's threads are not in a process that was forked. On the CPU the session opens its
    file again there when it is first used; on any other provider its use is a MasktoolError.

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
        beside: what was made for the session and is freed with it, by the name of whoever made it.
        guard: lock that whoever adds to :attr:`beside` or :attr:`batch_trials` holds meanwhile.
        window_note: reason why what windows change was not computed alone, where that was tried; None otherwise.
        write_half: writer of the part of a file with gradients that gives its other outputs, with which passes that ask
            for no gradient cost less on the CPU, see :mod:`masktool.runtime.score_half`; None runs the whole file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        providers: str | Sequence[str] | None = None,
        threads: int | None = None,
        provider_options: Mapping[str, object] | None = None,
    ) -> None:
        self._mark = mark_model(Path(path))
        options = None if provider_options is None else dict(provider_options)
        self._asked = providers, threads, options
        opened = open_on_providers(Path(path), providers, threads, provider_options)
        super().__init__(Path(path), opened.session)
        self._session: Any = opened.session
        self._forked = False
        self.threads = threads
        self.provider_options = dict(opened.options)
        self.provider_note = opened.note
        self.device_note: str | None = None
        self.window_note: str | None = None
        self.write_half: WriteHalf | None = None
        self.beside: dict[str, Any] = {}
        self.guard = threading.RLock()
        self.batch_trials: dict[tuple[int, ...], list[BatchTrial]] = {}
        self.providers: list[str] = list(opened.session.get_providers())
        self._constants = self.optional_inputs if make_defaults_constant(self.providers) else frozenset()
        self.counter = PassCounter()
        watch_forks(self)

    def __reduce__(self) -> tuple[Any, tuple[OpensModels[MaskedSession], Recipe], dict[str, object]]:
        self.runtime_session()  # a closed one cannot be pickled
        digest = digest_unchanged(self.path, self._mark)
        recipe = Recipe(str(self.path.absolute()), digest, *self._asked)
        return open_recipe, (type(self), recipe), {"write_half": self.write_half}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model, once no thread runs it any more; a second call does nothing."""
        self._session, self._forked = None, False
        with self.guard:
            for each in self.beside.values():
                if isinstance(each, MaskedSession):
                    each.close()
            self.beside.clear()

    def leave_behind(self) -> None:
        """Gives up ONNX Runtime's session in a forked process, see :mod:`masktool.runtime.elsewhere`."""
        self._forked = self._forked or self._session is not None
        keep_forever((self._session, self.beside))
        self._session, self.beside, self.guard = None, {}, threading.RLock()
        self.counter.free_lock()

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
        (output,) = self._forward([name], check_feed(self, images, masks, inputs, [name]))
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
        return dict(zip(names, self._forward(names, check_feed(self, images, masks, inputs, names)), strict=True))

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
        target: npt.ArrayLike | None = None,
        loss: Loss | None = None,
        of: Sequence[str] = (IMAGE,),
        weights: npt.ArrayLike | None = None,
    ) -> Gradient:
        """Returns gradients of the target's score, or of weighed values of an output, one per (image, mask) pair.

        Args:
            images: images, as for a call of the session.
            masks: masks, as for a call of the session.
            inputs: values of the other inputs, as for a call of the session.
            target: index of the class to differentiate for, or one index per result; None in a file whose gradients are
                of an output (``metadata.gradient_output``).
            loss: form of the target's score to differentiate, ``logit``, ``log-softmax`` or ``softmax``; or
                ``entropy``, the Shannon entropy in nats of all classes' probabilities, whatever the target (for sigmoid
                scores the sum of the classes' binary entropies). None takes the file's default.
            of: names of the values to differentiate with respect to: some of ``image``, ``mask``, ``feature_map`` and
                ``feature_maps`` (all that the file has). They choose what is returned; ONNX Runtime computes every
                output of a file, whichever is asked for.
            weights: weights (1, ...) or (B, ...) of the values of the output that gradients are of, in its shape:
                differentiated is the sum of values times weights. 1 / n at n values and 0 elsewhere gives their mean.
                None in a file whose gradients are of class scores.

        Raises:
            MasktoolError: the file holds no (such) gradient, or an input does not fit the model.
        """
        of_output = self.gradient_output is not None
        name = self.gradient_output if of_output else self.metadata.class_output
        if not self.has_gradient or name is None:
            fix = "add them: " + call("add_gradients_to", self.path, "NEW.onnx", loss="logit")
            raise MasktoolError("the file holds no gradients", where=self.path, fix=fix)
        feed = check_gradient_feed(self, images, masks, inputs, target, loss, weights=weights)
        names = [name, *outputs_for(of, self.gradient_outputs)]
        found = dict(zip(names, self._forward(names, feed), strict=True))
        maps = [each for each in FEATURE_MAP_OUTPUTS if FEATURE_MAPS in of and each in found]
        return Gradient(
            objective=found[OBJECTIVE],
            scores=None if of_output else drop_trailing_axes(found[name]),
            image=found.get(GRADIENT_PREFIX + IMAGE),
            mask=found.get(GRADIENT_PREFIX + MASK),
            feature_map=found.get(FEATURE_MAP),
            gradient_feature_map=found.get(GRADIENT_PREFIX + FEATURE_MAP),
            feature_maps=tuple(found[each] for each in maps),
            gradient_feature_maps=tuple(found[GRADIENT_PREFIX + each] for each in maps),
            output=found[name] if of_output else None,
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
                self.refuse_lists(output, values)
                yield values

    def refuse_lists(self, output: str, values: np.ndarray) -> None:
        """Raises MasktoolError where values of an output are lists of another length for other images or masks."""
        if values.dtype == object:
            raise MasktoolError(
                "a list that has another length under other masks has no score",
                where=f"output {output!r}",
                fix=f"choose another of {self.describe_outputs()}" if len(self.output_names) > 1 else None,
            )

    def batch_size(self, requested: int | None = None) -> int:
        """Returns the number of images to push through at once: as requested, else chosen from the input size.

        The choice depends neither on timing nor on free memory, so it is the same on every run. A file with gradients,
        which ONNX Runtime computes in every pass, takes fewer images.
        """
        known = know_provider(self.providers[0])
        on_gpu = known is None or known.on_gpu
        return choose_batch_size(requested, self.known_size, on_gpu=on_gpu, with_gradients=self.has_gradient)

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
        feed = check_feed(self, image, None, inputs, outputs, results)
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
        return check_gradient_feed(self, image, None, inputs, target, loss, results).values

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
        if self._forked:
            self._open_after_fork()
        session = self._session  # another thread may close it
        if session is None:
            raise MasktoolError("the session is closed", where=self.path, fix="load the file again")
        return session

    def _open_after_fork(self) -> None:
        if self.providers[0] != CPU.runtime_name:
            raise MasktoolError(
                "a session cannot be used in a process that was forked from the one that opened it",
                where=self.path,
                got=self.providers[0],
                fix="load the file there, or start processes by 'spawn' or 'forkserver'",
            )
        with self.guard:
            if self._forked:
                digest_unchanged(self.path, self._mark)
                self._session = open_on_providers(self.path, CPU.runtime_name, self.threads).session
                self._forked = False

    def _forward(self, outputs: list[str], feed: Feed) -> list[np.ndarray]:
        self.runtime_session()
        half = self._find_half(outputs)
        quick = None if half is None else half.find_run(outputs, feed.values)
        run = quick or self._run_whole
        if self._constants:
            refuse_constants(self._constants.intersection(feed.values), self.providers[0], self.path)
        began = time.perf_counter()
        try:
            with self.counter.timing(feed.results):
                results = self._run(run, outputs, feed)
        except MasktoolError:
            raise  # closed meanwhile
        except Exception as error:  # ONNX Runtime has one exception class per status code and no common base
            raise MasktoolError(
                "ONNX Runtime could not run the model",
                where=self.path,
                got=runtime_reason(error),
                fix=None if self.metadata.one_by_one else "try a smaller batch",
            ) from error
        self.check_rows(outputs, results, feed.results)
        if half is not None and quick is None:
            seconds = time.perf_counter() - began
            half.follow(seconds, outputs, feed.values, lambda other: self._run(other, outputs, feed), results)
        return results

    def _find_half(self, outputs: list[str]) -> ScoreHalf | None:
        """Returns what may give these outputs in the file's place; None where gradients are asked for, or none held."""
        own = self.gradient_outputs
        if self.write_half is None or not own or not set(own).isdisjoint(outputs):
            return None
        if self.providers[0] != CPU.runtime_name:
            return None
        half: ScoreHalf | None = self.beside.get(BESIDE)
        if half is None:
            with self.guard:
                self.runtime_session()  # beside a closed one nothing is kept
                new = ScoreHalf(self.path, self.output_names, self.threads, self.write_half)
                half = self.beside.setdefault(BESIDE, new)
        return half

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

    def _run_whole(self, outputs: Sequence[str], values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        found: list[np.ndarray] = self.runtime_session().run(outputs, values)
        return found

    def _run(self, run: Run, outputs: list[str], feed: Feed) -> list[np.ndarray]:
        if not self.metadata.one_by_one:
            return run(outputs, feed.values)
        runs = [run(outputs, each) for each in each_alone(feed.values, self.per_result, feed.results)]
        return join_results(runs, [self.result_shapes[name] for name in outputs])
