"""Nothing is written outside declared places, and no connection is opened.

A child process runs the commands with every directory that belongs to a user (home, caches, temporary files, the
current directory) inside one folder, whose files are listed afterwards. The kernel ends it with SIGSYS at the first
socket that is not of this machine alone (AF_UNIX). What this cannot see: files that native code writes at fixed
paths such as /var, and connections on systems without seccomp, where the test is skipped.
"""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from explainers.models import noise_photograph
from networks.small_graphs import classifier
from PIL import Image

WITHOUT_SOCKETS = """
import ctypes, platform, socket, struct, sys

CALL, ARCHITECTURE = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}[platform.machine()]
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # of BPF: a word of struct seccomp_data, a comparison, the verdict
ALLOW, KILL = 0x7FFF0000, 0x80000000
FILTER = [
    (LOAD, 0, 0, 4), (EQUAL, 0, 4, ARCHITECTURE),
    (LOAD, 0, 0, 0), (EQUAL, 0, 2, CALL),  # socket(2)
    (LOAD, 0, 0, 16), (EQUAL, 0, 1, socket.AF_UNIX),  # its first argument
    (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, KILL),
]

def refuse_sockets():
    code = b"".join(struct.pack("HBBI", *each) for each in FILTER)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HP", len(FILTER), ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):  # no new privileges; seccomp's filter mode
        sys.exit(77)

refuse_sockets()
"""
UNAVAILABLE = 77
COMMANDS = """
import sys
from masktool.cli import run

photo = ["photos/a.png", "-m", "masked.onnx", "--provider", "cpu"]
lines = [
    ["export", "plain.onnx", "-o", "masked.onnx", "--preprocess", "pre.json", "--labels", "labels.txt"],
    ["explain", *photo, "--method", "occlusion", "-o", "out"],
    ["explain", "photos/a.png", "-m", "plain.onnx", "--preprocess", "pre.json", "--provider", "cpu", "-o", "out",
     "--method", "gradient"],
    ["evaluate", "faithfulness", "masked.onnx", "photos",
     "--method", "occlusion", "--metric", "confidence", "--provider", "cpu", "-o", "out"],
    ["info", "masked.onnx"],
]
for line in lines:
    print(line, file=sys.stderr)
    assert run(line) == 0
"""
DECLARED = ("masked.onnx", "out/", "home/.cache/masktool/", "home/.cache/matplotlib/", "home/.config/matplotlib/")
"""matplotlib keeps a list of the fonts that it found."""


def start(folder, code, **environment):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_", "MPL"))}
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (folder / "tmp").mkdir(exist_ok=True)
    places = {"HOME": str(home), "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**inherited, **places, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for seed, name in enumerate("ab"):
        Image.fromarray(noise_photograph((12, 12), seed)).save(tmp_path / "photos" / f"{name}.png")
    onnx.save(classifier(), tmp_path / "plain.onnx")
    (tmp_path / "labels.txt").write_text("one\ntwo\nthree\nfour\n")
    (tmp_path / "pre.json").write_text('{"size": [8, 8], "resize_to": 8}')
    return tmp_path


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="needs seccomp of Linux"
)
def test_no_connection_is_opened_and_nothing_is_written_outside_declared_places(folder):
    if start(folder, WITHOUT_SOCKETS + "socket.socket(socket.AF_UNIX)").returncode == UNAVAILABLE:
        pytest.skip("this system lets no process filter its own calls")
    caught = start(folder, WITHOUT_SOCKETS + "socket.socket(socket.AF_INET)")
    assert caught.returncode == -signal.SIGSYS, "the filter itself must work"
    before = files_of(folder)
    result = start(folder, WITHOUT_SOCKETS + COMMANDS)
    assert result.returncode == 0, result.stderr
    written = files_of(folder) - before
    assert {path for path in written if not path.startswith(DECLARED)} == set()
    assert "masked.onnx" in written
    assert any(path.startswith("home/.cache/masktool/") for path in written)


OPEN_A_SESSION = "from masktool import demo, runtime; runtime.MaskedSession(demo.model_path(), providers='cpu')"


@pytest.mark.parametrize("code", [OPEN_A_SESSION, "import masktool.exporters.storage", "import masktool, onnxruntime"])
@pytest.mark.parametrize("environment", [{}, {"ORT_DISABLE_TELEMETRY": ""}], ids=["unset", "empty"])
def test_onnx_runtime_leaves_no_identifier(folder, code, environment):
    assert start(folder, code, **environment).returncode == 0
    assert files_of(folder / "home") == set()


def test_a_user_may_switch_it_on_and_doctor_says_so(folder):
    code = "import os, masktool; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert start(folder, code, ORT_DISABLE_TELEMETRY="0").stdout == "0\n"
    code = "from masktool.interface.installation import check_telemetry; print(*check_telemetry())"
    assert "state='warning'" in start(folder, code, ORT_DISABLE_TELEMETRY="0").stdout
    assert "state='ok'" in start(folder, code).stdout
