"""What ONNX Runtime does differently on this processor, for tests of real files whose channels cannot be chosen."""

from __future__ import annotations

from pathlib import Path

from masktool.ops.blocked import BLOCK

SMALL_BLOCK = 8
"""Channels in a block where an x86 processor has no AVX512. What divides by 8 alone lies in blocks there, and nowhere
else; under masks it does not, because masktool spreads them over whole blocks of 16 alone."""


def channels_in_blocks(described: Path = Path("/proc/cpuinfo")) -> int:
    """Returns how many channels ONNX Runtime puts into a block here; 16 where the system does not tell."""
    lines = described.read_text().splitlines() if described.is_file() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), None)
    return BLOCK if flags is None or "avx512f" in flags else SMALL_BLOCK
