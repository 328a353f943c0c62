"""The command line on WebGPU."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from masktool.cli import masktool as command_line

pytestmark = pytest.mark.webgpu
SHARE = 1e-3
"""Of the map's range."""


def run(*arguments):
    done = CliRunner().invoke(command_line, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def test_doctor_proves_the_provider():
    findings = {finding["name"]: finding for finding in json.loads(run("doctor", "--json").stdout)["findings"]}
    assert findings["WebGPU"]["state"] == "ok", findings["WebGPU"]


def test_explain_there_is_explain_here(files, tmp_path):
    np.save(tmp_path / "image.npy", np.random.default_rng(5).normal(size=(3, 12, 12)).astype(np.float32))
    maps = []
    for provider in ("webgpu", "cpu"):
        options = (
            "-m",
            files.path("concatenation", "layer"),
            "--provider",
            provider,
            "--method",
            "occlusion",
            "--json",
        )
        maps.append(np.array(json.loads(run("explain", tmp_path / "image.npy", *options).stdout)["attributions"]))
    assert np.abs(maps[0] - maps[1]).max() <= SHARE * np.ptp(maps[1]) > 0
