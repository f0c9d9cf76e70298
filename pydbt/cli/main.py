"""The program's entry: ``controller`` and ``pydbt`` are the same.

What it is made of takes a moment to load, and a person may have had enough by then. So this module loads next to nothing
before it listens to signals; nothing has been done yet that would have to be undone.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130  # 128 + SIGINT, as shells say it


def program_name() -> str:
    """The name this program was called by: ``controller`` or ``pydbt``."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    return name if name in ("controller", "pydbt") else "controller"


def main() -> None:
    """Run the program on the process's own arguments, and end the process."""
    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _end_at_once) for number in heeded}
    from pydbt.cli.commands import execute

    try:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.exit(execute(sys.argv[1:]))
    except KeyboardInterrupt:
        _end_at_once(signal.SIGINT, None)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    end_of_line = "\n" * (number == signal.SIGINT)  # a terminal has shown ^C
    os.write(sys.stderr.fileno(), f"{end_of_line}{program_name()}: interrupted\n".encode())
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
