"""Peak memory of ``masktool explain`` with few and with many RISE masks, each in a process of its own.

python -m benchmarks.rise_memory [--model MODEL.onnx] [--image IMAGE]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from masktool.demo import model_path, sample_path


def peak_memory(model: str, image: str, samples: int) -> float:
    """Returns the largest resident set of one run, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "masktool", "explain", image, "-m", model, "--method", "rise"]
        process = subprocess.Popen(
            [*command, "--samples", str(samples), "-o", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=model_path())
    parser.add_argument("--image", type=Path, default=sample_path())
    parser.add_argument("--samples", type=int, nargs=2, default=(400, 4000))
    options = parser.parse_args()
    few, many = (peak_memory(str(options.model), str(options.image), n) for n in options.samples)
    print(
        f"{options.samples[0]} masks: {few:.0f} MiB, {options.samples[1]} masks: {many:.0f} MiB, ratio {many / few:.3f}"
    )


if __name__ == "__main__":
    main()
