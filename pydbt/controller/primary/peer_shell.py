"""One secondary, as the primary's loop has it: its connection, what is queued for it, and the blocks read for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary.block_reader import BlockReader
from pydbt.controller.primary.handshake import Refused, converse
from pydbt.controller.primary.outbox import Outbox, stream_frames
from pydbt.core.errors import PeerError
from pydbt.core.primary import events as ev
from pydbt.core.protocol.frames import Bye, Frame, Hello, Refuse, Welcome
from pydbt.core.units import Geometry
from pydbt.device.block import DirectReader
from pydbt.kernel.capture import Capture
from pydbt.network.connection import FramedConnection
from pydbt.network.tls import Secure

COMPRESS_LEVEL = 3
FAREWELL_SECONDS = 2.0

# Refusals that no waiting mends.
FATAL_REFUSALS = frozenset(
    {"other-volume", "too-small", "resized", "block-size", "protocol", "newer", "split-brain", "unrelated"}
)

_log = logging.getLogger("pydbt")


class PeerShell:
    """Called from the loop's thread alone. ``hello`` makes the greeting of the moment; ``post`` hands something to the
    loop from any thread, for ``heard``: events, and (attempt, event).
    """

    def __init__(
        self,
        options: PrimaryOptions,
        address: tuple[str, int],
        secure: Secure | None,
        capture: Capture,
        reader: DirectReader,
        geometry: Geometry,
        hello: Callable[[], Hello],
        post: Callable[[object], None],
    ) -> None:
        self.hello, self.post, self.address = hello, post, address
        self.blocks = BlockReader(reader, geometry, capture.producer_position, post)
        self._options, self._secure, self._capture = options, secure, capture
        self._outbox: Outbox | None = None
        self._leaving: Outbox | None = None  # the last one, of which the farewell may still be under way
        self._attempt = 0
        self._sent_before = 0
        self._refusal = ""

    @property
    def sent_bytes(self) -> int:
        """Over all connections of this run."""
        return self._sent_before + (self._outbox.sent_bytes if self._outbox else 0)

    def outbound(self) -> ev.Outbound:
        """How far the sender is, for the brain."""
        return ev.Outbound(self._outbox.queued_bytes if self._outbox else 0, self.sent_bytes)

    def close(self, *, wait: bool = True) -> None:
        """Say goodbye, and let go of the threads; without ``wait`` those end by themselves, and hold nobody up."""
        self.disconnect("stopped", farewell=True)
        if wait and self._leaving is not None:
            self._leaving.wait_for_farewell()
        self.blocks.close(wait=wait)

    # --- effects ------------------------------------------------------------------------------------------
    def carry_out(self, effect: ev.Effect) -> bool:
        """Do what concerns this secondary; False when the effect does not. PeerError: the connection is of no use."""
        match effect:
            case ev.SendStream():
                self._send_stream(effect)
            case ev.SendFrame(frame=frame):
                self._put([frame])
            case ev.ReadBlocks():
                self.blocks.submit(effect)
            case ev.SendDigests(batch=batch, number=number, units=units, unit_bytes=unit):
                self._put([self.blocks.batch(batch).digests(number, units, unit)])
            case ev.SendBlocks(batch=batch, number=number, wanted=wanted):
                frame = self.blocks.batch(batch).blocks(number, wanted)
                self._put([frame], frame.payload_bytes)
                self.blocks.drop(batch)
            case ev.SendSettled(batch=batch, sequence=sequence, first_blocks=firsts, block_counts=counts):
                frame = self.blocks.batch(batch).settled(sequence, firsts, counts)
                self._put([frame], frame.payload_bytes)
                self.blocks.drop(batch)
            case ev.DropBatch(batch=batch):
                self.blocks.drop(batch)
            case ev.Connect():
                self._attempt += 1
                threading.Thread(
                    target=self._connect, args=(self._attempt, self.hello()), name="connect", daemon=True
                ).start()
            case ev.CloseConnection(reason=reason, farewell=farewell):
                self.disconnect(reason, farewell)
            case _:
                return False
        return True

    def _send_stream(self, effect: ev.SendStream) -> None:
        payload = b"".join(self._capture.payload(effect.records))
        frames = stream_frames(effect.records, effect.last_sequences, effect.first_sequence, payload)
        self._put(frames, len(payload))

    def _put(self, frames: list[Frame], payload_bytes: int = 0) -> None:
        if self._outbox is not None:
            self._outbox.put(frames, payload_bytes)

    # --- the connection -----------------------------------------------------------------------------------
    def _connect(self, attempt: int, hello: Hello) -> None:
        """In a thread of its own."""
        converse(*self.address, hello, self._secure, lambda event: self.post((attempt, event)))

    def heard(self, item: object) -> list[ev.Event]:
        """What was posted, as events for the brain. Raises Refused when no waiting mends it."""
        match item:
            case (int() as attempt, event):
                return self._happened(attempt, event)
        return [item]

    def _happened(self, attempt: int, event: object) -> list[ev.Event]:
        """What an attempt to connect, or its connection, had to say."""
        if attempt != self._attempt:
            if isinstance(event, tuple):
                event[0].close()  # shaken hands after nobody wanted it any more
            return []
        match event:
            case (FramedConnection() as connection, Welcome() as welcome):
                return [self._welcomed(connection, welcome)]
            case Refused() as refusal if refusal.code in FATAL_REFUSALS:
                raise refusal
            case PeerError() as error:
                if str(error) != self._refusal:
                    _log.warning("%s; trying again", error)
                    self._refusal = str(error)
                return [ev.Disconnected(str(error))]
            case ev.Received(frame=Refuse(message=message)):
                self.disconnect(message, farewell=False)
                return [ev.Disconnected(f"the secondary refused: {message}")]
            case ev.Disconnected(reason=reason):
                self.disconnect(reason, farewell=False)
        return [event]

    def _welcomed(self, connection: FramedConnection, welcome: Welcome) -> ev.Connected:
        self._refusal = ""
        attempt = self._attempt
        self._outbox = Outbox(
            connection,
            COMPRESS_LEVEL if self._options.compress else None,
            lambda reason: self.post((attempt, ev.Disconnected(reason))),
        )
        return ev.Connected(
            replica=welcome.replica,
            state=welcome.state,
            epoch=welcome.epoch,
            sequence=welcome.sequence,
            staged=welcome.staged,
            fresh=welcome.fresh,
            held=welcome.volume is not None,
            progress=welcome.progress,
        )

    def disconnect(self, reason: str, farewell: bool) -> None:
        """Close the connection, if there is one; with a ``farewell``, after what is queued and a BYE."""
        self._attempt += 1  # what the old connection's threads still say is not heard any more
        if self._outbox is not None:
            if farewell:
                self._outbox.put([Bye(reason)])
            self._sent_before += self._outbox.sent_bytes
            self._outbox.close(flush_seconds=FAREWELL_SECONDS if farewell else 0.0)
            self._leaving = self._outbox
        self._outbox = None
