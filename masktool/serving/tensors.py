"""Requests and answers of the Open Inference Protocol v2: JSON, and binary tensors behind it.

The protocol: https://github.com/kserve/open-inference-protocol; binary tensors are its extension
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html. No
library reads the server's side of it without turning every number into an object of Python's (kserve 0.21: .64 s for 8
images of 224 x 224, which numpy reads in .003 s), so that this file does.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np

from masktool.contract import show
from masktool.serving.refusals import RequestError

DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""numpy's types by the protocol's names."""
HEADER_LENGTH = "inference-header-content-length"
"""Header with the bytes of the JSON in front of binary tensors, in requests and answers."""
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
MOST_JSON = 16_000_000
"""Bytes of JSON in one request: what Python makes of it can take 25 times as much memory (a list of empty lists)."""
MOST_AXES = 8
"""Axes of a tensor; more than any input has."""
MOST_TENSORS = 64
"""Inputs, or outputs, of one request; more than any file has."""
NOT_SPOKEN = ("shared_memory_region", "classification")
"""Parameters of an input or output that ask for what this server does not do, so that they cannot be passed over."""
KINDS: Mapping[str, set[type]] = {"b": {bool}, "f": {int, float}}
"""What JSON holds for numpy's kinds of types; for all others, whole numbers."""
ABSENT: Any = object()


@dataclasses.dataclass(frozen=True)
class InferenceRequest:
    """What a client asks of a model.

    Attributes:
        inputs: values by the inputs' names.
        outputs: for each output that is asked for, whether it is sent as binary data; None asks for all.
        binary: whether outputs that say nothing are sent as binary data.
        identifier: text of the client's that comes back with the answer; None where there is none.
    """

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, bool] | None = None
    binary: bool = False
    identifier: str | None = None


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Returns the protocol's name of a type of numpy's."""
    return NAMES[dtype.newbyteorder("<") if dtype.itemsize > 1 else dtype]


# -- requests


def read_request(body: bytes | memoryview, header_length: int | None) -> InferenceRequest:
    """Returns the request in the body of an HTTP request.

    Args:
        body: the whole body.
        header_length: bytes of the JSON in front of binary tensors; None where the body is JSON alone.

    Raises:
        RequestError: the body is no request of the protocol.
    """
    if header_length is not None and not 0 < header_length <= len(body):
        raise RequestError(
            "wrong length of the JSON",
            where="Inference-Header-Content-Length",
            expected=f"1 to {len(body)}",
            got=show(header_length),
        )
    if (length := len(body) if header_length is None else header_length) > MOST_JSON:
        raise RequestError(
            "too much JSON",
            where="the request",
            status=HTTPStatus(413),
            expected=f"at most {MOST_JSON} bytes",
            got=length,
            fix="send the tensors as binary data",
        )
    document = read_json_object(bytes(body[:header_length]), "the request")
    binary = BinaryPart(memoryview(body)[len(body) if header_length is None else header_length :])
    inputs = {}
    for entry in read_entries(document, "inputs", required=True):
        name = read_name_or_type(entry, "name", "an input")
        if name in inputs:
            raise RequestError("an input that is given twice", where=name)
        inputs[name] = read_tensor(entry, f"input {show(name)}", binary)
    binary.check_end()
    parameters = read_parameters(document, "the request")
    default = read_flag(parameters, "binary_data_output", "the request", default=False)
    identifier = document.get("id")
    if not isinstance(identifier, str | None):
        raise RequestError("wrong id", where="the request", expected="a text", got=show(identifier))
    return InferenceRequest(inputs, read_outputs(document, binary=default), default, identifier)


def read_json_object(text: bytes, where: str) -> dict[str, Any]:
    """Returns a JSON object.

    Raises:
        RequestError: the text is no JSON, or no object.
    """
    try:
        document = json.loads(text, parse_constant=refuse_constant)
    except RequestError:
        raise
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a deep nest, no UTF-8
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise RequestError(f"{where} is no JSON", got=reason) from error
    if not isinstance(document, dict):
        raise RequestError(f"{where} is another kind of JSON", expected="an object", got=show(document))
    return document


def refuse_constant(name: str) -> None:
    """Raises RequestError for NaN and infinity, which Python reads and JSON does not have."""
    raise RequestError("a number that JSON does not have", got=name, fix="send the tensor as binary data")


def read_entries(document: Mapping[str, Any], name: str, *, required: bool) -> Sequence[Mapping[str, Any]]:
    """Returns the objects in the list of a name."""
    entries = document.get(name)
    if entries is None and not required:
        return ()
    fits = (
        isinstance(entries, list) and len(entries) <= MOST_TENSORS and all(isinstance(each, dict) for each in entries)
    )
    if not fits or (required and not entries):
        expected = f"a list of {'1' if required else '0'} to {MOST_TENSORS} objects"
        raise RequestError(f"wrong {name}", where="the request", expected=expected, got=show(entries))
    return entries  # type: ignore[return-value]  # looked at above


def read_name_or_type(entry: Mapping[str, Any], name: str, where: str) -> str:
    """Returns the text of a name."""
    value = entry.get(name)
    if not isinstance(value, str):
        raise RequestError(f"wrong {name}", where=where, expected="a text", got=show(value))
    return value


def read_parameters(entry: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Returns the parameters of a request, an input or an output."""
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError("wrong parameters", where=where, expected="an object", got=show(parameters))
    if unspoken := [name for name in NOT_SPOKEN if name in parameters]:
        raise RequestError("a parameter that this server does not know", where=where, got=", ".join(unspoken))
    return parameters


def read_flag(parameters: Mapping[str, Any], name: str, where: str, *, default: bool) -> bool:
    """Returns the boolean of a name."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"wrong {name}", where=where, expected="true or false", got=show(value))
    return value


def read_outputs(document: Mapping[str, Any], *, binary: bool) -> dict[str, bool] | None:
    """Returns, for each output that is asked for, whether it is to be binary; None where the request names none."""
    wanted = {}
    for entry in read_entries(document, "outputs", required=False):
        name = read_name_or_type(entry, "name", "an output")
        where = f"output {show(name)}"
        wanted[name] = read_flag(read_parameters(entry, where), "binary_data", where, default=binary)
    return wanted or None


class BinaryPart:
    """The bytes behind the JSON, of which one input after the other takes its own.

    Args:
        rest: the bytes.
    """

    def __init__(self, rest: memoryview) -> None:
        self.rest = rest

    def take(self, size: int, where: str) -> memoryview:
        """Returns the next bytes."""
        if size > len(self.rest):
            raise RequestError("too few bytes", where=where, expected=size, got=len(self.rest))
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def check_end(self) -> None:
        """Raises RequestError where bytes are left over."""
        if len(self.rest):
            raise RequestError("bytes behind the last tensor", expected=0, got=len(self.rest))


def read_tensor(entry: Mapping[str, Any], where: str, binary: BinaryPart) -> np.ndarray:
    """Returns the tensor that an entry of ``inputs`` describes.

    Raises:
        RequestError: its type, shape or data are wrong, or do not go together.
    """
    name = read_name_or_type(entry, "datatype", where)
    if name not in DATATYPES:
        raise RequestError("unknown datatype", where=where, expected=" | ".join(DATATYPES), got=show(name))
    shape, dtype = read_shape(entry, where), DATATYPES[name]
    size = read_parameters(entry, where).get("binary_data_size")
    data = entry.get("data", ABSENT)
    if (size is None) == (data is ABSENT):
        got = "neither" if size is None else "both"
        raise RequestError("an input has data or binary_data_size", where=where, expected="one of them", got=got)
    if size is None:
        return read_tensor_data(data, shape, dtype, where)
    expected = math.prod(shape) * dtype.itemsize
    if size != expected or isinstance(size, bool):
        raise RequestError(
            "wrong binary_data_size", where=f"{where}, {name} {list(shape)}", expected=expected, got=show(size)
        )
    flat = np.frombuffer(binary.take(size, where), dtype)
    return np.require(flat.reshape(shape), requirements="A")  # behind JSON of any length, bytes lie anywhere


def read_shape(entry: Mapping[str, Any], where: str) -> tuple[int, ...]:
    """Returns a tensor's shape."""
    shape = entry.get("shape")
    fits = isinstance(shape, list) and len(shape) <= MOST_AXES
    if not fits or not all(type(length) is int and length >= 0 for length in shape):  # type: ignore[union-attr]
        expected = f"a list of at most {MOST_AXES} whole numbers from 0"
        raise RequestError("wrong shape", where=where, expected=expected, got=show(shape))
    return tuple(shape)  # type: ignore[arg-type]  # looked at above


def read_tensor_data(data: object, shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> np.ndarray:
    """Returns the numbers of a JSON list, flat or nested, as a tensor.

    Raises:
        RequestError: they are no numbers, not as many as the shape says, or the type cannot hold them.
    """
    try:
        objects = np.array(data, dtype=object).ravel()  # as texts, numpy would make all as wide as the longest
    except ValueError as error:
        raise RequestError("data that are no tensor", where=where, got=error) from error
    if objects.size != math.prod(shape):
        raise RequestError("wrong number of data", where=where, expected=math.prod(shape), got=objects.size)
    values = objects.tolist()
    kinds = set(map(type, values))
    allowed = KINDS.get(dtype.kind, {int})
    if not kinds <= allowed:
        wrong = next(value for value in values if type(value) not in allowed)
        expected = " or ".join(sorted(kind.__name__ for kind in allowed))
        raise RequestError("wrong data", where=where, expected=f"{expected} for {datatype_of(dtype)}", got=show(wrong))
    try:
        with np.errstate(over="raise"):
            tensor = np.array(values, dtype=np.float64 if dtype.kind == "f" else dtype).astype(dtype)
    except (OverflowError, FloatingPointError) as error:
        raise RequestError("a number that the type cannot hold", where=where, expected=datatype_of(dtype)) from error
    return tensor.reshape(shape)


# -- answers


def write_answer(
    model: str, version: str, request: InferenceRequest, outputs: Mapping[str, np.ndarray]
) -> tuple[bytes, int | None]:
    """Returns the body of an answer, and the bytes of the JSON in front of binary tensors; None where all is JSON.

    Args:
        model: name of the model.
        version: version of the model.
        request: what was asked.
        outputs: values by the outputs' names. NaN and infinity, which JSON does not have, are null there.
    """
    entries, blobs = [], []
    for name, value in outputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": datatype_of(value.dtype), "shape": list(value.shape)}
        if request.binary if request.outputs is None else request.outputs[name]:
            little = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
            blobs.append(little.data.cast("B") if little.size else b"")
            entry["parameters"] = {"binary_data_size": little.nbytes}
        else:
            entry["data"] = list_numbers(value)
        entries.append(entry)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": entries}
    if request.identifier is not None:
        document["id"] = request.identifier
    head = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    return (b"".join([head, *blobs]), len(head)) if blobs else (head, None)


def list_numbers(value: np.ndarray) -> list[Any]:
    """Returns numbers as JSON has them, laid out flat."""
    flat = value.ravel()
    numbers: list[Any] = flat.tolist()
    if value.dtype.kind != "f" or np.isfinite(flat).all():
        return numbers
    return [number if math.isfinite(number) else None for number in numbers]
