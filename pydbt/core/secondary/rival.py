"""Two running primaries of one volume, as after a virtual machine was copied with its state directory: the connected one stays.

By its generations the copy may write to the replica. So each primary names the boot of its machine in HELLO. One that was killed,
or whose machine was started again, is not held up for longer than the silence of the former.
"""

from __future__ import annotations

from pydbt.core.protocol.frames import BOOT, SECOND_PRIMARY, Hello, Refuse
from pydbt.core.protocol.heartbeat import SILENT_S
from pydbt.core.secondary.primary_watch import PrimaryWatch


def boot_of(hello: Hello) -> str:
    """The name of the boot that a primary runs in; empty when it tells none, as earlier versions do."""
    return next((feature.removeprefix(BOOT) for feature in hello.features if feature.startswith(BOOT)), "")


def rival_refusal(
    hello: Hello, watch: PrimaryWatch, now: float, received_at: float | None, waiting: Hello | None
) -> Refuse | None:
    """Why a primary has to wait for another one to fall silent; None when it has not.

    ``waiting``: the greeting of one that will be welcomed as soon as the journal is settled. ``received_at``: when the last byte
    of the welcomed one arrived.
    """
    boot = boot_of(hello)
    present = boot_of(waiting) if waiting is not None else watch.boot
    if not boot or not present or boot == present:
        return None
    if waiting is None and not watch.lives(now, received_at, within_s=SILENT_S):
        return None
    host = watch.report(now).host
    return Refuse(
        SECOND_PRIMARY,
        f"another running primary of this volume{host and f', on {host},'} is connected to it: two machines have the same volume "
        "and state, as a copy of a virtual machine does; stop one of them (when it falls silent, this one is let in)",
    )
