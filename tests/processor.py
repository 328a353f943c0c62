"""What ONNX Runtime does differently on this processor, as far as tests must know."""

from __future__ import annotations

from pathlib import Path

from masktool.ops.blocked import BLOCK

SMALL_BLOCK = 8
"""Channels in a block where an x86 processor has no AVX512. What divides by 8 alone lies in blocks there, and nowhere
else; under masks it does not, because masktool spreads them over whole blocks of 16 alone."""
WITH_VNNI = {"avx512_vnni", "avx_vnni"}
"""Linux's flags of processors with VNNI, which adds products of 8 bits in 32."""


def read_flags(described: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Returns the flags of an x86 processor; none of any other, or where the system does not tell."""
    lines = described.read_text(encoding="utf-8").splitlines() if described.is_file() else []
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), ()))


def channels_in_blocks(flags: frozenset[str]) -> int:
    """Returns how many channels ONNX Runtime puts into a block; 16 where the flags are not known."""
    return BLOCK if not flags or "avx512f" in flags else SMALL_BLOCK


def saturates(flags: frozenset[str]) -> bool:
    """Tells whether ONNX Runtime's sums of uint8 times int8 may saturate; an unknown processor is taken for exact.

    x86 without VNNI adds two such products in 16 bits: up to 2 · 255 · 128 = 65280, where 32767 is the limit. Which two
    depends on the kernel, so that one network in two forms gives two results. ONNX Runtime's remedy, the session's
    entry ``x64quantprecision``, is no way out: in version 1.31 some quantised files do not open with it (DESIGN.md).
    """
    return bool(flags) and not flags & WITH_VNNI


FLAGS = read_flags()
