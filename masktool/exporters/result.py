"""What an export returns: the file that was written, its metadata, the mask rules applied, and notes for the user."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from masktool.contract import RULE_PROPERTY, Metadata
from masktool.messages import SIZE, parameter

if TYPE_CHECKING:
    import onnx_ir as ir

    from masktool.exporters.sources import Source

ONNX_DOMAINS = ("", "ai.onnx")
"""Two names of the domain of ONNX's own operators, which goes without saying."""


@dataclasses.dataclass(frozen=True)
class NodeRule:
    """One node of an exported graph, and the mask rule that was applied to it.

    Attributes:
        name: the name of the node; empty where it has none.
        op_type: the node's operator, with the domain before it where that is not ONNX's own: ``masktool::Fill``.
        rule: the name of the mask rule, such as ``mask_conv``; None for a node that needed none.
    """

    name: str
    op_type: str
    rule: str | None


@dataclasses.dataclass(frozen=True)
class SourceSummary:
    """A summary of the network that a file was exported from.

    Attributes:
        name: the network's name: a file's name without its directory, a hub name or a class name.
        n_nodes: the number of nodes in the network's graph.
        outputs: name, element type and shape of each output that was exported, as text.
    """

    name: str
    n_nodes: int
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Export:
    """An exported file: its metadata, the mask rules applied to its nodes, and notes for the user.

    Attributes:
        path: the path of the file.
        metadata: the metadata in the file; ``metadata.parity`` holds the figures measured at export.
        rules: every node of the graph that was written, in order, with the mask rule applied to it.
        n_bytes: the size in bytes of the file and, where there is one, of the file beside it with its weights.
        notes: notes for the user, one sentence each: what was assumed, left out or renamed, and what else the file has
            to be fed.
        source: the network that the file was exported from.
    """

    path: Path
    metadata: Metadata
    rules: tuple[NodeRule, ...]
    n_bytes: int
    notes: tuple[str, ...]
    source: SourceSummary

    @property
    def rule_counts(self) -> dict[str, int]:
        """How many nodes each mask rule was applied to, the most frequent first."""
        return count_rules(self.rules)


def count_rules(nodes: Iterable[NodeRule]) -> dict[str, int]:
    """Returns how many nodes each mask rule was applied to, the most frequent first."""
    return dict(collections.Counter(node.rule for node in nodes if node.rule is not None).most_common())


def name_operator(domain: str, op_type: str) -> str:
    """Returns an operator's type, with its domain where that is not ONNX's own."""
    return op_type if domain in ONNX_DOMAINS else f"{domain}::{op_type}"


def summarise_export(path: Path, n_bytes: int, model: ir.Model, metadata: Metadata, source: Source) -> Export:
    """Returns the :class:`Export` of a file that was just written.

    Args:
        path: the path of the file, as the caller named it.
        n_bytes: the size in bytes of all that was written.
        model: the model that was written.
        metadata: the metadata that were written.
        source: the source that the model was made from.
    """
    from masktool.exporters.names import note_renamed
    from masktool.exporters.onnx_file import describe_value
    from masktool.exporters.said import note_said

    rules = tuple(
        NodeRule(node.name or "", name_operator(node.domain, node.op_type), node.metadata_props.get(RULE_PROPERTY))
        for node in model.graph.all_nodes()
    )
    outputs = source.model.graph.outputs
    renamed = {old: new for old, new in (metadata.renamed or {}).items() if old not in source.renamed}
    own = note_widened(model) if metadata.has_gradients else ()
    notes = (
        *source.notes,
        *note_configuration(source, metadata),
        *note_said(source.said, metadata),
        *note_renamed(outputs, renamed),
        *note_inputs(source.model, source.image_input),
        *own,
    )
    summary = SourceSummary(source.name, len(source.model.graph), tuple(map(describe_value, outputs)))
    return Export(path, metadata, rules, n_bytes, notes, summary)


def note_configuration(source: Source, metadata: Metadata) -> Iterator[str]:
    """Yields what a file has from the hub's configuration, which the user may have overruled."""
    if source.configuration is None:
        return
    of_both = {
        "preprocessing": (source.preprocessing, metadata.preprocessing),
        "labels": (source.labels, metadata.labels),
    }
    if kept := [word for word, (known, written) in of_both.items() if known is not None and known == written]:
        yield f"{' and '.join(kept)} as in the hub's configuration {source.configuration}"


def note_widened(model: ir.Model) -> Iterator[str]:
    """Yields what the user should know of a file with gradients whose weights are of 16 bits."""
    from masktool.exporters.tolerance import HALF_TOLERANCE

    if any(value.dtype in HALF_TOLERANCE for value in model.graph.initializers.values()):
        yield "gradients in 16 bits would be coarse: the file computes in float32, from weights of 16 bits"


def note_inputs(model: ir.Model, image_input: str) -> Iterator[str]:
    """Yields what the user should know about the inputs of a source."""
    from masktool.exporters.onnx_file import describe_value, find_other_inputs, input_size_of

    if input_size_of(model, image_input) is None:
        yield "height or width is open, so that the mask is required; " + parameter("input_size", SIZE) + " fixes them"
    if others := find_other_inputs(model, image_input):
        named = ", ".join(describe_value(value) for value in others)
        yield f"the image is {image_input!r}; to be fed besides: {named}"
