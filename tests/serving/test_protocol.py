"""Triton's own HTTP client against the server: what every client of the protocol relies on."""

import concurrent.futures
import json

import numpy as np
import onnxruntime
import pytest

import masktool

pytestmark = pytest.mark.serving
CLOSE = 1e-5


@pytest.fixture(scope="module")
def triton(needs_server):
    return pytest.importorskip("tritonclient.http")


@pytest.fixture(scope="module")
def client(triton, server):
    with triton.InferenceServerClient(f"{server.host}:{server.port}", concurrency=8) as client:
        yield client


@pytest.fixture(scope="module")
def refused(needs_server):
    """Triton's exception for an answer that is an error."""
    from tritonclient.utils import InferenceServerException

    return InferenceServerException


def tensor(triton, name, values, *, binary=True):
    found = triton.InferInput(name, list(values.shape), triton_type(values))
    found.set_data_from_numpy(values, binary_data=binary)
    return found


def triton_type(values):
    from tritonclient.utils import np_to_triton_dtype

    return np_to_triton_dtype(values.dtype)


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("masked")
    assert client.is_model_ready("masked", "1")
    assert not client.is_model_ready("unknown")
    assert client.get_server_metadata()["name"] == "masktool"
    metadata = client.get_model_metadata("masked")
    assert metadata["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": [-1, 3, 24, 20]},
        {"name": "mask", "datatype": "FP32", "shape": [-1, 1, 24, 20]},
    ]
    assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 4]}]
    assert metadata["parameters"]["optional_inputs"] == ["mask"]
    assert metadata["parameters"]["labels"] == ["cat", "dog", "bird", "fish"]


@pytest.mark.parametrize("name", ["masked", "two", "explained", "asked"])
def test_metadata_are_those_of_the_file(name, client, served_files):
    """Names and types, of every input and output."""
    session = onnxruntime.InferenceSession(served_files[name], providers=["CPUExecutionProvider"])
    nodes = {node.name: node.type for node in [*session.get_inputs(), *session.get_overridable_initializers()]}
    types = {"FP32": "tensor(float)", "INT64": "tensor(int64)", "BOOL": "tensor(bool)"}
    metadata = client.get_model_metadata(name)
    assert {each["name"]: types[each["datatype"]] for each in metadata["inputs"]} == nodes
    assert [(each["name"], types[each["datatype"]]) for each in metadata["outputs"]] == [
        (node.name, node.type) for node in session.get_outputs()
    ]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_predictions_are_pythons(binary, triton, client, served_files, images):
    with masktool.load(served_files["masked"], "cpu", 1) as session:
        expected = session(images[:3])
    wanted = [triton.InferRequestedOutput("logits", binary_data=binary)]
    found = client.infer("masked", [tensor(triton, "image", images[:3], binary=binary)], outputs=wanted, request_id="7")
    assert np.allclose(found.as_numpy("logits"), expected, atol=CLOSE)
    assert found.get_response()["id"] == "7"


def test_a_mask_may_be_sent(triton, client, served_files, images):
    masks = (np.random.default_rng(2).random((5, 1, 24, 20)) > 0.5).astype(np.float32)
    with masktool.load(served_files["masked"], "cpu", 1) as session:
        expected = session(images[:1], masks)
    found = client.infer("masked", [tensor(triton, "image", images[:1]), tensor(triton, "mask", masks)])
    assert np.allclose(found.as_numpy("logits"), expected, atol=CLOSE)


@pytest.mark.parametrize("name", ["explained", "asked"])
def test_an_explanation_comes_where_it_is_asked_for(name, triton, client, served_files, images):
    with masktool.load(served_files[name], "cpu", 1) as session:
        expected = session.run(images[:2])
    sent = [tensor(triton, "image", images[:2])]
    outputs = [triton.InferRequestedOutput(each) for each in ("logits", "saliency_map")]
    found = client.infer(name, sent, outputs=outputs)
    for each in ("logits", "saliency_map"):
        assert np.abs(found.as_numpy(each) - expected[each]).max() <= CLOSE
    alone = client.infer(name, sent, outputs=outputs[:1])
    assert alone.as_numpy("saliency_map") is None
    assert np.allclose(alone.as_numpy("logits"), expected["logits"], atol=CLOSE)


def test_the_class_to_explain_may_be_sent(triton, client, served_files, images):
    with masktool.load(served_files["explained"], "cpu", 1) as session:
        expected = session.run(images[:1], inputs={"target": np.array([2])})["saliency_map"]
    sent = [tensor(triton, "image", images[:1]), tensor(triton, "target", np.array([2]))]
    found = client.infer("explained", sent).as_numpy("saliency_map")
    assert np.abs(found - expected).max() <= CLOSE


def test_a_second_input_is_asked_for_by_its_name(triton, client, refused, served_files, images):
    with masktool.load(served_files["two"], "cpu", 1) as session:
        expected = session(images[:2], inputs={"depth": images[2:4]})
    sent = [tensor(triton, "image", images[:2]), tensor(triton, "depth", images[2:4])]
    assert np.allclose(client.infer("two", sent).as_numpy("logits"), expected, atol=CLOSE)
    with pytest.raises(refused, match="'depth' float32"):
        client.infer("two", sent[:1])


WRONG = {
    "another shape": ({"image": np.zeros((1, 3, 10, 10), np.float32)}, "wrong shape"),
    "another rank": ({"image": np.zeros((3, 24, 20), np.float32)}, "add a batch axis"),
    "no rows": ({"image": np.zeros((0, 3, 24, 20), np.float32)}, "wrong shape"),
    "another type": ({"image": np.zeros((1, 3, 24, 20), np.int64)}, "wrong dtype"),
    "too many images": ({"image": np.zeros((17, 3, 24, 20), np.float32)}, "at most 16"),
    "too many masks": (
        {"image": np.zeros((1, 3, 24, 20), np.float32), "mask": np.ones((17, 1, 24, 20), np.float32)},
        "at most 16",
    ),
    "an unknown input": (
        {"image": np.zeros((1, 3, 24, 20), np.float32), "hat": np.zeros((1,), np.float32)},
        "no such input",
    ),
    "no image": ({"mask": np.zeros((1, 1, 24, 20), np.float32)}, "the image input is missing"),
    "a mask beyond its range": (
        {"image": np.zeros((1, 3, 24, 20), np.float32), "mask": np.full((1, 1, 24, 20), 2, np.float32)},
        "out of range",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_with_its_cause(name, triton, client, refused):
    values, said = WRONG[name]
    with pytest.raises(refused, match=said) as error:
        client.infer("masked", [tensor(triton, key, value) for key, value in values.items()])
    assert error.value.status() == "400"


def test_unknown_models_versions_and_outputs(triton, client, refused, images):
    sent = [tensor(triton, "image", images[:1])]
    with pytest.raises(refused, match="no such model") as error:
        client.infer("unknown", sent)
    assert error.value.status() == "404"
    with pytest.raises(refused, match="no such version"):
        client.infer("masked", sent, model_version="2")
    with pytest.raises(refused, match="no such output"):
        client.infer("masked", sent, outputs=[triton.InferRequestedOutput("hat")])


def test_a_body_that_is_too_large_is_refused(triton, client, refused):
    large = np.zeros((400, 3, 24, 20), np.float32)  # 2.3 MB; the server takes 2
    with pytest.raises(refused, match="too large") as error:
        client.infer("masked", [tensor(triton, "image", large)])
    assert error.value.status() == "413"
    assert client.is_server_ready()


def test_many_clients_at_once_get_what_each_gets_alone(triton, server, served_files, images):
    """Their requests share runs; the metrics tell."""
    before = rows_per_run(server)
    with masktool.load(served_files["masked"], "cpu", 1) as session:
        alone = [session(image[None]) for image in images]

    def ask(number):
        with triton.InferenceServerClient(f"{server.host}:{server.port}") as client:
            return [
                client.infer("masked", [tensor(triton, "image", images[number][None])]).as_numpy("logits")
                for _ in range(10)
            ]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(16)))
    for results, expected in zip(found, alone, strict=True):
        for result in results:
            assert np.abs(result - expected).max() <= CLOSE
    after = rows_per_run(server)
    assert after[1] - before[1] == 160  # rows
    assert after[0] - before[0] < 160  # runs


def rows_per_run(server):
    """Returns the number of runs of the masked model, and of their rows."""
    text = server.ask("GET", "/metrics")[2].decode()
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    label = '{model="masked"}'
    return [float(figures.get(f"masktool_batch_rows_{kind}{label}", 0)) for kind in ("count", "sum")]


def test_requests_and_their_logs_share_an_id(server):
    _, headers, _ = server.ask("GET", "/v2/models/masked", headers={"X-Request-Id": "mine-1"})
    assert headers["x-request-id"] == "mine-1"
    _, headers, _ = server.ask("GET", "/v2/models/masked", headers={"X-Request-Id": "not mine\t{}"})
    assert len(headers["x-request-id"]) == 16
    (line,) = [line for line in server.log if line.get("request_id") == "mine-1"]
    assert (line["event"], line["path"], line["status"]) == ("request", "/v2/models/masked", 200)
    assert line["seconds"] > 0


def test_metrics(server):
    server.ask("GET", "/v2/models/nothing")
    status, headers, content = server.ask("GET", "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    text = content.decode()
    assert 'masktool_requests_total{endpoint="model",status="404"}' in text
    assert 'masktool_queue_length{model="masked"} 0.0' in text
    assert 'masktool_jobs{state="running"}' in text
    assert "masktool_ready 1.0" in text


def test_the_file_does_not_show_where_it_lies(server, served_files, images):
    body = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 3, 24, 20], "data": [0.0] * 1440}]}
    body["inputs"].append({"name": "mask", "datatype": "FP32", "shape": [1, 1, 24, 20], "data": [1.0] * 480})
    status, document = server.ask_json("POST", "/v2/models/explained/infer", json.dumps(body))
    assert (status, "takes no mask" in document["error"]) == (400, True)
    assert str(served_files["explained"].parent) not in document["error"]
