"""The primary's modes and the phases of a resynchronization, with every legal move between them.

``NORMAL`` is Fig. 4 of US 7,039,661, ``UNSYNCHRONIZED`` steps 610-680 of Fig. 6 and ``RESYNCHRONIZING``
step 682; ``INITIAL_SYNC`` is ¶95 and ``PAUSED`` the operator's own halt of replication (never of tracking). ``REFUSED``
is the secondary's, ``REMOVED`` the end of one secondary of several, and ``STOPPED`` that of the controller.
``SNAPSHOTS`` takes the place of ``NORMAL`` where only addresses are captured (see ``snapshot_landing``).
"""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """What the primary is doing about its secondary."""

    UNSYNCHRONIZED = "unsynchronized"
    INITIAL_SYNC = "initial-sync"
    RESYNCHRONIZING = "resynchronizing"
    NORMAL = "normal"
    SNAPSHOTS = "epochs"  # the name that options, reports and JSON have for it
    PAUSED = "paused"
    REFUSED = "refused"
    REMOVED = "removed"
    STOPPED = "stopped"

    @property
    def rests(self) -> bool:
        """Whether nothing is sent until a person ends the mode."""
        return self in RESTING_MODES


class Phase(StrEnum):
    """Where a resynchronization stands; ``IDLE`` outside of one.

    The order is the argument for exactness (design: a base backup and its log): sweeps until little is
    left; payload capture ARMED at S0 and the map flipped; every write submitted before S0 SETTLES; the
    LAST_SWEEP reads what is left, while the stream from S0 on is kept; the stream is sent (DRAINING) up to
    S1, the position after the last read; COMMITTING makes the replica the primary at a known sequence.

    With addresses only, the landing is another one: the source is being held (HOLDING: frozen, or a snapshot is taken);
    on a live device its writes in flight SETTLE; the LAST_SWEEP reads; the hold is RELEASING; what was read is DRAINING
    to the secondary; COMMITTING as above.
    """

    IDLE = "idle"
    SWEEPING = "sweeping"
    ARMING = "arming"
    HOLDING = "holding"
    SETTLING = "settling"
    LAST_SWEEP = "last-sweep"
    RELEASING = "releasing"
    DRAINING = "draining"
    COMMITTING = "committing"


# Phases in which captured writes enter the log with their payload.
LOGGING_PHASES = frozenset({Phase.SETTLING, Phase.LAST_SWEEP, Phase.DRAINING, Phase.COMMITTING})
# Phases in which the kept stream may go out: never before the last sweep has been read and sent.
STREAMING_PHASES = frozenset({Phase.DRAINING, Phase.COMMITTING})

RESTING_MODES = frozenset({Mode.PAUSED, Mode.REFUSED, Mode.REMOVED, Mode.STOPPED})

MODE_MOVES: dict[Mode, frozenset[Mode]] = {
    Mode.UNSYNCHRONIZED: RESTING_MODES | {Mode.INITIAL_SYNC, Mode.RESYNCHRONIZING},
    Mode.INITIAL_SYNC: frozenset({Mode.UNSYNCHRONIZED, Mode.NORMAL, Mode.SNAPSHOTS}),
    Mode.RESYNCHRONIZING: frozenset({Mode.UNSYNCHRONIZED, Mode.NORMAL, Mode.SNAPSHOTS}),
    Mode.NORMAL: frozenset({Mode.UNSYNCHRONIZED}),
    Mode.SNAPSHOTS: frozenset({Mode.UNSYNCHRONIZED}),
    **dict.fromkeys(RESTING_MODES, RESTING_MODES | {Mode.UNSYNCHRONIZED}),
}

# A hold that is given up begins with another sweep. Whatever ends a resynchronization leads to IDLE.
PHASE_MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.IDLE: frozenset({Phase.SWEEPING}),
    Phase.SWEEPING: frozenset({Phase.ARMING, Phase.HOLDING, Phase.IDLE}),
    Phase.HOLDING: frozenset({Phase.SETTLING, Phase.LAST_SWEEP, Phase.SWEEPING, Phase.IDLE}),
    Phase.ARMING: frozenset({Phase.SETTLING, Phase.IDLE}),
    Phase.SETTLING: frozenset({Phase.LAST_SWEEP, Phase.SWEEPING, Phase.IDLE}),
    Phase.LAST_SWEEP: frozenset({Phase.RELEASING, Phase.DRAINING, Phase.SWEEPING, Phase.IDLE}),
    Phase.RELEASING: frozenset({Phase.DRAINING, Phase.SWEEPING, Phase.IDLE}),
    Phase.DRAINING: frozenset({Phase.COMMITTING, Phase.IDLE}),
    Phase.COMMITTING: frozenset({Phase.IDLE}),
}

# Modes in which a resynchronization may be under way; each snapshot is made by one.
SYNCING_MODES = frozenset({Mode.INITIAL_SYNC, Mode.RESYNCHRONIZING, Mode.SNAPSHOTS})
# Modes in which the secondary was brought to the primary's content at some moment, and follows it.
FOLLOWING_MODES = frozenset({Mode.NORMAL, Mode.SNAPSHOTS})
