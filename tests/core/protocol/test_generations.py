"""Two histories tell who may overwrite whom: against a model that knows who wrote what."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.protocol.generations import (
    BITMAP_LIMIT,
    HISTORY_LIMIT,
    TABLE,
    Generations,
    Verdict,
    generation_name,
    lineage_of,
    objection,
    verdict,
)


@dataclass
class Side:
    """A copy: the set of writes it holds, and the generations it remembers."""

    content: frozenset[int] = frozenset()
    generations: Generations = field(default_factory=Generations)


class World:
    """Two copies of one volume: connections that break anywhere, commits whose word is lost, promotions."""

    def __init__(self) -> None:
        self.count = 0
        self.primary, self.replica = Side(generations=Generations(self.name())), Side()
        self.connected = False
        self.backups: list[Side] = []  # earlier states of this replica, as a restored state directory would bring back

    def name(self) -> int:
        self.count += 1
        return generation_name(1, self.count)

    def cut(self) -> None:
        self.connected = False

    def write(self) -> None:
        self.count += 1
        self.primary.content |= {self.count}
        if self.connected:
            self.replica.content |= {self.count}
        else:
            self.primary.generations = self.primary.generations.written_alone(self.name())

    def write_replica(self) -> None:
        """The replica has been promoted and is written while the old primary may be written too."""
        self.connected, self.backups = False, []
        self.replica.generations = self.replica.generations.written_alone(self.name())
        self.count += 1
        self.replica.content |= {self.count}

    def commit(self, told: bool) -> None:
        """A resync ends; its acknowledgement may be lost with the connection."""
        if not verdict(self.primary.generations, self.replica.generations).allows_sync:
            return
        self.primary.generations = self.primary.generations.offered()
        self.replica = Side(self.primary.content, self.primary.generations.in_sync())
        self.backups.append(Side(self.replica.content, self.replica.generations))
        self.connected = told
        if told:
            self.primary.generations = self.primary.generations.in_sync()

    def swap(self) -> None:
        """The roles change: promote on one side, demote on the other."""
        self.connected, self.backups = False, []
        if self.replica.generations.current:
            self.replica.generations = self.replica.generations.written_alone(self.name())
            self.primary, self.replica = self.replica, self.primary

    def check(self) -> None:
        mine, theirs = self.primary.content, self.replica.content
        word = verdict(self.primary.generations, self.replica.generations)
        if theirs - mine:  # overwriting would lose writes
            assert not word.allows_sync, (word, self.primary, self.replica)
        if (theirs - mine) and (mine - theirs):
            assert word is Verdict.SPLIT_BRAIN, (word, self.primary, self.replica)
        if word is Verdict.NEWER:
            assert mine <= theirs
        assert word is not Verdict.UNRELATED
        for backup in self.backups:
            assert backup.content <= mine
            assert verdict(self.primary.generations, backup.generations).allows_sync, (
                "an earlier replica is no stranger"
            )


STEPS = st.lists(
    st.sampled_from(["cut", "write", "write_replica", "commit", "commit untold", "swap"]), max_size=3 * BITMAP_LIMIT
)


@given(STEPS)
def test_a_side_that_holds_writes_of_its_own_is_never_overwritten(steps):
    world = World()
    for step in steps:
        match step:
            case "commit":
                world.commit(told=True)
            case "commit untold":
                world.commit(told=False)
            case "write_replica":
                if world.replica.generations.current:
                    world.write_replica()
            case _:
                getattr(world, step)()
        world.check()


class ThreeParties:
    """A primary with two secondaries: each comes and goes by itself; any may be promoted, and finds the others or their heirs.

    As the fan-out does it: the primary keeps a view for each, all with one ``current``; a new name that one makes
    necessary is told to those that follow before the write that made it so.
    """

    def __init__(self) -> None:
        self.count = 0
        name = self.name()
        self.content: frozenset[int] = frozenset()
        self.views = [Generations(name), Generations(name)]
        self.sides = [Side(), Side()]
        self.follows = [False, False]

    def name(self) -> int:
        self.count += 1
        return generation_name(3, self.count)

    def commit(self, number: int, told: bool) -> None:
        if not verdict(self.views[number], self.sides[number].generations).allows_sync:
            return
        self.views[number] = self.views[number].offered()
        self.sides[number] = Side(self.content, self.views[number].in_sync())
        self.follows[number] = told
        if told:
            self.views[number] = self.views[number].in_sync()

    def write(self, heard: bool) -> None:
        """``heard``: those that follow get the write; else their connections fall when it was on its way."""
        self.rename()
        self.count += 1
        self.content |= {self.count}
        for number, follows in enumerate(self.follows):
            if follows and heard:
                self.sides[number].content |= {self.count}
        if not heard:
            self.follows = [False, False]
            self.rename()

    def rename(self) -> None:
        """If somebody who may be at this name does not follow. Those that do are told."""
        if any(view.shared and not follows for view, follows in zip(self.views, self.follows, strict=True)):
            name = self.name()
            for number, follows in enumerate(self.follows):
                self.views[number] = self.views[number].renamed(name, followed=follows)
                if follows:
                    self.sides[number].generations = self.views[number].in_sync()

    def remove(self, number: int) -> None:
        """It is given up, and added again as one that the volume never had."""
        self.follows[number] = False
        self.rename()
        self.views[number] = lineage_of(self.views)

    def check(self) -> None:
        assert self.views[0].current == self.views[1].current
        for number, side in enumerate(self.sides):
            assert verdict(self.views[number], side.generations).allows_sync, "its own secondary is no stranger"
            if not side.generations.current:
                continue
            heir = side.generations.written_alone(self.name())
            if self.content - side.content and not self.follows[number]:
                word = verdict(self.views[number], heir)
                assert word is Verdict.SPLIT_BRAIN, (word, self.views[number], heir)
            other = self.sides[1 - number]
            word = verdict(heir, other.generations)
            # Who of two that followed is further is not in their names, and a person's to know who promotes one of them.
            if not other.generations.current or other.generations.current in heir.past:
                assert word.allows_sync, "after a failover the other secondary follows"


PARTY_STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["commit", "commit untold", "cut", "remove"]), st.integers(0, 1)),
        st.tuples(st.sampled_from(["write", "write unheard"]), st.just(0)),
    ),
    max_size=40,
)


@given(PARTY_STEPS)
def test_with_two_secondaries_nobody_with_writes_of_its_own_is_overwritten_and_nobody_becomes_a_stranger(steps):
    world = ThreeParties()
    for step, number in steps:
        match step:
            case "commit" | "commit untold":
                world.commit(number, told=step == "commit")
            case "cut":
                world.follows[number] = False
            case "remove":
                world.remove(number)
            case _:
                world.write(heard=step == "write")
        world.check()


def test_a_secondary_that_was_away_while_the_other_flapped_is_behind_and_no_stranger():
    world = ThreeParties()
    world.commit(0, told=True)
    world.commit(1, told=True)
    for _ in range(3 * HISTORY_LIMIT):
        world.follows = [False, False]
        world.write(heard=True)
        world.commit(1, told=True)
    assert verdict(world.views[0], world.sides[0].generations) is Verdict.BEHIND
    assert verdict(lineage_of(world.views), world.sides[0].generations) is Verdict.LONG_BEHIND


def test_a_lineage_remembers_first_where_a_secondary_may_still_be():
    long = tuple(range(100, 100 + HISTORY_LIMIT))
    lineage = lineage_of([Generations(9, (8,), long, shared=True), Generations(9, (3, 2), (7,))])
    assert lineage.past[:5] == (8, 3, 2, 100, 7) and len(lineage.history) == HISTORY_LIMIT and not lineage.shared


A, B, C, D = 1, 2, 3, 4
PAIRS = [
    (Generations(A), Generations(), Verdict.EMPTY),
    (Generations(), Generations(), Verdict.EMPTY),
    (Generations(), Generations(A), Verdict.UNRELATED),
    (Generations(A, shared=True), Generations(A, shared=True), Verdict.EQUAL),
    (Generations(B, (A,)), Generations(A), Verdict.BEHIND),
    (Generations(C, (B, A)), Generations(A), Verdict.BEHIND),
    (Generations(C, (B,), (A,)), Generations(A), Verdict.LONG_BEHIND),
    (Generations(A), Generations(B, (A,)), Verdict.NEWER),
    (Generations(A), Generations(C, (B,), (A,)), Verdict.NEWER),
    (Generations(C, (A,)), Generations(B, (A,)), Verdict.SPLIT_BRAIN),
    (Generations(D, (C,), (A,)), Generations(B, (A,)), Verdict.SPLIT_BRAIN),
    (Generations(B, (A,)), Generations(A, (B,)), Verdict.SPLIT_BRAIN),
    (Generations(B, (A,)), Generations(D, (C,)), Verdict.UNRELATED),
]


@pytest.mark.parametrize(("primary", "secondary", "expected"), PAIRS)
def test_every_pairing_has_its_verdict(primary, secondary, expected):
    assert verdict(primary, secondary) is expected
    refused = objection(primary, secondary)
    assert (refused is None) is expected.allows_sync
    if refused is not None:
        assert refused[1] and "\n" not in refused[1]
        assert not re.search("[0-9a-f]{16}", refused[1]), "names of generations are for status --json"


def test_no_row_of_the_table_is_idle():
    met = {next(words for words, holds, _ in TABLE if holds(primary, secondary)) for primary, secondary, _ in PAIRS}
    assert met == {words for words, _, _ in TABLE}


def test_only_the_first_write_alone_makes_a_new_generation():
    shared = Generations(A, shared=True)
    alone = shared.written_alone(B)
    assert alone == Generations(B, (A,))
    assert alone.written_alone(C) is alone
    assert alone.in_sync() == Generations(B, (), (A,), shared=True)


def test_the_remembered_generations_are_bounded():
    generations = Generations(generation_name(7, 0), shared=True)
    for count in range(1, 2 * HISTORY_LIMIT):
        generations = generations.written_alone(generation_name(7, count)).offered()
    assert (len(generations.bitmap), len(generations.history)) == (BITMAP_LIMIT, HISTORY_LIMIT)


@given(
    st.builds(Generations, st.integers(1, 2**64 - 1), st.tuples(st.integers(1, 2**64 - 1)), st.just(()), st.booleans())
)
def test_generations_come_back_from_json_as_they_were(generations):
    assert Generations.from_values(generations.to_values()) == generations


@pytest.mark.parametrize(
    "values",
    [None, {}, {"current": 1, "bitmap": [], "history": [], "shared": True}, {**Generations(A).to_values(), "shared": 1},
     {**Generations(A).to_values(), "bitmap": ["0" * 16]}, {**Generations(A).to_values(), "more": 1},
     {**Generations(A).to_values(), "history": ["1" * 16] * (HISTORY_LIMIT + 1)},
     {**Generations().to_values(), "bitmap": ["1" * 16]}],
)  # fmt: skip
def test_anything_else_is_no_history(values):
    with pytest.raises(ValueError):
        Generations.from_values(values)
