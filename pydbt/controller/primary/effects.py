"""Carries out the effects of the brains: every class of ``core.primary.events.Effect`` in exactly one place."""

from __future__ import annotations

import logging
from typing import assert_never

from pydbt.controller.clocks import clock_offset_ns
from pydbt.controller.log_limit import LogLimit
from pydbt.controller.primary.inbox import Heard
from pydbt.controller.primary.mark_commands import answer_mark
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.used_blocks import UsedBlocksSearch
from pydbt.controller.primary.volume import AddressedEvent, Volume
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import DeviceError, PeerError
from pydbt.core.primary import events as ev
from pydbt.core.primary.mark_events import AnswerMark
from pydbt.core.primary.transaction_events import SendCompleted
from pydbt.core.protocol.completed import Completed
from pydbt.core.volume.fanout import Addressed

_log = logging.getLogger("pydbt")


class EffectRunner:
    """Called from the loop's thread alone."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._log_limit = LogLimit(_log)

    def carry_out(self, effects: list[Addressed]) -> list[AddressedEvent]:
        """Carry out effects in their order; the answers, which the brains hear before everything that waits."""
        answers: list[AddressedEvent] = []
        peers = self._volume.peers
        for number, effect in effects:
            try:
                answers += self._carry_out(number, effect)
            except PeerError as error:
                concerned = list(peers.values()) if number is None else [peers[number]]
                answers += [(peer.number, peer.fail(str(error))) for peer in concerned]
        return answers

    def _carry_out(self, number: int | None, effect: ev.Effect) -> list[AddressedEvent]:
        """PeerError: the connection of the secondary, or of all of them, is of no use any more."""
        volume = self._volume
        match effect:
            case ev.ReleasePayload(records=records):
                volume.capture.release(records)
            case ev.SetPayload(on=on):
                return self._set_payload(number, on)
            case ev.TakeQuiet(flip=flip):
                return self._take_quiet(flip)
            case ev.ZeroQuiet():
                volume.capture.zero_quiet()
            case ev.KeepAllGenerations():
                self._keep_generations(effect)
            case ev.AnswerWait(token=token, lacks=lacks, lost=lost):
                if lost:
                    why = f"no secondary will hold this transaction: {lost}; a wait without it ends when all writes are held"
                    volume.waits.give_up(token, DeviceError(why))
                elif lacks:
                    volume.waits.give_up(token, self._volume.lack_of(self._peer(number).number))
                else:
                    volume.waits.answer(token, min(brain.state.acknowledged for brain in volume.brains))
            case AnswerMark():
                answer_mark(volume, number, effect)
            case ev.Log():
                self._log_line(number, effect)
            case ev.Connect():
                self._peer(number).connection.connect()
            case ev.CloseConnection(reason=reason, farewell=farewell):
                self._peer(number).connection.disconnect(reason, farewell)
            case ev.SendFrame(frame=frame):
                self._peer(number).connection.send(frame)
            case ev.SendStream():
                self._peer(number).connection.send_stream(effect)
            case SendCompleted(after=after, rows=rows):
                self._peer(number).connection.send(Completed(after, clock_offset_ns(), rows))
            case ev.ReadBlocks():
                self._peer(number).blocks.submit(effect)
            case ev.SendDigests():
                self._send_digests(self._peer(number), effect)
            case ev.SendBlocks():
                self._send_blocks(self._peer(number), effect)
            case ev.SendSettled():
                self._send_settled(self._peer(number), effect)
            case ev.DropReading(reading=reading):
                self._peer(number).blocks.drop(reading)
            case ev.Flush() | ev.Hold() | ev.Release():
                self._peer(number).holder.ask(effect)
            case ev.Persist():
                answer = self._peer(number).maps.persist(effect)
                return [] if answer is None else [(number, answer)]
            case ev.KeepLeftOut():
                self._peer(number).maps.keep_left_out()
            case ev.ScanUsed(whole=whole):
                return self._scan(self._peer(number), whole)
            case ev.RememberReplica():
                self._peer(number).remember(effect)
            case ev.WriteDown():
                peer = self._peer(number)
                peer.write_down(effect)
                return [(number, event) for event in peer.written_down()]
            case ev.VerifyEnded():
                self._peer(number).verification.ended(effect)
            case _ as never:
                assert_never(never)
        return []

    def _peer(self, number: int | None) -> Peer:
        assert number is not None, "an effect of one secondary names none"
        return self._volume.peers[number]

    # --- effects of the volume ----------------------------------------------------------------------------
    def _set_payload(self, number: int | None, on: bool) -> list[AddressedEvent]:
        capture = self._volume.capture
        capture.set_payload(on)
        if not on:
            return []
        ahead = self._volume.catch_up()
        return [*ahead, (number, ev.PayloadArmed(capture.consumer_position()))]

    def _take_quiet(self, flip: bool) -> list[AddressedEvent]:
        capture = self._volume.capture
        if flip:
            self._volume.flip()
        ahead = self._volume.catch_up()
        return [*ahead, (None, ev.QuietTaken(capture.quiet_words(), capture.consumer_position(), flip))]

    def _keep_generations(self, effect: ev.KeepAllGenerations) -> None:
        """No secondary is told anything more before they are on the disk: no image may be handed over under a name that this
        side forgets in a crash."""
        number = self._volume.metadata.keep_generations(effect.generations)
        for peer in self._volume.peers.values():
            peer.connection.rest_on(number)

    def _log_line(self, number: int | None, effect: ev.Log) -> None:
        several = number is not None and len(self._volume.peers) > 1
        message = f"{self._peer(number).address}: {effect.message}" if several else effect.message
        self._log_limit.log(getattr(logging, effect.level.upper()), message)

    # --- effects of one secondary -------------------------------------------------------------------------
    def _send_digests(self, peer: Peer, effect: ev.SendDigests) -> None:
        peer.connection.send_digests(peer.blocks.reading(effect.reading), effect)

    def _send_blocks(self, peer: Peer, effect: ev.SendBlocks) -> None:
        frame = peer.blocks.reading(effect.reading).blocks(effect.batch, effect.wanted)
        peer.connection.send(frame, frame.payload_bytes)
        peer.blocks.drop(effect.reading)

    def _send_settled(self, peer: Peer, effect: ev.SendSettled) -> None:
        times = peer.connection.time_of_now()
        frame = peer.blocks.reading(effect.reading).settled(effect.sequence, effect.runs, times)
        peer.connection.send(frame, frame.payload_bytes)
        peer.blocks.drop(effect.reading)

    def _scan(self, peer: Peer, whole: bool) -> list[AddressedEvent]:
        """Everything is compared: no power loss from here on may make less of it. When that cannot be written down, it has no
        answer but the end of the connection."""
        peer.since = None
        volume, failed = self._volume, peer.connection.failing()

        def later(found: ev.UsedBlocks) -> None:
            volume.inbox.post(Heard(peer, found))

        def likely() -> Runs:
            watch = volume.transactions
            return Runs.none() if watch is None or is_new else watch.likely_changes(volume.geometry)

        is_new = peer.brain.state.replica.fresh  # nothing is compared
        used = UsedBlocksSearch(
            volume.device, volume.geometry, whole, later, likely, peer.forget_era, lambda error: failed(str(error))
        ).at_once()
        if used is None:
            return []
        peer.scanned_whole = used.whole
        return [(peer.number, used)]
