"""The connection to one secondary: made and read in a thread of its own, and ended with a farewell."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from pydbt.controller.clocks import clock_offset_ns, monotonic_ns
from pydbt.controller.log_limit import LogLimit
from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary.handshake import Happening, Refused, Welcomed, converse
from pydbt.controller.primary.outbox import BlockData, Outbox, stream_frames
from pydbt.core.errors import PeerError
from pydbt.core.primary import events as ev
from pydbt.core.primary.interruption import TcpView
from pydbt.core.protocol.digests import UnitDigest
from pydbt.core.protocol.frames import (
    DATED_PINGS,
    HISTORY,
    SECOND_PRIMARY,
    SUPERSEDED,
    TARGET_ERROR,
    Bye,
    Frame,
    Hello,
    Ping,
    Refuse,
)
from pydbt.core.protocol.recent import RECENT_WRITES
from pydbt.core.protocol.refusals import FATAL_REFUSALS
from pydbt.core.protocol.stream_times import StreamTimes
from pydbt.core.volume.saves import Withheld
from pydbt.kernel.capture import Capture
from pydbt.network.connection import SILENCE_S, FramedConnection
from pydbt.network.tcp_view import tcp_view
from pydbt.network.tls import Secure
from pydbt.network.way_watch import Ends

COMPRESS_LEVEL = 3
FAREWELL_S = 2.0

_log = logging.getLogger("pydbt")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something that happened to the connection of the attempt ``number``."""

    number: int
    what: Happening


class PeerConnection:
    """Called from the loop's thread alone. ``hello`` makes the greeting of the moment; ``expected`` gives
    the name of the replica on record; ``post`` hands the loop, from any
    thread, what ``happened`` takes."""

    def __init__(
        self,
        options: PrimaryOptions,
        address: tuple[str, int],
        secure: Secure | None,
        capture: Capture,
        hello: Callable[[], Hello],
        expected: Callable[[], str],
        post: Callable[[Attempt], None],
    ) -> None:
        self.hello, self.post, self.address = hello, post, address
        self._expected = expected
        self._accepted = ""  # another replica, once the operator has accepted it for this run
        self._options, self.secure, self._capture = options, secure, capture
        self.local_host = ""  # of the last connection, with its interface where the address needs one
        self._outbox: Outbox | None = None
        self._connection: FramedConnection | None = None
        self._leaving: Outbox | None = None  # the last one, of which the farewell may still be under way
        self._held = Withheld()
        self._attempt = 0
        self._sent_before = 0
        self._refusal = ""
        self._lines = LogLimit(_log)
        self._digest: UnitDigest | None = None  # of the connection that there is, or was
        self._features: tuple[str, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """What the secondary that is connected understands; nothing without a connection."""
        return self._features if self._outbox is not None else ()

    @property
    def sent_bytes(self) -> int:
        """Over all connections of this run."""
        return self._sent_before + (self._outbox.sent_bytes if self._outbox else 0)

    @property
    def queued_bytes(self) -> int:
        """What waits to be sent."""
        return self._outbox.queued_bytes + self._held.bytes if self._outbox else 0

    def outbound(self) -> ev.Outbound:
        """How far the sender is, for the brain."""
        return ev.Outbound(self.queued_bytes, self.sent_bytes)

    def tcp_view(self) -> TcpView | None:
        """TCP's account of the connection; None without one, or where the kernel does not tell."""
        return tcp_view(self._connection.socket) if self._connection is not None else None

    def ends(self) -> Ends | None:
        """The addresses of the connection; None without one."""
        if self._connection is None or not (remote := self._connection.remote_host):
            return None
        return remote, self._connection.local_host

    # --- sending ------------------------------------------------------------------------------------------
    def send(self, frame: Frame, payload_bytes: int = 0) -> None:
        """Queue a frame; without a connection it is dropped."""
        if isinstance(frame, Ping) and DATED_PINGS not in self.features:
            frame = Ping(frame.token, frame.sequence)
        self._put([frame], payload_bytes)

    def send_stream(self, effect: ev.SendStream) -> None:
        """Queue captured writes with their data."""
        payload = b"".join(self._capture.payload(effect.records))
        offset_ns = clock_offset_ns() if HISTORY in self.features else None
        frames = stream_frames(effect.records, effect.last_sequences, effect.first_sequence, payload, offset_ns)
        self._put(frames, len(payload))

    def time_of_now(self) -> StreamTimes | None:
        """Of one update that was read just now; None for a secondary that is not told."""
        if HISTORY not in self.features:
            return None
        return StreamTimes(clock_offset_ns(), np.array([monotonic_ns()], np.uint64))

    def send_digests(self, data: BlockData, effect: ev.SendDigests) -> None:
        """Queue the digests of blocks that were read."""
        if self._digest is not None:
            self.send(data.digests(effect.batch, effect.units, effect.unit_bytes, self._digest))

    def _put(self, frames: list[Frame], payload_bytes: int) -> None:
        outbox = self._outbox
        if outbox is not None:
            self._held.give(lambda: outbox.put(frames, payload_bytes), payload_bytes)

    # --- what is told rests on what is written down -------------------------------------------------------
    def rest_on(self, save: int) -> None:
        """Nothing more is told before this write of the state has ended well."""
        self._held.rest_on(save)

    def saved(self, durable: int) -> None:
        """The state is on the disk up to this write."""
        self._held.saved(durable)

    @property
    def rests(self) -> bool:
        """Whether what is told now has to wait for the state."""
        return self._held.waits

    # --- its life -----------------------------------------------------------------------------------------
    def connect(self) -> None:
        """Begin to connect and shake hands, in a thread of its own, once the state is on the disk that is told."""
        self._attempt += 1
        self._held.give(self._begin)

    def _begin(self) -> None:
        if self.rests:
            self._held.give(self._begin)
            return
        arguments = self._attempt, self.hello(), self._may_answer()
        try:
            threading.Thread(target=self._connect, args=arguments, name="connect", daemon=True).start()
        except RuntimeError as error:  # no memory for a thread, or too many of them: it is tried again
            self.post(Attempt(self._attempt, PeerError(f"this side cannot connect now: {error}")))

    def _may_answer(self) -> str:
        """The name of the replica that must answer; empty when any may: there is none yet, or ``--accept-replica`` was given."""
        if self._accepted:
            return self._accepted
        return "" if self._options.accept_replica else self._expected()

    def _connect(self, attempt: int, hello: Hello, expected: str) -> None:
        # The brain takes the connection for dead; this is for the case that nobody asks it any more.
        silence_s = max(SILENCE_S, 2 * self._options.acknowledge_timeout_s)
        converse(*self.address, hello, self.secure, expected, silence_s, lambda what: self.post(Attempt(attempt, what)))

    def happened(self, attempt: Attempt) -> ev.Event | None:
        """The event of an attempt to connect, or of its connection; None when the attempt is given up.

        Raises Refused when no waiting mends it.
        """
        what = attempt.what
        if attempt.number != self._attempt:
            if isinstance(what, Welcomed):
                what.connection.close()  # welcomed after the attempt was given up
            return None
        match what:
            case Welcomed():
                return self._welcomed(what)
            case Refused() if what.code in FATAL_REFUSALS:
                raise what
            case PeerError():
                if str(what) != self._refusal:
                    second = isinstance(what, Refused) and what.code == SECOND_PRIMARY
                    _log.log(logging.ERROR if second else logging.WARNING, "%s; trying again", what)
                    self._refusal = str(what)
                unusable = isinstance(what, Refused) and what.code == TARGET_ERROR
                return ev.Disconnected(str(what), unusable=unusable)
            case ev.Received(frame=Refuse(code=code, message=message)) if code == SUPERSEDED:
                self.disconnect(message, farewell=False)
                raise Refused(code, message)
            case ev.Received(frame=Refuse(code=code, message=message)):
                self.disconnect(message, farewell=False)
                return ev.Disconnected(f"the secondary refused: {message}", unusable=code == TARGET_ERROR)
            case ev.Received():
                return what
            case ev.Disconnected(reason=reason):
                self.disconnect(reason, farewell=False)
                return what
            case _ as never:
                assert_never(never)

    def _welcomed(self, what: Welcomed) -> ev.Connected:
        self._refusal, self._features = "", what.welcome.features
        if self._options.accept_replica:
            self._accepted = what.welcome.replica
        welcome = what.welcome
        self._lines.log(logging.INFO, f"connected to the secondary {what.connection.who}")
        scope = what.connection.local_scope
        self.local_host = what.connection.local_host + (f"%{scope}" if scope else "")
        self._connection = what.connection
        self._digest = UnitDigest(bytes.fromhex(welcome.digest_key)) if welcome.digest_key is not None else None
        self._outbox = Outbox(
            what.connection,
            COMPRESS_LEVEL if self._options.compress else None,
            self.failing(),
        )
        return ev.Connected(
            replica=welcome.replica,
            state=welcome.state,
            epoch=welcome.epoch,
            sequence=welcome.sequence,
            staged=welcome.staged,
            fresh=welcome.fresh,
            of_this_volume=welcome.volume is not None,
            progress=welcome.progress,
            compares=self._digest is not None,
            keeps_history=HISTORY in welcome.features,
            marks=welcome.marks,
            recalls=RECENT_WRITES in welcome.features,
        )

    def failing(self) -> Callable[[str], None]:
        """Ends the connection that there is now, from any thread; it is told why."""
        attempt = self._attempt
        return lambda reason: self.post(Attempt(attempt, ev.Disconnected(reason)))

    def disconnect(self, reason: str, farewell: bool) -> None:
        """Close the connection, if there is one; with a ``farewell``, after what is queued and a BYE."""
        self._attempt += 1  # the old connection's threads are not heard any more
        self._held.drop()
        if self._outbox is not None:
            if farewell:
                self._outbox.put([Bye(reason)])
            self._sent_before += self._outbox.sent_bytes
            self._outbox.close(flush_s=FAREWELL_S if farewell else 0.0)
            self._leaving = self._outbox
        self._outbox = self._connection = None

    def reload_identity(self) -> str:
        """Read this machine's identity and the revoked keys again. Why the connection must end, if it must. UsageError."""
        if self.secure is None:
            return ""
        self.secure.reload()
        if self._outbox is None or self._connection is None or not self.secure.is_revoked(self._connection.socket):
            return ""
        return "the key of the secondary was revoked"

    def close(self, *, wait: bool = True) -> None:
        """Say goodbye; without ``wait`` the farewell ends by itself."""
        self.disconnect("stopped", farewell=True)
        if wait and self._leaving is not None:
            self._leaving.wait_for_farewell()
