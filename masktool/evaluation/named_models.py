"""Models under the names that tables show."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from masktool.explainers.explaining import GraphsBeside
from masktool.identity import digest_model
from masktool.runtime.providers import import_onnxruntime
from masktool.runtime.session import MaskedSession


@dataclasses.dataclass(frozen=True)
class NamedModel:
    """A model under the name that tables show.

    Attributes:
        name: name of the model, such as its masking mode, ``layer``, or baseline, ``black``.
        session: session of the exported file.
        graphs: writers of the models that run beside the session's own; None runs that alone.
    """

    name: str
    session: MaskedSession
    graphs: GraphsBeside | None = None

    @functools.cached_property
    def file_sha256(self) -> str:
        """The SHA-256 of the exported file and of the files that hold its weights."""
        return digest_model(self.session.path)

    def describe(self) -> dict[str, Any]:
        """Returns everything that decides the model's scores, JSON values by name."""
        metadata = self.session.metadata
        return {
            "name": self.name,
            "source": metadata.source,
            "source_sha256": metadata.source_sha256,
            "file_sha256": self.file_sha256,
            "masking": metadata.masking,
            "baseline": metadata.baseline,
            "rule": metadata.rule,
            "exported_by": metadata.tool_version,
            "onnxruntime": import_onnxruntime().__version__,
            "providers": self.session.providers,
            **({"provider_options": self.session.provider_options} if self.session.provider_options else {}),
            "threads": self.session.threads,
        }


def count_classes(session: MaskedSession) -> int | None:
    """Returns the number of classes that a model tells apart; None where its file does not say."""
    return session.n_classes if session.metadata.labels is None else len(session.metadata.labels)
