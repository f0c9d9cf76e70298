"""One look at a world. Nothing moves while the checks look, so that what several of them ask for is found once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS, DirtyMap
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.status import PrimaryStatus
from pydbt.core.secondary.bad_blocks import BAD_BLOCK_BYTES
from pydbt.store.secondary_record import SecondaryRecord
from tests.simulation.cluster.disk import SECTOR

if TYPE_CHECKING:
    from pydbt.controller.primary.peer import Peer
    from tests.simulation.cluster.secondary_node import SecondaryNode
    from tests.simulation.cluster.world import World


class Sight:
    """Of one moment: as soon as anything in the world has moved, a new one is made. Nobody changes what it returns."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._differing: dict[int, np.ndarray] = {}
        self._unknown: dict[int, np.ndarray] = {}
        self._status: dict[int, PrimaryStatus] = {}

    @cached_property
    def peers(self) -> list[tuple[SecondaryNode, Peer]]:
        """Those that the running controller replicates to."""
        return self.world.primary.peers()

    @cached_property
    def records(self) -> list[SecondaryRecord]:
        """The secondaries that are written down."""
        return self.world.primary.records()

    @cached_property
    def is_quiet(self) -> bool:
        """Nothing is on its way from the disk to the brains."""
        loop, kernel = self.world.primary.loop, self.world.kernel
        return not (loop is None or kernel.ring or loop.volume.events or kernel.flying or kernel.unshown)

    @cached_property
    def is_settled(self) -> bool:
        """Nor does a brain know of anything in flight."""
        return self.is_quiet and all(peer.brain.state.in_flight.empty for _, peer in self.peers)

    def status(self, peer: Peer) -> PrimaryStatus:
        """What a brain tells at this moment."""
        if peer.number not in self._status:
            self._status[peer.number] = peer.brain.status(self.world.clock.now)
        return self._status[peer.number]

    def differing(self, node: SecondaryNode) -> np.ndarray:
        """Blocks of the primary's disk that are not what the secondary will hold once its journal is applied."""
        if node.number not in self._differing:
            self._differing[node.number] = differing(self.world, node, node.shadow)
        return self._differing[node.number]

    def unknown_to_the_kernel(self, node: SecondaryNode) -> np.ndarray:
        """Blocks that differ and of which neither the kernel's bitmaps nor a write in flight tell."""
        if node.number not in self._unknown:
            self._unknown[node.number] = self._without_what_the_kernel_knows(self.differing(node))
        return self._unknown[node.number]

    def _without_what_the_kernel_knows(self, differs: np.ndarray) -> np.ndarray:
        kernel = self.world.kernel
        if not differs.any():
            return differs
        differs = differs & ~kernel.blocks_in_flight()
        if kernel.attached:
            differs &= ~kernel.dirty()
        if kernel.unshown and differs.any():
            unshown = np.zeros(len(differs), bool)
            for order in kernel.unshown:
                kernel._mark(unshown, kernel.era.by_order[order])
            differs &= ~unshown
        return differs

    def mask_of_map(self, blocks: DirtyMap) -> np.ndarray:
        """One truth value for each block of the volume, which one small map has room for."""
        count, bits = self.world.geometry.block_count, blocks.chunk_bits(0)
        assert count <= CHUNK_BLOCKS, "a world is small"
        if bits is None:
            return np.zeros(count, bool)
        return np.unpackbits(np.frombuffer(bits, np.uint8), count=count, bitorder="little").view(bool)

    def mask_of(self, runs: Runs) -> np.ndarray:
        """The same."""
        mask = np.zeros(self.world.geometry.block_count, bool)
        for first, count in zip(runs.firsts.tolist(), runs.counts.tolist(), strict=True):
            mask[first : first + count] = True
        return mask


def differing(world: World, node: SecondaryNode, image: bytearray) -> np.ndarray:
    """Blocks of the primary's disk that are not those of an ``image`` of a secondary."""
    unit, blocks = world.geometry.block_bytes, world.geometry.block_count
    current = world.kernel.disk.current
    if image[: len(current)] == current:  # so it is at most moments
        return np.zeros(blocks, bool)
    ours = np.frombuffer(bytes(current), "<u8")
    theirs = np.frombuffer(bytes(image[: len(current)]), "<u8")
    sectors = np.zeros(blocks * unit // SECTOR, bool)
    sectors[: len(current) // SECTOR] = (ours != theirs).reshape(-1, SECTOR // 8).any(axis=1)
    for number in node.flaws.torn:  # what a disk has lost, and the secondary may still have to tell of
        begin = number * BAD_BLOCK_BYTES // SECTOR
        sectors[begin : begin + BAD_BLOCK_BYTES // SECTOR] = False
    return sectors.reshape(-1, unit // SECTOR).any(axis=1)
