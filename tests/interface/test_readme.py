"""The Python block of the README runs as it stands, on a plain model as a newcomer has it."""

import re
from pathlib import Path

import pytest
from explainers.models import noise_photograph
from networks.plain_classifier import write_plain_model
from PIL import Image

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_python_block_runs_on_a_plain_model(tmp_path, monkeypatch, block):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_plain_model("model.onnx")
    Path("classes.txt").write_text("a\nb\nc\nd\n")
    Image.fromarray(noise_photograph((20, 30))).save("photo.jpg")
    values = {}
    exec(compile(block, str(README), "exec"), values)
    assert values["explanation"].attributions.shape == (20, 30)
    assert {path.suffix for path in Path("out").iterdir()} == {".png", ".json", ".npz"}
    assert values["logits"].shape == (2, 4)


def test_there_is_a_block():
    assert BLOCKS
