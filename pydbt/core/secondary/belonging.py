"""Whether a disk is the target of a replica, as far as its record tells: who is kept off it, and who not, goes by this.

What is held and hidden at a boot may be a disk that this machine needs. So nothing but the record counts: a file that configures
a replica may name a wrong disk, and a state that cannot be read may be that of a volume.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.secondary.target_identity import Likeness, likeness


class Belonging(Enum):
    """REPLICA: this disk is the target. VOLUME: it was promoted. The others tell nothing of this disk, which is left alone."""

    REPLICA = "replica"
    VOLUME = "volume"
    NO_RECORD = "no-record"
    OTHER_DISK = "other-disk"
    NAMELESS = "nameless"

    def words(self, target: str, state_dir: str) -> str:
        """Why no rule is made and nothing is held; empty for a replica's target."""
        match self:
            case Belonging.REPLICA:
                return ""
            case Belonging.VOLUME:
                return f"{target} was promoted"
            case Belonging.NO_RECORD:
                return f"{state_dir} has no record of a replica, which the first start of its secondary makes"
            case Belonging.OTHER_DISK:
                return f"{target} leads to another disk than the one that {state_dir} was kept for"
            case Belonging.NAMELESS:
                return f"{target} has no lasting name by which it is known to be the disk that {state_dir} was kept for"


def belonging(
    record: ReplicaRecord | None, kept: Mapping[str, str], identity: str, names: Mapping[str, str]
) -> Belonging:
    """``kept``: the names of the target that were kept beside the record; ``identity`` and ``names``: those of the disk now."""
    if record is None:
        return Belonging.NO_RECORD
    if record.promoted:
        return Belonging.VOLUME
    match likeness(record.target, kept, identity, names):
        case Likeness.SAME:
            return Belonging.REPLICA
        case Likeness.OTHER:
            return Belonging.OTHER_DISK
        case Likeness.UNKNOWN:
            return Belonging.NAMELESS
