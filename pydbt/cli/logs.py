"""Log lines: to stderr, with the time, and above a live progress line when there is one."""

from __future__ import annotations

import logging
import sys
import time


class _PresentStderr(logging.StreamHandler):
    """Looks ``sys.stderr`` up for every line, because a live progress line puts itself in between."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self):  # type: ignore[no-untyped-def,override]
        return sys.stderr


class _Format(logging.Formatter):
    """One line a record; a traceback is for who asked for it."""

    converter = time.gmtime

    def __init__(self, tracebacks: bool) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z "
        line += f"{record.levelname.lower():<7} {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info and self._tracebacks else line


def configure_logging(debug: bool) -> None:
    """Send this process's log to stderr, from info up, or everything of it."""
    handler = _PresentStderr()
    handler.setFormatter(_Format(tracebacks=debug))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
