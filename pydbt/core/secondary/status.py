"""Where the secondary stands, for people and programs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydbt.core.blocks.runs import Runs
from pydbt.core.protocol.generations import Generations
from pydbt.core.secondary.bad_blocks import BAD_BLOCK_BYTES
from pydbt.core.secondary.keeper import Keeper
from pydbt.core.secondary.replica import ReplicaState
from pydbt.core.secondary.session import Direct, Ready, Session, Staging, Streaming
from pydbt.core.values import field_names, values_of

OFFLINE = "offline"
RESTARTING = "restarting"
_SHOWN_PLACES = 16
_MODES = {Ready: "ready", Streaming: "streaming", Staging: "staging", Direct: "direct"}


@dataclass(frozen=True, slots=True)
class KeptPlace:
    """A run of the target that cannot be written."""

    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class KeptPlaces:
    """``bytes`` of the target that cannot be written, and the first ``places``; what is to be there is kept aside."""

    bytes: int
    places: tuple[KeptPlace, ...]

    def to_values(self) -> dict[str, object]:
        """For JSON."""
        return {"bytes": self.bytes, "places": [values_of(place) for place in self.places]}


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """The fields have the names of the report. Sizes in bytes.

    ``sequence`` is durable; ``applied_sequence`` has reached the target itself; ``size`` is that of the volume.
    ``connected``: the primary was heard a moment ago; ``silent_seconds``: how long it has not been heard, None without one.
    ``target_problem``: why the target cannot be written, and where; empty when it can.
    """

    mode: str
    replica_state: ReplicaState
    replica: str
    volume: str | None
    size: int
    epoch: int
    sequence: int
    generations: Generations
    applied_sequence: int
    connected: bool
    silent_seconds: float | None
    staged_bytes: int
    unapplied_bytes: int
    target_problem: str
    unwritable: KeptPlaces

    @property
    def position(self) -> str:
        """The position of the image, for people."""
        return f"sequence {self.sequence} of epoch {self.epoch:016x}"

    @property
    def is_consistent(self) -> bool:
        """Whether the image is one of some moment."""
        return self.replica_state is not ReplicaState.INCONSISTENT

    def without_engine(self) -> ReplicaStatus:
        """The same while nothing takes what a primary sends, because the brain that told this is to be built again."""
        followed = self.replica_state is ReplicaState.UP_TO_DATE
        state = ReplicaState.CONSISTENT if followed else self.replica_state
        return replace(self, mode=RESTARTING, replica_state=state, connected=False, silent_seconds=None)

    def to_values(self) -> dict[str, object]:
        """For JSON: numbers of 64 bits as 16 hexadecimal digits."""
        return {name: getattr(self, name) for name in field_names(type(self))} | {
            "replica_state": self.replica_state.value,
            "epoch": f"{self.epoch:016x}",
            "generations": self.generations.to_values(),
            "unwritable": self.unwritable.to_values(),
        }


def status_of(
    keeper: Keeper, session: Session | None, state: ReplicaState, problem: str, kept: Runs, now: float
) -> ReplicaStatus:
    """The report of a replica and of its conversation, if there is one. ``kept``: blocks that are kept aside."""
    if state is ReplicaState.UP_TO_DATE and session is not None and not session.is_fresh(keeper.sequence, now):
        state = ReplicaState.CONSISTENT
    return ReplicaStatus(
        mode=OFFLINE if session is None else _MODES[type(session.state)],
        replica_state=state,
        replica=keeper.record.replica,
        volume=keeper.record.volume,
        size=keeper.record.size_bytes,
        epoch=keeper.epoch,
        sequence=keeper.sequence,
        generations=keeper.record.generations,
        applied_sequence=keeper.applied_to.sequence,
        connected=session is not None and session.is_there(now),
        silent_seconds=None if session is None else round(session.silence_s(now), 3),
        staged_bytes=keeper.staged_bytes,
        unapplied_bytes=keeper.tail - keeper.applied_to.position,
        target_problem=problem,
        unwritable=_unwritable(kept),
    )


def _unwritable(kept: Runs) -> KeptPlaces:
    runs = zip(kept.firsts[:_SHOWN_PLACES].tolist(), kept.counts[:_SHOWN_PLACES].tolist(), strict=True)
    places = tuple(KeptPlace(first * BAD_BLOCK_BYTES, count * BAD_BLOCK_BYTES) for first, count in runs)
    return KeptPlaces(kept.total() * BAD_BLOCK_BYTES, places)
