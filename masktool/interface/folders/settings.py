"""What decides the files of a run besides its photographs, for a later run to compare."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from masktool.contract import __version__
from masktool.identity import digest_code, digest_model
from masktool.interface.folders.request import PARQUET, ExplanationRequest
from masktool.limits import limit
from masktool.runtime.importing import import_onnxruntime
from masktool.runtime.session import MaskedSession

LIBRARIES = ("numpy", "pillow", "scikit-image")
"""Packages whose versions may decide bytes of maps and pictures; pyarrow joins them where it writes."""


def describe_folder_run(session: MaskedSession, request: ExplanationRequest) -> dict[str, Any]:
    """Returns the settings of a run as JSON values by name; how many processes share the work is none of them.

    Args:
        session: the open model.
        request: what is asked of every photograph.
    """
    libraries = (*LIBRARIES, *(["pyarrow"] if PARQUET in request.formats else []))
    return {
        **request.settings(),
        "model": digest_model(session.path),
        "providers": session.providers,
        "provider_options": session.provider_options,
        "json_limit": limit("json"),
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
        "onnxruntime": import_onnxruntime().__version__,
        "tool_version": __version__,
        "code": digest_code(),
    }
