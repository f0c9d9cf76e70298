"""In a machine: wait until the status of a controller has these values, and print it.

usage: ``python3 -S -m tests.vm.guest_status STATE SECONDS VALUES``. VALUES is a JSON object. The exit code is 1 when they have
not come after this time; the last status is printed then, too. It needs nothing but Python itself.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from pydbt.controller.control import call
from pydbt.core.errors import PydbtError

LOOK_S = 0.5


def status(state: Path) -> dict[str, Any]:
    """Empty when nobody answers."""
    try:
        return call(state, {"command": "status"})
    except (PydbtError, OSError, ValueError):
        return {}


def main(state: Path, timeout_s: float, wanted: dict[str, Any]) -> int:
    deadline = time.monotonic() + timeout_s
    while True:
        seen = status(state)
        come = all(seen.get(key) == value for key, value in wanted.items())
        if come or time.monotonic() > deadline:
            print(json.dumps(seen))
            return 0 if come else 1
        time.sleep(LOOK_S)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3])))
