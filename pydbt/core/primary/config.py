"""What the primary's brain must be told once."""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.protocol.generations import NO_GENERATIONS, Generations
from pydbt.core.tracking.discards import ALWAYS_ZEROS, DiscardPromise
from pydbt.core.units import MIB, Geometry


@dataclass(frozen=True, slots=True)
class SavedMaps:
    """Blocks that the last run left behind; None: no such map.

    ``pending`` may differ; ``staged`` are of an unfinished resynchronization, neither pending nor in an image; ``left_out`` count
    for nobody, and the secondary was not given them.
    """

    pending: DirtyMap | None = None
    staged: DirtyMap | None = None
    left_out: DirtyMap | None = None


@dataclass(frozen=True, slots=True)
class PrimaryConfig:
    """Settings and what the last run left behind.

    ``epoch`` identifies the sequence numbers of this run; ``replica*`` is what is known of the secondary
    from before, ``later_epochs`` those of the runs since, this one among them, ``unfinished`` that it had got blocks of a
    resynchronization that was not completed; ``initial`` says that it was
    never brought in sync; ``scan_used`` that the blocks in use are still to be marked; ``taints`` why the maps
    may not tell all, ``answered`` those of them that a synchronization of the blocks that are pending from the beginning answers;
    ``quiet_held`` that the kernel's quiet bitmap may hold bits (programs reopened); ``generations``
    what the volume has been through, and ``generation_seed`` what later ones are named from. ``snapshot_interval_s`` set:
    only addresses are captured, and the replica follows in such steps (``snapshot_landing``), for each of which the source
    is held no longer than ``hold_limit_s``. ``completed_first``: no write is sent before it has completed (the volume has
    write-intent, see ``core/tracking/uncompleted``). ``discards``: what the source returns of discarded blocks.
    """

    geometry: Geometry
    epoch: int
    log_slots: int = 1 << 18
    data_room_bytes: int = 64 * MIB
    rate_limit_bytes: int | None = None
    digests: bool = True
    acknowledge_timeout_s: float = 15.0
    initial: bool = True
    scan_used: bool = True
    scan_whole: bool = False
    assumed_in_sync: bool = False
    replica: str = ""
    replica_epoch: int = 0
    replica_sequence: int = 0
    replica_progress: int = 0
    later_epochs: tuple[int, ...] = ()
    unfinished: bool = False
    quiet_held: bool = False
    taints: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    generations: Generations = NO_GENERATIONS
    generation_seed: int = 0
    snapshot_interval_s: float | None = None
    hold_limit_s: float = 5.0
    completed_first: bool = False
    discards: DiscardPromise = ALWAYS_ZEROS
