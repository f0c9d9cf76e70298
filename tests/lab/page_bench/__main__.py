"""Serves the made-up volumes for people: ``python -m tests.lab.page_bench [PORT]``."""

from __future__ import annotations

import sys
import threading

from tests.lab.page_bench import hostile
from tests.lab.page_bench.server import PageBench
from tests.lab.page_bench.world import volumes

with PageBench(volumes(hostile.ALL), int(sys.argv[1]) if len(sys.argv) > 1 else 0) as bench:
    print(f"{bench.address}/ until Ctrl-C", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
