"""Log lines: to stderr, with the time, and above a live progress line when there is one."""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO


class _PresentStderr(logging.StreamHandler[TextIO]):
    """Looks ``sys.stderr`` up for every line, because a live progress line replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Format(logging.Formatter):
    """One line per record, with the time in UTC; a traceback only with --debug."""

    def __init__(self, tracebacks: bool) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z "
        line += f"{record.levelname.lower():<7} {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info and self._tracebacks else line


def configure_logging(debug: bool) -> None:
    """Send this process's log to stderr: from info up, or with ``debug`` all of it."""
    handler = _PresentStderr()
    handler.setFormatter(_Format(tracebacks=debug))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
