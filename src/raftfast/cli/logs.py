"""Log records on standard error: one line each, plain or JSON.

Floor 6. The one place that configures logging; everything else only asks for a logger by name.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from .text import printable

__all__ = ["FORMATS", "LEVELS", "configure"]

FORMATS = ("plain", "json")
LEVELS = ("debug", "info", "warning", "error", "critical")


class PlainFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO raftfast.node: text`; a traceback, where there is one, on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_moment(record)} {record.levelname} {record.name}: {printable(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One object a line: `time`, `level`, `logger`, `message`, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def configure(kind: str, level: str) -> None:
    """Sends all records of at least `level` (one of LEVELS) to standard error as `kind` (one of FORMATS)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else PlainFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _moment(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
