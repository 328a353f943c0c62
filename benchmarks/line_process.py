"""A process of its own that answers requests, each a line of JSON, one after the other."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
"""What numerical libraries read from the environment, so that they take one thread."""


class LineProcess:
    """A process that reads requests from stdin and answers on stdout.

    Args:
        command: the command line that starts it.
        environment: the environment of the process.
        log: the file for what it writes to stderr.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log.open("w+")
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, text=True, env=environment)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a request, and returns the answer, or the error."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"error": "the process has ended"}
        return self.read()

    def read(self) -> dict[str, Any]:
        """Returns the next answer; where there is none, the last line of what the process wrote to stderr, as error."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        self._process.wait()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines() or [f"ended with {self._process.returncode}"]
        return {"error": lines[-1]}

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()
