"""Requests and answers of the protocol, without a server."""

import json

import numpy as np
import pytest

from masktool.serving.incoming import ALIGNMENT, IncomingBody
from masktool.serving.refusals import RequestError
from masktool.serving.tensors import (
    DATATYPES,
    MOST_AXES,
    MOST_JSON,
    MOST_TENSORS,
    datatype_of,
    read_request,
    write_answer,
)


def body_of(document, *tensors):
    head = json.dumps(document).encode()
    return head + b"".join(tensor.tobytes() for tensor in tensors), len(head) if tensors else None


def entry(**changes):
    return {"name": "image", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} | changes


@pytest.mark.parametrize("name", DATATYPES)
def test_a_binary_tensor_comes_as_it_was_sent(name):
    sent = np.arange(6).reshape(2, 3).astype(DATATYPES[name])
    tensor = {"name": "x", "datatype": name, "shape": [2, 3], "parameters": {"binary_data_size": sent.nbytes}}
    body, length = body_of({"inputs": [tensor], "id": "seven"}, sent)
    request = read_request(body, length)
    assert (request.identifier, request.outputs, request.binary) == ("seven", None, False)
    found = request.inputs["x"]
    assert (found.dtype, found.tolist()) == (sent.dtype, sent.tolist())
    assert found.flags.aligned
    assert datatype_of(found.dtype) == name


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]], [[[1.0], [2]], [[3], [4]]]])
def test_numbers_come_flat_or_nested(data):
    body, _ = body_of({"inputs": [entry(shape=[2, 2], data=data)]})
    found = read_request(body, None).inputs["image"]
    assert (found.dtype, found.tolist()) == (np.float32, [[1, 2], [3, 4]])


def test_two_binary_tensors_stand_behind_one_another():
    first, second = np.ones((3, 1), np.float32), np.arange(5, dtype=np.uint8)
    tensors = [
        {"name": "a", "datatype": "FP32", "shape": [3, 1], "parameters": {"binary_data_size": 12}},
        entry(),
        {"name": "b", "datatype": "UINT8", "shape": [5], "parameters": {"binary_data_size": 5}},
    ]
    outputs = [{"name": "y"}, {"name": "z", "parameters": {"binary_data": True}}]
    request = read_request(*body_of({"inputs": tensors, "outputs": outputs}, first, second))
    assert request.inputs["b"].tolist() == [0, 1, 2, 3, 4]
    assert request.outputs == {"y": False, "z": True}


LARGE = "9" * 5000
WRONG = {
    "no JSON": b"{",
    "no UTF-8": b'{"inputs": "\xff"}',
    "too deep": b"[" * 100_000,
    "a number of thousands of digits": b'{"inputs": [' + LARGE.encode() + b"]}",
    "a list": b"[]",
    "no inputs": b"{}",
    "inputs that are none": b'{"inputs": [1]}',
    "NaN": json.dumps({"inputs": [entry(data=[float("nan"), 1])]}).encode(),
    **{
        name: json.dumps({"inputs": [entry(**changes)]}).encode()
        for name, changes in {
            "a name that is no text": {"name": 3},
            "an unknown type": {"datatype": "BYTES"},
            "a type that is a list": {"datatype": ["FP32"]},
            "a shape that is none": {"shape": "1,2"},
            "a negative length": {"shape": [-1, 2]},
            "a length that is true": {"shape": [True, 2]},
            "a huge length": {"shape": [10**30, 2]},
            "many axes": {"shape": [1] * MOST_AXES + [2]},
            "too few numbers": {"data": [1]},
            "texts": {"data": ["1", "2"]},
            "one long text": {"data": ["1" * 1000, 2]},
            "nothing": {"data": [None, None]},
            "a number": {"data": 3},
            "ragged lists": {"data": [[1, 2], [3]]},
            "an object": {"data": {"a": 1}},
            "booleans as numbers": {"data": [True, False]},
            "fractions as whole numbers": {"datatype": "INT64", "data": [1.5, 2]},
            "a number beyond its type": {"datatype": "UINT8", "data": [256, 0]},
            "a number beyond float32": {"data": [1e300, 0]},
            "a number beyond float64": {"data": [10**400, 0]},
            "data twice": {"parameters": {"binary_data_size": 8}},
            "no data": {"data": 0, "parameters": {"shared_memory_region": "a"}},
            "parameters that are none": {"parameters": [1]},
        }.items()
    },
    "an input twice": json.dumps({"inputs": [entry(), entry()]}).encode(),
    "many inputs": json.dumps({"inputs": [entry(name=str(n)) for n in range(MOST_TENSORS + 1)]}).encode(),
    "an id that is none": json.dumps({"inputs": [entry()], "id": 3}).encode(),
    "an output without a name": json.dumps({"inputs": [entry()], "outputs": [{}]}).encode(),
    "an output of classes": json.dumps(
        {"inputs": [entry()], "outputs": [{"name": "y", "parameters": {"classification": 3}}]}
    ).encode(),
    "a flag that is none": json.dumps({"inputs": [entry()], "parameters": {"binary_data_output": 1}}).encode(),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_request_is_refused_in_one_line(name):
    with pytest.raises(RequestError) as refused:
        read_request(WRONG[name], None)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("size", "sent", "length"),
    [(8, 7, 0), (8, 9, 0), (4, 4, 0), (-8, 8, 0), ("8", 8, 0), (True, 8, 0), (8, 8, 10_000), (8, 8, -1)],
)
def test_binary_tensors_of_other_sizes_are_refused(size, sent, length):
    head = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": size}}]}
    ).encode()
    with pytest.raises(RequestError):
        read_request(head + bytes(sent), length or len(head))


def test_an_answer_is_binary_where_that_is_asked():
    body, _ = body_of(
        {"inputs": [entry()], "id": "a", "outputs": [{"name": "y", "parameters": {"binary_data": True}}, {"name": "z"}]}
    )
    y, z = np.array([[1.5, -2]], np.float32), np.array([True, False])
    content, length = write_answer("m", "1", read_request(body, None), {"y": y, "z": z})
    document = json.loads(content[:length])
    assert (document["id"], document["model_name"]) == ("a", "m")
    first, second = document["outputs"]
    assert first == {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    assert np.frombuffer(content[length:], np.float32).tolist() == [1.5, -2]
    assert second == {"name": "z", "datatype": "BOOL", "shape": [2], "data": [True, False]}


def test_what_json_does_not_have_is_null():
    request = read_request(body_of({"inputs": [entry()]})[0], None)
    content, length = write_answer("m", "1", request, {"y": np.array([np.nan, 1, np.inf], np.float32)})
    assert length is None
    assert json.loads(content)["outputs"][0]["data"] == [None, 1, None]


@pytest.mark.parametrize("announced", [True, False])
def test_numbers_that_come_in_pieces_lie_where_they_can_be_used(announced):
    """Without a copy where the client has announced how many bytes come."""
    sent = np.arange(600, dtype=np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": [600], "parameters": {"binary_data_size": sent.nbytes}}
    content, length = body_of({"inputs": [tensor]}, sent)
    body = IncomingBody(len(content) if announced else None, length)
    for start in range(0, len(content), 100):
        body.add(content[start : start + 100])
    assert bytes(body.content) == content
    found = read_request(body.content, length).inputs["x"]
    assert np.array_equal(found, sent)
    assert found.flags.aligned
    if announced:
        assert found.ctypes.data % ALIGNMENT == 0
        assert np.shares_memory(found, np.frombuffer(body.content, np.uint8))


def test_more_json_than_memory_should_pay_for_is_refused():
    body = b'{"inputs":[' + b"[]," * (MOST_JSON // 3) + b"[]]}"  # 25 times as much as objects of Python's
    with pytest.raises(RequestError, match=r"too much JSON.*binary data") as refused:
        read_request(body, None)
    assert refused.value.status == 413
