"""What clients do wrong, by mistake or not: malformed requests, slow ones, many connections, and the server's end."""

import concurrent.futures
import contextlib
import json
import random
import signal
import socket
import time

import numpy as np
import pytest

from masktool import demo
from serving.server_process import PATIENCE, serving

pytestmark = pytest.mark.serving
MALFORMED = 1000
SEED = 17
GROWTH = 24_000_000
"""Bytes that a server may grow by over the second half of the requests: noise of the allocator."""
CLEAN = {200, 202, 400, 404, 405, 408, 409, 410, 411, 413, 415, 422, 429, 431, 501, 505}
"""Answers that are no fault of the server."""


def infer_body(**changes):
    values = np.zeros((1, 3, 24, 20), np.float32)
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 3, 24, 20]} | changes
    return {"inputs": [{**tensor, "parameters": {"binary_data_size": values.nbytes}}]}, values.tobytes()


def raw_request(method, path, body, headers):
    """Returns the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: here", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


class Mutator:
    """Malformed requests, drawn from a seed."""

    JUNK = (None, True, -1, 0, 1.5, 10**30, "", "\ud800", "a" * 500, [], {}, [[1], 2], [None], {"a": {}}, -(10**400))

    def __init__(self, seed):
        self.random = random.Random(seed)

    def draw(self):
        """Returns the bytes of one request."""
        kind = self.random.choice((self.wrong_document, self.wrong_bytes, self.wrong_http, self.wrong_job))
        return kind()

    def wrong_document(self):
        """A document with something else in one of its places, and perhaps other binary data."""
        document, binary = infer_body()
        places = list(self.places(document))
        for _ in range(self.random.randint(1, 3)):
            holder, key = self.random.choice(places)
            with contextlib.suppress(IndexError, KeyError, TypeError):
                if self.random.random() < 0.2:
                    del holder[key]
                else:
                    holder[key] = self.random.choice(self.JUNK)
        binary = binary[: self.random.choice((0, 1, len(binary) // 2, len(binary)))]
        return self.post_inference(json.dumps(document).encode("utf-8", "surrogatepass"), binary)

    def places(self, document):
        members = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in members:
            yield document, key
            if isinstance(value, dict | list):
                yield from self.places(value)

    def wrong_bytes(self):
        """A sound request with bytes changed, cut out, or repeated."""
        document, binary = infer_body()
        head = bytearray(json.dumps(document).encode())
        for _ in range(self.random.randint(1, 8)):
            place = self.random.randrange(len(head))
            cut = self.random.choice((0, 1, 20))
            head[place : place + cut] = self.random.randbytes(self.random.choice((0, 1, 4)))
        return self.post_inference(bytes(head), binary)

    def post_inference(self, head, binary):
        length = self.random.choice((len(head),) * 6 + (0, -1, len(head) + 1, 10**20, "x"))
        headers = {"Inference-Header-Content-Length": length, "Content-Length": len(head) + len(binary)}
        if self.random.random() < 0.2:
            del headers["Inference-Header-Content-Length"]
        name = self.random.choice(("masked", "explained", "two", "asked", "unknown", "%00", "..%2f..", "a" * 300))
        return raw_request("POST", f"/v2/models/{name}/infer", head + binary, headers)

    def wrong_http(self):
        """Requests that are none, or of other methods, addresses and headers."""
        method = self.random.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "BREW", "", "get"))
        path = self.random.choice(
            ("/", "/v2", "/v2/models", "/metrics", "//", "/%ff", "/v2/models/masked/versions/x", "*",
             "/v2/health/live?a=%", "/../etc/passwd", "/page.mjs/../..", "/" + "a" * 5000, "http://elsewhere/v2")
        )  # fmt: skip
        body = self.random.randbytes(self.random.choice((0, 10, 3000)))
        headers = self.random.choice(
            (
                {"Content-Length": len(body)},
                {"Content-Length": "-5"},
                {"Content-Length": "1e3"},
                {"Content-Length": len(body) + 5, "Connection": "close"},
                {"Transfer-Encoding": "chunked"},
                {"Transfer-Encoding": "gzip, chunked", "Content-Length": 3},
                {"Content-Encoding": "gzip", "Content-Length": len(body)},
                {"Expect": "100-continue", "Content-Length": len(body)},
                {"Upgrade": "websocket", "Connection": "Upgrade"},
                {"X": "a" * 100_000},
                {"Content-Length": len(body), "X-Request-Id": "\udcff\udc80"},
            )
        )
        return raw_request(method, path, body, headers)

    def wrong_job(self):
        """Submissions of pictures that are none, with fields that are none."""
        picture = bytearray(demo.sample_path().read_bytes()[: self.random.choice((0, 30, 2000))])
        for _ in range(self.random.randint(0, 10)):
            if picture:
                picture[self.random.randrange(len(picture))] = self.random.randrange(256)
        fields = ("method=lime", "method=%ff", "target=%00", "options={", "options=%7B%22p%22:1e999%7D", "hat=1",
                  "options=%5B" * 500, "target=" + "9" * 5000, "method=gradient")  # fmt: skip
        path = "/v2/models/demo/explanations?" + "&".join(self.random.sample(fields, self.random.randint(0, 3)))
        form = {
            "Content-Type": self.random.choice(("multipart/form-data", "multipart/form-data; boundary=X", "image/png"))
        }
        body = bytes(picture) if self.random.random() < 0.5 else b"--X\r\nContent-Disposition: " + bytes(picture)
        return raw_request("POST", path, body, form | {"Content-Length": len(body)})


def send(server, request):
    """Sends bytes and returns the status of the answer; None where the server closes without one."""
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as connection:
        with contextlib.suppress(ConnectionError):  # the server may have refused it already
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                answer += chunk
    while answer.startswith(b"HTTP/1.1 100 "):
        answer = answer.partition(b"\r\n\r\n")[2]
    return int(answer.split(b" ", 2)[1]) if answer else None


def test_a_thousand_malformed_requests_without_a_fault_of_the_server(server):
    """No 500, no crash, no leak: memory over the second half stays, and sound requests are answered after."""
    mutator, statuses, sizes = Mutator(SEED), [], []
    for number in range(MALFORMED):
        statuses.append(send(server, mutator.draw()))
        if number in (MALFORMED // 2, MALFORMED - 1):
            sizes.append(server.resident_bytes())
    assert {status for status in statuses if status is not None} <= CLEAN
    assert sum(status == 400 for status in statuses) > MALFORMED / 4
    assert statuses.count(None) < MALFORMED / 5  # whose own end says that nothing will follow
    assert sizes[1] - sizes[0] < GROWTH
    assert [line for line in server.log if line["level"] == "error"] == []
    head, binary = infer_body()
    text = json.dumps(head).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    assert server.ask("POST", "/v2/models/masked/infer", text + binary, headers)[0] == 200


def test_a_body_is_bounded_however_it_comes(server):
    for head in (f"Content-Length: {10**9}", "Transfer-Encoding: chunked"):
        with socket.create_connection((server.host, server.port), timeout=PATIENCE) as connection:
            connection.sendall(f"POST /v2/models/masked/infer HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n".encode())
            block, sent = b"10000\r\n" + bytes(65536) + b"\r\n", 0
            with contextlib.suppress(ConnectionError):
                while sent < 20_000_000:
                    connection.sendall(block if "chunked" in head else bytes(65536))
                    sent += 65536
            assert sent < 20_000_000  # the server has closed the connection
            with contextlib.suppress(ConnectionError):
                assert b" 413 " in connection.recv(100)


def test_a_slow_client_is_ended_and_others_are_served_meanwhile(needs_server, served_files):
    """Twenty clients that send a byte now and then: headers first, then a body."""
    with serving(f"masked={served_files['masked']}", "--header-seconds", 1, "--seconds", 2) as server:
        slow = [socket.create_connection((server.host, server.port), timeout=PATIENCE) for _ in range(20)]
        for connection in slow[10:]:
            connection.sendall(b"POST /v2/models/masked/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
        began, ended = time.monotonic(), {}
        while len(ended) < len(slow) and time.monotonic() - began < 20:
            for number, connection in enumerate(slow):
                if number not in ended:
                    connection.settimeout(0.01)
                    with contextlib.suppress(TimeoutError, ConnectionError):
                        connection.sendall(b"G" if number < 10 else b"{")
                    try:
                        answer = connection.recv(1000)
                    except TimeoutError:
                        continue
                    except ConnectionError:
                        answer = b""
                    ended[number] = answer
            assert server.ask("GET", "/v2/health/ready", timeout=1)[0] == 200
        assert len(ended) == len(slow)
        assert all(answer == b"" for number, answer in ended.items() if number < 10)
        assert any(b" 408 " in answer for number, answer in ended.items() if number >= 10)
        for connection in slow:
            connection.close()


def test_more_connections_than_allowed_are_told_so(needs_server):
    with serving("--connections", 4) as server:
        held = [socket.create_connection((server.host, server.port), timeout=PATIENCE) for _ in range(4)]
        time.sleep(0.2)
        status, document = server.ask_json("GET", "/v2/health/live")
        assert (status, "more than 4 connections" in document["error"]) == (503, True)
        for connection in held:
            connection.close()
        server.wait_until_ready()


def test_health_is_answered_while_a_model_computes(server):
    """And while a body of numbers in JSON is read."""
    data = json.dumps(
        {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 3, 24, 20], "data": [0.5] * 300_000}]}
    )
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        busy = [pool.submit(server.ask, "POST", "/v2/models/masked/infer", data) for _ in range(4)]
        times = []
        while not all(each.done() for each in busy):
            began = time.perf_counter()
            assert server.ask("GET", "/v2/health/live")[0] == 200
            times.append(time.perf_counter() - began)
    assert {each.result()[0] for each in busy} == {400}  # too many numbers
    assert max(times) < 2


# -- the end


def figure_of(server, name):
    lines = server.ask("GET", "/metrics")[2].decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.split()[0] == name)


def test_what_is_in_flight_at_the_end_is_answered_and_the_process_ends_well(needs_server):
    """A run of many images, a job that runs, and one that waits."""
    picture = demo.sample_path().read_bytes()
    options = "%7B%22n_masks%22:300,%22estimator%22:%22mean%22%7D"
    address = f"/v2/models/demo/explanations?method=rise&options={options}"
    with serving("--max-batch", 512, "--shutdown-seconds", 100) as server:
        image = np.zeros((256, 3, 64, 64), np.float32)
        tensor = {"name": "image", "datatype": "FP32", "shape": list(image.shape)}
        tensor["parameters"] = {"binary_data_size": image.nbytes}
        head = json.dumps({"inputs": [tensor]}).encode()
        _, running = server.ask_json("POST", address, picture)
        _, waiting = server.ask_json("POST", address, picture)
        server.wait_for_job(running["status"], "running")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            headers = {"Inference-Header-Content-Length": str(len(head))}
            busy = pool.submit(server.ask, "POST", "/v2/models/demo/infer", head + bytes(image.nbytes), headers)
            while figure_of(server, "masktool_in_flight") < 2:  # the one that asks is the other
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(OSError):
                assert server.ask("GET", "/v2/health/ready")[0] == 503
                assert server.ask_json("GET", waiting["status"])[1]["state"] == "cancelled"
                assert server.ask("POST", address, picture)[0] == 503
            assert busy.result(PATIENCE)[0] == 200
        assert server.wait_for_end() == 0
        events = [line["event"] for line in server.log]
        assert "ending" in events
        assert events[-1] == "ended"
        assert server.log[-1]["orderly"] is True


def test_a_second_signal_ends_it_at_once(needs_server):
    picture = demo.sample_path().read_bytes()
    options = "%7B%22n_masks%22:90000,%22estimator%22:%22mean%22%7D"
    with serving() as server:
        _, job = server.ask_json("POST", f"/v2/models/demo/explanations?method=rise&options={options}", picture)
        server.wait_for_job(job["status"], "running")
        server.process.send_signal(signal.SIGTERM)
        while not any(line["event"] == "ending" for line in server.log):
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_for_end() == 70


def test_what_does_not_end_in_time_is_cut_off(needs_server):
    picture = demo.sample_path().read_bytes()
    options = "%7B%22n_masks%22:90000,%22estimator%22:%22mean%22%7D"
    with serving("--shutdown-seconds", 0.5) as server:
        _, job = server.ask_json("POST", f"/v2/models/demo/explanations?method=rise&options={options}", picture)
        server.wait_for_job(job["status"], "running")
        began = time.monotonic()
        assert server.end() == 70
        assert time.monotonic() - began < 10
        assert server.log[-1]["orderly"] is False
