"""How large the weights of quantised networks may be, so that every processor computes them exactly.

So tests ask for every bit on every processor, and with VNNI for that of weights of 8 bits.
"""

from __future__ import annotations

from typing import Any

from processor import FLAGS, SMALL_BLOCK, channels_in_blocks

from masktool.exporters.saturation import may_saturate

SATURATES = may_saturate(FLAGS)
WEIGHT_RANGE: dict[str, Any] = {"reduce_range": True} if SATURATES else {}
"""Further options of ``quantize_static``: weights of 7 bits (2 · 255 · 64 = 32640) where those of 8 saturate."""
WEIGHT_LIMIT = 64 if SATURATES else 100
"""How large a weight drawn by hand may be, for the same reason."""
CHANNELS_IN_NO_BLOCK = 6 if SATURATES and channels_in_blocks(FLAGS) == SMALL_BLOCK else 8
"""So few that ONNX Runtime puts them in no blocks, in which it rounds otherwise."""
