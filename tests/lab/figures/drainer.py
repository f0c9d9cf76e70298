"""Takes what is captured off the rings until its stdin ends; run by tests/lab/figures/fio.py as a process of its own.

It polls and copies as the controller does when nothing is sent: between an idle ring's looks it sleeps longer.
"""

from __future__ import annotations

import select
import sys
from pathlib import Path

from pydbt.controller.primary.loop import LONGEST_POLL_S, SHORTEST_POLL_S
from pydbt.controller.primary.volume import RECORDS_A_LOOK
from pydbt.kernel.capture import Capture


def main() -> int:
    capture = Capture.reopen(Path(sys.argv[1]))
    if capture is None:
        return 1
    print("ready", flush=True)
    poll = SHORTEST_POLL_S
    while not select.select([sys.stdin], [], [], poll)[0]:
        records = capture.drain(RECORDS_A_LOOK)
        b"".join(capture.payload(records))
        capture.release(records)
        poll = SHORTEST_POLL_S if len(records) else min(2 * poll, LONGEST_POLL_S)
    capture.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
