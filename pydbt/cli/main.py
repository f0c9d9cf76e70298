"""The program's entry: ``controller`` and ``pydbt`` are the same.

The program takes a moment to load, and a person may interrupt it meanwhile. So this module loads next to nothing before
it listens to signals; nothing has been done yet that would have to be undone.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from pydbt.cli.program import INTERRUPTED, SERVICES, TERMINATED, program_name


def main() -> None:
    """Run the program on the process's own arguments, and end the process."""
    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _end_at_once) for number in heeded}
    from pydbt.cli.group import execute

    try:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.exit(execute(sys.argv[1:]))
    except KeyboardInterrupt:
        _end_at_once(signal.SIGINT, None)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    end_of_line = "\n" * (number == signal.SIGINT)  # a terminal has shown ^C
    words, code = ("interrupted", INTERRUPTED) if number == signal.SIGINT else ("stopped", TERMINATED)
    if number == signal.SIGTERM and any(word in SERVICES for word in sys.argv[1:]):
        code = 0
    os.write(sys.stderr.fileno(), f"{end_of_line}{program_name()}: {words}\n".encode())
    os._exit(code)


if __name__ == "__main__":
    main()
