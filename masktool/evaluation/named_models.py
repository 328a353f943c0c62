"""Models under the names that tables show."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from masktool.identity import digest_model
from masktool.runtime.providers import import_onnxruntime
from masktool.runtime.session import MaskedSession


@dataclasses.dataclass(frozen=True)
class NamedModel:
    """A model under the name that tables show.

    Attributes:
        name: name such as that of the masking mode, ``layer`` or ``black``.
        session: session of the exported file.
    """

    name: str
    session: MaskedSession

    @functools.cached_property
    def file_sha256(self) -> str:
        """Digest of the exported file and of those that hold its weights."""
        return digest_model(self.session.path)

    def describe(self) -> dict[str, Any]:
        """Returns what decides the model's answers, as JSON values."""
        metadata = self.session.metadata
        return {
            "name": self.name,
            "source": metadata.source,
            "source_sha256": metadata.source_sha256,
            "file_sha256": self.file_sha256,
            "masking": metadata.masking,
            "baseline": metadata.baseline,
            "exported_by": metadata.tool_version,
            "onnxruntime": import_onnxruntime().__version__,
            "providers": self.session.providers,
            "threads": self.session.threads,
        }


def count_classes(session: MaskedSession) -> int | None:
    """Returns how many classes a model tells apart; None where its file does not say."""
    return session.n_classes if session.metadata.labels is None else len(session.metadata.labels)
