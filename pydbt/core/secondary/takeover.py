"""Whether this secondary takes the place of its primary, which asks for it (HANDOVER).

The order that never makes two primaries: the old primary is durably a replica before it tells of that, and this side is promoted
only after it has heard that. If a message or a machine is lost in between, there is no primary, and a person promotes one.
"""

from __future__ import annotations

from pydbt.core.protocol.frames import Handover, Hello
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.promotion import Position
from pydbt.core.secondary.replica import ReplicaRecord


def why_not_take_over(
    handover: Handover,
    hello: Hello,
    record: ReplicaRecord,
    image: Position,
    *,
    staged: bool,
    config: SecondaryConfig,
) -> str:
    """Why not, as a sentence; empty when it does."""
    if config.unable:
        return config.unable
    if hello.sector_bytes > config.sector_bytes:
        return (
            f"its target has logical blocks of {config.sector_bytes} bytes, and the primary's device of {hello.sector_bytes}: "
            "as the new target it would be refused ('controller promote' and 'controller demote' can change the places, "
            "with 'controller secondary --accept-sectors' afterwards)"
        )
    if config.target_bytes != record.size_bytes:
        return (
            f"the target has {config.target_bytes} bytes and the volume {record.size_bytes}: a SOURCE has exactly the "
            "volume's size (see 'A target that is larger than the volume' in the documentation on failover)"
        )
    if not record.consistent or staged:
        return "the replica is not in sync"
    if not handover.final:
        return ""
    if image != Position(handover.epoch, handover.sequence) or record.generations.current != hello.generations.current:
        return "the replica does not stand where the primary ended"
    return ""
