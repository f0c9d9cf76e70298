"""The program's entry: ``controller`` and ``pydbt`` are the same.

The program takes a moment to load, and a person may interrupt it meanwhile. So this module loads next to nothing before
it listens to signals; nothing has been done yet that would have to be undone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

from pydbt.cli.program import INTERRUPTED, SERVICES, TERMINATED, end_early, program_name

_MEANINGLESS = (signal.SIGUSR1, signal.SIGUSR2)
"""They ask other programs for figures, or to open their log anew; who sends them to this one wants no end of it."""


def main() -> None:
    """Run the program on the process's own arguments, and end the process."""
    _open_closed_streams()
    for number in _MEANINGLESS:
        signal.signal(number, _go_on)
    end_early(_end_at_once)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's threads would keep the capabilities of the start
    from pydbt.cli.group import execute
    from pydbt.cli.logs import log_thread_failure
    from pydbt.posix.privileges import own_this_process

    own_this_process()
    threading.excepthook = log_thread_failure

    try:
        code = execute(sys.argv[1:])
    except KeyboardInterrupt:
        _end_at_once(signal.SIGINT, None)
    if code == INTERRUPTED:
        # Python remembers an interrupt that came out of exec(), by which dataclasses make their methods, as unhandled, and
        # `python -m` then ends by the signal (pymain_run_python() and Py_RunMain() in Modules/main.c).
        os._exit(code)
    sys.exit(code)


def _go_on(number: int, frame: FrameType | None) -> None:
    """In the place of the end of the process. A handler, because a program that is started inherits what is ignored."""


def _open_closed_streams() -> None:
    """A process that was started without stdin, stdout or stderr has the null device there.

    Else the next file takes the place, a TARGET too, and what any library prints to stderr is written to that.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):  # without /dev/null it is as it was
                os.set_inheritable(
                    os.open(os.devnull, os.O_RDWR), True
                )  # the lowest number that is free, which is this one
                setattr(sys, name, os.fdopen(number, mode, errors="backslashreplace", closefd=False))


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    end_of_line = "\n" * (number == signal.SIGINT)  # a terminal has shown ^C
    words, code = ("interrupted", INTERRUPTED) if number == signal.SIGINT else ("stopped", TERMINATED)
    if number == signal.SIGTERM and any(word in SERVICES for word in sys.argv[1:]):
        code = 0
    with contextlib.suppress(OSError, ValueError):  # it is closed, its disk is full, or nobody reads it
        if select.select([], [sys.stderr.fileno()], [], 0)[1]:  # a terminal that is stopped would make this wait
            os.write(sys.stderr.fileno(), f"{end_of_line}{program_name()}: {words}\n".encode())
    os._exit(code)


if __name__ == "__main__":
    main()
