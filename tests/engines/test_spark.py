"""A file that explains itself in Spark, two workers on this machine: a pandas UDF gives ONNX Runtime's answers."""

import shutil
import sys

import numpy as np
import onnxruntime
import pytest

from engines.conftest import ROOT, environment, run_program

pytest.importorskip("pyspark")
import pyarrow as pa
import pyarrow.parquet as parquet

pytestmark = [pytest.mark.engines, pytest.mark.skipif(not shutil.which("java"), reason="Spark needs Java")]
EXAMPLE = ROOT / "examples" / "spark" / "explain_with_spark.py"


def test_spark(explained, images, tmp_path):
    names = [f"{number:02}" for number in range(len(images))]
    flat = pa.array(images.reshape(len(images), -1).tolist(), pa.list_(pa.float32()))
    parquet.write_table(pa.table({"file": names, "pixels": flat}), tmp_path / "images.parquet")
    variables = environment(PYSPARK_PYTHON=sys.executable, PYSPARK_SUBMIT_ARGS="--master local[2] pyspark-shell")
    variables |= {"SPARK_LOCAL_IP": "127.0.0.1", "MASTER": "local[2]"}
    run_program(sys.executable, EXAMPLE, explained, tmp_path / "images.parquet", tmp_path / "out", env=variables)
    found = parquet.read_table(tmp_path / "out").sort_by("file")
    assert found.column("file").to_pylist() == names
    session = onnxruntime.InferenceSession(explained, providers=["CPUExecutionProvider"])
    scores, saliency_map = session.run(["logits", "saliency_map"], {"input": images})
    np.testing.assert_allclose(found.column("scores").to_pylist(), scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        found.column("saliency_map").to_pylist(), saliency_map.reshape(len(images), -1), rtol=1e-5, atol=1e-5
    )
