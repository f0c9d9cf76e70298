"""What must be true of a world at any moment. They look at both sides at once, and take part in nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pydbt.controller.primary_status import primary_status
from pydbt.core.generations import Verdict, verdict
from pydbt.core.modes import Mode, Phase
from pydbt.core.replica import ReplicaState
from pydbt.store.map_file import MAP_FILE_NAME
from pydbt.store.volume_state import load_state
from tests.simulation.cluster.disk import SECTOR

if TYPE_CHECKING:
    from tests.simulation.cluster.kernel import Era
    from tests.simulation.cluster.secondary_node import SecondaryNode
    from tests.simulation.cluster.world import World


MOMENT = "the replica is a moment of the primary"
NOTHING_LOST = "nothing acknowledged is lost"


class Violation(AssertionError):
    """A promise was broken; ``promise`` names it."""

    def __init__(self, promise: str, evidence: str) -> None:
        super().__init__(f"{promise}: {evidence}")
        self.promise = promise


def mask_of(world: World, extents: object) -> np.ndarray:
    mask = np.zeros(world.geometry.block_count, bool)
    mask[extents.blocks()] = True
    return mask


def differing(world: World) -> np.ndarray:
    """Blocks of the primary's disk that are not what the secondary will hold once its journal is applied."""
    unit = world.geometry.block_bytes
    ours = np.frombuffer(bytes(world.kernel.disk.current), np.uint8)
    theirs = np.frombuffer(bytes(world.secondary.shadow), np.uint8)[: len(ours)]
    sectors = (ours != theirs).reshape(-1, SECTOR).any(axis=1)
    padded = np.zeros(world.geometry.block_count * unit // SECTOR, bool)
    padded[: len(sectors)] = sectors
    return padded.reshape(-1, unit // SECTOR).any(axis=1)


def differs_is_out_of_sync(world: World) -> None:
    """*blocks that differ* is a part of *blocks known to be out of sync*, now and if the controller died now."""
    differs = differing(world) & ~world.kernel.blocks_in_flight()
    if not differs.any():
        return
    kernel, loop = world.kernel, world.primary.loop
    differs &= ~kernel.dirty() if kernel.attached else True
    if not differs.any():
        return
    unshown = np.zeros(len(differs), bool)
    for order in kernel.unshown:
        write = next(w for writes in kernel.era.by_sector for w in writes if w.order == order)
        kernel._mark(unshown, write)
    differs &= ~unshown
    if not differs.any():
        return
    if loop is not None and loop.brain.scanned:
        brain = loop.brain
        known = mask_of(world, brain.unsynchronized_map().extents()) | mask_of(world, brain.tracker.dirty.extents())
        known |= mask_of(world, brain.in_flight.extents())
        forgotten = np.flatnonzero(differs & ~known)
        if len(forgotten):
            raise Violation(
                "differs is out of sync", f"blocks {forgotten.tolist()} differ and nobody knows, in {brain.mode}/{brain.phase}"
            )
    if would_trust_the_map(world):
        on_disk = world.primary.map_on_disk()
        forgotten = np.flatnonzero(differs & ~on_disk)
        if len(forgotten):
            mode = "no controller" if loop is None else f"{loop.brain.mode}/{loop.brain.phase}"
            raise Violation(
                "a crash forgets nothing",
                f"blocks {forgotten.tolist()} differ, and the next controller would not know, in {mode}",
            )


def would_trust_the_map(world: World) -> bool:
    """Would a controller that starts now go by the map on disk, without looking at every block?"""
    primary = world.primary
    state = load_state(primary.state_dir)
    if state is None or not (primary.state_dir / MAP_FILE_NAME).exists():
        return False
    if world.kernel.attached and state.boot_id == primary.boot_id():
        return True
    return not world.kernel.attached and bool(state.clean) and state.clean == primary.marker(primary.device)


def status_is_true(world: World) -> None:
    """What the primary reports is never better than what is."""
    loop, kernel = world.primary.loop, world.kernel
    if loop is None or kernel.ring or loop._events or kernel.flying or kernel.unshown or not loop.brain.in_flight.empty:
        return
    if loop.brain.mode is not Mode.NORMAL or not differing(world).any():
        return
    status = primary_status(loop)
    if status["out_of_sync_bytes"] or status["unsettled_bytes"] or not loop.brain.scanned:
        return
    if status["mode"] == "normal":
        raise Violation("status is true", f"0 bytes out of sync, and blocks {np.flatnonzero(differing(world)).tolist()} differ")


def tags(content: bytes | bytearray, sector: int) -> bytes:
    return bytes(content[sector * SECTOR : sector * SECTOR + 8])


def torn(content: bytes | bytearray) -> list[int]:
    """Sectors that are not one tag all over."""
    words = np.frombuffer(bytes(content), "<u8").reshape(-1, SECTOR // 8)
    return np.flatnonzero((words != words[:, :1]).any(axis=1)).tolist()


def image_is_a_moment(world: World, node: SecondaryNode, why: str) -> None:
    """A replica at rest that calls itself consistent is the primary at its sequence, not before what was promised."""
    brain = node.engine.brain
    if brain.replica_state is ReplicaState.INCONSISTENT:
        return
    keeper = brain.keeper
    content, size = node.content.current, world.geometry.size_bytes
    found = world.primary.writes_at(keeper.epoch, keeper.sequence)
    if found is None:
        raise Violation(MOMENT, f"{why}: it says epoch {keeper.epoch}, sequence {keeper.sequence}")
    era, least, most = found
    broken = torn(content[:size])
    if broken:
        raise Violation(MOMENT, f"{why}: sectors {broken} are torn")
    for sector in range(size // SECTOR):
        tag = tags(content, sector)
        if tag not in era.legal(sector, least, most):
            raise Violation(MOMENT, told(why, era, sector, tag, least, most, keeper.sequence))
    floor_era, floor = world.floor
    if world.eras.index(era) < world.eras.index(floor_era) or (era is floor_era and most < floor):
        raise Violation(NOTHING_LOST, f"{why}: it is at write {most}, and {floor} was acknowledged")


def told(why: str, era: Era, sector: int, tag: bytes, least: int, most: int, sequence: int) -> str:
    legal = sorted(int.from_bytes(t, "little") for t in era.legal(sector, least, most))
    writes = [(w.order, w.ended_at_order, "failed" if w.failed else "") for w in era.by_sector[sector]][-8:]
    return (
        f"{why}: sector {sector} holds write {int.from_bytes(tag, 'little')} where {legal} would be right "
        f"at write {most} (sequence {sequence}); its writes (number, last when it ended): {writes}"
    )


def wait_was_kept(world: World, era: Era, ended: int) -> None:
    """A wait was answered: everything that had ended before it was asked is on the secondary."""
    if era is not world.kernel.era:
        return
    now = world.kernel.submitted
    for sector in range(world.geometry.size_bytes // SECTOR):
        tag = tags(world.secondary.shadow, sector)
        if tag not in era.legal(sector, now, now, ended):
            raise Violation("a wait is kept", told("after a wait", era, sector, tag, now, now, 0))


def generations_tell_of_writes(world: World) -> None:
    """Were the replica promoted now, a primary that holds what the replica lacks would find a split brain, no heir."""
    loop, kernel, engine = world.primary.loop, world.kernel, world.secondary.engine
    if engine is None or loop is None or kernel.ring or loop._events or kernel.flying or kernel.unshown or not kernel.attached:
        return
    if loop.brain.mode is Mode.NORMAL or loop.brain.phase is Phase.COMMITTING or loop.brain.lost != kernel.lost:
        return
    record = engine.brain.record
    if kernel.era is not world.eras[0] or not record.consistent or not record.generations.current:
        return
    # Blocks that only differ for a write that failed, or was torn by a power loss, count as written too.
    if differing(world).any():
        promoted = record.generations.written_alone(1)
        word = verdict(loop.state.generations, promoted)
        if word is not Verdict.SPLIT_BRAIN:
            raise Violation(
                "generations tell of writes",
                f"{word} for {loop.state.generations} and {promoted}, in {loop.brain.mode}/{loop.brain.phase}",
            )


def note_floor(world: World) -> None:
    """What the primary counts as acknowledged may never be lost again."""
    loop = world.primary.loop
    if loop is not None and loop.brain.mode is Mode.NORMAL:
        world.raise_floor(*world.primary.orders[(loop.brain.config.epoch, loop.brain.acknowledged)])


def all_is_one(world: World) -> None:
    """At the end, with no fault left: both sides are the same, and say so."""
    loop, node = world.primary.loop, world.secondary
    where = np.flatnonzero(differing(world)).tolist()
    if where:
        raise Violation("everything converges", f"blocks {where} differ at the end")
    if node.engine.brain.replica_state is not ReplicaState.UP_TO_DATE:
        raise Violation("everything converges", f"the secondary calls itself {node.engine.brain.replica_state}")
    status = primary_status(loop)
    if not loop.brain.taints and status["replica_state"] != "up-to-date":
        raise Violation("everything converges", f"the primary calls its replica {status['replica_state']}")
    copy = node.after_a_crash(power=True)
    if bytes(copy.content.current[: world.geometry.size_bytes]) != bytes(world.kernel.disk.current):
        raise Violation(NOTHING_LOST, "the secondary's disk is not the primary's after a loss of power at the end")
