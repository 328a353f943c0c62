"""Peak memory of every method with 100 masks or steps and with 10,000, on a network that costs next to nothing.

    python -m benchmarks.memory_of_methods [OPTION OF masktool bench ...]

What may grow with the number of masks is what a method keeps of them; the network's own memory, which is the same for
any number, only hides it. So the network is two strided convolutions for 64 x 64 pixels. ``masktool bench MODEL --part
memory`` measures any other.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

NETWORK = """<ir_version: 9, opset_import: ["": 18]> tiny (float[N,3,64,64] image) => (float[N,5] logits) {
    a = Conv<strides=[4,4]>(image, w) b = Relu(a) c = Conv<strides=[4,4]>(b, v) d = Relu(c)
    e = GlobalAveragePool(d) f = Flatten(e) logits = Gemm(f, u) }"""
WEIGHTS = {"w": (4, 3, 4, 4), "v": (8, 4, 4, 4), "u": (8, 5)}


def write_network(path: Path) -> None:
    """Writes the network with random weights."""
    model, random = onnx.parser.parse_model(NETWORK), np.random.default_rng(0)
    for name, shape in WEIGHTS.items():
        values = random.standard_normal(shape).astype(np.float32) / np.sqrt(np.prod(shape[1:]))
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(model, path)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.onnx"
        write_network(path)
        command = [sys.executable, "-m", "masktool", "bench", str(path), "--part", "memory", "--threads", "1"]
        subprocess.run([*command, "--masking", "fill", "--preprocess", "imagenet", *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
