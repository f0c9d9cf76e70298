"""A command that takes more than two seconds says what it is at, and again every ten seconds."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

FIRST_LINE_S = 2.0
NEXT_LINE_S = 10.0

_log = logging.getLogger("pydbt")
_lock = threading.Lock()
_doing: list[Callable[[], str]] = []


@contextlib.contextmanager
def doing(words: str | Callable[[], str]) -> Iterator[None]:
    """What this process is at, as long as this lasts, in one line; the innermost counts. Empty words are not told.

    ``words`` may be a question to a controller: it is asked in a thread of its own, which nobody waits for.
    """
    told = words if callable(words) else lambda: words
    with _lock:
        _doing.append(told)
    ended = threading.Event()
    try:
        with contextlib.suppress(RuntimeError):  # no room for a thread: the work goes on without a word
            if _doing[0] is told:
                threading.Thread(target=_tell, args=(ended,), name="at-work", daemon=True).start()
        yield
    finally:
        with _lock:
            ended.set()
            _doing.remove(told)


def _tell(ended: threading.Event) -> None:
    pause_s = FIRST_LINE_S
    while not ended.wait(pause_s):
        pause_s = NEXT_LINE_S
        with _lock:
            asked = _doing[-1] if _doing else None
        words = asked() if asked is not None else ""
        with _lock:
            if words and not ended.is_set():
                _log.info("%s", words)
