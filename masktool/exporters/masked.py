"""A source that takes a mask, in memory: the first half of an export, before anything is measured or written."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from masktool.contract import Metadata
from masktool.exporters.preparation import Prepared
from masktool.exporters.sources import Source


class MaskedNetwork(NamedTuple):
    """A network with and without a mask.

    Attributes:
        source: the source, without outputs that cannot be masked.
        plain: the canonical graph without a mask.
        prepared: the canonical graph that takes a mask, and what is known of it.
        metadata: the metadata without what the graph and the measurement tell.
    """

    source: Source
    plain: ir.Model
    prepared: Prepared
    metadata: Metadata
