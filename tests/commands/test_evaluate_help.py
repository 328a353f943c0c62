"""The help of ``masktool evaluate`` names every measurement, and imports none."""

import importlib
import subprocess
import sys

import pytest

from masktool.cli import run
from masktool.commands.evaluate import SUMMARIES


@pytest.mark.parametrize("name", SUMMARIES)
def test_summaries_are_the_commands_own(name):
    module = importlib.import_module(f"masktool.commands.evaluate.{name.replace('-', '_')}")
    assert module.command.name == name
    assert module.command.help.strip().splitlines()[0] == SUMMARIES[name]


def test_help_lists_every_measurement_and_imports_none(capsys):
    assert run(["evaluate", "--help"]) == 0
    text = capsys.readouterr().out
    for name, summary in SUMMARIES.items():
        assert f"  {name}  " in text
        assert summary in " ".join(text.split())
    assert run(["evaluate"]) == 0
    assert capsys.readouterr().out == text
    code = "import sys; from masktool.cli import run; run(['evaluate']); print(sorted(sys.modules), file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    for module in ("numpy", "onnx", "onnxruntime", "torch", "rich", "PIL", "matplotlib", "masktool.evaluation"):
        assert f"'{module}'" not in loaded
