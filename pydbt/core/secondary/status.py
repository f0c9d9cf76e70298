"""Where the secondary stands, for people and programs."""

from __future__ import annotations

from enum import StrEnum

from pydbt.core.secondary.keeper import Keeper
from pydbt.core.secondary.replica import ReplicaState


class Phase(StrEnum):
    """Where the conversation stands. READY: welcomed, and neither BEGIN nor STREAM heard yet."""

    OFFLINE = "offline"
    READY = "ready"
    STREAMING = "streaming"
    STAGING = "staging"
    DIRECT = "direct"


def status_of(keeper: Keeper, phase: Phase, state: ReplicaState, *, connected: bool) -> dict[str, object]:
    """Sizes in bytes; ``sequence`` is durable, ``applied_sequence`` has reached the target itself."""
    return {
        "mode": phase.value,
        "replica_state": state.value,
        "replica": keeper.record.replica,
        "volume": keeper.record.volume,
        "size": keeper.record.size_bytes,
        "epoch": f"{keeper.epoch:016x}",
        "sequence": keeper.sequence,
        "generations": keeper.record.generations.to_values(),
        "applied_sequence": keeper.mark.sequence,
        "connected": connected,
        "staged_bytes": keeper.staged_bytes,
        "unapplied_bytes": keeper.tail - keeper.mark.position,
    }
