"""Tells each secondary once per second how far the volume is, so that a promotion there can say what is lost."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

from pydbt.controller.clocks import passed_s
from pydbt.controller.primary.status import in_kernel_bytes, moment_of_age
from pydbt.controller.primary.volume import Volume
from pydbt.core.calendar import in_utc, time_of_ns
from pydbt.core.primary.named_transaction import NamedTransaction
from pydbt.core.primary.standing import RingMoment, is_followed, vouched_for
from pydbt.core.protocol.standing import STANDING, UNKNOWN_STANDING, Standing
from pydbt.core.protocol.transaction import TRANSACTIONS, Transaction


class Standings:
    """Called from the loop's thread alone."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._host = socket.gethostname()[:256]
        self._before: RingMoment | None = None
        self._told: dict[int, tuple[int, str]] = {}  # ordinal and name of a transaction, by secondary
        self._looked: dict[int, tuple[NamedTransaction | None, ...]] = {}  # its newest and held ones, by secondary

    def tell(self, now: float) -> None:
        """Tell them the latest moment of which it is known that every earlier write has its number."""
        self._looked.clear()
        self._told.clear()  # a secondary that has come back has not heard of the last one
        self.tell_transactions(now)
        volume, here = self._volume, self._here()
        in_kernel = in_kernel_bytes(volume)
        before = self._before or here
        self._before = here
        for peer in volume.peers.values():
            if STANDING not in peer.connection.features:
                continue
            brain = peer.brain
            taken_in = brain.state.position
            vouched = vouched_for(taken_in, here, before)
            shortage = brain.overview.shortage(brain.resync)
            lacks = shortage.behind_bytes(brain.mode, in_kernel)
            if lacks is None and UNKNOWN_STANDING not in peer.connection.features:
                lacks = volume.geometry.size_bytes  # an earlier version knows no other word for it
            peer.connection.send(
                Standing(
                    host=self._host,
                    source=volume.device.path,
                    moment=vouched.moment,
                    sequence=brain.state.sequence,
                    followed=is_followed(brain.mode, bool(brain.state.told_taints), taken_in, vouched),
                    behind_bytes=None if lacks is None else min(lacks, volume.geometry.size_bytes),
                )
            )

    def tell_transactions(self, now: float) -> None:
        """Tell them the newest transaction of the file system, if it is another one than before."""
        watch = self._volume.transactions
        if watch is None:
            return
        for peer in self._volume.peers.values():
            transactions = peer.brain.transactions
            here = transactions.newest, transactions.held
            if self._looked.get(peer.number) == here:
                continue
            self._looked[peer.number] = here
            one = transactions.tellable
            if (
                one is None
                or (one.name and watch.file_system is None)
                or one.submitted_at is None  # the frame has no word for an unknown time
                or self._told.get(peer.number) == (one.ordinal, one.name)
                or TRANSACTIONS not in peer.connection.features
            ):
                continue
            self._told[peer.number] = one.ordinal, one.name
            age_ms = round(1000 * max(0.0, passed_s(one.submitted_at, now)))
            committed = None if one.committed_ns is None else time_of_ns(one.committed_ns)
            words = committed or moment_of_age(one.submitted_at, now)
            peer.connection.send(Transaction(watch.file_system or "", one.name, words, age_ms, one.sequence))

    def _here(self) -> RingMoment:
        """The moment first: a write between the two lies before the position, and is not promised by the moment."""
        moment = in_utc(datetime.now(UTC))
        return RingMoment(moment, self._volume.capture.producer_position())
