"""A file that explains itself in Apache Beam's own environment: its pipeline's answers are ONNX Runtime's."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from engines.conftest import ROOT, environment, run_program

pytestmark = pytest.mark.engines
BEAM = Path(sys.prefix) / "beam" / "bin" / "python"
EXAMPLE = ROOT / "examples" / "beam" / "explain_with_beam.py"


@pytest.mark.skipif(not BEAM.exists(), reason=f"no {BEAM}: scripts/engines_environment.sh makes it")
def test_beam(explained, images, tmp_path):
    for number, image in enumerate(images):
        np.save(tmp_path / f"{number}.npy", image)
    run_program(BEAM, EXAMPLE, explained, tmp_path / "*.npy", tmp_path / "out", env=environment(PYTHONPATH=""))
    found = sorted(line for path in tmp_path.glob("out-*") for line in path.read_text().splitlines())
    session = onnxruntime.InferenceSession(explained, providers=["CPUExecutionProvider"])
    expected = []
    for scores, saliency_map in zip(*session.run(["logits", "saliency_map"], {"input": images}), strict=True):
        row, column = np.unravel_index(saliency_map.argmax(), saliency_map.shape[1:])
        expected.append(f"class {scores.argmax()}, most of it at row {row}, column {column}")
    assert found == sorted(expected)
    assert len(set(found)) > 1
