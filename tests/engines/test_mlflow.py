"""A file that explains itself in MLflow: logged, loaded, asked and served, with ONNX Runtime's own answers."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import onnxruntime
import pytest

from engines.conftest import PATIENCE, ROOT, environment, run_program

pytest.importorskip("mlflow")
pytestmark = pytest.mark.engines
EXAMPLE = ROOT / "examples" / "mlflow" / "log_model.py"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ask(server, port, document):
    """Asks the server, as soon as it answers; bounded."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(document).encode(), {"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except OSError:
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)


def test_mlflow(explained, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    variables = environment(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/runs.db", GIT_PYTHON_REFRESH="quiet")
    told = run_program(
        sys.executable, EXAMPLE, explained, tmp_path / "images.npy", env=variables, cwd=tmp_path, timeout=PATIENCE
    )
    session = onnxruntime.InferenceSession(explained, providers=["CPUExecutionProvider"])
    scores, saliency_map = session.run(["logits", "saliency_map"], {"input": images})
    address = re.search(r"^models:/\S+$", told, re.M)[0]
    assert f"classes {scores.argmax(axis=1).tolist()}, maps {saliency_map.shape}" in told

    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", address, "-h", "127.0.0.1", "-p", str(port)]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--env-manager", "local"], env=variables, cwd=tmp_path, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            answer = ask(server, port, {"inputs": {"input": images[:2].tolist()}})["predictions"]
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait(PATIENCE)
            print((tmp_path / "server.log").read_text()[-3000:])
    np.testing.assert_allclose(answer["logits"], scores[:2], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(answer["saliency_map"], saliency_map[:2], rtol=1e-5, atol=1e-5)
