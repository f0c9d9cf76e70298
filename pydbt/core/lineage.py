"""Whether the secondary that answers is the one the maps were kept for."""

from __future__ import annotations

from pydbt.core.primary_config import PrimaryConfig
from pydbt.core.primary_events import Connected


def doubt_about(config: PrimaryConfig, known_replica: str, said: Connected) -> str:
    """Why the maps do not tell what differs from this replica, as a sentence; empty when they do."""
    if not known_replica:
        return ""
    if said.replica != known_replica:
        return "this secondary is another replica than the one this volume was replicated to"
    if said.fresh and not config.assumed_in_sync:
        return "the secondary starts anew"
    if said.epoch == config.replica_epoch and said.sequence < config.replica_sequence:
        return "the secondary went back behind what it had acknowledged"
    return ""
