"""Explanations as jobs: submitted, asked after, fetched, cancelled, refused."""

import io
import json
import time
from urllib.parse import urlencode

import pytest
from PIL import Image

import masktool
from masktool import demo
from serving.server_process import serving

pytestmark = pytest.mark.serving
SUBMIT = "/v2/models/demo/explanations"
SLOW = {"method": "rise", "options": json.dumps({"n_masks": 50_000, "estimator": "mean"})}


@pytest.fixture(scope="module")
def picture():
    return demo.sample_path().read_bytes()


def query(**fields):
    return f"{SUBMIT}?{urlencode(fields)}"


def submit(server, picture, **fields):
    status, document = server.ask_json("POST", query(**fields), picture)
    assert status == 202, document
    return document


def without_time(document):
    return {key: value for key, value in document.items() if key != "timing"}


@pytest.mark.parametrize(
    ("method", "options"),
    [("occlusion", {}), ("lime", {"n_samples": 64, "seed": 3}), ("occlusion", {"against": "circle"})],
)
def test_an_explanation_is_what_masktool_explain_gives(method, options, server, picture):
    job = submit(server, picture, method=method, target="top", options=json.dumps(options))
    done = server.wait_for_job(job["status"], "done", "failed")
    assert done["state"] == "done", done
    assert done["progress"]["done"] == done["progress"]["total"]
    _, found = server.ask_json("GET", done["result"])
    with masktool.load(demo.model_path(), threads=1) as session:
        expected = masktool.explain(session, demo.sample_path(), method, **options)
    assert without_time(found) == without_time(json.loads(expected.to_json()))


def test_the_result_is_a_picture_where_that_is_asked_for(server, picture):
    job = submit(server, picture, method="occlusion")
    server.wait_for_job(job["status"], "done")
    status, headers, content = server.ask("GET", job["result"], headers={"Accept": "image/png,*/*"})
    assert (status, headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(content)).width > 100
    assert server.ask("GET", job["result"])[1]["content-type"] == "application/json"


def test_a_form_may_hold_the_picture(server, picture):
    parts = [
        ("method", None, b"occlusion"),
        ("target", None, b"1"),
        ("options", None, b'{"strides": [4, 4]}'),
        ("picture", "photo.png", picture),
    ]
    body = b""
    for name, file, content in parts:
        disposition = f'form-data; name="{name}"' + (f'; filename="{file}"' if file else "")
        body += b"--XX\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=XX"}
    status, job = server.ask_json("POST", SUBMIT, body + b"--XX--\r\n", headers)
    assert status == 202, job
    server.wait_for_job(job["status"], "done")
    _, found = server.ask_json("GET", job["result"])
    assert (found["method"], found["target"]["index"], found["settings"]["strides"]) == ("occlusion", 1, [4, 4])


def test_a_file_that_explains_itself_explains_pictures_too(server, picture):
    status, job = server.ask_json("POST", "/v2/models/explained/explanations", picture)
    assert status == 202, job
    server.wait_for_job(job["status"], "done")
    _, found = server.ask_json("GET", job["result"])
    assert (found["method"], len(found["model_attributions"])) == ("occlusion", 24)


def test_a_running_job_tells_how_far_it_is_and_is_cancelled(server, picture):
    job = submit(server, picture, **SLOW)
    server.wait_for_job(job["status"], "running")
    assert server.ask_json("GET", job["result"])[0] == 409
    while True:
        _, document = server.ask_json("GET", job["status"])
        if document["progress"]["done"]:
            break
    assert document["progress"]["total"] == 50_000
    status, document = server.ask_json("DELETE", job["status"])
    assert (status, document["state"]) == (200, "cancelled")
    assert server.ask_json("GET", job["result"])[0] == 410
    other = submit(server, picture, method="occlusion")  # and the worker is free again
    server.wait_for_job(other["status"], "done")


REFUSED = {
    "no picture at all": ({}, b"", "no picture"),
    "no picture": ({}, b"no picture", "not an image"),
    "half a picture's header": ({}, demo.sample_path().read_bytes()[:20], "image"),
    "an unknown method": ({"method": "tea leaves"}, None, "unknown method"),
    "a method without gradients": ({"method": "gradient"}, None, "cannot serve"),
    "an unknown option": ({"options": '{"hat": 1}'}, None, "unknown option"),
    "an option out of range": ({"method": "rise", "options": '{"p": 2}'}, None, "out of range"),
    "options that are none": ({"options": "[1]"}, None, "another kind of JSON"),
    "options that are no JSON": ({"options": "{"}, None, "no JSON"),
    "a million masks": ({"method": "rise", "options": '{"n_masks": 1000000}'}, None, "out of range"),
    "a number that is none": ({"method": "rise", "options": '{"p": NaN}'}, None, "JSON does not have"),
    "a nest": ({"method": "rise", "options": '{"p": [[1]]}'}, None, "no single value"),
    "the batch": ({"options": '{"perturbations_per_eval": 8}'}, None, "jobs do not take"),
    "a file of the server's": ({"options": '{"reference": "/etc/passwd"}'}, None, "jobs do not take"),
    "an unknown field": ({"hat": "1"}, None, "unknown field"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_explained_is_refused_at_once(name, server, picture):
    fields, body, said = REFUSED[name]
    status, document = server.ask_json("POST", query(**fields), picture if body is None else body)
    assert status == 400, document
    assert said in document["error"]


def test_what_shows_only_later_fails_the_job(server, picture):
    job = submit(server, picture, method="occlusion", target="giraffe")
    done = server.wait_for_job(job["status"], "failed")
    assert "giraffe" in done["error"]
    status, document = server.ask_json("GET", job["result"])
    assert (status, "giraffe" in document["error"]) == (422, True)


def test_a_field_that_is_given_twice_is_refused(server, picture):
    status, document = server.ask_json("POST", f"{SUBMIT}?method=lime&method=rise", picture)
    assert (status, "given twice" in document["error"], "method" in document["error"]) == (400, True, True)


def test_jobs_that_never_were(server):
    for method in ("GET", "DELETE"):
        status, document = server.ask_json(method, f"{SUBMIT}/{'0' * 32}")
        assert (status, "no such explanation" in document["error"]) == (404, True)
    assert server.ask_json("POST", "/v2/models/unknown/explanations")[0] == 404


def test_beyond_the_queue_clients_are_told_to_come_back_and_results_expire(needs_server, picture):
    with serving("--job-queue", 1, "--job-expiry", 0.5) as server:
        running = submit(server, picture, **SLOW)
        server.wait_for_job(running["status"], "running")
        waiting = submit(server, picture, method="occlusion")
        assert waiting["ahead"] == 0
        status, headers, content = server.ask("POST", query(method="occlusion"), picture)
        assert (status, int(headers["retry-after"]) >= 1) == (429, True)
        assert "too many explanations wait" in json.loads(content)["error"]
        server.ask("DELETE", running["status"])
        done = server.wait_for_job(waiting["status"], "done")
        assert done["expires_in"] <= 1
        time.sleep(0.6)
        assert server.ask_json("GET", waiting["result"])[0] == 410


def test_a_job_that_takes_too_long_fails(needs_server, picture):
    with serving("--job-seconds", 0.3) as server:
        job = submit(server, picture, **SLOW)
        assert "took too long" in server.wait_for_job(job["status"], "failed")["error"]


def test_the_limit_on_pixels_holds(needs_server, picture):
    """Also in the thread that reads the picture: limits are of the whole process."""
    with serving("--max-body", 100_000) as server:
        assert server.ask_json("POST", query(method="occlusion"), bytes(200_000))[0] == 413
    large = io.BytesIO()
    Image.new("L", (12_000, 9_000)).save(large, "PNG")
    with serving() as server:
        status, document = server.ask_json("POST", query(method="occlusion"), large.getvalue())
        assert (status, "at most 100000000 pixels" in document["error"]) == (400, True)
