"""What masking models learn: where the objects are known, and on a real network's few pictures.

    python -m benchmarks.maskers synthetic [--network shapes.pt2 ...] [--only both out ...]
    python -m benchmarks.maskers cifar --weights FILE.th --arch FILE.py:factory --images FILE.npz [...]

See :mod:`benchmarks.maskers_synthetic` and :mod:`benchmarks.maskers_cifar`. Everything that takes long stays in
``--folder``: an interrupted benchmark goes on where it stopped, and several runs may share a folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks import maskers_cifar, maskers_synthetic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, module in (("synthetic", maskers_synthetic), ("cifar", maskers_cifar)):
        command = commands.add_parser(
            name, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--precision", default="auto", help="of the training: auto, fp32 or bf16")
        command.add_argument("--folder", type=Path, default=Path("results/maskers"), help="where maskers are kept")
        command.add_argument("--json", type=Path, help="file for all figures")
        command.add_argument("--sheet", type=Path, help="file for a picture of 24 pictures with their maps")
        module.add_options(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.run(options)


if __name__ == "__main__":
    main()
