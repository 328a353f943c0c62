"""Models in memory that run beside a session's own, on the CPU, with its number of threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from masktool.errors import MasktoolError
from masktool.execution_providers.provider import HOST
from masktool.runtime.native_log import runtime_reason
from masktool.runtime.providers import open_beside
from masktool.runtime.session import MaskedSession


class ModelBeside:
    """A model in memory, open beside a session.

    Args:
        session: the session.
        model: the model.

    Raises:
        MasktoolError: ONNX Runtime cannot open the model.
    """

    def __init__(self, session: MaskedSession, model: bytes) -> None:
        self._owner = session
        try:
            self._session = open_beside(model, HOST, {}, session.threads)
        except Exception as error:  # ONNX Runtime has one exception class per status code and no common base
            raise self._failure(error) from error
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]

    def run(self, values: Mapping[str, np.ndarray], results: int = 0) -> dict[str, np.ndarray]:
        """Returns the outputs by name, and counts the results as the session's.

        Args:
            values: values by the inputs' names; others are left out.
            results: the number of results that it gives in the session's place.
        """
        self._owner.runtime_session()  # a closed one runs nothing
        feed: dict[str, Any] = {name: values[name] for name in self._inputs}
        try:
            with self._owner.counter.timing(results):
                found = self._session.run(self._outputs, feed)
        except Exception as error:  # as above
            raise self._failure(error) from error
        return dict(zip(self._outputs, found, strict=True))

    def _failure(self, error: Exception) -> MasktoolError:
        return MasktoolError(
            "ONNX Runtime could not run a model beside the file's own",
            where=self._owner.path,
            got=runtime_reason(error),
        )
