"""The secondary's side of the network: connections, the primary among them, and its frames.

One thread accepts. One thread per peer reads its HELLO, and then its frames, into the arena; another one sends.
Whoever was not sent a WELCOME is a stranger, also after a well-formed HELLO. Strangers have a bounded number of threads, no
memory but for a small frame, and for each reason at most one line of the log per minute. So they can hold nobody else up, nor
hide anybody.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable

from pydbt.controller.expiry import unusable
from pydbt.controller.log_limit import LogLimit
from pydbt.controller.secondary.answers import Answers
from pydbt.core.errors import PeerError, StateError, WireError
from pydbt.core.protocol.digests import DIGEST_KEY_BYTES
from pydbt.core.protocol.frames import Bye, Frame, Hello, Refuse, Welcome
from pydbt.core.protocol.peer_identity import objection_to_revoked
from pydbt.core.secondary import events as e
from pydbt.core.secondary.crowd import displaced
from pydbt.core.secondary.turned_away import TurnedAwayLines
from pydbt.network.arena import Arena, ArenaClosed
from pydbt.network.connection import SILENCE_S, FramedConnection
from pydbt.network.listen import Listener
from pydbt.network.local import check_peer
from pydbt.network.local_listener import LocalListener
from pydbt.network.tls import NotThePeer, Secure, TlsSocket
from pydbt.posix.threads import begin

HELLO_S = 10.0
"""For a stranger's first frame: longer than any handshake over a slow line, and short enough to hold no place for ever."""
MAX_STRANGERS = 16
"""Peers at the same time that were not sent a WELCOME yet. One more takes the place of one that has waited longest, among
those of the network with the most (``core.secondary.crowd``): a crowd keeps out only itself."""
LINGER_S = 3.0
"""How long a closed peer may take to read the last frames before the connection is cut."""
LAST_WORDS_S = 1.0
"""How long the end waits until the last frames went."""
UNHEARD_MAX = 1024
"""Events that the loop has not heard yet, while the frames of peers are still read. Their data has its own bound, the arena."""

_log = logging.getLogger(__name__)


class Connections:
    """All connections of one listening socket. ``report`` gets Connected, FrameReceived and Disconnected.

    ``unheard`` tells how many events wait to be heard. While there are too many, nothing more is read of the peers.
    """

    def __init__(
        self,
        listener: Listener,
        arena: Arena,
        report: Callable[[e.Event], None],
        silence_s: float = SILENCE_S,
        secure: Secure | None = None,
        unheard: Callable[[], int] = lambda: 0,
    ) -> None:
        self._secure = secure
        self._unheard = unheard
        self._answers: dict[int, Answers] = {}
        self._listener: Listener | LocalListener = listener
        if isinstance(listener, socket.socket) and listener.family == socket.AF_UNIX:
            self._listener = LocalListener(listener)
        self._arena = arena
        self._report = report
        self._silence_s = silence_s
        self._lock = threading.Lock()
        self._known: dict[int, FramedConnection] = {}
        self._farewells: set[int] = set()
        self._strangers: dict[int, tuple[str, socket.socket]] = {}  # by identifier, in the order of their coming
        self._welcomed_host = ""  # the address of the last one that was sent a WELCOME
        self._next = 1
        self._stopping = False
        self._welcomed: dict[int, str] = {}  # names for people
        self._goodbyes: dict[int, str] = {}
        self._lines = LogLimit(_log)
        self._refused: dict[int, str] = {}  # codes, of peers that were sent a REFUSE in the place of a WELCOME
        self._turned_away_lines = TurnedAwayLines()
        self._thread = threading.Thread(target=self._accept, name="accept", daemon=True)

    def start(self) -> None:
        """MachineError when it cannot have a thread."""
        begin(self._thread)

    def stop(self) -> None:
        """Close everything; threads end by themselves."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        if isinstance(self._listener, LocalListener):
            self._listener.remove()
        self._listener.close()
        self._arena.close()
        with self._lock:
            last = [self._answers[identifier] for identifier in self._known if identifier in self._answers]
        until = time.monotonic() + LAST_WORDS_S
        for answers in last:
            answers.finish()
            answers.wait_sent(max(until - time.monotonic(), 0.0))
        for connection in self._all():
            connection.close()

    def send(self, identifier: int, frame: Frame) -> None:
        """Queue one frame; a peer that cannot take it is reported as disconnected. With a WELCOME it is a stranger no more."""
        connection = self._known.get(identifier)
        if connection is None or identifier in self._farewells:
            return
        answers = self._answers_to(identifier, connection)
        if answers is None:
            return
        if isinstance(frame, Refuse) and identifier not in self._welcomed:
            self._refused[identifier] = frame.code
        if not isinstance(frame, Welcome):
            answers.put(frame)
            return
        try:
            if self._secure is not None:
                self._secure.remember(connection.socket)
        except PeerError:
            connection.close()  # its receiver reports
        except StateError as error:
            _log.error("%s", error)
            connection.close()
        else:
            self._welcome(identifier, connection, answers, frame)

    def _answers_to(self, identifier: int, connection: FramedConnection) -> Answers | None:
        """Where its frames are queued; None for a peer that is gone, or that no thread can answer."""
        with self._lock:
            if identifier not in self._known:
                return None
            try:
                return self._answers.get(identifier) or self._answers.setdefault(identifier, Answers(connection))
            except RuntimeError as error:
                _log.error("%s cannot be answered: %s", connection.who, error)
        connection.close()  # its receiver reports
        return None

    def _welcome(self, identifier: int, connection: FramedConnection, answers: Answers, frame: Welcome) -> None:
        connection.set_allocate(self._arena.allocate)
        with self._lock:
            stranger = self._strangers.pop(identifier, None)
            self._welcomed_host = stranger[0] if stranger is not None else self._welcomed_host
        here = connection.socket.family == socket.AF_UNIX
        who = self._welcomed[identifier] = "the primary of this machine" if here else f"the primary {connection.who}"
        held = f"the replica is {frame.state} at sequence {frame.sequence}" if frame.volume else "a new replica"
        answers.put(frame, lambda: self._lines.log(logging.INFO, f"{who} is connected; {held}"))

    def close(self, identifier: int, reason: str = "") -> None:
        """Send nothing more to a peer, and cut the connection when it has had time to read the last frames.

        ``reason`` is logged for one that was refused.
        """
        connection = self._known.get(identifier)
        if connection is not None:
            if (code := self._refused.pop(identifier, "")) and reason:
                self._turned_away(connection.proved_name, connection.peer, code, reason)
            self._farewells.add(identifier)
            if (answers := self._answers.get(identifier)) is not None:
                answers.finish()
            else:
                connection.finish()
            _close_later(connection)

    def close_all(self) -> None:
        for identifier in list(self._known):
            self.close(identifier)

    def last_received(self, identifier: int) -> float | None:
        """When the last byte of a peer arrived, by the monotonic clock; None when it is gone."""
        connection = self._known.get(identifier)
        return None if connection is None else connection.last_received

    def scope_of(self, identifier: int) -> str:
        """The interface over which a peer came, where its address is one of that link alone; else empty."""
        connection = self._known.get(identifier)
        return "" if connection is None else connection.local_scope

    def end_revoked(self) -> None:
        """Close the connections of peers whose key was revoked since they came, and tell them."""
        with self._lock:
            known = list(self._known.items())
        for identifier, connection in known:
            if self._secure is not None and self._secure.is_revoked(connection.socket):
                _log.warning("%s: its key was revoked; the connection is closed", connection.who)
                self._farewells.add(identifier)
                _close_later(connection)
                # In a thread of its own: it may take nothing any more.
                with contextlib.suppress(RuntimeError):  # no thread can be started: it is cut untold
                    threading.Thread(target=_tell_revoked, args=(connection,), daemon=True).start()

    @property
    def received_bytes(self) -> int:
        return sum(connection.received_bytes for connection in self._all())

    def _all(self) -> list[FramedConnection]:
        with self._lock:
            return list(self._known.values())

    def _accept(self) -> None:
        while not self._stopping:
            try:
                sock, address = self._listener.accept()
            except OSError:
                if self._stopping:
                    return
                time.sleep(0.1)  # out of descriptors, for example: try again, without spinning
                continue
            with self._lock:
                identifier, self._next = self._next, self._next + 1
                self._strangers[identifier] = str(address[0]) if address else "", sock
                if len(self._strangers) > MAX_STRANGERS:
                    self._evict()
            thread = threading.Thread(
                target=self._serve, args=(sock, identifier), name=f"peer-{identifier}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # no memory for a thread, or too many of them: the primary tries again
                with self._lock:
                    self._strangers.pop(identifier, None)
                sock.close()
                self._lines.log(logging.WARNING, f"a connection cannot be served now: {error}")

    def _evict(self) -> None:
        """Make room for one more; its thread ends by itself."""
        hosts = {identifier: host for identifier, (host, _) in self._strangers.items()}
        _, sock = self._strangers.pop(displaced(hosts, self._welcomed_host))
        with contextlib.suppress(OSError):  # gone by itself
            sock.shutdown(socket.SHUT_RDWR)

    def _serve(self, sock: socket.socket, identifier: int) -> None:
        connection: FramedConnection | None = None
        try:
            connection = self._secured(sock)
            if connection is not None and (hello := self._hello(connection)) is not None:
                self._converse(connection, identifier, hello)
        except RuntimeError as error:  # no thread can be started for its timers
            self._lines.log(logging.WARNING, f"a connection cannot be served now: {error}")
        finally:
            with self._lock:
                self._strangers.pop(identifier, None)
            (sock if connection is None else connection).close()

    def _converse(self, connection: FramedConnection, identifier: int, hello: Hello) -> None:
        """Report a primary, and its frames to the end."""
        with self._lock:
            self._known[identifier] = connection
            heard = [known.last_received for other, known in self._known.items() if other in self._welcomed]
        proven = self._secure is not None or connection.socket.family == socket.AF_UNIX
        self._report(
            e.Connected(identifier, hello, secrets.token_bytes(DIGEST_KEY_BYTES), proven, max(heard, default=None))
        )
        reason = self._receive(connection, identifier)
        with self._lock:
            self._known.pop(identifier, None)
            answers = self._answers.pop(identifier, None)
            self._farewells.discard(identifier)
            self._refused.pop(identifier, None)
        connection.close()
        if answers is not None:
            answers.finish()
        self._tell_end(identifier, reason)
        self._report(e.Disconnected(identifier, reason))

    def _tell_end(self, identifier: int, reason: str) -> None:
        """Log the end of a welcomed primary's connection: a warning, unless one of both sides had announced it."""
        who, goodbye = self._welcomed.pop(identifier, None), self._goodbyes.pop(identifier, None)
        if who is not None:
            meant = goodbye is not None or self._stopping
            words = f"said goodbye: {goodbye}" if goodbye is not None else f"is gone: {reason}"
            if goodbye is None and self._stopping:
                words = "is let go, because this secondary ends"
            self._lines.log(logging.INFO if meant else logging.WARNING, f"{who} {words}")

    def _secured(self, sock: socket.socket) -> FramedConnection | None:
        """The connection, after TLS if that was asked for; None for a stranger."""
        if sock.family == socket.AF_UNIX:
            try:
                check_peer(sock)
            except (OSError, PeerError) as error:
                self._turned_away("", "a process of this machine", "user", str(error))
                return None
        if self._secure is None:
            return FramedConnection(sock, allocate=_no_bulk, silence_s=self._silence_s)
        try:
            where = FramedConnection(sock).peer
            secured = self._secure.server(sock)
        except OSError:
            return None  # gone before its handshake
        except NotThePeer as error:
            self._turned_away(error.machine.name, where, error.code, str(error))
            return None
        except PeerError as error:
            problem = unusable(self._secure)
            self._turned_away("", where, _kind(error, where), f"{error}; {problem}" if problem else str(error))
            return None
        return FramedConnection(secured, allocate=_no_bulk, silence_s=self._silence_s)

    def _hello(self, connection: FramedConnection) -> Hello | None:
        peer, name = connection.peer, connection.proved_name
        threading_timer = threading.Timer(HELLO_S, connection.close)
        threading_timer.daemon = True
        threading_timer.start()
        try:
            frame = connection.recv_frame()
        except PeerError as error:
            self._turned_away(name, peer, _kind(error, peer), str(error))
            return None
        finally:
            threading_timer.cancel()
        match frame:
            case Hello():
                return frame
            case Refuse(code=code, message=message):
                self._turned_away(name, peer, code, f"it refuses this machine: {message or code}")
            case _:
                self._turned_away(name, peer, "no HELLO", "it sent no HELLO")
        return None

    def _receive(self, connection: FramedConnection, identifier: int) -> str:
        """Report frames until the end; says why it ended."""
        where = connection.peer
        try:
            while (frame := connection.recv_frame()) is not None:
                if isinstance(frame, Bye):
                    self._goodbyes[identifier] = frame.reason
                while self._unheard() >= UNHEARD_MAX and not connection.closed and identifier not in self._farewells:
                    time.sleep(0.005)
                if identifier not in self._farewells:
                    self._report(e.FrameReceived(identifier, frame, time.monotonic()))
                del frame  # its memory must not wait for the next one
        except (PeerError, ArenaClosed) as error:
            if identifier in self._strangers and identifier not in self._farewells:
                self._turned_away(connection.proved_name, where, _kind(error, where), str(error))
            elif isinstance(error, WireError):
                _log.error("%s: %s", connection.peer, error)
            return str(error) or "stopping"
        return "closed by this side" if identifier in self._farewells else "the primary closed the connection"

    def _turned_away(self, name: str, where: str, kind: str, reason: str) -> None:
        """Log a peer that gets no further; ``name`` is the one that it has proved, else empty."""
        with self._lock:
            unlogged = self._turned_away_lines.line(name, kind, time.monotonic())
        if unlogged is None:
            return
        who = f"{name} ({where})" if name else f"{where}, which is no primary"
        more = f" ({unlogged} more like it before)" if unlogged else ""
        _log.warning("turned away %s: %s%s", who, reason.replace(where, "it"), more)


def _close_later(connection: FramedConnection) -> None:
    """Not by its own thread, which waits for as long as the peer lets it wait."""
    cut = threading.Timer(LINGER_S, connection.close)
    cut.daemon = True
    try:
        cut.start()
    except RuntimeError:  # no thread can be started
        connection.close()


def _tell_revoked(connection: FramedConnection) -> None:
    assert isinstance(connection.socket, TlsSocket), "only in TLS a key is proved"
    found = objection_to_revoked(connection.socket.machine)
    with contextlib.suppress(PeerError):  # it is gone, or takes nothing
        connection.send_frames([Refuse(found.code, found.told)])
    connection.finish()


def _kind(error: Exception, where: str) -> str:
    """What is the same in failures that differ in a figure or an address."""
    return "no frame" if isinstance(error, WireError) else str(error).replace(where, "it").partition(":")[0]


def _no_bulk(size_bytes: int) -> memoryview:
    raise WireError("it sent data before it was welcomed")
