"""What the primary remembers of one secondary: an entry of ``volume.json``, and what its own files are called."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from pydbt.core.protocol.generations import NO_GENERATIONS, Generations
from pydbt.store.map_file import MAP_FILE_NAME
from pydbt.store.peer_pin import PEER_FILE_NAME


class SyncPhase(StrEnum):
    """How far the replica has ever come.

    ``INITIAL``: never in sync. ``REPLICATING``: in sync once, so that the maps tell what differs.
    ``ASSUMED``: as ``REPLICATING``, on the operator's word alone (``--assume-in-sync``).
    """

    INITIAL = "initial"
    REPLICATING = "replicating"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class SecondaryRecord:
    """One secondary, as last written down.

    ``slot`` counts from 1 and names its files; ``address`` is where it listens. ``replica``, ``epoch`` and ``sequence`` are
    what it last called itself and its position; ``replica`` is empty before the first handshake; ``later_epochs`` are
    those of runs since; ``progress`` is the most that it told of the bytes that it ever got; ``unfinished``: blocks of a
    resynchronization that was not completed have left its map. ``taints`` are
    why its map may not tell all, each with ``reason`` and ``since``; ``verify`` is what verifications of it keep;
    ``compared_whole`` says that free space was copied or compared as well; ``generations`` are what the volume has been
    through, as this secondary is to be told.
    """

    slot: int
    address: str
    phase: SyncPhase = SyncPhase.INITIAL
    replica: str = ""
    epoch: int = 0
    sequence: int = 0
    later_epochs: list[int] = field(default_factory=list)
    progress: int = 0
    unfinished: bool = False
    taints: list[dict[str, str]] = field(default_factory=list)
    verify: dict[str, Any] | None = None
    compared_whole: bool = False
    generations: Generations = NO_GENERATIONS

    def __post_init__(self) -> None:
        if type(self.slot) is not int or self.slot < 1:
            raise ValueError("the slot of a secondary counts from 1")

    @property
    def map_name(self) -> str:
        """The file of its map of blocks out of sync."""
        return MAP_FILE_NAME if self.slot == 1 else f"dirty-{self.slot}.map"

    @property
    def intent_name(self) -> str:
        """The file with the era that is remembered for it, where the kernel keeps write-intent under the volume."""
        return "era.map" if self.slot == 1 else f"era-{self.slot}.map"

    @property
    def file_names(self) -> tuple[str, ...]:
        """All of its files."""
        return self.map_name, self.pin_name, self.intent_name

    @property
    def pin_name(self) -> str:
        """The file with the name that it has proved to be."""
        return PEER_FILE_NAME if self.slot == 1 else f"peer-{self.slot}"

    def to_values(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "generations": self.generations.to_values()}

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> SecondaryRecord:
        """ValueError, TypeError or KeyError say what is wrong with an entry."""
        if unknown := sorted(set(values) - {entry.name for entry in fields(cls)}):
            raise ValueError(f"a secondary has unknown entries: {', '.join(unknown)}")
        values = dict(values, phase=SyncPhase(values["phase"]))
        if "generations" in values:
            values["generations"] = Generations.from_values(values["generations"])
        return cls(**values)
