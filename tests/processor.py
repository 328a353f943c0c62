"""What ONNX Runtime does differently on this processor, as far as tests must know."""

from __future__ import annotations

from masktool.exporters.saturation import read_processor_flags
from masktool.ops.blocked import BLOCK

SMALL_BLOCK = 8
"""Channels in a block where an x86 processor has no AVX512. What divides by 8 alone lies in blocks there, and nowhere
else; under masks it does not, because masktool spreads them over whole blocks of 16 alone."""
FLAGS = read_processor_flags()


def channels_in_blocks(flags: frozenset[str]) -> int:
    """Returns how many channels ONNX Runtime puts into a block; 16 where the flags are not known."""
    return BLOCK if not flags or "avx512f" in flags else SMALL_BLOCK
