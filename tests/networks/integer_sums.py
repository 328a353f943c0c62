"""What a processor's kernels for 8-bit products can do, and networks that are computed exactly on every processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
EXACT = {"avx512_vnni", "avx_vnni"}
"""Linux's flags of processors with VNNI, which adds products of 8 bits in 32."""


def read_flags(cpuinfo: str) -> set[str]:
    """Returns the flags of an x86 processor from Linux's description of it; none of any other."""
    return next(
        (set(line.split(":", 1)[1].split()) for line in cpuinfo.splitlines() if line.startswith("flags")), set()
    )


FLAGS = read_flags(CPUINFO.read_text(encoding="utf-8")) if CPUINFO.is_file() else set()
SATURATES = bool(FLAGS) and not FLAGS & EXACT
"""Whether ONNX Runtime's sums of uint8 times int8 may saturate; a processor without a description is taken for exact.

x86 without VNNI adds two such products in 16 bits: up to 2 · 255 · 128 = 65280, where 32767 is the limit. Which two
depends on the kernel, so that one network in two forms gives two results. ONNX Runtime's remedy, the session's entry
``x64quantprecision``, is no way out: in version 1.31 some quantised files do not open with it (see DESIGN.md)."""
WEIGHT_RANGE: dict[str, Any] = {"reduce_range": True} if SATURATES else {}
"""Further options of ``quantize_static``: weights of 7 bits (at most 2 · 255 · 64 = 32640) where those of 8 saturate.

So tests ask for every bit on every processor, and with VNNI for that of weights of 8 bits."""
WEIGHT_LIMIT = 64 if SATURATES else 100
"""How large a weight drawn by hand may be, for the same reason."""
CHANNELS_IN_NO_BLOCK = 6 if SATURATES and "avx512f" not in FLAGS else 8
"""So few that ONNX Runtime puts them in no blocks, in which it rounds otherwise: 8 wide with AVX2, 16 with AVX512."""
