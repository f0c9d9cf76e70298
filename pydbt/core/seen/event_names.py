"""The names of events. They are promised stable: a name keeps its meaning, and a new meaning gets a new name."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Gravity(IntEnum):
    """How grave an event is, with the numbers of syslog(3), which the journal uses."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


class Named(NamedTuple):
    """``meaning``: one sentence; ``figures``: the names of the figures that it carries."""

    gravity: Gravity
    meaning: str
    figures: tuple[str, ...] = ()


STARTED, STOPPED = "started", "stopped"
ADDED, REMOVED = "added", "removed"
MODE_CHANGED, REPLICA_CHANGED = "mode-changed", "replica-changed"
CONNECTED, DISCONNECTED = "connected", "disconnected"
OUT_OF_SYNC, IN_SYNC = "out-of-sync", "in-sync"
TAINTED, TAINT_ANSWERED = "tainted", "taint-answered"
SPLIT_BRAIN, REFUSED, ACCEPTED = "split-brain", "refused", "accepted"
VERIFY_STARTED, VERIFIED = "verify-started", "verified"
DISK_ERROR, DISK_RECOVERED = "disk-error", "disk-recovered"
IDENTITY_ENDING, IDENTITY_RENEWED = "identity-ending", "identity-renewed"
LOG_FULL = "log-full"
STANDING_STILL, MOVING_AGAIN = "standing-still", "moving-again"
PROBLEM, PROBLEM_ENDED = "problem", "problem-ended"
FLAPPING = "flapping"
MARK_HELD, MARK_LOST = "mark-held", "mark-lost"
PROMOTED, DEMOTED = "promoted", "demoted"

_CHANGE = ("before", "after")

NAMES: dict[str, Named] = {
    STARTED: Named(Gravity.NOTICE, "The controller has begun.", ("mode", "replica_state")),
    STOPPED: Named(Gravity.NOTICE, "The controller ends; the words name the reason when it is a failure."),
    ADDED: Named(Gravity.NOTICE, "The volume has one secondary more."),
    REMOVED: Named(Gravity.NOTICE, "A secondary was removed from the volume."),
    MODE_CHANGED: Named(Gravity.INFO, "The `mode` is another one.", _CHANGE),
    REPLICA_CHANGED: Named(
        Gravity.NOTICE,
        "The `replica_state` is another one. `consistent` and `up-to-date` count as one here: `out-of-sync` tells when the "
        "difference matters.",
        _CHANGE,
    ),
    CONNECTED: Named(Gravity.NOTICE, "The other machine is connected."),
    DISCONNECTED: Named(Gravity.WARNING, "The other machine is not connected any more.", ("silent_s",)),
    OUT_OF_SYNC: Named(
        Gravity.WARNING,
        "The replica has lacked something for longer than `out-of-sync-after`.",
        ("out_of_sync_s", "out_of_sync_bytes"),
    ),
    IN_SYNC: Named(
        Gravity.NOTICE,
        "The replica has everything again, after `out-of-sync`; and once in each run of a controller.",
        ("out_of_sync_s",),
    ),
    TAINTED: Named(Gravity.WARNING, "Something was written that no program saw.", ("taints",)),
    TAINT_ANSWERED: Named(Gravity.NOTICE, "Everything in use was compared: the volume is not tainted any more."),
    SPLIT_BRAIN: Named(
        Gravity.ERROR, "Both sides were written: the secondary refused, and a person chooses.", ("code",)
    ),
    REFUSED: Named(Gravity.ERROR, "The secondary refused for another reason, and waiting does not help.", ("code",)),
    ACCEPTED: Named(Gravity.NOTICE, "The secondary accepts what it had refused."),
    VERIFY_STARTED: Named(Gravity.INFO, "A verification has begun.", ("total_bytes",)),
    VERIFIED: Named(
        Gravity.NOTICE,
        "A verification has ended.",
        ("compared_bytes", "differing_bytes", "filled_bytes", "unreadable_bytes"),
    ),
    DISK_ERROR: Named(
        Gravity.ERROR, "Blocks of a disk cannot be read or written, or the disk is gone.", ("disk", "bytes")
    ),
    DISK_RECOVERED: Named(Gravity.NOTICE, "All of the disk can be read, or written, again.", ("disk",)),
    IDENTITY_ENDING: Named(
        Gravity.WARNING, "The identity of this machine ends within thirty days, or cannot be used.", ("expires",)
    ),
    IDENTITY_RENEWED: Named(
        Gravity.NOTICE, "The identity of this machine can be used, and does not end soon.", ("expires",)
    ),
    LOG_FULL: Named(
        Gravity.WARNING, "The stream was given up for want of room, and a resynchronization follows.", ("times",)
    ),
    STANDING_STILL: Named(Gravity.WARNING, "A synchronization has not moved for a minute.", ("still_s",)),
    MOVING_AGAIN: Named(Gravity.NOTICE, "The synchronization moves again, or has ended."),
    PROBLEM: Named(Gravity.WARNING, "There is a problem that the status names.", ("key",)),
    PROBLEM_ENDED: Named(Gravity.NOTICE, "This problem is over.", ("key",)),
    FLAPPING: Named(
        Gravity.WARNING, "Something has changed often, and is as it was told last. `key` names it.", ("key", "times")
    ),
    MARK_HELD: Named(Gravity.NOTICE, "The replica holds a mark durably.", ("mark",)),
    MARK_LOST: Named(
        Gravity.WARNING,
        "A mark was set, and the stream was given up before the secondary acknowledged it: perhaps it does not hold it.",
        ("mark",),
    ),
    PROMOTED: Named(Gravity.NOTICE, "The replica becomes a volume of its own."),
    DEMOTED: Named(Gravity.NOTICE, "The volume becomes a replica."),
}
"""Every name that a controller gives an event."""

EXISTS, NOW, NOT_RUNNING, GAP = "exists", "now", "not-running", "gap"

TOLD_BY_THE_COMMAND: dict[str, Named] = {
    EXISTS: Named(
        Gravity.INFO,
        "A volume or replica as it is when the command begins, or when its controller is there again.",
        ("role", "mode", "replica_state", "connected", "out_of_sync_bytes", "lag_s"),
    ),
    NOW: Named(Gravity.INFO, "The present state has been told; the next events are changes."),
    NOT_RUNNING: Named(Gravity.WARNING, "No controller answers any more."),
    GAP: Named(
        Gravity.WARNING, "Events are missing here: the reader was too slow, or the controller was started again."
    ),
}
"""Names of lines that ``controller events`` prints of its own; no hook is run for them."""

ANY = "any"
"""In the place of a name: every event."""
