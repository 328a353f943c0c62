"""A model that is served: what it takes and gives in the protocol's words, and its runs, alone or in a batch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from masktool.contract import MASK_INPUT, TARGET_INPUT
from masktool.errors import MasktoolError
from masktool.explainers.method import METHODS
from masktool.interface.explain import default_method
from masktool.layouts import SPATIAL_AXES
from masktool.runtime.feeding import check_feed
from masktool.runtime.session import MaskedSession
from masktool.serving.refusals import RequestError
from masktool.serving.tensors import InferenceRequest, datatype_of
from masktool.tensor_types import numpy_type

VERSION = "1"
"""The one version of every model."""
PLATFORM = "onnxruntime_onnx"
"""Triton's name of the platform."""
SHARED_BYTES = 1024
"""Bytes up to which a value that is not one for each image is compared: requests of the same one can share a run."""


@dataclasses.dataclass(frozen=True)
class CheckedRequest:
    """A request that a model can run.

    Attributes:
        images: values of the image input.
        masks: masks; None for none.
        others: values of the other inputs.
        outputs: names of the outputs.
        rows: results that it gives.
        key: requests of one key can share a run; None for one that cannot.
        split: names of the inputs with a row for each result.
    """

    images: np.ndarray
    masks: np.ndarray | None
    others: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]
    rows: int
    key: Hashable | None
    split: frozenset[str]


class ServedModel:
    """A model that is served under a name.

    Args:
        name: the name.
        session: the open model.
        max_batch: most images, or masks, of one run.
    """

    def __init__(self, name: str, session: MaskedSession, max_batch: int) -> None:
        self.name, self.session, self.max_batch = name, session, max_batch

    # -- what it is

    def describe(self) -> dict[str, Any]:
        """Returns the protocol's metadata, and under ``parameters`` what masktool knows of the model besides."""
        metadata = self.session.metadata
        preprocessing = metadata.preprocessing
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": PLATFORM,
            "inputs": self.describe_inputs(),
            "outputs": [
                {
                    "name": name,
                    "datatype": self.output_types[name],
                    "shape": [-1 if axis is None else axis for axis in shape],
                }
                for name, shape in self.session.output_shapes.items()
            ],
            "parameters": {
                "optional_inputs": sorted(self.optional_inputs),
                "max_batch": self.max_batch,
                "class_output": metadata.class_output,
                "output_kind": metadata.output_kind,
                "labels": None if metadata.labels is None else list(metadata.labels),
                "preprocessing": None if preprocessing is None else dataclasses.asdict(preprocessing),
                "explanation": metadata.explanation and dict(metadata.explanation),
                "methods": self.methods,
                "signed_methods": [name for name in self.methods if METHODS[name].signed],
            },
        }

    def describe_inputs(self) -> list[dict[str, Any]]:
        """Returns the inputs, optional ones included, with the protocol's names of types; -1 for an open length."""
        session = self.session
        found = [(session.metadata.image_input, np.dtype(session.image_type), session.input_shape)]
        if session.metadata.takes_mask:
            height, width = session.mask_shape[2:]
            found.append((MASK_INPUT, np.dtype(session.mask_type), (None, 1, height, width)))
        found += [(each.name, each.dtype, each.shape) for each in session.other_inputs]
        return [
            {"name": name, "datatype": datatype_of(dtype), "shape": [-1 if axis is None else axis for axis in shape]}
            for name, dtype, shape in found
        ]

    @property
    def optional_inputs(self) -> set[str]:
        """Names of the inputs that may be left out."""
        session = self.session
        mask = {MASK_INPUT} if session.metadata.takes_mask else set()
        return mask | {each.name for each in session.other_inputs if self.may_be_left_out(each.name, each.required)}

    def may_be_left_out(self, name: str, required: bool) -> bool:
        """Tells whether an input other than image and mask may be left out: masktool asks for the top class then."""
        return not required or bool(self.session.explanation_outputs and name in (TARGET_INPUT, "explain"))

    @property
    def output_types(self) -> dict[str, str]:
        """The protocol's names of the outputs' types."""
        nodes = self.session.runtime_session().get_outputs()
        return {node.name: datatype_of(numpy_type(node)) for node in nodes}

    @property
    def methods(self) -> list[str]:
        """Names of the methods that explain the model as it is opened, the default first."""
        first = default_method(self.session.metadata)
        if self.session.metadata.explanation is not None:
            return [first]
        session = self.session
        able = [
            name
            for name, method in METHODS.items()
            if (session.has_gradient or not method.needs_gradient)
            and (session.metadata.head is not None or not method.needs_head)
            and (session.metadata.feature_maps or not method.needs_feature_map)
            and all(map(session.has_output, method.outputs))
        ]
        return [first, *(name for name in able if name != first)]

    def hide_path(self, text: str) -> str:
        """Returns a message for clients: the model's name where the path of its file stood."""
        return text.replace(str(self.session.path), self.name)

    @contextlib.contextmanager
    def told_to_clients(self) -> Iterator[None]:
        """Turns an error of a block into one for clients, who need not know where the file lies."""
        try:
            yield
        except RequestError:
            raise
        except MasktoolError as error:
            raise RequestError(self.hide_path(str(error.message))) from error

    # -- what it does

    def check(self, request: InferenceRequest) -> CheckedRequest:
        """Returns a request as the model can run it.

        Raises:
            MasktoolError: an input or output is missing, unknown, or does not fit the model.
        """
        session = self.session
        rest = dict(request.inputs)
        images = rest.pop(session.metadata.image_input, None)
        if images is None:
            expected = ", ".join(each["name"] for each in self.describe_inputs())
            raise RequestError(
                "the image input is missing", expected=f"some of {expected}", got=", ".join(request.inputs)
            )
        masks = rest.pop(MASK_INPUT, None)
        outputs = tuple(session.output_names if request.outputs is None else map(session.check_output, request.outputs))
        feed = check_feed(session, images, masks, rest, outputs)
        if feed.results > self.max_batch:
            raise RequestError(
                "too many images or masks in one request",
                where=self.name,
                expected=f"at most {self.max_batch}",
                got=feed.results,
                fix="send several requests",
            )
        others = {name: feed.values[name] for name in rest}
        checked_masks = feed.values[MASK_INPUT] if masks is not None else None
        checked = CheckedRequest(
            feed.values[session.metadata.image_input], checked_masks, others, outputs, feed.results, None, frozenset()
        )
        return self.find_company(checked)

    def find_company(self, request: CheckedRequest) -> CheckedRequest:
        """Returns a request with the key of those that it can share a run with."""
        session, rows = self.session, request.rows
        values = {"": request.images} | dict(request.others)
        if request.masks is not None:
            values[MASK_INPUT] = request.masks
        names = {each.name for each in session.other_inputs if each.per_result} | {"", MASK_INPUT, TARGET_INPUT}
        split = frozenset(name for name, value in values.items() if name in names and value.ndim)
        shared = {name: value for name, value in values.items() if name not in split}
        alone = (
            session.metadata.one_by_one
            or session.metadata.takes_photograph
            or any(len(values[name]) != rows for name in split)
            or any(value.nbytes > SHARED_BYTES for value in shared.values())
            or any(session.output_shapes[name][:1] != (None,) for name in request.outputs)
        )
        shapes = tuple(sorted((name, values[name].shape[1:]) for name in split))
        same = tuple(sorted((name, value.shape, value.tobytes()) for name, value in shared.items()))
        return dataclasses.replace(request, key=None if alone else (request.outputs, shapes, same), split=split)

    def run_batch(self, requests: Sequence[CheckedRequest]) -> list[dict[str, np.ndarray] | Exception]:
        """Runs requests of one key together, and returns the outputs of each, or why it failed."""
        if len(requests) == 1:
            return [self.run_alone(requests[0])]
        first = requests[0]
        masks = [each.masks for each in requests if each.masks is not None]
        others = {
            name: np.concatenate([each.others[name] for each in requests]) if name in first.split else value
            for name, value in first.others.items()
        }
        joined = dataclasses.replace(
            first,
            images=np.concatenate([each.images for each in requests]),
            masks=np.concatenate(masks) if masks else None,
            others=others,
            rows=sum(each.rows for each in requests),
        )
        found = self.run_alone(joined)
        if isinstance(found, Exception) or any(len(value) != joined.rows for value in found.values()):
            return [self.run_alone(each) for each in requests]  # so that one request's fault is not another's
        results, start = [], 0
        for each in requests:
            results.append({name: value[start : start + each.rows] for name, value in found.items()})
            start += each.rows
        return list(results)

    def run_alone(self, request: CheckedRequest) -> dict[str, np.ndarray] | Exception:
        """Runs one request, and returns its outputs, or why it failed."""
        try:
            return self.session.run(request.images, request.masks, request.others, list(request.outputs))
        except Exception as error:  # of ONNX Runtime or numpy: the request has failed, not the server
            return error

    def warm_up(self) -> None:
        """Runs the model once on an image of zeros, so that the first request does not pay for what is made once.

        A model with inputs of its own, which nobody can guess, is warmed up by its first request.
        """
        session = self.session
        if any(not self.may_be_left_out(each.name, each.required) for each in session.other_inputs):
            return
        size = session.known_size
        if size is None or session.channels is None:
            return
        if session.metadata.takes_photograph:
            shape = [*size, session.channels]
        else:
            shape = [1 if axis is None else axis for axis in session.input_shape]
            for axis, length in zip(SPATIAL_AXES[session.layout], size, strict=True):
                shape[axis] = length
        session.run(np.zeros(shape, session.image_type))
