"""How a resynchronization ends in an exact image: the face that both ways have, and what they tell the brain.

There are two: ``StreamLanding`` (journal-based: data is captured, and the stream brings the replica to one position) and
``SnapshotLanding`` (snapshot-based: addresses alone are captured, and the source is held still for a moment). One of them
is chosen at the start, and serves every resynchronization of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Integers
from pydbt.core.primary.events import Flushed, Held, PayloadArmed, Released
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.primary.resync import Resync


@dataclass(frozen=True, slots=True)
class Enter:
    """The resynchronization goes on in another phase."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Landed:
    """Everything of the image is on the secondary: the COMMIT makes it the primary as it was at ``sequence``."""

    sequence: int


Outcome = Enter | Landed | None


@dataclass(frozen=True, slots=True)
class SnapshotStatus:
    """Snapshot-based replication in figures. ``instant``: when the last image was made; ``in_sync_at``: up to when the
    secondary has everything; ``waits``: how many wait for a snapshot. Times are seconds of the monotonic clock."""

    number: int
    kind: str
    instant: float | None
    in_sync_at: float | None
    held_ms_last: float
    held_ms_max: float
    problem: str
    waits: int


class Landing(Protocol):
    """Methods return an outcome for the brain: phases are its business, and so is the COMMIT.

    ``following``: the mode after a landing, and ``image`` what the replica is called in it.
    """

    following: Mode
    image: str
    with_stream: bool

    # Between resynchronizations.
    def ready(self, now: float) -> bool:
        """Whether a resynchronization may begin; else what it needs is under way."""

    def due(self, now: float) -> bool:
        """In the mode that follows a landing: whether it is time for another resynchronization."""

    def deadline(self) -> float:
        """When there is something to do without another event."""

    @property
    def unmapped(self) -> bool:
        """Whether something was written that neither the log nor a map has yet: the kernel's bitmaps alone."""

    def begin(self) -> tuple[int, ...]:
        """A resynchronization begins: its map is taken after this. The numbers of the taints that its landing answers."""

    # Of a resynchronization.
    def try_landing(self, resync: Resync, now: float) -> Outcome:
        """The map of the next pass is on disk: begin to land, or sweep on."""

    def advance(self, resync: Resync, now: float) -> Outcome:
        """Do what the phase allows; called after every event."""

    def told(self, event: PayloadArmed | Flushed | Held | Released, resync: Resync | None, now: float) -> Outcome:
        """The answer to an effect of the landing."""

    @property
    def flipping(self) -> bool:
        """Whether the next flip is the landing's own, and no pass begins with it."""

    def flipped(self, words: npt.NDArray[np.uint64], resync: Resync, now: float) -> Outcome:
        """The bits of the landing's own flip; they are pending already."""

    def committed(self, now: float) -> None:
        """The COMMIT was acknowledged."""

    def abandon(self) -> None:
        """Replication halts."""

    # What else is out of sync, and is compared.
    @property
    def kept_blocks(self) -> int:
        """How many blocks are out of sync although they are neither pending nor on their way."""

    @property
    def unproved(self) -> tuple[DirtyMap, ...]:
        """The blocks that are out of sync, or may be, and are not pending."""

    @property
    def compares_every_block(self) -> bool:
        """Whether the resynchronization under way is a verification as well."""

    def written(self, words: npt.NDArray[np.uint64]) -> None:
        """A bitmap of blocks that were written."""

    def differed(self, blocks: Integers) -> None:
        """Blocks that the secondary held something else of."""

    # Waits.
    @property
    def waited_for(self) -> bool:
        """Whether anybody waits."""

    def add_wait(self, token: int, position: int) -> None:
        """Somebody waits until every write before a ring position is durable on the secondary."""

    def drop_wait(self, token: int) -> None:
        """Nobody waits under this token any more."""

    def note_sequence(self) -> None:
        """Records were taken in."""

    def waits_over(self) -> list[int]:
        """The waits whose condition holds, but for blocks that the secondary cannot get; ``drop_wait`` takes them away. Call it
        in the mode that follows a landing only, while nothing is tainted."""

    # Words.
    def waiting_for(self) -> str:
        """What keeps the landing from going on, in words; empty when nothing does."""

    def status(self, now: float, *, clean: bool) -> SnapshotStatus | None:
        """``clean``: no block is known to be out of sync."""
