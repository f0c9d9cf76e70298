"""A volume whose resynchronization is under way."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

from pydbt.core.units import MIB
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device
from tests.lab.load import load
from tests.lab.patience import run, until
from tests.lab.raw import Hammer

SIZE = 96 * MIB
BEFORE = "before-the-outage"


@contextlib.contextmanager
def in_mid_resync(
    tmp_path: Path, chance: random.Random, *secondary_options: object, to_its_end: bool = True
) -> Iterator[Cluster]:
    """A volume under load whose resynchronization has just passed its first tenth, and is slow.

    ``to_its_end``: afterwards both must become identical.
    """
    options = ("--ack-timeout", 4, "--rate-limit", "8M/s")
    with loop_device(tmp_path, SIZE) as device, contextlib.ExitStack() as stack:
        both = stack.enter_context(
            cluster(tmp_path / "c", device, wired=True, primary_options=options, secondary_options=secondary_options)
        )
        both.start()
        both.until_mode("normal")
        hammer = stack.enter_context(Hammer(device.path, device.size_sectors, chance.randrange(1 << 30)))
        for _ in range(20):
            hammer()
        both.wait()
        run("dd", f"if={device.path}", f"of={tmp_path / BEFORE}", "bs=1M", "iflag=direct", "status=none")
        both.wire.cut()
        both.until_mode("unsynchronized")
        for _ in range(300):
            hammer()
        both.wire.mend()
        with load() as running:
            running.add(hammer, 0.05)
            until(lambda: is_resynchronizing(both), "the resynchronization is under way")
            yield both
            running.stop()
        if to_its_end:
            both.wait()
            both.compare("at the end")


def is_resynchronizing(both: Cluster) -> bool:
    status = both.status() or {}
    return status.get("mode") == "resynchronizing" and status["progress"]["done_bytes"] > 2 * MIB
