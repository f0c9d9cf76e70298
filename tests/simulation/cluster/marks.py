"""Marks in a world: who asked for them, and what must be true of each that was acknowledged, for ever.

In one of some worlds the secondaries keep times, marks and transactions; in all others they are of a version that knows none, so
that each of these worlds is what it would be without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pydbt.controller.primary.peer import Peer
from pydbt.controller.requests import Request
from pydbt.core.primary.events import Captured
from pydbt.core.protocol.completed import Completed
from pydbt.core.protocol.mark import NamedMark
from tests.simulation.cluster.disk import SECTOR
from tests.simulation.cluster.kernel import Era

if TYPE_CHECKING:
    from tests.simulation.cluster.secondary_node import SecondaryNode
    from tests.simulation.cluster.world import World

HISTORY_EVERY, HISTORY_AT = 10, 8
MOST_MARKS = 12
"""Fewer than a secondary keeps."""
HELD = "a mark that is acknowledged is held"
WHOLE = "an image has everything before a mark that is told without more words"
PLACE = "a mark has its exact place in the order of writes"


def has_history(seed: int) -> bool:
    """None of the first ones: several older mistakes are caught there, by worlds as they were."""
    return seed >= HISTORY_EVERY and seed % HISTORY_EVERY == HISTORY_AT


@dataclass(frozen=True, slots=True)
class Asked:
    """A mark that was asked for: of the writes by then, ``ended`` had completed, and ``submitted`` were submitted."""

    request: Request
    nodes: dict[int, Peer]
    put_backs: dict[int, int]
    era: Era
    ended: int
    submitted: int


@dataclass(frozen=True, slots=True)
class Exact:
    """The disk of the primary when a mark got its place, and the blocks in which a write was under way then."""

    disk: bytes
    busy: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Found:
    """A mark as it became durable on a secondary: the image at that place."""

    mark: NamedMark
    epoch: int
    image: bytes


class SimMarks:
    """Of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked: list[Asked] = []
        self._held: list[
            tuple[SecondaryNode, int, int, Era]
        ] = []  # the number of a mark, of put-backs then, and when it was
        self._exact: dict[int, Exact] = {}
        self._count = 0

    # --- asking -------------------------------------------------------------------------------------------
    def ask(self) -> None:
        """Set one, for all secondaries or for one of several."""
        world = self._world
        peers = world.primary.peers()
        if not peers or self._count >= MOST_MARKS:
            return
        words: dict[str, object] = {"patient": world.rng.random() < 0.5}
        if len(peers) > 1 and world.rng.random() < 0.3:
            node, _ = world.rng.choice(peers)
            peers = [(one, peer) for one, peer in peers if one is node]
            words["secondary"] = node.address
        self._count += 1
        for _ in range(world.rng.choice((0, 1, 3))):
            world.kernel.random_write()  # of which no controller has heard
        request = world.primary.ask("mark", name=f"mark {self._count}", **words)
        put_backs = {node.number: node.put_backs for node, _ in peers}
        nodes = {node.number: peer for node, peer in peers}
        self._asked.append(
            Asked(request, nodes, put_backs, world.kernel.era, world.kernel.completed, world.kernel.submitted)
        )

    def life_ended(self) -> None:
        """Nobody is answered any more."""
        self._asked.clear()

    def placed(self, number: int) -> None:
        """A brain gives this mark its place: everything that has ended, and was shown by now, is before it."""
        kernel, loop = self._world.kernel, self._world.primary.loop
        if number in self._exact or loop is None or None in kernel.ring:
            return
        busy = kernel.blocks_in_flight()
        unshown = [kernel.era.by_order[order] for order in kernel.unshown]
        for write in [record[1] for record in kernel.ring if record is not None] + unshown:
            kernel._mark(busy, write)
        for _, event in loop.volume.events:
            for record in event.records if isinstance(event, Captured) else ():
                sector, sectors = int(record["sector"]), int(record["sectors"])
                first, last = kernel._blocks(sector, max(sectors, 1))
                busy[first : last + 1] = True
        self._exact[number] = Exact(bytes(kernel.disk.current), busy)

    # --- looking ------------------------------------------------------------------------------------------
    def look(self) -> None:
        """Answers that came, and everything that was ever acknowledged."""
        for asked in [one for one in self._asked if one.request.done.is_set()]:
            self._asked.remove(asked)
            if asked.request.error is None:
                self._answered(asked)
        for node, number, put_backs, era in self._held:
            if node.put_backs == put_backs and node.engine is not None:
                keeper = node.engine.brain.keeper
                self._require(number in keeper.marks.numbers, node, number, "any more")
                told = next(one for one in keeper.marks.report(keeper.epoch) if int(one.number, 16) == number)
                image = self._world.primary.writes_at(keeper.epoch, keeper.sequence)
                if image is not None and image[0] is not era and not told.resynchronized:
                    raise self._violation(WHOLE, f"the primary lost power since mark {number} of {node.name}")

    def _answered(self, asked: Asked) -> None:
        world = self._world
        assert asked.request.result is not None
        number = int(asked.request.result["mark"]["number"], 16)
        places = set()
        for node, peer in world.primary.peers():
            there = asked.nodes.get(node.number) is peer and node.put_backs == asked.put_backs[node.number]
            if not there or node.noticed != node.put_backs:
                continue
            found = node.marks.get(number)
            self._require(found is not None, node, number, "although it was acknowledged")
            assert found is not None
            places.add(self._at_its_place(node, found, asked))
            copy = node.after_a_crash(power=True)
            self._require(number in copy.engine.brain.keeper.marks.numbers, node, number, "after a loss of power")
            self._held.append((node, number, node.put_backs, asked.era))
        if len(places - {None}) > 1:
            raise self._violation(PLACE, f"mark {number} is at writes {sorted(places)} of different secondaries")

    def _at_its_place(self, node: SecondaryNode, found: Found, asked: Asked) -> int | None:
        """The image there is the volume behind what had ended before it was asked for; the last write that is in it."""
        world = self._world
        at = world.primary.writes_at(found.epoch, found.mark.sequence)
        if at is None or at[0] is not asked.era:
            return None
        era, least, most = at
        if most < asked.submitted and not world.kernel.lost:
            raise self._violation(
                PLACE, f"the mark is behind write {most}, and {asked.submitted} were submitted before it"
            )
        if found.mark.uncertain_bytes:
            return least
        for sector in range(world.geometry.size_bytes // SECTOR):
            tag = found.image[sector * SECTOR : sector * SECTOR + 8]
            if tag not in era.legal(sector, least, most) and not world.unread[sector // world.geometry.block_sectors]:
                raise self._violation(PLACE, f"{node.name}, sector {sector} at write {least} to {most}")
        self._is_the_disk(node, found)
        return least

    def _is_the_disk(self, node: SecondaryNode, found: Found) -> None:
        exact, per_block = self._exact.get(found.mark.number), self._world.geometry.block_sectors
        if exact is None:
            return
        for sector in range(len(exact.disk) // SECTOR):
            here, there = (image[sector * SECTOR : (sector + 1) * SECTOR] for image in (exact.disk, found.image))
            block = sector // per_block
            if here != there and not exact.busy[block] and not self._world.unread[block]:
                raise self._violation(PLACE, f"{node.name}, sector {sector} is not what the disk had at the mark")

    def completed(self, node: SecondaryNode, told: Completed, epoch: int) -> None:
        """A transaction that is told for the history is whole in the image of its place."""
        world = self._world
        loop, kernel = world.primary.loop, world.kernel
        watch = None if loop is None else loop.volume.transactions
        for row in told.rows.tolist() if watch is not None else ():
            number, whole_from = row[0], row[2]
            at = world.primary.orders.get((epoch, whole_from))
            if number not in watch.places or at is None or at[0] is not kernel.era:
                continue
            if number in kernel.flying:
                raise self._violation("a transaction of the history is committed", f"write {number} is in flight")
            sector, sectors = watch.places[number]
            image = node.images.get((epoch, whole_from), node.image)
            for one in range(sector, sector + sectors):
                tag = bytes(image[one * SECTOR : one * SECTOR + 8])
                if tag not in at[0].legal(one, number, kernel.submitted):
                    raise self._violation("a transaction of the history is whole", f"write {number} on {node.name}")

    def _require(self, holds: bool, node: SecondaryNode, number: int, when: str) -> None:
        if not holds:
            raise self._violation(HELD, f"{node.name} does not hold mark {number} {when}")

    @staticmethod
    def _violation(promise: str, evidence: str) -> Exception:
        from tests.simulation.cluster.checkers import Violation

        return Violation(promise, evidence)
