"""Which of two copies of a volume is newer, by the generations that each has had; as with DRBD's identifiers.

A generation is a line of content that one side alone goes on writing. It gets a name (a random u64, never 0) whenever
a side begins to write something that the other cannot have: the primary with its first write after the connection was lost, a
replica when it is promoted. ``verdict`` is the only place that compares the names of two sides. Names tell who may
overwrite whom. The maps tell which blocks have to be copied; ``tracked`` tells whether the maps can know all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import zip_longest

from pydbt.core.protocol.frame_checks import check_u64

BITMAP_LIMIT = 8
"""A name joins ``bitmap`` only if the connection fell between a COMMIT and its acknowledgement: rarely twice in a row."""
HISTORY_LIMIT = 400
"""A side that was away for more losses than this is taken for a stranger, and refused: never overwritten by mistake."""
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Generations:
    """The names of the generations that one side has had.

    ``current``: of its present content; 0 for a target that holds nothing. ``bitmap``: those from which its out-of-sync
    map counts, newest first, empty when both sides were the same last. ``history``: older ones, newest first.
    ``shared``: the other side may hold ``current`` too, so that a write without that side needs a new name.
    """

    current: int = 0
    bitmap: tuple[int, ...] = ()
    history: tuple[int, ...] = ()
    shared: bool = False

    def __post_init__(self) -> None:
        check_u64("current", self.current)
        if type(self.shared) is not bool or type(self.bitmap) is not tuple or type(self.history) is not tuple:
            raise ValueError("bitmap and history are lists of generations, shared is a truth value")
        if len(self.bitmap) > BITMAP_LIMIT or len(self.history) > HISTORY_LIMIT:
            raise ValueError(f"more than {BITMAP_LIMIT} and {HISTORY_LIMIT} generations")
        for name in self.past:
            check_u64("generation", name)
            if name == 0:
                raise ValueError("0 is no generation")
        if self.current == 0 and self.past:
            raise ValueError("a side that holds nothing has no past")

    @property
    def past(self) -> tuple[int, ...]:
        """Every earlier name, newest first."""
        return self.bitmap + self.history

    def offered(self) -> Generations:
        """Before a COMMIT goes out: from now on the other side may hold ``current``."""
        return replace(self, shared=True)

    def written_alone(self, name: int) -> Generations:
        """Before the first write that the other side cannot have. Nothing changes when ``current`` is ours alone."""
        if not self.shared:
            return self
        bitmap = (self.current, *self.bitmap)
        return _bounded(name, bitmap[:BITMAP_LIMIT], bitmap[BITMAP_LIMIT:] + self.history, shared=False)

    def renamed(self, name: int, *, followed: bool) -> Generations:
        """The volume took a new name on account of another secondary; this one may be at the old one if it was shared.

        ``followed``: it gets everything that is written under the new name, and is told that name.
        """
        if self.shared:
            return replace(self.written_alone(name), shared=followed)
        return _bounded(name, self.bitmap, (self.current, *self.history), shared=followed)

    def caught_up(self, name: int) -> Generations:
        """The volume has this name: one that takes no part in what is written has it too. What holds nothing has none."""
        return self.renamed(name, followed=False) if self.current not in (0, name) else self

    def in_sync(self) -> Generations:
        """The other side is known to hold ``current``."""
        return _bounded(self.current, (), self.past, shared=True)

    def to_values(self) -> dict[str, object]:
        """For JSON, where large numbers lose their low bits: names as 16 hexadecimal digits."""
        return {
            "current": _text(self.current),
            "bitmap": [_text(name) for name in self.bitmap],
            "history": [_text(name) for name in self.history],
            "shared": self.shared,
        }

    @classmethod
    def from_values(cls, values: object) -> Generations:
        """Raises ValueError unless ``values`` are exactly what ``to_values`` makes."""
        if not isinstance(values, dict) or values.keys() != {"current", "bitmap", "history", "shared"}:
            raise ValueError("generations have current, bitmap, history and shared")
        if type(values["bitmap"]) is not list or type(values["history"]) is not list:
            raise ValueError("bitmap and history are lists")
        return cls(
            _number(values["current"]),
            tuple(map(_number, values["bitmap"])),
            tuple(map(_number, values["history"])),
            values["shared"],
        )


NO_GENERATIONS = Generations()
"""Of what holds nothing yet."""


class Verdict(StrEnum):
    """The relation of a secondary's generations to those of the primary."""

    EMPTY = "empty"
    EQUAL = "equal"
    BEHIND = "behind"
    LONG_BEHIND = "long behind"
    NEWER = "newer"
    SPLIT_BRAIN = "split brain"
    UNRELATED = "unrelated"

    @property
    def allows_sync(self) -> bool:
        """Whether the primary may overwrite the secondary."""
        return self in (Verdict.EMPTY, Verdict.EQUAL, Verdict.BEHIND, Verdict.LONG_BEHIND)

    @property
    def tracked(self) -> bool:
        """Whether the primary's maps can hold all that differs."""
        return self in (Verdict.EQUAL, Verdict.BEHIND)


# One row per relation, the first that holds counts; p is the primary's Generations, s the secondary's.
TABLE = (
    ("the secondary holds nothing", lambda p, s: not s.current, Verdict.EMPTY),
    ("the primary holds nothing", lambda p, s: not p.current, Verdict.UNRELATED),
    ("both are in one generation", lambda p, s: p.current == s.current, Verdict.EQUAL),
    # Names are never used twice; each side in the other's past comes of restored state files. Nobody can tell.
    (
        "each is in the other's past",
        lambda p, s: s.current in p.past and p.current in s.past,
        Verdict.SPLIT_BRAIN,
    ),
    ("the secondary is where the map counts from", lambda p, s: s.current in p.bitmap, Verdict.BEHIND),
    ("the secondary is in the primary's past", lambda p, s: s.current in p.history, Verdict.LONG_BEHIND),
    ("the primary is in the secondary's past", lambda p, s: p.current in s.past, Verdict.NEWER),
    (
        "both went on from a common past",
        lambda p, s: bool({*p.past} & {*s.past}),
        Verdict.SPLIT_BRAIN,
    ),
    ("nothing in common", lambda p, s: True, Verdict.UNRELATED),
)  # fmt: skip


def lineage_of(views: Sequence[Generations]) -> Generations:
    """The generations of a volume for a secondary that it never had: every name that any other secondary was told.

    The views are of one volume and have its ``current``. Names that a secondary may still be at are the last to be forgotten.
    """
    bitmaps = [name for view in views for name in view.bitmap]
    histories = [
        name for names in zip_longest(*(view.history for view in views), fillvalue=0) for name in names if name
    ]
    return _bounded(views[0].current, (), tuple(dict.fromkeys(bitmaps + histories)), shared=False)


def verdict(primary: Generations, secondary: Generations) -> Verdict:
    """The first row of the table that holds for a primary and the secondary that it wants to overwrite."""
    return next(result for _, holds, result in TABLE if holds(primary, secondary))


def objection(primary: Generations, secondary: Generations) -> tuple[str, str] | None:
    """Why this primary may not overwrite that secondary: a code for programs, and a sentence."""
    found = verdict(primary, secondary)
    if found.allows_sync:
        return None
    match found:
        case Verdict.NEWER:
            return "newer", (
                "the secondary is newer: it was promoted, or this is an earlier state of the primary; make this "
                "side the secondary with 'controller demote', or give up what is there with 'controller invalidate' there"
            )
        case Verdict.SPLIT_BRAIN:
            return "split-brain", (
                "split brain: both sides were written since they were last the same; choose one whose "
                "changes are lost, 'controller demote' it if it is a primary, and 'controller invalidate' it"
            )
        case Verdict.UNRELATED:
            return "unrelated", (
                "both name the same volume and have no generation in common; if the secondary's content "
                "may be lost, 'controller invalidate' it"
            )
    return None


def generation_name(seed: int, count: int) -> int:
    """The ``count``-th name from a random ``seed``: SplitMix64 (Steele, Lea, Flood 2014), a permutation, so no two are equal."""
    z = (seed + (count + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) or 1


def first_generations(seed: int) -> Generations:
    """Of a volume that nobody else ever held."""
    return Generations(generation_name(seed, 0))


def _bounded(current: int, bitmap: tuple[int, ...], history: tuple[int, ...], *, shared: bool) -> Generations:
    return Generations(current, bitmap, history[:HISTORY_LIMIT], shared)


def _text(name: int) -> str:
    return f"{name:016x}"


def _number(text: object) -> int:
    if not isinstance(text, str) or len(text) != 16 or set(text) - set("0123456789abcdef"):
        raise ValueError("a generation has 16 hexadecimal digits")
    return int(text, 16)
