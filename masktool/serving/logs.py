"""Structured logs: one JSON object a line, on stderr."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

LOGGER = "masktool.serving"
SERVER_LOGGERS = ("uvicorn.error", "uvicorn")
"""What uvicorn writes to."""


class JsonLines(logging.Formatter):
    """Writes a record as a JSON object: time, level, event, and the fields it was logged with."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **fields,
        }
        if record.exc_info and record.exc_info[0] is not None:
            document["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(document, default=str)


def write_json_lines(stream: TextIO | None = None) -> None:
    """Sends what the server logs to a stream, as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (LOGGER, *SERVER_LOGGERS):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == LOGGER else logging.WARNING)
    logging.getLogger("uvicorn.error").propagate = False


def log_event(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Logs an event with its fields."""
    logging.getLogger(LOGGER).log(level, event, extra={"fields": fields})


def log_fault(event: str, error: BaseException, **fields: Any) -> None:
    """Logs an error that nobody foresaw, with its traceback."""
    logging.getLogger(LOGGER).error(event, exc_info=error, extra={"fields": fields})
