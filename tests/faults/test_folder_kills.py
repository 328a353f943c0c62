"""A folder's explanation, in real processes, killed ten times at random moments: the same bytes in the end."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from masktool.demo import shapes
from masktool.files import TEMPORARY_PREFIX
from masktool.interface.folders.run import JOURNAL

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="signals of POSIX")]

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS, KILLS = 60, 10
LONGEST = 300.0
WINDOWS = ["--set", "sliding_window_shapes=32", "--set", "strides=32"]


def start(folder, out, *options):
    command = [sys.executable, "-m", "masktool", "explain", "photos", "-o", out, "--method", "occlusion", *WINDOWS]
    command += ["--format", "png,json,npz,parquet", "--provider", "cpu", *options]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != JOURNAL}


def count_entries(out):
    return (out / JOURNAL).read_bytes().count(b"\n") - 1 if (out / JOURNAL).exists() else -1


def kill_in_the_middle(folder, out, draw, whole_group, *options):
    """Kills a run some random time after it has finished some more photographs; tells whether it was still running."""
    process = start(folder, out, *options)
    enough = max(count_entries(folder / out), 0) + draw.randint(0, 5)
    deadline = time.monotonic() + LONGEST
    while process.poll() is None and count_entries(folder / out) < enough and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.3))
    running = process.poll() is None
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
    process.wait(LONGEST)
    return running


@pytest.mark.parametrize("options", [(), ("--jobs", "2")], ids=["one process", "two processes"])
def test_ten_random_kills_end_in_the_same_bytes(tmp_path, options):
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(shapes.draw(3, PHOTOGRAPHS).images):
        Image.fromarray(picture).save(tmp_path / "photos" / f"{number}.png")
    assert start(tmp_path, "whole").wait(LONGEST) == 0
    expected, draw = contents(tmp_path / "whole"), random.Random(17)
    struck = [kill_in_the_middle(tmp_path, "out", draw, number % 2 == 0, *options) for number in range(KILLS)]
    print("entries after the kills:", count_entries(tmp_path / "out"), "struck while running:", sum(struck))
    assert all(struck)
    assert start(tmp_path, "out", *options).wait(LONGEST) == 0
    assert not list((tmp_path / "out").glob(f"{TEMPORARY_PREFIX}*"))
    assert contents(tmp_path / "out") == expected
