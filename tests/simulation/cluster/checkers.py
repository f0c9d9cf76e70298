"""The checks that hold in a world at any moment. They look at both sides at once, and take part in nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pydbt.controller.primary.transaction_commands import ended_transactions
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.reported_state import reported_state
from pydbt.core.protocol.generations import Verdict, verdict
from pydbt.core.protocol.heartbeat import FRESH_S
from pydbt.core.secondary.replica import ReplicaState
from pydbt.core.secondary.status import OFFLINE
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from tests.simulation.cluster.disk import SECTOR
from tests.simulation.cluster.sight import Sight, differing

if TYPE_CHECKING:
    from pydbt.controller.primary.peer import Peer
    from tests.simulation.cluster.kernel import Era
    from tests.simulation.cluster.secondary_node import SecondaryNode
    from tests.simulation.cluster.world import World


MOMENT = "the replica is a moment of the primary"
NOTHING_LOST = "nothing acknowledged is lost"
ON_DISK = "what is told for the better is on the disk"


class Violation(AssertionError):
    """A promise was broken; ``promise`` names it."""

    def __init__(self, promise: str, evidence: str) -> None:
        super().__init__(f"{promise}: {evidence}")
        self.promise = promise


def differs_is_out_of_sync(sight: Sight) -> None:
    """Of each secondary: *blocks that differ* ⊆ *blocks known to be out of sync*, now and if the controller died now."""
    world = sight.world
    for node, peer in sight.peers:
        brain = peer.brain
        if not brain.state.replica.scanned or not world.primary.has_heard_of(node, peer):
            continue
        differs = sight.unknown_to_the_kernel(node)
        if differs.any():
            in_flight = sight.mask_of(brain.state.in_flight.extents())
            known = sight.mask_of_map(brain.out_of_sync_map()) | in_flight
            forgotten = np.flatnonzero(differs & ~known)
            if len(forgotten):
                raise Violation(
                    "differs is out of sync",
                    f"blocks {forgotten.tolist()} of {node.name} differ and nobody knows, in {brain.mode}/{brain.phase}",
                )
            what_is_only_on_its_way_is_no_more_than_that(sight, node, peer, differs & ~in_flight)
    # Of one that was put back, and of which no primary could know yet, only what is written down would tell.
    known = [node for node in world.secondaries if node.noticed == node.put_backs]
    differ = {node.address: differs for node in known if (differs := sight.unknown_to_the_kernel(node)).any()}
    if differ:
        a_crash_forgets_nothing(sight, differ)


def what_is_only_on_its_way_is_no_more_than_that(
    sight: Sight, node: SecondaryNode, peer: Peer, differs: np.ndarray
) -> None:
    """*Blocks that differ, and for another reason than that their updates are on the way* ≤ out of sync − unacknowledged.

    ``differs``: without those to which a write is in flight.
    """
    brain = peer.brain
    tracker, status = brain.state.tracker, sight.status(peer)
    sent = sight.mask_of_map(tracker.dirty) & ~sight.mask_of_map(tracker.pending)
    otherwise = int((differs & ~sent).sum())
    told = -(-(status.out_of_sync_bytes - status.on_the_way_bytes) // sight.world.kernel.geometry.block_bytes)
    if otherwise > told:
        raise Violation(
            "what is only on its way is no more than that",
            f"{otherwise} blocks of {node.name} differ for another reason, and {told} are told, in {brain.mode}/{brain.phase}",
        )


def a_crash_forgets_nothing(sight: Sight, differ: dict[str, np.ndarray]) -> None:
    world = sight.world
    for record in sight.records:
        if record.address in differ and would_trust_the_map(world, record):
            forgotten = np.flatnonzero(differ[record.address] & ~world.primary.map_on_disk(record))
            if len(forgotten):
                raise Violation(
                    "a crash forgets nothing",
                    f"blocks {forgotten.tolist()} of {record.address} differ, and the next controller would not know, in "
                    f"{words_of(world)}",
                )


def what_was_written_is_not_left_out(world: World) -> None:
    """When a controller has died: a block that was written counts for the next one, or the map or the kernel names it.

    A write that is still on its way tells by its end: it sets bits where programs are attached, and else the disk counts it.
    """
    primary = world.primary
    for record in primary.records():
        left_out = primary.left_out_on_disk(record)
        if left_out is None or not would_trust_the_map(world, record):
            continue
        known = primary.map_on_disk(record) | world.kernel.dirty() | world.kernel.blocks_in_flight()
        wrong = np.flatnonzero(left_out & world.kernel.written_whole & ~known)
        if len(wrong):
            raise Violation(
                "what was written is not left out",
                f"blocks {wrong.tolist()} were written, and a difference of {record.address} in them would not count",
            )


def words_of(world: World) -> str:
    """Where every brain stands."""
    peers = [f"{node.name} {peer.brain.mode}/{peer.brain.phase}" for node, peer in world.primary.peers()]
    return ", ".join(peers) or "no controller"


def would_trust_the_map(world: World, record: SecondaryRecord) -> bool:
    """Would a controller that starts now go by the map on disk, without looking at every block?"""
    primary = world.primary
    state = primary.state()
    if not (primary.state_dir / record.map_name).exists() or would_be_noticed(world, record):
        return False
    if world.kernel.attached and state.boot_id == primary.boot_id():
        return True
    return not world.kernel.attached and bool(state.clean) and primary.is_untouched(state.clean, primary.device, None)


def would_be_noticed(world: World, record: SecondaryRecord) -> bool:
    """Does what is written down tell the next controller that this secondary was put back?"""
    node = world.primary.node_at(record.address)
    return node.progress is not None and node.progress < record.progress


def status_is_true(sight: Sight) -> None:
    """What the primary reports is never better than what is, of each secondary and of the volume."""
    if not sight.is_settled:
        return
    world, status = sight.world, None
    for node, peer in sight.peers:
        # Before the blocks in use are on the map it is about what is not known, and afterwards about what is counted.
        if peer.brain.mode is not Mode.NORMAL and peer.brain.state.replica.scanned:
            continue
        if not sight.differing(node).any() or not world.primary.has_heard_of(node, peer):
            continue
        status = status or world.primary.loop.report().to_json()
        own = next(entry for entry in status["secondaries"] if entry["secondary"] == node.address)
        for words in (own, status):
            if words["out_of_sync_bytes"] == 0 and not words["unsettled_bytes"]:
                where = np.flatnonzero(sight.differing(node)).tolist()
                raise Violation("status is true", f"0 bytes out of sync, and blocks {where} of {node.name} differ")


def transactions_are_true(sight: Sight) -> None:
    """One that is told to be committed has completed on the disk; one that is told to be held is on the secondary."""
    world = sight.world
    loop, kernel = world.primary.loop, world.kernel
    watch = None if loop is None else loop.volume.transactions
    if watch is None:
        return
    for node, peer in sight.peers:
        told, epoch = peer.brain.transactions.status(), peer.brain.config.epoch
        for one in (told.newest, told.held):
            if one is None or world.primary.orders[(epoch, one.sequence)][0] is not kernel.era:
                continue
            if one.number in kernel.flying:
                raise Violation("a transaction that is told is committed", f"write {one.number} is in flight")
        if node.noticed == node.put_backs and node.engine is not None and told.held is not None:
            _is_there(world, node, watch.places[told.held.number], epoch, told.held.sequence, told.held.number)
    _listed_are_true(world, sight)
    for node in world.secondaries:
        if node.engine is None or node.noticed != node.put_backs:
            continue
        brain = node.engine.brain
        report = brain.watch.transactions.report(world.clock.now, consistent=brain.record.consistent)
        if (one := report.transaction) is not None and int(one.name) in watch.places:
            _is_there(world, node, watch.places[int(one.name)], int(one.epoch, 16), one.sequence, int(one.name))


def _listed_are_true(world: World, sight: Sight) -> None:
    """What ``controller transactions`` lists as committed has ended well, and as done is on every secondary too."""
    volume, kernel, promise = world.primary.loop.volume, world.kernel, "a listed transaction is what it is told to be"
    told = [(brain.transactions.newest, brain.transactions.held) for brain in volume.brains]
    if not volume.transactions.recent() or told == world.listed:
        return
    world.listed = told
    for entry in ended_transactions(volume, 0)["transactions"]:
        number = entry["ordinal"]
        if entry["state"] not in ("committed", "done"):
            continue
        write = kernel.era.by_order[number]
        if write.failed or number in kernel.flying:
            raise Violation(promise, f"write {number}, which failed or is in flight, is {entry['state']}")
        for node, _ in sight.peers if entry["state"] == "done" else ():
            if node.noticed != node.put_backs or node.engine is None:
                continue
            for sector in range(write.sector, write.sector + write.sectors):
                tag = tags(node.shadow, sector)
                if tag not in kernel.era.legal(sector, number, kernel.submitted):
                    raise Violation(promise, told_words(node.name, kernel.era, sector, tag, number, kernel.submitted))


def _is_there(
    world: World, node: SecondaryNode, place: tuple[int, int], epoch: int, sequence: int, number: int
) -> None:
    """The write that is a transaction, or a later one to the same sectors, is on the secondary."""
    found = world.primary.orders.get((epoch, sequence))
    if found is None or found[0] is not world.kernel.era:
        return
    era, _ = found
    for sector in range(place[0], sum(place)):
        tag = tags(node.shadow, sector)
        if tag not in era.legal(sector, number, world.kernel.submitted):
            evidence = told_words(node.name, era, sector, tag, number, world.kernel.submitted)
            raise Violation("a transaction that is told is held", evidence)


def told_words(name: str, era: Era, sector: int, tag: bytes, least: int, most: int) -> str:
    return told(f"{name}, transaction {least}", era, sector, tag, least, most, 0)


def up_to_date_is_answered_for(sight: Sight) -> None:
    """While nothing arrives, no side calls a replica up to date that lacks a write which is older than a heartbeat."""
    world = sight.world
    now = world.clock.now
    for node, peer in sight.peers:
        heard = [now - at <= FRESH_S for at in (node.link.delivered_at[1], node.link.delivered_at[0])]
        if not world.primary.has_heard_of(node, peer):
            continue  # put back since it last answered: what it had acknowledged is gone, and nobody can know that before
        if all(heard) or not sight.is_quiet or not sight.differing(node).any():
            continue
        if not heard[0] and peer.brain.state.in_flight.empty and peer.brain.mode is Mode.NORMAL:
            status = sight.status(peer)
            if reported_state(status, 0.0, status.out_of_sync_bytes) == "up-to-date":
                raise Violation(
                    "up to date is answered for", f"{node.name} is cut off, and the primary calls it up to date"
                )
        theirs = None if heard[1] or node.engine is None else node.engine.brain.status(now).replica_state
        if theirs is ReplicaState.UP_TO_DATE:
            raise Violation("up to date is answered for", f"{node.name} is cut off, and calls itself up to date")


def up_to_date_is_of_now(sight: Sight) -> None:
    """A secondary that calls itself up to date has all that was captured a heartbeat ago, however slow the link is."""
    now = sight.world.clock.now
    for node, peer in sight.peers:
        brain, before = peer.brain, node.captured
        if brain.mode is Mode.NORMAL:
            before.append((now, brain.config.epoch, brain.state.sequence))
        while len(before) > 1 and before[1][0] <= now - FRESH_S:
            before.popleft()
        if not before or before[0][0] > now - FRESH_S or node.engine is None:
            continue
        _, epoch, sequence = before[0]
        told = node.engine.brain.status(now)
        if told.replica_state is not ReplicaState.UP_TO_DATE or told.epoch != epoch or told.mode == OFFLINE:
            continue
        if told.sequence < sequence:
            raise Violation(
                "up to date is of now", f"{node.name} has {told.sequence:,} of {sequence:,} that are {FRESH_S:g} s old"
            )


def what_is_told_is_on_the_disk(sight: Sight) -> None:
    """A taint that the next controller would find is not called answered, nor a replica up to date that is a new one for it."""
    written = {record.slot: record for record in sight.records}
    for node, peer in sight.peers:
        record = written.get(peer.number)
        if record is None or (not record.taints and record.phase is not SyncPhase.INITIAL):
            continue
        status = sight.status(peer)
        if forgotten := {entry["reason"] for entry in record.taints} - set(status.taints):
            raise Violation(ON_DISK, f"{node.name} is called compared, and the next controller finds {forgotten}")
        is_new = record.phase is SyncPhase.INITIAL
        if is_new and reported_state(status, 0.0, status.out_of_sync_bytes) == "up-to-date":
            raise Violation(ON_DISK, f"{node.name} is called up to date, and a new replica by what is written down")


def staged_is_out_of_sync(sight: Sight) -> None:
    """What a promotion would roll back is counted, in whatever mode."""
    if not sight.is_settled:
        return
    world = sight.world
    for node, peer in sight.peers:
        brain = peer.brain
        if node.engine is None or not brain.state.staged.any() or not brain.link.up or node.noticed != node.put_backs:
            continue
        record = node.engine.brain.record
        if not record.consistent or not world.primary.has_heard_of(node, peer) or brain.state.taints:
            continue
        differs = int(differing(world, node, node.image).sum()) * world.geometry.block_bytes
        counted = brain.out_of_sync_bytes() + int(world.kernel.dirty().sum()) * world.geometry.block_bytes
        if min(differs, world.geometry.size_bytes) > counted:
            raise Violation(
                "what is staged is out of sync",
                f"{differs} bytes of the image that {node.name} would go back to differ, and {counted} are counted",
            )


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
        # A block that could not be read is left out of an image, which is told in the status.
        if tag not in era.legal(sector, least, most) and not world.unread[sector // world.geometry.block_sectors]:
            raise Violation(MOMENT, told(why, era, sector, tag, least, most, keeper.sequence))
    floor_era, floor = world.floors[node.number]
    if world.eras.index(era) < world.eras.index(floor_era) or (era is floor_era and most < floor):
        raise Violation(NOTHING_LOST, f"{why}: it is at write {most}, and {floor} was acknowledged")


def told(why: str, era: Era, sector: int, tag: bytes, least: int, most: int, sequence: int) -> str:
    legal = sorted(int.from_bytes(t, "little") for t in era.legal(sector, least, most))
    writes = [(w.order, w.ended_at_order, "failed" if w.failed else "") for w in era.by_sector[sector]][-8:]
    return (
        f"{why}: sector {sector} holds write {int.from_bytes(tag, 'little')} where {legal} would be right "
        f"at write {most} (sequence {sequence}); its writes (number, last when it ended): {writes}"
    )


def wait_was_kept(world: World, nodes: list[SecondaryNode], era: Era, ended: int) -> None:
    """A wait was answered: everything that had ended before it was asked is on each of these secondaries."""
    if era is not world.kernel.era:
        return
    now = world.kernel.submitted
    for node in nodes:
        if node.noticed != node.put_backs:
            continue
        for sector in range(world.geometry.size_bytes // SECTOR):
            tag = tags(node.shadow, sector)
            if tag not in era.legal(sector, now, now, ended):
                raise Violation("a wait is kept", told(f"after a wait for {node.name}", era, sector, tag, now, now, 0))


def generations_tell_of_writes(sight: Sight) -> None:
    """Were a replica promoted now, a primary that holds what the replica lacks would find a split brain, no heir.

    Also one that was removed: nobody tells it anything any more.
    """
    world = sight.world
    loop, kernel = world.primary.loop, world.kernel
    if not sight.is_quiet or not kernel.attached or kernel.era is not world.eras[0]:
        return
    peers = {node.number: peer for node, peer in sight.peers}
    if any(peer.brain.state.lost != kernel.lost for peer in peers.values()):
        return
    for node in world.secondaries:
        peer = peers.get(node.number)
        if node.engine is None or (peer is not None and peer.brain.ancestry.followed) or node.noticed != node.put_backs:
            continue
        record = node.engine.brain.record
        # Blocks that only differ for a write that failed, or was torn by a power loss, count as written too.
        if record.consistent and record.generations.current and sight.differing(node).any():
            ours = loop.volume.metadata.state.generations if peer is None else peer.record.generations
            promoted = record.generations.written_alone(1)
            word = verdict(ours, promoted)
            if word is not Verdict.SPLIT_BRAIN:
                evidence = f"{word} for {ours} and {promoted} of {node.name}; {words_of(world)}"
                raise Violation("generations tell of writes", evidence)


def note_floor(sight: Sight) -> None:
    """What the primary counts as acknowledged may never be lost again."""
    world = sight.world
    for node, peer in sight.peers:
        if peer.brain.mode is Mode.NORMAL and world.primary.has_heard_of(node, peer):
            world.raise_floor(node, *world.primary.orders[(peer.brain.config.epoch, peer.brain.state.acknowledged)])


def nobody_is_held_back(sight: Sight) -> None:
    """Room for data that all have passed is given back, and no bitmap waits for nobody."""
    world = sight.world
    loop = world.primary.loop
    if sight.is_quiet and not any(peer.brain.state.queue.unsent_bytes for _, peer in sight.peers):
        if world.kernel.data_used:
            raise Violation(
                "nobody is held back", f"{world.kernel.data_used} bytes of data are kept, and nobody needs them"
            )
        assert loop.volume.peers


def all_is_one(world: World) -> None:
    """At the end, with no fault left: all sides are the same, report that, and would follow whichever of them is promoted."""
    sight = Sight(world)
    peers = sight.peers
    status = world.primary.loop.report().to_json()
    for node, peer in peers:
        where = np.flatnonzero(sight.differing(node)).tolist()
        if where:
            raise Violation("everything converges", f"blocks {where} of {node.name} differ at the end")
        if node.engine.brain.replica_state is not ReplicaState.UP_TO_DATE:
            raise Violation("everything converges", f"{node.name} calls itself {node.engine.brain.replica_state}")
        own = next(entry for entry in status["secondaries"] if entry["secondary"] == node.address)
        if not peer.brain.state.told_taints and own["replica_state"] != "up-to-date":
            raise Violation("everything converges", f"the primary calls {node.name} {own['replica_state']}")
        copy = node.after_a_crash(power=True)
        if bytes(copy.content.current[: world.geometry.size_bytes]) != bytes(world.kernel.disk.current):
            raise Violation(
                NOTHING_LOST, f"the disk of {node.name} is not the primary's after a loss of power at the end"
            )
    if status["mode"] != "normal" or (not status["tainted"] and status["replica_state"] != "up-to-date"):
        raise Violation("everything converges", f"the volume is called {status['mode']}, {status['replica_state']}")
    nobody_is_held_back(sight)
    for node, _ in peers:
        heir = node.engine.brain.record.generations.written_alone(1)
        for other, _ in peers:
            word = verdict(heir, other.engine.brain.record.generations)
            if other is not node and not word.allows_sync:
                raise Violation("whoever is promoted is followed", f"{other.name} would find {node.name} {word}")
