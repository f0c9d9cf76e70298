"""The loop of ``controller top``: pictures and keys in, a screen out; and the terminal as it was, however this ends."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Protocol

import urwid
import urwid.raw_display

from pydbt.cli.program import INTERRUPTED, TERMINATED
from pydbt.cli.terminal.questions import Questions
from pydbt.cli.terminal.screen import PALETTE, TopScreen
from pydbt.core.seen.top_keys import grown_older, next_interval_s

# Pictures come every second. Without one for this long, what is on the screen is of the past.
PICTURE_LATE_S = 3.0
_LOG_LINES_KEPT = 20
_WAKE, _ANSWERED, _TERMINATE, _INTERRUPT, _SUSPEND = b"w", b"a", b"t", b"i", b"z"


class Pictures(Protocol):
    """Where pictures of the machines come from."""

    def machines(self) -> list[dict[str, Any]]:
        """The newest of each, as ``/api/overview`` has them."""
        ...

    def watched(self, listener: Callable[[], None]) -> AbstractContextManager[None]:
        """Pictures are taken as long as this lasts, and ``listener`` is called, by any thread, at each new one."""
        ...


class TopLoop:
    """``interval_s``: seconds between two drawings of what changed by itself; a key draws at once. ``plain``: ASCII alone."""

    def __init__(
        self, pictures: Pictures, questions: Questions, interval_s: float, *, plain: bool, colours: bool
    ) -> None:
        self._pictures, self._questions, self._interval_s = pictures, questions, interval_s
        self._screen = TopScreen(questions.lines, plain=plain)
        self._terminal = urwid.raw_display.Screen()
        self._terminal.set_terminal_properties(colors=16 if colours else 1)
        self._loop = urwid.MainLoop(
            self._screen.widget, PALETTE, self._terminal,
            handle_mouse=False, input_filter=self._before_keys, unhandled_input=self._unhandled,
        )  # fmt: skip
        self._pipe = self._loop.watch_pipe(self._woken)
        os.set_blocking(self._pipe, False)
        self._alarm: Any = None
        self._drawn_at = -1.0
        self._newest: Sequence[dict[str, Any]] = ()
        self._pictured_at: float | None = None
        self._code = 0

    def run(self) -> int:
        """Until a person or a signal ends it; the exit code. The terminal is restored also when anything fails."""
        with self._heeding_signals(), self._pictures.watched(lambda: self._tell(_WAKE)):
            try:
                self._questions.start(lambda: self._tell(_ANSWERED))
                self._size()
                self._loop.set_alarm_in(0, lambda *_: self._draw())
                self._loop.run()
            finally:
                self._terminal.stop()
                self._questions.stop()
        return self._code

    # --- what comes in --------------------------------------------------------------------------------------
    def _tell(self, what: bytes) -> None:
        with contextlib.suppress(OSError):  # it is full, and will be read; or this has ended
            os.write(self._pipe, what)

    def _woken(self, told: bytes) -> bool:
        if _TERMINATE in told or _INTERRUPT in told:
            self._code = TERMINATED if _TERMINATE in told else INTERRUPTED
            raise urwid.ExitMainLoop
        if _SUSPEND in told:
            self._suspend()
        if _WAKE in told:
            self._newest, self._pictured_at = self._pictures.machines(), time.monotonic()
            self._draw_when_due()
        elif _ANSWERED in told:
            self._screen.refresh()
        return True

    def _before_keys(self, keys: list[Any], _: list[int]) -> list[Any]:
        if "window resize" in keys:
            self._size()
        moves = {"k": "up", "j": "down"}
        self._loop.set_alarm_in(0, lambda *_: self._screen.moved())
        return [moves.get(key, key) if isinstance(key, str) else key for key in keys if not self._screen.jump(key)]

    def _unhandled(self, key: object) -> bool:
        if key in ("q", "Q"):
            raise urwid.ExitMainLoop
        if key in ("+", "-"):
            self._interval_s = next_interval_s(self._interval_s, longer=key == "-")
        elif key == "ctrl l":
            self._terminal.clear()
        elif self._questions.toggle(key):
            self._screen.refresh()
        else:
            return self._screen.key(key)
        return True

    # --- drawing --------------------------------------------------------------------------------------------
    def _size(self) -> None:
        self._screen.resize(*self._terminal.get_cols_rows())

    def _draw_when_due(self) -> None:
        if self._drawn_at < 0 or time.monotonic() - self._drawn_at >= self._interval_s:
            self._draw()

    def _draw(self) -> None:
        """Also without a new picture: what stands there gets older."""
        now = time.monotonic()
        if self._alarm is not None:
            self._loop.remove_alarm(self._alarm)
        self._alarm = self._loop.set_alarm_in(self._interval_s, lambda *_: self._draw())
        if self._pictured_at is not None:
            passed_s = now - self._pictured_at
            late_s = passed_s if passed_s > PICTURE_LATE_S else 0.0
            self._screen.show(grown_older(self._newest, late_s, datetime.now(UTC)))
            self._drawn_at = now

    # --- signals --------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        wanted = {
            signal.SIGTERM: _TERMINATE,
            signal.SIGINT: _INTERRUPT,
            signal.SIGTSTP: _SUSPEND,
            signal.SIGHUP: _TERMINATE,
        }

        def handle(number: int, frame: FrameType | None) -> None:
            self._tell(wanted[signal.Signals(number)])

        before = {number: signal.signal(number, handle) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _suspend(self) -> None:
        """Ctrl-Z: give the terminal back as long as this is stopped."""
        self._terminal.stop()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._terminal.start()
        self._size()


@contextlib.contextmanager
def log_kept() -> Iterator[None]:
    """What is logged meanwhile would be written over the screen: the newest lines of it come afterwards."""
    before, kept = sys.stderr, io.StringIO()
    sys.stderr = kept
    try:
        yield
    finally:
        sys.stderr = before
        for line in kept.getvalue().splitlines()[-_LOG_LINES_KEPT:]:
            print(line, file=sys.stderr)
