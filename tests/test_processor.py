"""What tests believe of a processor, from what Linux says of it."""

import pytest
from processor import SMALL_BLOCK, channels_in_blocks

from masktool.exporters.saturation import may_saturate, read_processor_flags
from masktool.ops.blocked import BLOCK


@pytest.mark.parametrize(
    ("described", "block", "saturating"),
    [
        ("processor : 0\nflags\t\t: fpu sse4_2 avx avx2\nbugs : none\n", SMALL_BLOCK, True),
        ("flags : avx2 avx_vnni\n", SMALL_BLOCK, False),
        ("flags : avx2 avx512f\n", BLOCK, True),
        ("flags : avx2 avx512f avx512_vnni\n", BLOCK, False),
        ("Features : fp asimd\n", BLOCK, False),
        (None, BLOCK, False),
    ],
)
def test_a_processor_is_known_by_its_flags(tmp_path, described, block, saturating):
    path = tmp_path / "cpuinfo"
    if described is not None:
        path.write_text(described)
    flags = read_processor_flags(path)
    assert (channels_in_blocks(flags), may_saturate(flags)) == (block, saturating)
