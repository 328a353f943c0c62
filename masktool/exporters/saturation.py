"""Why two forms of a quantised graph may differ on this processor, and what to do about it.

x86 processors without VNNI add two products of uint8 and int8 in 16 bits: up to 2 · 255 · 128 = 65280, where 32767 is
the limit. Which two they add depends on ONNX Runtime's kernel, so that its results depend on how a graph is fused. Its
remedy, the session's entry ``x64quantprecision``, does not open some quantised files (version 1.31, see DESIGN.md).
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from masktool.exporters.parity import DEFECT
from masktool.exporters.tolerance import is_quantised

WITH_VNNI = {"avx512_vnni", "avx_vnni"}
"""Linux's flags of processors with VNNI, which adds products of 8 bits in 32."""
SATURATES = (
    "nothing was written; on this processor (x86 without VNNI) ONNX Runtime's sums of 8-bit products may saturate, in "
    "each kernel otherwise: quantise with weights of 7 bits (quantize_static with reduce_range=True), or export on a "
    "processor with VNNI; if it differs there too, please report the network"
)


def read_processor_flags(described: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Returns Linux's flags of an x86 processor; none of any other, or where the system does not tell."""
    lines = described.read_text(encoding="utf-8").splitlines() if described.is_file() else []
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), ()))


def may_saturate(flags: frozenset[str]) -> bool:
    """Tells whether sums of uint8 times int8 may saturate on a processor; one that is not known counts as exact."""
    return bool(flags) and not flags & WITH_VNNI


def advise_on_difference(model: ir.Model) -> str:
    """Returns what to do where a file does not give what its source gives, or what was measured: whose fault it is.

    Args:
        model: the source.
    """
    return SATURATES if is_quantised(model) and may_saturate(read_processor_flags()) else DEFECT
