"""A program that changes its memory during its own direct writes: both sides end with the same content."""

from __future__ import annotations

import sys

from tests.end_to_end.in_sync import in_sync
from tests.lab.changing_memory import PROGRAM
from tests.lab.patience import run


def test_a_block_whose_memory_changed_while_it_was_written_is_read_again(tmp_path):
    with in_sync(tmp_path) as (device, both):
        for kind in ("private", "file"):
            run(sys.executable, PROGRAM, device.path, kind, 16, 400)
        both.wait()
        status = both.status()
        both.compare("memory changed while it was written")
        assert status["statistics"]["unsettled_blocks"]["unstable"] > 0, (
            "no write met a change: the test proves nothing"
        )
        assert status["mode"] == "normal" and not status["tainted"] and status["out_of_sync_bytes"] == 0, status
