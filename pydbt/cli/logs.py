"""Log lines, all of one form: when, how grave, of which volume, and what. To stderr, above a live progress line if there is one.

Under systemd the journal knows the time, and takes the level as a priority (sd-daemon(3)).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from typing import TextIO

from pydbt.core.printable import printable

# The levels of syslog(3), which the journal uses.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _PresentStderr(logging.StreamHandler[TextIO]):
    """Looks ``sys.stderr`` up for every line, because a live progress line replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class LineFormat(logging.Formatter):
    """One line per record; a traceback only with --debug. ``volume`` is named in each, when it is known."""

    def __init__(self, tracebacks: bool = False, journal: bool = False) -> None:
        super().__init__()
        self._tracebacks, self._journal = tracebacks, journal
        self.volume = ""

    def format(self, record: logging.LogRecord) -> str:
        message = printable(record.getMessage())
        words = f"{self.volume}: {message}" if self.volume else message
        if record.exc_info and record.exc_info[1] is not None and self._tracebacks:
            words = f"{words}\n{traceback_text(record.exc_info[1])}"
        if self._journal:
            # Each line is an entry of its own.
            return "\n".join(f"<{_PRIORITIES.get(record.levelno, 6)}>{line}" for line in words.split("\n"))
        when = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"
        return f"{when} {record.levelname.lower():<7} {words}"


def traceback_text(error: BaseException) -> str:
    """The traceback of an error with what caused it. Every line is indented: the words of others forge no line of the log."""
    lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    return "\n".join(f"  {printable(line)}" for line in lines)


def missing_line(count: int) -> str:
    """The line of the log that says that this many others are not in it."""
    words = "%d lines are missing here: the log could not be written, or too slowly"
    record = logging.LogRecord("pydbt", logging.WARNING, "", 0, words, (count,), None)
    formats = (handler.formatter for handler in logging.getLogger().handlers)
    form = next((one for one in formats if isinstance(one, LineFormat)), LineFormat())
    return form.format(record) + "\n"


def configure_logging(debug: bool) -> None:
    """Send this process's log to stderr: from info up, or with ``debug`` all of it."""
    logging.raiseExceptions = False  # a line that cannot be written is no reason for another one
    handler = _PresentStderr()
    handler.setFormatter(LineFormat(tracebacks=debug, journal=is_journal(sys.stderr)))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)


def log_thread_failure(failure: threading.ExceptHookArgs) -> None:
    """For ``threading.excepthook``, whose default writes to stderr what others have named."""
    error = failure.exc_value
    if error is not None and not isinstance(error, SystemExit):
        name = failure.thread.name if failure.thread is not None else "?"
        words = "the thread %s failed, which is a bug: %s: %s (--debug shows where)"
        logging.getLogger("pydbt").error(words, name, type(error).__name__, error, exc_info=error)


def name_lines(place: str | os.PathLike[str]) -> None:
    """Name the SOURCE or TARGET of this process in every later line: ``vda3``, ``vg/data``, ``replica.img``."""
    name = os.fspath(place).removeprefix("/dev/")
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, LineFormat):
            shown = os.path.basename(name) if name.startswith("/") else name
            handler.formatter.volume = printable(shown)


def is_journal(stream: TextIO) -> bool:
    """Whether a stream goes to systemd's journal, which is known by its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def error_prefix(stream: TextIO) -> str:
    """For the sentence about an error that ends a command: its priority, where that is understood."""
    return f"<{_PRIORITIES[logging.ERROR]}>" if is_journal(stream) else ""
